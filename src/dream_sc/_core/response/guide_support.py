"""Do single guides bear a response out? Simple statistics per guide, beside the model's evidence.

For each feature and guide: how far its observations are from those expected at NTC dosage, with the variance of these
and of the guide effects. Guides are the witnesses, as instruments are in a Mendelian randomisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtrc, ndtr, ndtri

from . import guide_sets
from .guide_contrasts import log_ratios, slope_over
from .null_scale import log_moment_bf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import TransPriors
    from dream_sc._core.response.problem import Problem

    Floats = NDArray[np.float64]

SUPPORT_Z = 1.645
DETECT_LFDR, DETECT_POWER = 0.05, 0.8


def columns(
    p: Problem, level: Floats, curves: Floats, tau: Floats, log_odds: float
) -> tuple[dict[str, Floats], Floats]:
    """Table columns of a block of features, and how much each guide speaks for the curve ``(T, G)``.

    `n_guides_support`: targeting guides that differ from the NTC level by themselves, at one-sided p < 0.05, towards
    the fitted curve. `heterogeneity_p`: Cochran's Q of all guides around the fitted curve, counts alone: small where
    guides differ for other reasons than the dosage. `p_trend_within_targeting`: slope over dosage among targeting
    guides only, guide effects in the variance; NaN for fewer than three of them. `min_detectable_log2fc`, or another
    effect: see `min_detectable`; `log_odds` are the prior log odds of a response.
    """
    ratio, variance, dosage, fitted = log_ratios(p, level, curves)
    targeting = guide_sets.one_guide(p)
    wide = variance + tau[:, None] ** 2 * guide_sets.repeats(p)
    z = ratio * np.sign(fitted) / np.sqrt(wide)
    out = {"n_guides_support": ((z > SUPPORT_Z) & targeting).sum(1).astype(float)}
    q = ((ratio - fitted) ** 2 / variance).sum(1)
    out["heterogeneity_p"] = chdtrc(max(ratio.shape[1] - 2, 1), q)
    out["p_trend_within_targeting"] = np.full(len(ratio), np.nan)
    if targeting.sum() >= 3 and np.ptp(dosage[targeting]) > 0:
        slope, information = slope_over(dosage[targeting], ratio[:, targeting], wide[:, targeting])
        out["p_trend_within_targeting"] = 2 * ndtr(-np.abs(slope) * np.sqrt(information))
    information = slope_over(dosage, ratio, wide)[1]
    span = p.axis.high - p.axis.low
    move = 0.5 * min_detectable(span / np.sqrt(information), p.priors, log_odds)
    out[f"min_detectable_{p.likelihood.effect}"] = p.likelihood.change(level + move, level - move)
    return out, (ratio**2 - (ratio - fitted) ** 2) / (2 * wide)


def min_detectable(sd: Floats, priors: TransPriors, log_odds: float) -> Floats:
    """Least movement over the observed dosages (natural log) that is called with a probability of 0.8.

    For a response that is linear in log dosage, whose movement is known with this sd: called where the local FDR is
    below 0.05. The boundary is found by bisection.
    """
    need = np.log(1.0 / DETECT_LFDR - 1.0) - log_odds
    low, high = np.zeros_like(sd), 40.0 * sd + 1e-12
    for _ in range(50):
        middle = 0.5 * (low + high)
        short = log_moment_bf(middle, sd, priors) < need
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.asarray(high + ndtri(DETECT_POWER) * sd)
