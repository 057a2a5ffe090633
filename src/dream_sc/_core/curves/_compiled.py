"""What the compiled form of a curve consists of, and arithmetic that several curves share.

The kernels treat several shapes at once, `L` lanes, which are the last axis everywhere. What does not depend on the
amplitudes is tabulated first: `W` numbers at each dosage, such as Hill values and their complements, each a mean over
nodes that stand for the cells' dosages. The log curve is up to its level: the kernels subtract its value at NTC dosage.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, log, log1p, pi, sqrt
from typing import Any, NamedTuple

from dream_sc._core.compiled import Cube, Matrix, Vector, inline, part

TABLE_WIDTH = 6  # the most numbers that a curve tabulates at a dosage
SQRT_2PI = sqrt(2.0 * pi)
LEAST = 1e-300
NEVER = 1e-280  # of a density, below which its logarithm is taken of its widest component alone
LEAST_CURVATURE = 1e-3  # of the log prior, so that Newton steps go uphill
MOST_FACTOR = 1e6  # of an amplitude that is taken over from another shape


class Kernels(NamedTuple):
    """The compiled form: parts, each with the arguments that are said here."""

    # (shapes (d, L), consts (2, L), nodes (D, J), weights (D, J), out (D, W, L)): tables, means over the nodes
    tables: Any
    # (shapes, consts, x, out (W, L)): the table at an end of the axis, as logs where that is more exact
    ends: Any
    # (theta (n, L), n_amp, table (D, W, L), factor (A, L), out (D, L), grad (D, A, L)): log curve and its gradient by
    # the amplitudes, theta[1 : 1 + A], whose exponentials are `factor`
    log_curves: Any
    # (theta, n_amp, up (G, W, L), down (G, W, L), factor, out (G, L)): half the difference of the log curve between
    # two tables
    moves: Any
    # (n_amp, grad (D + 1, A, L), row_grad (D, L), hess (n, n, L)): take off the second derivatives of the curve by its
    # amplitudes, times the rows' gradients
    add_curvature: Any
    # (n_amp, theta, low (W, L), high (W, L), consts, scales, weights, sd, grad (n, L), gauss (n, n, L), value (L,)):
    # add the log prior of the amplitudes given the shape, its gradient, and its Hessian, which is kept negative
    add_prior: Any
    # (theta, low, high, lane): the square root of a factor that `add_prior` leaves out, since its mean over a Gaussian
    # amplitude is known, and its derivative by the first amplitude
    left_out: Any
    # (theta, old, new_low, new_high, consts, lane): amplitudes with which a lane's shape moves as much as `old` does, a
    # column (n,) of parameters followed by its tables at the ends; unchanged where the shape cannot
    match: Any


# ---- for curves that have no use for a part --------------------------------------------------------------------------


@part
def no_curvature(n_amp: int, grad: Cube, row_grad: Matrix, hess: Cube) -> None:
    """A log curve that is linear in its amplitudes has no second derivatives."""


@part
def nothing_left_out(theta: Matrix, low: Matrix, high: Matrix, lane: int) -> tuple[float, float]:
    """The prior is whole."""
    return 1.0, 0.0


@part
def same_amplitudes(theta: Matrix, old: Vector, new_low: Matrix, new_high: Matrix, consts: Matrix, lane: int) -> None:
    """Parameters as they were: there is one shape."""
    for i in range(theta.shape[0]):
        theta[i, lane] = old[i]


# ---- arithmetic ------------------------------------------------------------------------------------------------------


@inline
def log1p_exp(z: float) -> float:
    """``log(1 + exp(z))`` without overflow."""
    return z + log1p(exp(-z)) if z > 0 else log1p(exp(z))


@inline
def logistic(z: float) -> float:
    """Logistic function without overflow."""
    if z >= 0:
        return 1.0 / (1.0 + exp(-z))
    e = exp(z)
    return e / (1.0 + e)


@part
def normal_mixture(d: float, scales: Vector, weights: Vector) -> tuple[float, float]:
    """Log of ``sum_s w_s / s^2 Normal(d; 0, s)`` and the responsibility-weighted mean of ``1 / s^2``."""
    total, r1 = 0.0, 0.0
    for i in range(scales.size):
        s2 = scales[i] ** 2
        w = weights[i] / s2 / (scales[i] * SQRT_2PI) * exp(-0.5 * d * d / s2)
        total += w
        r1 += w / s2
    if total < NEVER:
        s2 = scales[-1] ** 2
        return log(weights[-1] / s2 / (scales[-1] * SQRT_2PI)) - 0.5 * d * d / s2, 1.0 / s2
    return log(total), r1 / total


@part
def sum_curvature(n_amp: int, grad: Cube, row_grad: Matrix, hess: Cube) -> None:
    """Second derivatives of the log of a sum of exponentials of the amplitudes, whose first ones are shares."""
    n_dose = row_grad.shape[0]
    for d in range(n_dose):
        for i in range(n_amp):
            for j in range(i + 1):
                same = 1.0 if i == j else 0.0
                for lane in range(hess.shape[2]):
                    here = grad[d, i, lane] * (same - grad[d, j, lane])
                    ntc = grad[n_dose, i, lane] * (same - grad[n_dose, j, lane])
                    hess[1 + i, 1 + j, lane] -= row_grad[d, lane] * (here - ntc)


@inline
def matched(e: float, top: float, bottom: float, top_c: float, bottom_c: float, b: float) -> float:
    """Amplitude whose factor is `e` between two values (their logs and those of their complements), or `b`."""
    below = exp(top) - e * exp(bottom)
    ratio = (e * exp(bottom_c) - exp(top_c)) / below if below != 0.0 else -1.0
    if not 1.0 / MOST_FACTOR < ratio < MOST_FACTOR:
        return b
    return log(ratio)
