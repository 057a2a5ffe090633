"""The flat curve: dosage does nothing."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numpy as np

from dream_sc._core.compiled import Cube, Matrix, Vector, part

from ._base import Curve
from ._compiled import Kernels, no_curvature, nothing_left_out, same_amplitudes


def log_curve(x: Any, params: Any, consts: Any = None) -> Any:
    """Natural log of the expected count at log2 dosage `x`: the constant ``a``."""
    return np.broadcast_to(params[..., :1], np.broadcast_shapes(np.shape(x), params[..., :1].shape)).copy()


def slope(x: Any, params: Any, consts: Any = None) -> Any:
    """Derivative of the log curve by log dosage: zero."""
    return np.zeros(np.broadcast_shapes(np.shape(x), params[..., :1].shape))


def lattice(axis: Any, priors: Any) -> tuple[Any, Any, Any]:
    """One shape without parameters."""
    return np.zeros((1, 0)), np.zeros(1), np.zeros((1, 2))


def torch_rows(params: Any, at: Any, weights: Any, consts: Any) -> Any:
    """Zero."""
    return 0.0 * (params["a"] + at[..., 0])


def torch_prior(params: Any, axis: Any, priors: Any, consts: Any) -> Any:
    """There is no amplitude."""
    return 0.0 * params["a"]


@part
def _tables(shapes: Matrix, consts: Matrix, nodes: Matrix, weights: Matrix, out: Cube) -> None:
    """Nothing to tabulate."""


@part
def _ends(shapes: Matrix, consts: Matrix, x: float, out: Matrix) -> None:
    """Nothing to tabulate."""


@part
def _log_curves(theta: Matrix, n_amp: int, table: Cube, factor: Matrix, out: Matrix, grad: Cube) -> None:
    """Zero everywhere."""
    for d in range(out.shape[0]):
        for lane in range(out.shape[1]):
            out[d, lane] = 0.0


@part
def _moves(theta: Matrix, n_amp: int, up: Cube, down: Cube, factor: Matrix, out: Matrix) -> None:
    """No move."""
    for g in range(out.shape[0]):
        for lane in range(out.shape[1]):
            out[g, lane] = 0.0


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
    """There is no amplitude."""


KERNELS = Kernels(_tables, _ends, _log_curves, _moves, no_curvature, _add_prior, nothing_left_out, same_amplitudes)
CURVE = Curve("null", ("a",), 0, log_curve, slope, lattice, KERNELS, torch_rows, torch_prior)
