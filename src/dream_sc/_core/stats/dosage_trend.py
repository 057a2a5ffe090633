"""A smooth trend of the means of guides over their dosage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MIN_SPLINE = 6  # distinct points from which on the trend may bend


def trend(x: Floats, y: Floats, variance: Floats) -> Floats:
    """Fitted trend at the points themselves, ``(G,)``.

    A quadratic regression spline with one knot, at the median point, or a line through fewer than six points.
    Points are weighted by their squared errors `variance` and the variance between them, found by moments.
    """
    from scipy.interpolate import make_lsq_spline

    order = np.argsort(x, kind="stable")
    at, values, v = x[order], y[order], variance[order]
    degree = 2 if len(np.unique(x)) >= MIN_SPLINE else 1
    inner = [float(np.median(at))] if degree == 2 and at[0] < np.median(at) < at[-1] else []
    knots = np.r_[[at[0]] * (degree + 1), inner, [at[-1]] * (degree + 1)]
    extra, fitted = 0.0, values
    for _ in range(2):
        weight = 1.0 / (v + extra)
        fitted = make_lsq_spline(at, values, knots, degree, w=np.sqrt(weight))(at)
        left = len(x) - (len(knots) - degree - 1)
        surplus = (weight * (values - fitted) ** 2).sum() - left
        extra = max(0.0, float(surplus / weight.sum())) if left > 0 else 0.0
    out = np.empty(len(x))
    out[order] = fitted
    return out
