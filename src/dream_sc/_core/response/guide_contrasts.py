"""What the sums of single guides say: their distances from a level, and a line through them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.problem import Problem

    Floats = NDArray[np.float64]


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


def slope_over(x: Floats, y: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Weighted least squares of ``(T, G)`` on ``(G,)``: slope and its information."""
    w = 1.0 / variance
    dx = x - ((w @ x) / w.sum(1))[:, None]
    information = np.maximum((w * dx**2).sum(1), 1e-300)
    return (w * dx * (y - ((w * y).sum(1) / w.sum(1))[:, None])).sum(1) / information, information
