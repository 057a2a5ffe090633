"""How well a call is borne out: one word by one rule, from numbers that the table has already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._core.curves import SWITCH

from .direction import CALLED
from .status import MOST_PARETO_K

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

HIGH, MODERATE, LOW = "high", "moderate", "low"
LEVELS = (HIGH, MODERATE, LOW)
HIGH_LFDR = 0.01
HIGH_GUIDES, LEAST_GUIDES = 3, 2  # that support the call by themselves
HIGH_LOG_BF_LOO = float(np.log(10.0))  # evidence without the most influential guide
TREND_P = 0.05
LOW_LFDR = 0.2  # one in five of such calls is false
NEEDED = ("qvalue", "lfdr", "log_bf_loo", "n_guides_support", "p_trend_within_targeting", "pareto_k")


def confidence(columns: Mapping[str, Any]) -> NDArray[np.object_]:
    """Confidence in the call of each feature ``(F,)``; None where it is not called (q-value of 0.05 or more, or none).

    low: `lfdr` is above 0.2, without its most influential guide there is no evidence (`log_bf_loo` of 0 or less), fewer
    than two guides support the call by themselves, or `pareto_k` is above 0.7. high: not low, a curve, `lfdr` below
    0.01, evidence of 10 to 1 without the most influential guide, three guides that support it, and a trend among the
    targeting guides alone (`p_trend_within_targeting` below 0.05). moderate: all others. A number that is missing makes
    no call low, and none high; but draws without weights have no `pareto_k`.
    """
    q, lfdr, without_one, n_guides, p_trend, k = (np.asarray(columns[name], dtype=float) for name in NEEDED)
    low = (lfdr > LOW_LFDR) | (without_one <= 0) | (n_guides < LEAST_GUIDES) | (k > MOST_PARETO_K)
    high = ~low & (lfdr < HIGH_LFDR) & (without_one > HIGH_LOG_BF_LOO)
    high &= (n_guides >= HIGH_GUIDES) & (p_trend < TREND_P)
    high &= np.asarray(columns["class"]).astype(str) != SWITCH.name  # whose trend is chance
    out = np.where(high, HIGH, np.where(low, LOW, MODERATE)).astype(object)
    out[~(q < CALLED)] = None
    return out
