"""Contexts in an order: their colours, from light to dark, and a trend in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from dream_sc._keys import CONTEXTS, NUMBERS

from ._style import number

SCALE, LIGHTEST, DARKEST = "viridis_r", 0.15, 1.0  # the yellow end is too light for lines on white
MINUS = "\N{MINUS SIGN}"
NONE = "no response"
WAYS = {
    "equal": "the same curve",
    "amplitude_trend": "amplitude {amplitude}",
    "dosage_trend": "EC50 {ec50}",
    "both_trends": "EC50 {ec50}, amplitude {amplitude}",
    "free": "differs, not in a line",
}


def shades(info: Any) -> dict[str, Any]:
    """The colour of each context, by its number."""
    import matplotlib as mpl

    numbers = np.asarray(info[NUMBERS], float)
    at = (numbers - numbers.min()) / np.ptp(numbers)
    scale = mpl.colormaps[SCALE]
    return {str(name): scale(LIGHTEST + (DARKEST - LIGHTEST) * p) for name, p in zip(info[CONTEXTS], at, strict=True)}


def trend_in_words(row: Any) -> str:
    """The hypothesis that describes a feature, with slopes in log2 per unit of the numbers, and the q-value."""
    if not np.isfinite(row["lfdr_trend"]):
        return str(row["status"])
    slopes = {name: _signed(float(row[f"log2_{name}_slope"])) for name in ("ec50", "amplitude")}
    says = WAYS.get(str(row["hypothesis"]), NONE).format(**slopes)
    q = float(row["qvalue_trend"])
    return f"{says}, q = {number(q)}" if np.isfinite(q) else says


def _signed(slope: float) -> str:
    return f"{slope:+.2g}".replace("-", MINUS) + " log2 per unit"
