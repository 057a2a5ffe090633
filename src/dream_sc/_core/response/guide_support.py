"""Do single guides bear a response out? Simple statistics per guide, beside the model's evidence.

For each feature and guide: how far its observations are from those expected at NTC dosage, with the variance of these
and of the guide effects. Guides are the witnesses, as instruments are in a Mendelian randomisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax
from scipy.stats import chi2, norm

from dream_sc._core.blocks import blocks

from .null_scale import log_moment_bf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import TransPriors
    from dream_sc._core.response.problem import Problem

    from .learned import Prior

    Floats = NDArray[np.float64]

SUPPORT_Z = 1.645
DETECT_LFDR, DETECT_POWER = 0.05, 0.8


def log_ratios(p: Problem, level: Floats, curves: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Per guide: distance from the level, its variance by counts alone, the mean dosage, and the fitted distance.

    Distances are on the scale of the predictor: of counts, log ratios. A guide's dosage is the log2 of the mean over
    its rows, cells at the NTC level among them.

    Parameters
    ----------
    level
        ``(T,)`` predictor at NTC dosage: of counts, log of the expected one.
    curves
        ``(T, D)`` the curve relative to NTC at the problem's dosages.
    """
    d = p.design
    start = d.guide_start[:-1]
    ratio, variance, fitted = p.likelihood.contrasts(p.rows, level[:, None] + p.log_exposure, curves[:, d.dose])
    dose = (p.dose_escape + (1 - p.dose_escape) * 2.0**p.dose_mean)[d.dose]
    w = np.exp(d.log_w)
    dosage = np.log2(np.add.reduceat(w * dose, start) / np.add.reduceat(w, start))
    return ratio, variance, dosage, fitted


def movement_sd(p: Problem, values: Floats, grid: Floats, prior: Prior) -> Floats:
    """How well counts and guide effects tell the movement ``(T,)`` over the observed dosages, natural log.

    For a response that is linear in log2 dosage. `values` ``(T, M, K)`` is the log evidence of each curve at each tau.
    """
    joint = values + np.log(prior.weights)[:, None] + prior.log_tau(grid)
    tau = np.exp(softmax(joint, axis=(1, 2)).sum(1) @ np.log(grid))
    information = np.zeros(len(tau))
    for s in blocks(len(tau)):
        ratio, variance, dosage, _ = log_ratios(p.take(s), p.level[s], np.zeros((len(tau[s]), len(p.dose_mean))))
        information[s] = _slope(dosage, ratio, variance + tau[s, None] ** 2)[1]
    return np.asarray((p.axis.high - p.axis.low) / np.sqrt(information))


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
    targeting = p.targeting
    wide = variance + tau[:, None] ** 2
    z = ratio * np.sign(fitted) / np.sqrt(wide)
    out = {"n_guides_support": ((z > SUPPORT_Z) & targeting).sum(1).astype(float)}
    q = ((ratio - fitted) ** 2 / variance).sum(1)
    out["heterogeneity_p"] = chi2.sf(q, max(ratio.shape[1] - 2, 1))
    out["p_trend_within_targeting"] = np.full(len(ratio), np.nan)
    if targeting.sum() >= 3 and np.ptp(dosage[targeting]) > 0:
        slope, information = _slope(dosage[targeting], ratio[:, targeting], wide[:, targeting])
        out["p_trend_within_targeting"] = 2 * norm.sf(np.abs(slope) * np.sqrt(information))
    information = _slope(dosage, ratio, wide)[1]
    span = p.axis.high - p.axis.low
    move = 0.5 * min_detectable(span / np.sqrt(information), p.priors, log_odds)
    out[f"min_detectable_{p.likelihood.effect}"] = p.likelihood.change(level + move, level - move)
    return out, (ratio**2 - (ratio - fitted) ** 2) / (2 * wide)


def _slope(x: Floats, y: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Weighted least squares of ``(T, G)`` on ``(G,)``: slope and its information."""
    w = 1.0 / variance
    dx = x - ((w @ x) / w.sum(1))[:, None]
    information = np.maximum((w * dx**2).sum(1), 1e-300)
    return (w * dx * (y - ((w * y).sum(1) / w.sum(1))[:, None])).sum(1) / information, information


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
    return np.asarray(high + norm.ppf(DETECT_POWER) * sd)
