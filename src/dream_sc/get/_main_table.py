"""The short table of the trans step: what most readers need, with the EC50 only where the data determine it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc._keys import EC50_TEXT, ZERO, main_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._names import TransFit

INSIDE = 0.95  # probability that an EC50 lies within the observed dosages, from which on it is shown
NOT_DETERMINED = "not determined"
ONE_LEVEL = "none: one level for all guides that act"  # of a switch
TOLD_BY = {"class", "p_ec50_inside", *(f"log2_ec50{which}{q}" for which in ("", "_b") for q in ("", "_q025", "_q975"))}


def main_table(fit: TransFit, frame: pd.DataFrame) -> pd.DataFrame:
    """The main columns of rows of the table, at most 12 beside what names a category.

    Where nothing was knocked down, the effect is that at the strongest activation.
    """
    axis = fit.info["axis"]
    rows = frame[[name for name in frame if name in TOLD_BY]].to_dict("records")
    told = frame.assign(**{EC50_TEXT: [ec50_in_words(row, axis) for row in rows]})
    told["log2_ec50"] = told["log2_ec50"].where(told["p_ec50_inside"] > INSIDE)
    head = [name for name in ("feature", "leading") if name in frame]  # of a table of categories
    effect = fit.likelihood.effect
    names = [*head, *main_columns(effect)]
    if ZERO not in axis and fit.end > 0:  # nothing was knocked down
        names = [name.replace(f"{effect}_full", f"{effect}_max") for name in names]
    return told[[name for name in names if name in told]]


def ec50_in_words(row: Mapping[str, Any], axis: Mapping[str, float]) -> str:
    """The EC50 with its 95 % interval, or why there is none; "" without a response."""
    from dream_sc._core.curves import NULL, SWITCH

    if str(row["class"]) in (NULL.name, "nan", ""):
        return ""
    if str(row["class"]) == SWITCH.name:
        return ONE_LEVEL
    middle, *ends = (float(row[f"log2_ec50{q}"]) for q in ("", "_q025", "_q975"))
    if not np.isfinite([middle, *ends]).all():
        return NOT_DETERMINED
    if row["p_ec50_inside"] > INSIDE:
        second = [float(row[f"log2_ec50_b{q}"]) for q in ("", "_q025", "_q975")]
        more = second[1] > axis["low"] and second[2] < axis["high"]
        return _interval(middle, *ends) + (f", second {_interval(*second)}" if more else "")
    if ends[1] < axis["low"]:
        return f"below {axis['low']:.1f}"
    return f"above {axis['high']:.1f}" if ends[0] > axis["high"] else NOT_DETERMINED


def _interval(middle: float, low: float, high: float) -> str:
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"
