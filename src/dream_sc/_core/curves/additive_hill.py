r"""Two Hills: :math:`f \propto 1 + e^{b_1} h_1(x) + e^{b_2} h_2(x)`, ``k_a < k_b``.

:math:`h_i = \sigma(\pm n_i \ln 2 (x - k_i))`, one rising and one falling; the amplitudes are positive, so the curve is
never negative, and a falling beside a rising Hill makes a trough or a peak.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from itertools import combinations, product
from math import exp, log
from typing import Any

import numpy as np

from dream_sc._core.compiled import Cube, Matrix, Vector, part
from dream_sc._core.compiled.vector_math import vlog

from . import _hill, _one_step, _turn
from ._base import LN2, Curve, Step, moment_mass, shape_log_weight, sigmoid, softplus, torch_moment
from ._compiled import (
    LEAST,
    LEAST_CURVATURE,
    Kernels,
    log1p_exp,
    logistic,
    matched,
    normal_mixture,
    nothing_left_out,
    sum_curvature,
)

PARAMS = ("a", "b1", "b2", "log2_ec50", "log_n", "log2_ec50_b", "log_n_b")
MOVES = np.geomspace(0.1, 5.0, 7)  # edges of the movements of each Hill in the first pass
START = -0.5  # both amplitudes, from which the mode is looked for
# one Hill rises, the other falls: two steps of the same sign cannot be told from one Hill at a dozen dosages,
# and would take its features (and the meaning of its EC50) away
SIGNS = ((1.0, -1.0), (-1.0, 1.0))


def _terms(x: Any, params: Any, consts: Any) -> list[tuple[Any, Any, Any]]:
    """Of each Hill: the log of its term, its rate, and the argument of its logistic function."""
    out = []
    for i in range(2):
        rate = np.asarray(consts)[..., i : i + 1] * np.exp(params[..., 4 + 2 * i : 5 + 2 * i])
        z = LN2 * rate * (x - params[..., 3 + 2 * i : 4 + 2 * i])
        out.append((params[..., 1 + i : 2 + i] - softplus(-z), rate, z))
    return out


def raw(x: Any, params: Any, consts: Any) -> Any:
    """Log of the curve over what it is with neither Hill."""
    (t1, *_), (t2, *_) = _terms(x, params, consts)
    return np.logaddexp(0.0, np.logaddexp(t1, t2))


def log_curve(x: Any, params: Any, consts: Any) -> Any:
    """Natural log of the expected count at log2 dosage `x`, shape ``(..., X)``."""
    return params[..., :1] + raw(x, params, consts) - raw(0.0, params, consts)


def slope(x: Any, params: Any, consts: Any) -> Any:
    """Derivative of the log curve by log dosage, shape ``(..., X)``."""
    terms = _terms(x, params, consts)
    total = np.logaddexp(0.0, np.logaddexp(terms[0][0], terms[1][0]))
    return sum(np.exp(t - total) * rate * sigmoid(-z) for t, rate, z in terms)


def lattice(axis: Any, priors: Any, n_k: int = 7) -> tuple[Any, Any, Any]:
    """Grid over both EC50, both steepnesses and both orders of rise and fall."""
    k = np.linspace(axis.bottom - 0.75, axis.high + 0.75, n_k)
    log_n = np.log([1.2, 3.5])
    rows = [
        (ka, na, kb, nb, sa, sb)
        for (sa, sb) in SIGNS
        for ka, kb in combinations(k, 2)
        for na, nb in product(log_n, log_n)
    ]
    grid = np.array(rows)
    shapes, signs = grid[:, :4], grid[:, 4:]
    log_w = shape_log_weight(shapes, priors)
    mass = amplitude_mass(shapes, signs, axis, priors)
    return shapes, log_w - np.log((np.exp(log_w) * mass).sum()), signs


def _ends(axis: Any, shapes: Any, consts: Any, i: int) -> tuple[Any, Any]:
    """Logs of a Hill's value at the end of the axis where it is low, and where it is high."""
    rate = _hill.rates(shapes[..., 2 * i + 1], consts[..., i])
    low, high = (_hill.log_values(rate, shapes[..., 2 * i], end)[0] for end in (axis.low, axis.high))
    return np.minimum(low, high), np.maximum(low, high)


def amplitude_mass(shapes: Any, consts: Any, axis: Any, priors: Any) -> Any:
    """Integral of the prior of the amplitudes given shapes ``(..., 4)``: the mass of the movements they can make."""
    mass = np.ones(shapes.shape[:-1])
    for i in range(2):
        bottom, top = _ends(axis, shapes, consts, i)
        mass = mass * 2 * moment_mass(top - bottom, priors.movement_scales, priors.movement_weights)
    return mass


def tables(shapes: Any, consts: Any, nodes: Any, weights: Any) -> Any:
    """Values of the two Hills ``(S, 2, D)``, averaged over nodes ``(D, J)``."""
    out = []
    for i in range(2):
        rate = _hill.rates(shapes[:, 2 * i + 1], consts[:, i])
        out.append(_hill.means(rate, shapes[:, 2 * i], nodes, weights)[0])
    return np.stack(out, 1)


def log_mean(amplitudes: Any, table: Any) -> Any:
    """Log curve ``(S, D)``, up to its level, of amplitudes ``(S, 2)`` and tables ``(S, 2, D)``."""
    return np.log(1.0 + np.exp(amplitudes[:, :1]) * table[:, 0] + np.exp(amplitudes[:, 1:]) * table[:, 1])


def amplitudes(axis: Any, shapes: Any, consts: Any, move: Any) -> Any:
    """Amplitudes ``(..., 2)`` with which each Hill moves by `move` ``(..., 2)``; NaN where it cannot."""
    out = []
    for i in range(2):
        bottom, top = _ends(axis, shapes, consts, i)
        zero = np.zeros_like(top)
        out.append(_one_step.log_ratio(top, bottom, zero, zero, move[..., i]))
    return np.stack(out, -1)


def steps(params: Any, consts: Any) -> list[Step]:
    """Both steps: where one is done, the other is not counted."""
    bottom = params[..., 0] - raw(np.zeros(1), params, consts[:, None, :])[..., 0]
    out = []
    for i in range(2):
        n = consts[:, i : i + 1] * np.exp(params[..., 4 + 2 * i])
        top = bottom + np.logaddexp(0.0, params[..., 1 + i])
        out.append(Step(params[..., 3 + 2 * i], n, bottom, top))
    return out


# ---- torch -----------------------------------------------------------------------------------------------------------


def torch_rows(params: Any, at: Any, weights: Any, consts: Any) -> Any:
    """Log curve up to its level ``(T, R)``, averaged over the nodes `at` ``(R, J)``."""
    import torch

    terms = [torch.zeros_like(params["b1"] + at[..., 0])]
    for i, suffix in enumerate(("", "_b")):
        rate = consts[:, i : i + 1] * LN2 * params[f"log_n{suffix}"].exp()
        log_h, _ = _hill.torch_log_means(rate, params[f"log2_ec50{suffix}"], at, weights)
        terms.append(params[f"b{i + 1}"] + log_h)
    return torch.stack(terms).logsumexp(0)


def torch_prior(params: Any, axis: Any, priors: Any, consts: Any) -> Any:
    """Moment prior on the movement of each Hill, of known sign, between the ends of the observed axis."""
    import torch

    total = 0.0
    for i, suffix in enumerate(("", "_b")):
        sign = consts[:, i : i + 1]
        rate, b = sign * LN2 * params[f"log_n{suffix}"].exp(), params[f"b{i + 1}"]
        k = params[f"log2_ec50{suffix}"]
        ends = [_hill.torch_log_values(rate, k, end)[0] for end in (axis.low, axis.high)]
        bottom = torch.where(sign > 0, ends[0], ends[1])
        top = torch.where(sign > 0, ends[1], ends[0])
        d = torch.logaddexp(b + top, torch.zeros_like(b)) - torch.logaddexp(b + bottom, torch.zeros_like(b))
        d1 = (b + top).sigmoid() * (-b - bottom).sigmoid() * -(bottom - top).expm1()
        total = total + torch_moment(d, d1, priors) + np.log(2.0)
    return total


# ---- compiled; the table of a dosage holds each Hill's value and its complement --------------------------------------


@part
def _tables(shapes: Matrix, consts: Matrix, nodes: Matrix, weights: Matrix, out: Cube) -> None:
    """Means of the Hills' values and of their complements."""
    for i in range(2):
        _hill.fill_means(i, consts[i], shapes, nodes, weights, out)


@part
def _ends_compiled(shapes: Matrix, consts: Matrix, x: float, out: Matrix) -> None:
    """Logs of the Hills' values and of their complements."""
    for i in range(2):
        _hill.fill_logs(i, consts[i], shapes, x, out)


@part
def _log_curves(theta: Matrix, n_amp: int, table: Cube, factor: Matrix, out: Matrix, grad: Cube) -> None:
    """Log curve and its gradient."""
    for d in range(out.shape[0]):
        for lane in range(out.shape[1]):
            a, b = factor[0, lane] * table[d, 0, lane], factor[1, lane] * table[d, 2, lane]
            f = 1.0 + a + b
            out[d, lane] = vlog(f)
            grad[d, 0, lane], grad[d, 1, lane] = a / f, b / f


@part
def _moves(theta: Matrix, n_amp: int, up: Cube, down: Cube, factor: Matrix, out: Matrix) -> None:
    """Half the difference of the log curve between two tables."""
    for g in range(out.shape[0]):
        for lane in range(out.shape[1]):
            top = 1.0 + factor[0, lane] * up[g, 0, lane] + factor[1, lane] * up[g, 2, lane]
            bottom = 1.0 + factor[0, lane] * down[g, 0, lane] + factor[1, lane] * down[g, 2, lane]
            out[g, lane] = 0.5 * vlog(top / bottom)


@part
def _prior_of_one(b: float, bottom: float, top: float, scales: Vector, weights: Vector) -> tuple[float, float, float]:
    """Log moment prior of the movement of one Hill, with first and second derivative by its amplitude."""
    d = max(log1p_exp(b + top) - log1p_exp(b + bottom), LEAST)
    pt, pb = logistic(b + top), logistic(b + bottom)
    d1 = max(pt * (1.0 - pb) * -np.expm1(bottom - top), LEAST)
    d2 = pt * (1 - pt) - pb * (1 - pb)
    d3 = pt * (1 - pt) * (1 - 2 * pt) - pb * (1 - pb) * (1 - 2 * pb)
    lq, r1 = normal_mixture(d, scales, weights)
    grad = (2.0 / d - d * r1) * d1 + d2 / d1
    hess = (-2.0 / d**2 - r1) * d1 * d1 + (2.0 / d - d * r1) * d2 + d3 / d1 - (d2 / d1) ** 2
    return log(2.0) + lq + 2.0 * log(d) + log(d1), grad, min(hess, -LEAST_CURVATURE)


@part
def _add_prior(
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
    """Moment prior of the movement of each Hill."""
    for lane in range(value.size):
        for i in range(2):
            top, bottom = high[2 * i, lane], low[2 * i, lane]
            if consts[i, lane] < 0:
                top, bottom = bottom, top
            v, slope, hess = _prior_of_one(theta[1 + i, lane], bottom, top, scales, weights)
            value[lane] += v
            grad[1 + i, lane] += slope
            gauss[1 + i, 1 + i, lane] -= hess


@part
def _match(theta: Matrix, old: Vector, new_low: Matrix, new_high: Matrix, consts: Matrix, lane: int) -> None:
    """Amplitudes with which each of a lane's Hills moves as much as in `old`."""
    n, w = theta.shape[0], new_low.shape[0]
    low, high = old[n : n + w], old[n + w :]
    for i in range(n):
        theta[i, lane] = old[i]
    for i in range(2):
        j, b = 2 * i, old[1 + i]
        if consts[i, lane] > 0:
            e = exp(log1p_exp(b + high[j]) - log1p_exp(b + low[j]))
            theta[1 + i, lane] = matched(e, new_high[j, lane], new_low[j, lane], 0.0, 0.0, b)
        else:
            e = exp(log1p_exp(b + low[j]) - log1p_exp(b + high[j]))
            theta[1 + i, lane] = matched(e, new_low[j, lane], new_high[j, lane], 0.0, 0.0, b)


KERNELS = Kernels(_tables, _ends_compiled, _log_curves, _moves, sum_curvature, _add_prior, nothing_left_out, _match)
CURVE = Curve(
    "additive_hill",
    PARAMS,
    2,
    log_curve,
    slope,
    lattice,
    KERNELS,
    torch_rows,
    torch_prior,
    amplitude_mass,
    moves=MOVES,
    tables=tables,
    log_mean=log_mean,
    amplitudes=amplitudes,
    steps=steps,
    factor=_turn.factor(log_curve, lattice, torch_rows),
    start=START,
    min_dosages=5,
    n_closer=48,
    log_amplitudes=True,
)
