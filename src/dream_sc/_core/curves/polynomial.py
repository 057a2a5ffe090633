r"""Polynomial of the standardised log2 dosage ``t`` on the link scale.

:math:`\log f = a + \sum_k c_k (t^k - t_0^k)`.
`consts` holds the centre and the scale of the standardisation, ``t = (x - centre) / scale``, chosen so that
the observed axis becomes ``[-1, 1]``.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import log
from typing import Any

import numpy as np

from dream_sc._core.compiled import Cube, Matrix, Vector, part

from ._base import LN2, Curve
from ._compiled import SQRT_2PI, Kernels, no_curvature, nothing_left_out, same_amplitudes

MAX_DEGREE = 6
PARAMS = ("a", *(f"c{k}" for k in range(1, MAX_DEGREE + 1)))


def _split(params: Any, consts: Any) -> tuple[Any, Any, Any]:
    consts = np.asarray(consts)
    return params[..., 1:], consts[..., 0:1], consts[..., 1:2]


def log_curve(x: Any, params: Any, consts: Any) -> Any:
    """Natural log of the expected count at log2 dosage `x`, shape ``(..., X)``."""
    c, centre, scale = _split(params, consts)
    t, t0 = (x - centre) / scale, (0.0 - centre) / scale
    out = params[..., :1] + np.zeros_like(t)
    for k in range(c.shape[-1]):
        out = out + c[..., k : k + 1] * (t ** (k + 1) - t0 ** (k + 1))
    return out


def slope(x: Any, params: Any, consts: Any) -> Any:
    """Derivative of the log curve by log dosage, shape ``(..., X)``."""
    c, centre, scale = _split(params, consts)
    t = (x - centre) / scale
    out = np.zeros(np.broadcast_shapes(t.shape, params[..., :1].shape))
    for k in range(c.shape[-1]):
        out = out + c[..., k : k + 1] * (k + 1) * t**k / scale / LN2
    return out


def lattice(axis: Any, priors: Any) -> tuple[Any, Any, Any]:
    """One shape: everything is an amplitude."""
    consts = np.array([[(axis.low + axis.high) / 2, max((axis.high - axis.low) / 2, 0.1)]])
    return np.zeros((1, 0)), np.zeros(1), consts


def _degree(params: Any) -> int:
    return sum(f"c{k}" in params for k in range(1, MAX_DEGREE + 1))


def torch_rows(params: Any, at: Any, weights: Any, consts: Any) -> Any:
    """Log curve up to its level ``(T, R)``, averaged over the nodes `at` ``(R, J)``."""
    t = (at - consts[:, 0, None, None]) / consts[:, 1, None, None]
    raw = 0.0 * (params["a"] + at[..., 0])
    for k in range(1, _degree(params) + 1):
        raw = raw + params[f"c{k}"] * (weights * t**k).sum(-1)
    return raw


def torch_prior(params: Any, axis: Any, priors: Any, consts: Any) -> Any:
    """Independent normal coefficients."""
    sd = priors.polynomial_sd
    found = [params[f"c{k}"] for k in range(1, _degree(params) + 1)]
    return sum(-0.5 * (c / sd) ** 2 - np.log(sd * np.sqrt(2 * np.pi)) for c in found)


# ---- compiled; the table of a dosage holds the powers of t -----------------------------------------------------------


@part
def _tables(shapes: Matrix, consts: Matrix, nodes: Matrix, weights: Matrix, out: Cube) -> None:
    """Means of the powers."""
    for d in range(nodes.shape[0]):
        for lane in range(out.shape[2]):
            for k in range(out.shape[1]):
                out[d, k, lane] = 0.0
            for j in range(nodes.shape[1]):
                t = (nodes[d, j] - consts[0, lane]) / consts[1, lane]
                power = 1.0
                for k in range(out.shape[1]):
                    power *= t
                    out[d, k, lane] += weights[d, j] * power


@part
def _ends(shapes: Matrix, consts: Matrix, x: float, out: Matrix) -> None:
    """Powers."""
    for lane in range(out.shape[1]):
        power = 1.0
        for k in range(out.shape[0]):
            power *= (x - consts[0, lane]) / consts[1, lane]
            out[k, lane] = power


@part
def _log_curves(theta: Matrix, n_amp: int, table: Cube, factor: Matrix, out: Matrix, grad: Cube) -> None:
    """Log curve and its gradient."""
    for d in range(out.shape[0]):
        for lane in range(out.shape[1]):
            out[d, lane] = 0.0
        for k in range(n_amp):
            for lane in range(out.shape[1]):
                out[d, lane] += theta[1 + k, lane] * table[d, k, lane]
                grad[d, k, lane] = table[d, k, lane]


@part
def _moves(theta: Matrix, n_amp: int, up: Cube, down: Cube, factor: Matrix, out: Matrix) -> None:
    """Half the difference of the log curve between two tables."""
    for g in range(out.shape[0]):
        for lane in range(out.shape[1]):
            out[g, lane] = 0.0
            for k in range(n_amp):
                out[g, lane] += 0.5 * theta[1 + k, lane] * (up[g, k, lane] - down[g, k, lane])


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
    """Independent normal coefficients."""
    for lane in range(value.size):
        for k in range(n_amp):
            value[lane] += -0.5 * (theta[1 + k, lane] / sd) ** 2 - log(sd * SQRT_2PI)
            grad[1 + k, lane] -= theta[1 + k, lane] / sd**2
            gauss[1 + k, 1 + k, lane] += 1.0 / sd**2


KERNELS = Kernels(_tables, _ends, _log_curves, _moves, no_curvature, _add_prior, nothing_left_out, same_amplitudes)
CURVE = Curve(
    "polynomial",
    PARAMS,
    MAX_DEGREE,
    log_curve,
    slope,
    lattice,
    KERNELS,
    torch_rows,
    torch_prior,
    by_degree=True,
)
