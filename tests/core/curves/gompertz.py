r"""A Gompertz step: :math:`f \propto 1 + (F - 1) h(x)`, :math:`h = 2^{-\exp(-n (x - k) / 2)}`.

It leaves its low plateau abruptly and nears its high one slowly. Half of the step is done at the EC50 `k`, where the
slope is that of a Hill with the coefficient `n`.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, expm1, log
from typing import Any

import numpy as np

from dream_sc._core.compiled import Cube, Matrix, inline, part

from . import _one_step
from ._base import LN2, Curve, Step, sigmoid, softplus
from ._compiled import LEAST
from .single_hill import MOVES, lattice_of

PARAMS = ("a", "b", "log2_ec50", "log_n")
FARTHEST = 600.0  # argument of an exponential that is a number


def _logs(x: Any, k: Any, n: Any) -> tuple[Any, Any]:
    """Logs of ``h`` and ``1 - h``."""
    log_h = -LN2 * np.exp(np.clip(-0.5 * n * (x - k), -FARTHEST, FARTHEST))
    return log_h, np.log(-np.expm1(log_h))


def _raw(x: Any, params: Any) -> Any:
    b, k, n = params[..., 1:2], params[..., 2:3], np.exp(params[..., 3:4])
    log_h, log_c = _logs(x, k, n)
    return log_c + softplus(b + log_h - log_c)


def log_curve(x: Any, params: Any, consts: Any = None) -> Any:
    """Natural log of the expected count at log2 dosage `x`, shape ``(..., X)``."""
    return params[..., :1] + _raw(x, params) - _raw(0.0, params)


def slope(x: Any, params: Any, consts: Any = None) -> Any:
    """Derivative of the log curve by log dosage, shape ``(..., X)``."""
    b, k, n = params[..., 1:2], params[..., 2:3], np.exp(params[..., 3:4])
    log_h, log_c = _logs(x, k, n)
    by_log_h = sigmoid(b + log_h - log_c) - sigmoid(log_c - log_h - b) * np.exp(log_h - log_c)
    return -log_h * 0.5 * n / LN2 * by_log_h


def _ends(axis: Any, shapes: Any) -> tuple[Any, Any, Any, Any]:
    (low, low_c), (high, high_c) = (_logs(x, shapes[..., 0], np.exp(shapes[..., 1])) for x in (axis.low, axis.high))
    return low, low_c, high, high_c


def amplitude_mass(shapes: Any, consts: Any, axis: Any, priors: Any) -> Any:
    """Mass of the movements that shapes ``(..., 2)`` can make."""
    return _one_step.mass_of(_ends(axis, shapes), priors)


def lattice(axis: Any, priors: Any) -> tuple[Any, Any, Any]:
    """The grid of a Hill."""
    return lattice_of(amplitude_mass, axis, priors)


def tables(shapes: Any, consts: Any, nodes: Any, weights: Any) -> Any:
    """``h`` and ``1 - h`` ``(S, 2, D)``, averaged over nodes ``(D, J)``."""
    logs = _logs(nodes, shapes[:, 0, None, None], np.exp(shapes[:, 1, None, None]))
    return np.stack([(weights * np.exp(each)).sum(-1) for each in logs], 1)


def amplitudes(axis: Any, shapes: Any, consts: Any, move: Any) -> Any:
    """Amplitudes ``(..., 1)`` with which shapes ``(..., 2)`` move by `move`; NaN where they cannot."""
    return _one_step.amplitude_of(_ends(axis, shapes), move[..., 0])[..., None]


def steps(params: Any, consts: Any) -> list[Step]:
    """Its one step."""
    b, k, n = params[..., 1], params[..., 2], np.exp(params[..., 3])
    low = params[..., 0] - _raw(0.0, params)[..., 0]

    def at(logit: Any) -> Any:
        return k - 2.0 / n * np.log(softplus(-logit) / LN2)

    return [Step(k, np.sign(b) * n, low, low + b, at)]


def _torch_logs(params: Any, at: Any) -> tuple[Any, Any]:
    n, k = params["log_n"].exp(), params["log2_ec50"]
    log_h = -LN2 * (-0.5 * n * (at - k)).clamp(-FARTHEST, FARTHEST).exp()
    return log_h, (-log_h.expm1()).log()


def torch_rows(params: Any, at: Any, weights: Any, consts: Any) -> Any:
    """Log curve up to its level ``(T, R)``, averaged over the nodes `at` ``(R, J)``."""
    import torch

    every = {name: value[..., None] for name, value in params.items()}
    log_h, log_c = ((each + weights.log()).logsumexp(-1) for each in _torch_logs(every, at))
    return torch.logaddexp(params["b"] + log_h, log_c)


def torch_prior(params: Any, axis: Any, priors: Any, consts: Any) -> Any:
    """Moment prior on the movement between the two ends of the axis."""
    ends = (*_torch_logs(params, axis.low), *_torch_logs(params, axis.high))
    return _one_step.torch_prior(params["b"], ends, priors)


@inline
def _log_h(x: float, k: float, n: float) -> float:
    return -LN2 * exp(min(max(-0.5 * n * (x - k), -FARTHEST), FARTHEST))


@part
def _tables(shapes: Matrix, consts: Matrix, nodes: Matrix, weights: Matrix, out: Cube) -> None:
    for lane in range(out.shape[2]):
        k, n = shapes[0, lane], exp(shapes[1, lane])
        for d in range(nodes.shape[0]):
            out[d, 0, lane], out[d, 1, lane] = LEAST, LEAST
            for j in range(nodes.shape[1]):
                log_h = _log_h(nodes[d, j], k, n)
                out[d, 0, lane] += weights[d, j] * exp(log_h)
                out[d, 1, lane] -= weights[d, j] * expm1(log_h)


@part
def _ends_compiled(shapes: Matrix, consts: Matrix, x: float, out: Matrix) -> None:
    for lane in range(out.shape[1]):
        log_h = _log_h(x, shapes[0, lane], exp(shapes[1, lane]))
        out[0, lane], out[1, lane] = log_h, log(-expm1(log_h))


CURVE = Curve(
    "gompertz",
    PARAMS,
    1,
    log_curve,
    slope,
    lattice,
    _one_step.kernels(_tables, _ends_compiled),
    torch_rows,
    torch_prior,
    amplitude_mass,
    moves=MOVES,
    signs=(1.0, -1.0),
    tables=tables,
    log_mean=_one_step.log_mean,
    amplitudes=amplitudes,
    steps=steps,
    monotone=True,
)
