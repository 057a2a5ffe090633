"""Do single guides bear a response out? Simple statistics per guide, beside the model's evidence.

For each feature and guide: the log ratio of the observed count to the one expected at NTC dosage, with the variance of
the count and of the guide effects. Guides are the witnesses, as instruments are in a Mendelian randomisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2, norm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .engines.laplace import Problem

    Floats = NDArray[np.float64]

SUPPORT_Z = 1.645


def log_ratios(p: Problem, level: Floats, curves: Floats) -> tuple[Floats, Floats, Floats]:
    """Log ratio to the expected count, its variance by counts alone, and the mean dosage, per guide.

    Parameters
    ----------
    level
        ``(T,)`` log of the expected count at NTC dosage.
    curves
        ``(T, D)`` log of the curve relative to NTC at the problem's dosages.
    """
    start = p.guide_start[:-1]
    expected = np.exp(level[:, None] + p.log_w)
    fitted = expected * np.exp(curves[:, p.dose])
    for c in range(1, int(p.group.max()) + 1):
        rows = p.group == c
        factor = (p.counts[:, rows].sum(1) + 0.5) / (fitted[:, rows].sum(1) + 0.5)
        expected[:, rows] *= factor[:, None]
        fitted[:, rows] *= factor[:, None]
    total = np.add.reduceat(p.counts, start, axis=1)
    mean, fit = (np.add.reduceat(m, start, axis=1) for m in (expected, fitted))
    extra = np.add.reduceat(fitted**2 * p.scale2, start, axis=1) * (p.overdispersion[:, None] / fit) ** 2
    return np.log((total + 0.5) / (mean + 0.5)), 1.0 / (fit + 0.5) + extra, p.dose_mean[p.dose[start]]


def columns(p: Problem, level: Floats, curves: Floats, tau: Floats) -> dict[str, Floats]:
    """Table columns of a block of features.

    `n_guides_support`: targeting guides that differ from the NTC level by themselves, at one-sided p < 0.05, towards
    the fitted curve. `heterogeneity_p`: Cochran's Q of all guides around the fitted curve, counts alone: small where
    guides differ for other reasons than the dosage. `p_trend_within_targeting`: slope over dosage among targeting
    guides only, guide effects in the variance; NaN for fewer than three of them.
    """
    ratio, variance, dosage = log_ratios(p, level, curves)
    fitted = curves[:, p.dose[p.guide_start[:-1]]]
    targeting = p.targeting
    wide = variance + tau[:, None] ** 2
    z = ratio * np.sign(fitted) / np.sqrt(wide)
    out = {"n_guides_support": ((z > SUPPORT_Z) & targeting).sum(1).astype(float)}
    q = ((ratio - fitted) ** 2 / variance).sum(1)
    out["heterogeneity_p"] = chi2.sf(q, max(ratio.shape[1] - 2, 1))
    out["p_trend_within_targeting"] = np.full(len(ratio), np.nan)
    if targeting.sum() >= 3 and np.ptp(dosage[targeting]) > 0:
        w = 1.0 / wide[:, targeting]
        x, y = dosage[targeting], ratio[:, targeting]
        x0 = (w @ x) / w.sum(1)
        y0 = (w * y).sum(1) / w.sum(1)
        dx = x - x0[:, None]
        information = (w * dx**2).sum(1)
        slope = (w * dx * (y - y0[:, None])).sum(1) / information
        out["p_trend_within_targeting"] = 2 * norm.sf(np.abs(slope) * np.sqrt(information))
    return out
