"""How much two Hills turn: what a peak rises above both ends of the axis, or a trough falls below both.

The weight ``turn^2 / (turn^2 + scale^2)`` is a factor of their prior where they compete with one Hill; see
`dream_sc._core.dose_response.additive_hill.turn_weight`, which says the same for whole curves.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, log

import numba as nb
import numpy as np

from dream_sc._core.dose_response import LN2

LEAST = 1e-12
DROP = 14.0  # points this far below the best one do not matter
_SIDE = 3.0**0.5
SIGMA_POINTS = (
    (0.0, 0.0, 1 / 3), (_SIDE, 0.0, 1 / 6), (-_SIDE, 0.0, 1 / 6), (0.0, _SIDE, 1 / 6), (0.0, -_SIDE, 1 / 6)
)  # fmt: skip


@nb.njit(cache=True, error_model="numpy")
def _fill_hills(shape, consts, x, hills):
    """Values ``(2, X)`` of the two Hills of a shape."""
    for i in range(2):
        rate = consts[i] * LN2 * exp(shape[2 * i + 1])
        for j in range(x.size):
            hills[i, j] = 1.0 / (1.0 + exp(-rate * (x[j] - shape[2 * i])))


@nb.njit(cache=True, error_model="numpy")
def _weight(b1, b2, hills, scale):
    """Weight of one curve."""
    e1, e2, n = exp(b1), exp(b2), hills.shape[1]
    first, last = 1.0 + e1 * hills[0, 0] + e2 * hills[1, 0], 1.0 + e1 * hills[0, n - 1] + e2 * hills[1, n - 1]
    top, bottom = max(first, last), min(first, last)
    highest, lowest = top, bottom
    for j in range(1, n - 1):
        f = 1.0 + e1 * hills[0, j] + e2 * hills[1, j]
        highest, lowest = max(highest, f), min(lowest, f)
    turn = log(max(highest / top, bottom / lowest))
    return turn * turn / (turn * turn + scale * scale)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def add_mean(log_z, modes, covs, shapes, consts, x, scale):
    """Add the log of the mean weight to the evidence ``(T, S, K)`` of every point that may matter, in place.

    The mean over the amplitudes, Gaussian given the shape, is by the five points of the unscented transform. `shapes`
    and `consts` are ``(1 or T, S, ...)``; `x` ``(X,)`` covers the axis.
    """
    for t in range(log_z.shape[0]):
        i = np.int64(t) if shapes.shape[0] > 1 else np.int64(0)
        hills, best = np.empty((2, x.size)), log_z[t].max()
        for s in range(log_z.shape[1]):
            _fill_hills(shapes[i, s], consts[i, s], x, hills)
            for k in range(log_z.shape[2]):
                if not log_z[t, s, k] > best - DROP:
                    log_z[t, s, k] = -np.inf
                    continue
                cov, mode = covs[t, s, k], modes[t, s, k]
                l11 = max(cov[1, 1], LEAST) ** 0.5
                l21 = cov[2, 1] / l11
                l22 = max(cov[2, 2] - l21 * l21, LEAST) ** 0.5
                mean = 0.0
                for u, v, w in SIGMA_POINTS:
                    mean += w * _weight(mode[1] + l11 * u, mode[2] + l21 * u + l22 * v, hills, scale)
                log_z[t, s, k] += log(max(mean, LEAST))


@nb.njit(cache=True, nogil=True, error_model="numpy")
def add_each(out, theta, shapes, consts, x, scale):
    """Add the log weight of every point to `out` ``(T, N)``, in place: `theta` (T, N, n), `shapes` (T, N, 4)."""
    for t in range(out.shape[0]):
        hills = np.empty((2, x.size))
        for i in range(out.shape[1]):
            _fill_hills(shapes[t, i], consts[t], x, hills)
            out[t, i] += log(max(_weight(theta[t, i, 1], theta[t, i, 2], hills, scale), LEAST))
