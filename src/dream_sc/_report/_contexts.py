"""Do contexts respond differently? What `tl.compare` found: in words, a short table, and both curves of each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._keys import COMPARE, CONTEXTS, NUMBERS

if TYPE_CHECKING:
    import pandas as pd

    from dream_sc.get._names import TransFit

MOST, LEAST = 40, 5  # rows of the table: those that differ, and always some
DIGITS = 4
ALIKE = "equal"
EFFECTS = {"log2fc": "log2 fold changes", "log_odds": "changes of log odds", "delta": "changes of the score"}
ENDS = ("_q025", "_q975")


def section(fit: TransFit, fdr: float) -> dict[str, Any] | None:
    """Words and rows of the comparison under its default name; None where there is none of this fit."""
    found = _compared(fit)
    if found is None:
        return None
    table, reference = found
    effect, shown = f"delta_{fit.adata.uns[COMPARE]['effect']}_full", _chosen(table, fdr)
    rows = [_row(name, row, effect) for name, row in zip(shown.index, shown.to_dict("records"), strict=True)]
    return {
        "said": [_said(part, name, reference, fdr) for name, part in table.groupby("context", observed=True)],
        "effect": f"difference of the {EFFECTS[str(fit.adata.uns[COMPARE]['effect'])]}",
        "rows": rows,
    }


def pictures(fit: TransFit, fdr: float) -> dict[str, Any] | None:
    """Both curves and the guides of each row of the table, in its order."""
    from dream_sc.pl._compare import CURVE, GUIDE, UNITS, compare_data

    found = _compared(fit)
    if found is None:
        return None
    table, reference = found
    rows, shown = [], _chosen(table, fdr)
    for name, context in zip(shown.index, shown["context"].astype(str), strict=True):
        tidy = compare_data(fit.adata, name, context=context, gene_symbols=fit.gene_symbols)
        parts = []
        for which in (reference, context):
            part = tidy[tidy["context"] == which]
            curve, guides = part[part["kind"] == CURVE], part[part["kind"] == GUIDE]
            parts.append(
                {"curve": _numbers(curve, ("log2_dosage", "change", "lower", "upper"))}
                | {"guides": _numbers(guides, ("log2_dosage", "sd", "change", "lower", "upper"))}
                | {"names": [str(g) for g in guides["guide"]]}
            )
        rows.append({"name": str(name), "contexts": [reference, context], "parts": parts})
    unit = UNITS[str(fit.adata.uns[COMPARE]["effect"])].replace(r"$\log_2$", "log2")
    return {"change": unit, "rows": rows}


def _compared(fit: TransFit) -> tuple[pd.DataFrame, str] | None:
    """The table of pairs of contexts that were compared, the clearest differences first, and the reference."""
    from dream_sc.get import compare

    entry = fit.adata.uns.get(COMPARE)
    if (
        entry is None
        or CONTEXTS not in entry
        or NUMBERS in entry
        or entry["params"].get("key") != fit.key
        or COMPARE not in fit.adata.varm
    ):
        return None
    table = compare(fit.adata, sort=True, gene_symbols=fit.gene_symbols)
    return table[np.isfinite(table["lfdr_differs"].to_numpy(float))], str(table.attrs["reference"])


def _chosen(table: pd.DataFrame, fdr: float) -> pd.DataFrame:
    """Rows that are shown."""
    differ = int((table["qvalue_differs"] < fdr).sum())
    return table.head(min(MOST, max(LEAST, differ)))


def _said(part: pd.DataFrame, name: Any, reference: str, fdr: float) -> str:
    """How many features respond differently in a context, and in which way."""
    from dream_sc.pl._compare import IN_WORDS

    differ = part[part["qvalue_differs"] < fdr]
    text = f"{name} against {reference}: {len(differ):,} of {len(part):,} features respond differently (q < {fdr:g})"
    ways = differ["hypothesis"].astype(str).value_counts()
    told = [f"{ways[way]:,} {IN_WORDS[way]}" for way in IN_WORDS if way != ALIKE and way in ways]
    same = int(((part["hypothesis"] == ALIKE) & ~(part["qvalue_differs"] < fdr)).sum())
    return f"{text}{': ' + ', '.join(told) if told else ''}. {same:,} have the same curve in both."


def _row(name: Any, row: dict[str, Any], effect: str) -> dict[str, Any]:
    """What the table says of a feature."""
    from dream_sc.pl._compare import in_words

    both = row["responds_in"] == "both"
    return {
        "name": str(name),
        "context": str(row["context"]),
        "way": in_words(str(row["hypothesis"]), row["responds_in"]),
        "q": row["qvalue_differs"],
        "effect": _interval(row, effect),
        "ec50": _interval(row, "delta_log2_ec50") if both else "",
        "amplitude": _interval(row, "log2_amplitude_ratio") if both else "",
        "note": "" if row["note"] is None or row["note"] != row["note"] else str(row["note"]),
    }


def _interval(row: dict[str, Any], name: str) -> str:
    """An estimate with its 95 % interval; "" where there is none."""
    values = [float(row[name + end]) for end in ("", *ENDS)]
    if not np.isfinite(values[0]):
        return ""
    middle, low, high = (f"{v:.2f}".replace("-", "\N{MINUS SIGN}") for v in values)
    return f"{middle} ({low} to {high})" if np.isfinite(values[1:]).all() else middle


def _numbers(part: pd.DataFrame, names: tuple[str, ...]) -> list[list[float | None]]:
    """Columns as lists that JSON can hold, to few digits."""
    return [[float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in part[name].astype(float)] for name in names]
