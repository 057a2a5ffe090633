r"""A switch: :math:`f \propto 1 + (F - 1) h`, `h` being 1 in cells in which a guide acts and 0 in all others.

The acting guides share one level, whatever their dosages. Designs give this curve the dosage 1 where a cell acts and 0
elsewhere, controls and cells without effect among them; the movement from 0 to 1 is the amplitude ``b = ln F``.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numpy as np

from dream_sc._core.compiled import Cube, Matrix, part

from . import _one_step
from ._base import Curve, torch_moment
from ._compiled import LEAST
from .single_hill import LARGEST, MOVES

PARAMS = ("a", "b")
BETWEEN = 0.5  # a cell acts above it
FAR = 200.0  # minus the log of what h and 1 - h are where they are 0: beyond any amplitude


def _acts(x: Any) -> Any:
    return np.asarray(np.asarray(x, dtype=float) > BETWEEN, dtype=float)


def log_curve(x: Any, params: Any, consts: Any = None) -> Any:
    """Natural log of the expected count where cells act (`x` of 1) and where they do not (0), shape ``(..., X)``."""
    return params[..., :1] + params[..., 1:2] * _acts(x)


def slope(x: Any, params: Any, consts: Any = None) -> Any:
    """Derivative by log dosage: zero, there is no dosage."""
    return np.zeros(np.broadcast_shapes(np.shape(x), params[..., :1].shape))


def lattice(axis: Any, priors: Any) -> tuple[Any, Any, Any]:
    """One shape without parameters."""
    return np.zeros((1, 0)), np.zeros(1), np.zeros((1, 2))


def tables(shapes: Any, consts: Any, nodes: Any, weights: Any) -> Any:
    """Shares of acting and of other cells ``(S, 2, D)``, over nodes ``(D, J)``."""
    h = _acts(nodes)
    one = np.stack([(weights * h).sum(-1), (weights * (1.0 - h)).sum(-1)])
    return np.repeat(one[None], len(shapes), 0)


def amplitudes(axis: Any, shapes: Any, consts: Any, move: Any) -> Any:
    """The movement is the amplitude; NaN of one whose exponential is no number."""
    return np.where(np.abs(move) < LARGEST, move, np.nan)


# ---- torch -----------------------------------------------------------------------------------------------------------


def torch_rows(params: Any, at: Any, weights: Any, consts: Any) -> Any:
    """Log curve up to its level ``(T, R)``, averaged over the nodes `at` ``(R, J)``."""
    import torch

    h = (at > BETWEEN).to(weights.dtype) + 0.0 * at
    log_h, log_c = ((weights * each).sum(-1).clamp_min(LEAST).log() for each in (h, 1.0 - h))
    return torch.logaddexp(params["b"] + log_h, log_c)


def torch_prior(params: Any, axis: Any, priors: Any, consts: Any) -> Any:
    """Moment prior on the movement, either way."""
    import torch

    return torch_moment(params["b"], torch.ones_like(params["b"]), priors)


# ---- compiled --------------------------------------------------------------------------------------------------------


@part
def _tables(shapes: Matrix, consts: Matrix, nodes: Matrix, weights: Matrix, out: Cube) -> None:
    """Shares of acting and of other cells."""
    for d in range(nodes.shape[0]):
        h, c = LEAST, LEAST
        for j in range(nodes.shape[1]):
            if nodes[d, j] > BETWEEN:
                h += weights[d, j]
            else:
                c += weights[d, j]
        for lane in range(out.shape[2]):
            out[d, 0, lane], out[d, 1, lane] = h, c


@part
def _ends(shapes: Matrix, consts: Matrix, x: float, out: Matrix) -> None:
    """Logs of these at one end of the axis."""
    for lane in range(out.shape[1]):
        out[0, lane] = 0.0 if x > BETWEEN else -FAR
        out[1, lane] = -FAR if x > BETWEEN else 0.0


CURVE = Curve(
    "switch",
    PARAMS,
    1,
    log_curve,
    slope,
    lattice,
    _one_step.kernels(_tables, _ends),
    torch_rows,
    torch_prior,
    moves=MOVES,
    signs=(1.0, -1.0),
    tables=tables,
    log_mean=_one_step.log_mean,
    amplitudes=amplitudes,
    min_dosages=1,
    monotone=True,
    by_acting=True,
)
