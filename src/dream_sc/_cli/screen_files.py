"""What ``dream-sc screen`` and ``collect`` write beside the table: targets, figures, words, a table for MultiQC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dream_sc._keys import QVALUE_UNION

from .fit import versions_text
from .messages import say, whole

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from dream_sc.pl._screen_data import Show

CALLED = 0.05  # q-value over all pairs
MOST_NAMED = 10
WEAK = 0.3  # log2 dosage: guides within it of the NTC level hardly move the target
FIGURES: tuple[Show, ...] = ("fold_changes", "responders", "shared", "ec50")
IDENTITY = "dream_sc_screen_targets"
COLUMNS = ["cis_gene", "dosage", "status", "n_guides", "n_cells", "log2_dosage_min", "log2_dosage_max", "n_calls_union"]


def write_targets(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Write the table of targets, and give it back."""
    from dream_sc import get

    targets = get.screen(table, "targets")
    with whole(folder / "targets.tsv") as part:
        targets.to_csv(part, sep="\t", index=False, float_format="%.6g")
    return targets


def write_beside(table: pd.DataFrame, targets: pd.DataFrame, folder: Path) -> None:
    """Write all the rest; a file is there whole or not at all."""
    with whole(folder / "summary.txt") as part:
        part.write_text(summary(table, targets), encoding="utf-8")
    with whole(folder / "software_versions.yml") as part:
        part.write_text(versions_text("DREAM_SC_SCREEN"), encoding="utf-8")
    _multiqc(targets, folder / "multiqc")
    _figures(table, folder / "figures")


def _multiqc(targets: pd.DataFrame, folder: Path) -> None:
    """A row per target, as MultiQC takes it."""
    from dream_sc.io._multiqc import custom_content

    folder.mkdir(exist_ok=True)
    rows = targets.set_index("target")[COLUMNS].rename_axis("Target")
    with whole(folder / f"{IDENTITY}_mqc.tsv") as part:
        part.write_text(
            custom_content(rows, IDENTITY, "Dose-response: targets of a screen", f"Calls at qvalue_union < {CALLED}"),
            encoding="utf-8",
        )


def _figures(table: pd.DataFrame, folder: Path) -> None:
    """The figures of `pl.screen`; one with nothing to show is left out, also that of a table before."""
    import matplotlib.pyplot as plt

    from dream_sc import pl

    folder.mkdir(exist_ok=True)
    n_called = table["target"][table[QVALUE_UNION] < CALLED].nunique()
    for show in FIGURES:
        path = folder / f"{show}.png"
        try:
            axes: Any = pl.screen(table, show, fdr=CALLED) if n_called > (show == "shared") else None
        except ValueError as error:
            say(f"{path.name} is not drawn: {error}")
            axes = None
        if axes is None:
            path.unlink(missing_ok=True)
            continue
        with whole(path) as part:
            axes.figure.savefig(part, dpi=200, bbox_inches="tight")
        plt.close(axes.figure)


def summary(table: pd.DataFrame, targets: pd.DataFrame) -> str:
    """What was done, what was found, and what to be careful about, in words."""
    fitted = targets[targets["status"] == "fitted"]
    null = fitted["reason"].astype(str).str.startswith("NTC guides relabelled")
    called = table[QVALUE_UNION] < CALLED
    pairs, calls = _n(int(table[QVALUE_UNION].notna().sum()), "pair"), _n(int(called.sum()), "call")
    most, n_high = f"{CALLED:.0%}", int((called & (table["confidence"] == "high")).sum())
    lines = [
        f"{_n(int((~null).sum()), 'target')} fitted, {len(targets) - len(fitted)} left out; {pairs} with a feature.",
        f"{calls} at a false discovery rate of {most} over all pairs (qvalue_union), {n_high} of high confidence.",
        "",
        "Targets with most calls",
        *_most(fitted[~null]),
        "",
        "Be careful",
        *_careful(targets, fitted[~null], fitted[null]),
        "",
        "Files: screen.parquet (all pairs), targets.tsv (a row per target); ds.get.screen reads screen.parquet.",
    ]
    return "\n".join(lines) + "\n"


def _most(real: pd.DataFrame) -> list[str]:
    """Targets with calls, most first."""
    best = real[real["n_calls_union"] > 0].sort_values("n_calls_union", ascending=False, kind="stable")
    lines = [f"- {row.target}: {int(row.n_calls_union)}" for row in best.head(MOST_NAMED).itertuples()]
    if len(best) > MOST_NAMED:
        lines.append(f"- and {len(best) - MOST_NAMED} more targets with calls")
    return lines or ["- none has a call"]


def _careful(targets: pd.DataFrame, real: pd.DataFrame, null: pd.DataFrame) -> list[str]:
    """What a reader should know of some targets."""
    lines = []
    for status, rows in targets[targets["status"] != "fitted"].groupby("status", sort=True, observed=True):
        lines.append(f"- {_n(len(rows), 'target')} left out ({status}): {_names(rows['target'])}")
    bare = real["target"][real["dosage"] == "none"]
    if len(bare):
        lines.append(f"- {_n(len(bare), 'target')} without dosages, compared as perturbed or not: {_names(bare)}")
    weak = real["target"][real[["log2_dosage_min", "log2_dosage_max"]].abs().max(axis=1) < WEAK]
    if len(weak):
        lines.append(f"- dosages all within {WEAK} log2 of NTC, so that little can be found: {_names(weak)}")
    if len(null):
        calls = _n(int(null["n_calls_union"].sum()), "call")
        lines.append(f"- {_n(len(null), 'null target')} (NTC guides relabelled): {calls}, each of which is false")
    if not len(real):
        lines.append("- no target was fitted: the column reason of targets.tsv says why")
    return lines or ["- nothing stands out"]


def _names(names: pd.Series) -> str:
    rest = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names.astype(str).head(MOST_NAMED)) + rest


def _n(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
