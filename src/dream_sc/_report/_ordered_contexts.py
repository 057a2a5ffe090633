"""Contexts in an order: which features have a trend, in words and as a short table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dream_sc._keys import COMPARE, NUMBERS

if TYPE_CHECKING:
    from dream_sc.get._names import TransFit

MOST, LEAST = 40, 5  # rows of the table: those with a trend, and always some
WAYS = {
    "amplitude_trend": "of the amplitude",
    "dosage_trend": "of the EC50",
    "both_trends": "of both",
}


def section(fit: TransFit, fdr: float) -> dict[str, Any] | None:
    """Words and rows of the trends under the default name; None where there are none of this fit."""
    from dream_sc.get import compare
    from dream_sc.pl._ordered_contexts import NONE, trend_in_words

    entry = fit.adata.uns.get(COMPARE)
    if entry is None or NUMBERS not in entry or entry["params"].get("key") != fit.key or COMPARE not in fit.adata.varm:
        return None
    table = compare(fit.adata, sort=True, gene_symbols=fit.gene_symbols)
    order = ", ".join(f"{name} = {number:g}" for name, number in table.attrs["order"].items())
    table = table[table["lfdr_trend"].notna()]
    has = table[table["qvalue_trend"] < fdr]
    kinds = has["hypothesis"].astype(str).value_counts()
    told = ", ".join(f"{kinds[name]:,} {words}" for name, words in WAYS.items() if name in kinds)
    same = int(((table["hypothesis"] == "equal") & ~(table["qvalue_differs"] < fdr)).sum())
    text = f"{len(has):,} of {len(table):,} features have a trend over {entry['params']['by']} (q < {fdr:g})"
    shown = table.head(min(MOST, max(LEAST, len(has))))
    rows = []
    for name, row in zip(shown.index, shown.to_dict("records"), strict=True):
        says = trend_in_words(row).rsplit(", q = ", 1)[0]
        slopes = {of: "" if says == NONE else _interval(row, f"log2_{of}_slope") for of in ("ec50", "amplitude")}
        note = "" if row["note"] is None or row["note"] != row["note"] else str(row["note"])
        rows.append({"name": str(name), "trend": says, "q": row["qvalue_trend"], "note": note} | slopes)
    said = [f"{text}{': ' + told if told else ''}. {same:,} have the same curve in all. Numbers: {order}."]
    return {"said": said, "trends": rows, "rows": []}


def _interval(row: dict[str, Any], name: str) -> str:
    """A slope with its 95 % interval."""
    values = [float(row[name + end]) for end in ("", "_q025", "_q975")]
    if values[0] != values[0]:
        return ""
    middle, low, high = (f"{v:.3g}".replace("-", "\N{MINUS SIGN}") for v in values)
    return f"{middle} ({low} to {high})"
