"""How much two Hills turn: what a peak rises above both ends of the axis, or a trough falls below both.

The weight ``turn^2 / (turn^2 + scale^2)`` is a factor of their prior where they compete with one Hill; see
`dream_sc._core.curves.additive_hill.turn_weight`, which says the same for whole curves.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, log

import numpy as np

from dream_sc._core.compiled import Block, Cube, Matrix, Stack, Vector, entry, inline
from dream_sc._core.curves import LN2

LEAST = 1e-12
DROP = 14.0  # points this far below the best one do not matter
_SIDE = 3.0**0.5
SIGMA_POINTS = ((0.0, 0.0, 1 / 3), (_SIDE, 0.0, 1 / 6), (-_SIDE, 0.0, 1 / 6), (0.0, _SIDE, 1 / 6), (0.0, -_SIDE, 1 / 6))


@inline
def _fill_hills(shape: Vector, consts: Vector, x: Vector, hills: Matrix) -> None:
    """Values ``(2, X)`` of the two Hills of a shape."""
    for i in range(2):
        rate = consts[i] * LN2 * exp(shape[2 * i + 1])
        for j in range(x.size):
            hills[i, j] = 1.0 / (1.0 + exp(-rate * (x[j] - shape[2 * i])))


@inline
def _weight(b1: float, b2: float, hills: Matrix, scale: float) -> float:
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


@entry
def add_mean(log_z: Cube, modes: Stack, covs: Block, shapes: Cube, consts: Cube, x: Vector, scale: float) -> None:
    """Add the log of the mean weight to the evidence ``(T, S, K)`` of every point that may matter, in place.

    The mean over the amplitudes, Gaussian given the shape, is by the five points of the unscented transform. `shapes`
    and `consts` are ``(1 or T, S, ...)``; `x` ``(X,)`` covers the axis.
    """
    for t in range(log_z.shape[0]):
        i = np.int64(t) if shapes.shape[0] > 1 else np.int64(0)
        hills, best = np.zeros((2, x.size)), -np.inf
        for s in range(log_z.shape[1]):
            for k in range(log_z.shape[2]):
                best = max(best, log_z[t, s, k])
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


@entry
def add_each(out: Matrix, theta: Cube, shapes: Cube, consts: Matrix, x: Vector, scale: float) -> None:
    """Add the log weight of every point to `out` ``(T, N)``, in place: `theta` (T, N, n), `shapes` (T, N, 4)."""
    for t in range(out.shape[0]):
        hills = np.zeros((2, x.size))
        for i in range(out.shape[1]):
            _fill_hills(shapes[t, i], consts[t], x, hills)
            out[t, i] += log(max(_weight(theta[t, i, 1], theta[t, i, 2], hills, scale), LEAST))
