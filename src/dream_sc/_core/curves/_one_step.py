r"""Curves of one step between two plateaus: :math:`f \propto 1 + (F - 1) h(x)`, `h` rising from 0 to 1.

With ``b = log F`` the curve is ``exp(b) h + (1 - h)``, and all arithmetic goes by `h` and ``1 - h``: the curve's file
says what they are.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np

from dream_sc._core.compiled import Cube, Matrix, Vector, inline, part
from dream_sc._core.compiled.vector_math import vlog

from ._base import moment_mass, torch_moment
from ._compiled import (
    LEAST,
    LEAST_CURVATURE,
    Kernels,
    log1p_exp,
    logistic,
    matched,
    normal_mixture,
    sum_curvature,
)

LEAST_RATIO = 1e-8  # of an amplitude's factor, and one over it: beyond, a shape is said not to move so much


# ---- compiled; the table of a dosage holds h and 1 - h ---------------------------------------------------------------


@part
def log_curves(theta: Matrix, n_amp: int, table: Cube, factor: Matrix, out: Matrix, grad: Cube) -> None:
    """Log curve and its gradient."""
    for d in range(out.shape[0]):
        for lane in range(out.shape[1]):
            a = factor[0, lane] * table[d, 0, lane]
            f = a + table[d, 1, lane]
            out[d, lane] = vlog(f)
            grad[d, 0, lane] = a / f


@part
def moves(theta: Matrix, n_amp: int, up: Cube, down: Cube, factor: Matrix, out: Matrix) -> None:
    """Half the difference of the log curve between two tables."""
    for g in range(out.shape[0]):
        for lane in range(out.shape[1]):
            top = factor[0, lane] * up[g, 0, lane] + up[g, 1, lane]
            bottom = factor[0, lane] * down[g, 0, lane] + down[g, 1, lane]
            out[g, lane] = 0.5 * vlog(top / bottom)


@inline
def _movement(b: float, low: float, low_c: float, high: float, high_c: float) -> float:
    """Movement between the ends of the axis, given logs of `h` and ``1 - h`` there."""
    return log1p_exp(b + high - high_c) + high_c - log1p_exp(b + low - low_c) - low_c


@part
def add_prior(
    n_amp: int,
    theta: Matrix,
    low: Matrix,
    high: Matrix,
    consts: Matrix,
    scales: Vector,
    weights: Vector,
    sd: float,
    grad: Matrix,
    gauss: Cube,
    value: Vector,
) -> None:
    """Moment prior of the movement without its factor D^2, whose mean is taken at the end."""
    for lane in range(value.size):
        b, zl, zh = theta[1, lane], low[0, lane] - low[1, lane], high[0, lane] - high[1, lane]
        pl, ph = logistic(b + zl), logistic(b + zh)
        d = _movement(b, low[0, lane], low[1, lane], high[0, lane], high[1, lane])
        # ph - pl without cancellation
        d1 = max(ph * (1.0 - pl) * -np.expm1(zl - zh), LEAST)
        d2 = ph * (1 - ph) - pl * (1 - pl)
        d3 = ph * (1 - ph) * (1 - 2 * ph) - pl * (1 - pl) * (1 - 2 * pl)
        lq, r1 = normal_mixture(d, scales, weights)
        value[lane] += lq + log(d1)
        grad[1, lane] += -d * r1 * d1 + d2 / d1
        gauss[1, 1, lane] -= min(-r1 * d1 * d1 - r1 * d * d2 + d3 / d1 - (d2 / d1) ** 2, -LEAST_CURVATURE)


@part
def left_out(theta: Matrix, low: Matrix, high: Matrix, lane: int) -> tuple[float, float]:
    """The movement, and its derivative by the amplitude."""
    b = theta[1, lane]
    d = _movement(b, low[0, lane], low[1, lane], high[0, lane], high[1, lane])
    return d, logistic(b + high[0, lane] - high[1, lane]) - logistic(b + low[0, lane] - low[1, lane])


@part
def match(theta: Matrix, old: Vector, new_low: Matrix, new_high: Matrix, consts: Matrix, lane: int) -> None:
    """Amplitude with which a lane's shape moves as much as `old`."""
    n, w = theta.shape[0], new_low.shape[0]
    for i in range(n):
        theta[i, lane] = old[i]
    b, low, high = old[1], old[n : n + w], old[n + w :]
    e = exp(_movement(b, low[0], low[1], high[0], high[1]))
    theta[1, lane] = matched(e, new_high[0, lane], new_low[0, lane], new_high[1, lane], new_low[1, lane], b)


def kernels(tables: Any, ends: Any) -> Kernels:
    """The compiled form of a curve with these tables."""
    return Kernels(tables, ends, log_curves, moves, sum_curvature, add_prior, left_out, match)


# ---- numpy -----------------------------------------------------------------------------------------------------------


def log_mean(amplitudes: Any, table: Any) -> Any:
    """Log curve ``(S, D)``, up to its level, of amplitudes ``(S, 1)`` and tables ``(S, 2, D)`` of `h` and ``1 - h``."""
    return np.log(np.exp(amplitudes) * table[:, 0] + table[:, 1])


def amplitude_of(ends: Any, move: Any) -> Any:
    """Amplitude ``(...)`` with which a shape moves by `move` ``(...)``, natural log; NaN where it cannot.

    `ends` are the logs of `h` and ``1 - h`` at the low and the high end of the axis.
    """
    low, low_c, high, high_c = ends
    return log_ratio(high, low, high_c, low_c, move)


def log_ratio(top: Any, bottom: Any, top_c: Any, bottom_c: Any, move: Any) -> Any:
    """Log of the factor ``F`` with which ``F h + c`` moves by `move` from bottom to top; NaN where it cannot."""
    e = np.exp(move)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = (e * np.exp(bottom_c) - np.exp(top_c)) / (np.exp(top) - e * np.exp(bottom))
        return np.log(np.where((ratio > LEAST_RATIO) & (ratio < 1 / LEAST_RATIO), ratio, np.nan))


def mass_of(ends: Any, priors: Any) -> Any:
    """Mass of the movements, down and up, that shapes can make, given logs of `h` and ``1 - h`` at the axis' ends."""
    low, low_c, high, high_c = ends
    return sum(
        moment_mass(most, priors.movement_scales, priors.movement_weights) for most in (low_c - high_c, high - low)
    )


# ---- torch -----------------------------------------------------------------------------------------------------------


def torch_movement(b: Any, ends: Any) -> tuple[Any, Any]:
    """Movement between the ends of the axis, and its derivative by the amplitude, ``(T, 1)``."""
    from torch.nn.functional import softplus

    low, low_c, high, high_c = ends
    zl, zh = low - low_c, high - high_c
    d = softplus(b + zh) + high_c - softplus(b + zl) - low_c
    # sigmoid(b + zh) - sigmoid(b + zl) without cancellation
    return d, (b + zh).sigmoid() * (-b - zl).sigmoid() * -(zl - zh).expm1()


def torch_prior(b: Any, ends: Any, priors: Any) -> Any:
    """Moment prior on the movement between the two ends of the axis, either way."""
    return torch_moment(*torch_movement(b, ends), priors)


def torch_log_mass(ends: Any, priors: Any) -> Any:
    """Log of `mass_of`, ``(T, 1)``."""
    low, low_c, high, high_c = ends
    scales, weights = low.new_tensor(priors.movement_scales), low.new_tensor(priors.movement_weights)
    mass: Any = 0.0
    for most in (low_c - high_c, high - low):
        r = most[..., None] / scales
        cdf = 0.5 * (r / 2**0.5).erf() - r * (-0.5 * r**2).exp() / (2 * np.pi) ** 0.5
        mass = mass + (weights * cdf).sum(-1)
    return mass.clamp_min(1e-300).log()
