"""How much two Hills turn: what a peak rises above both ends of the axis, or a trough falls below both.

The weight ``turn^2 / (turn^2 + scale^2)`` is a factor of their prior where they compete with one Hill: two Hills that
do not turn are hardly told from one.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from functools import partial
from math import exp, log
from typing import Any

import numpy as np

from dream_sc._core.compiled import Block, Cube, Matrix, Stack, Vector, entry, inline

from . import _hill
from ._base import LN2, Factor

N_POINTS = 25  # of the axis on which a turn is looked for
LEAST_WEIGHT = 1e-12
DROP = 14.0  # log evidence below the best point's, from which on a point does not matter
_SIDE = 3.0**0.5
SIGMA_POINTS = ((0.0, 0.0, 1 / 3), (_SIDE, 0.0, 1 / 6), (-_SIDE, 0.0, 1 / 6), (0.0, _SIDE, 1 / 6), (0.0, -_SIDE, 1 / 6))


def weight(x: Any, curves: Any, scale: float) -> Any:
    """``turn^2 / (turn^2 + scale^2)`` of log curves over the axis `x` (last axis), zero for a monotone curve.

    The turn is what a peak rises above both ends of the axis, or a trough falls below both.
    """
    first, last = curves[..., 0], curves[..., -1]
    peak = curves.max(-1) - np.maximum(first, last)
    trough = np.minimum(first, last) - curves.min(-1)
    turn = np.maximum(peak, trough)
    return turn**2 / (turn**2 + scale**2)


def _log_weight(log_curve: Any, params: Any, consts: Any, axis: Any, priors: Any) -> Any:
    """Log of the turn weight of curves ``(N, P)``."""
    x = points(axis)
    return np.log(np.maximum(weight(x, log_curve(x, params, consts), priors.turn_scale), LEAST_WEIGHT))


def points(axis: Any) -> Any:
    """Dosages (log2) at which a turn is looked for."""
    return axis.points(N_POINTS)


def _mass(log_curve: Any, lattice: Any, axis: Any, priors: Any, n: int = 64) -> float:
    """Prior mean of the turn weight, over shapes and amplitudes; fixed draws, so that it is a constant."""
    shapes, log_w, signs = lattice(axis, priors)
    rng = np.random.default_rng(0)
    x = points(axis)
    scales, weights = np.asarray(priors.movement_scales), np.asarray(priors.movement_weights)
    params = np.zeros((len(shapes), n, 7))
    params[..., 3:] = shapes[:, None]
    inside = np.ones((len(shapes), n), dtype=bool)
    for i in range(2):
        # the moment prior of the movement is a chi distribution with three degrees of freedom
        d = np.linalg.norm(rng.normal(size=(n, 3)), axis=1) * rng.choice(scales, size=n, p=weights)
        rate = _hill.rates(shapes[:, 2 * i + 1], signs[:, i])
        ends = np.exp([_hill.log_values(rate, shapes[:, 2 * i], end)[0] for end in (axis.low, axis.high)])
        rest = ends.max(0)[:, None] - np.exp(d) * ends.min(0)[:, None]
        inside &= rest > 0
        params[..., 1 + i] = np.log(np.expm1(d) / np.where(rest > 0, rest, 1.0))
    w = weight(x, log_curve(x, params, signs[:, None]), priors.turn_scale)
    # the lattice's weights hold the mass of what each shape can reach
    mass = np.exp(log_w)[:, None] * inside
    return float((mass * w).sum() / mass.sum())


def _torch(torch_rows: Any, params: Any, consts: Any, axis: Any, priors: Any) -> Any:
    """Log of the turn weight, ``(T, 1)``, for the Pyro models."""
    import torch

    a = params["a"]
    x = torch.as_tensor(points(axis), dtype=a.dtype, device=a.device)
    curves = torch_rows(params, x[:, None], torch.ones_like(x)[:, None], consts)
    first, last = curves[:, :1], curves[:, -1:]
    peak = curves.amax(-1, keepdim=True) - torch.maximum(first, last)
    trough = torch.minimum(first, last) - curves.amin(-1, keepdim=True)
    square = torch.maximum(peak, trough) ** 2 + 1e-12
    return square.log() - (square + priors.turn_scale**2).log()


@inline
def _fill_hills(shape: Vector, consts: Vector, x: Vector, hills: Matrix) -> None:
    """Values ``(2, X)`` of the two Hills of a shape."""
    for i in range(2):
        rate = consts[i] * LN2 * exp(shape[2 * i + 1])
        for j in range(x.size):
            hills[i, j], _ = _hill.values(rate, shape[2 * i], x[j], 1.0)


@inline
def _of_curve(b1: float, b2: float, hills: Matrix, scale: float) -> float:
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
def _add_mean(log_z: Cube, modes: Stack, covs: Block, shapes: Cube, consts: Cube, x: Vector, scale: float) -> None:
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
                l11 = max(cov[1, 1], LEAST_WEIGHT) ** 0.5
                l21 = cov[2, 1] / l11
                l22 = max(cov[2, 2] - l21 * l21, LEAST_WEIGHT) ** 0.5
                mean = 0.0
                for u, v, w in SIGMA_POINTS:
                    mean += w * _of_curve(mode[1] + l11 * u, mode[2] + l21 * u + l22 * v, hills, scale)
                log_z[t, s, k] += log(max(mean, LEAST_WEIGHT))


@entry
def _add_each(out: Matrix, theta: Cube, shapes: Cube, consts: Matrix, x: Vector, scale: float) -> None:
    """Add the log weight of every point to `out` ``(T, N)``, in place: `theta` (T, N, n), `shapes` (T, N, 4)."""
    for t in range(out.shape[0]):
        hills = np.zeros((2, x.size))
        for i in range(out.shape[1]):
            _fill_hills(shapes[t, i], consts[t], x, hills)
            out[t, i] += log(max(_of_curve(theta[t, i, 1], theta[t, i, 2], hills, scale), LEAST_WEIGHT))


def _mean(log_z: Any, modes: Any, covs: Any, shapes: Any, consts: Any, axis: Any, priors: Any) -> None:
    _add_mean(log_z, modes, covs, shapes, consts, points(axis), priors.turn_scale)


def _each(out: Any, theta: Any, shapes: Any, consts: Any, axis: Any, priors: Any) -> None:
    _add_each(out, theta, shapes, consts, points(axis), priors.turn_scale)


def factor(log_curve: Any, lattice: Any, torch_rows: Any) -> Factor:
    """The weight of these curves."""
    mass, log_weight = partial(_mass, log_curve, lattice), partial(_log_weight, log_curve)
    return Factor(mass, log_weight, _mean, _each, partial(_torch, torch_rows), (_add_mean, _add_each))
