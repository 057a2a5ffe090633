"""The flat curve: dosage does nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._base import Curve


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


CURVE = Curve("null", 0, ("a",), 0, log_curve, slope, lattice, torch_rows, torch_prior)
