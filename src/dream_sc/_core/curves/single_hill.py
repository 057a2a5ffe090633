r"""One Hill: :math:`f \propto 1 + (F - 1) h(x)`, :math:`h = \sigma(n (\ln x - \ln K))`, :math:`n > 0`.

With ``z = n ln2 (x - log2 K)`` and ``b = ln F`` the log of the curve is ``softplus(b + z) - softplus(z)``:
stable for any steepness, and its derivative by ``b`` is ``sigmoid(b + z)``. The level ``a`` is the log of
the curve at NTC dosage.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numpy as np

from dream_sc._core.compiled import Cube, Matrix, part

from . import _hill, _one_step
from ._base import LN2, Curve, Step, shape_log_weight, sigmoid

PARAMS = ("a", "b", "log2_ec50", "log_n")
LARGEST = 600.0  # log amplitude of which the exponential is a number
MOVES = np.geomspace(0.03, 6.0, 18)  # edges of the movements of the first pass: below 0.03 no response can be told


def log_curve(x: Any, params: Any, consts: Any = None) -> Any:
    """Natural log of the expected count at log2 dosage `x`, shape ``(..., X)``."""
    a, b, k, log_n = (params[..., i : i + 1] for i in range(4))
    rate, factor = LN2 * np.exp(log_n), np.exp(np.clip(b, -LARGEST, LARGEST))

    def raw(y: Any) -> Any:
        # softplus(b + z) - softplus(z) with one exponential and one logarithm
        z = rate * (y - k)
        u = np.exp(-np.abs(z))
        return np.log(np.where(z <= 0, 1.0 + factor * u, u + factor) / (1.0 + u))

    return a + raw(x) - raw(0.0)


def slope(x: Any, params: Any, consts: Any = None) -> Any:
    """Derivative of the log curve by log dosage, shape ``(..., X)``."""
    _, b, k, log_n = (params[..., i : i + 1] for i in range(4))
    n = np.exp(log_n)
    z = LN2 * n * (x - k)
    return n * (sigmoid(b + z) - sigmoid(z))


def lattice(axis: Any, priors: Any, step: float = 0.5, n_points: int = 6) -> tuple[Any, Any, Any]:
    """Grid over (log2 EC50, log n) from 2.5 log2 below to 2.5 log2 above the observed axis."""
    return lattice_of(amplitude_mass, axis, priors, step, n_points)


def lattice_of(
    amplitude_mass: Any, axis: Any, priors: Any, step: float = 0.5, n_points: int = 6
) -> tuple[Any, Any, Any]:
    """The grid of a curve whose shapes are a log2 EC50 and a log steepness, given the mass of its amplitudes."""
    low, high = axis.bottom - 2.5, axis.high + 2.5
    k = np.linspace(low, high, int(np.ceil((high - low) / step)) + 1)
    log_n = np.linspace(np.log(0.4), np.log(10.0), n_points)
    shapes = np.stack(np.meshgrid(k, log_n, indexing="ij"), -1).reshape(-1, 2)
    log_w, consts = shape_log_weight(shapes, priors), np.zeros((len(shapes), 2))
    return shapes, log_w - np.log((np.exp(log_w) * amplitude_mass(shapes, consts, axis, priors)).sum()), consts


def _ends(axis: Any, shapes: Any) -> tuple[Any, Any, Any, Any]:
    """Logs of the Hill value and of its complement at the low and the high end of the axis."""
    rate, k = _hill.rates(shapes[..., 1]), shapes[..., 0]
    return (*_hill.log_values(rate, k, axis.low), *_hill.log_values(rate, k, axis.high))


def amplitude_mass(shapes: Any, consts: Any, axis: Any, priors: Any) -> Any:
    """Integral of the prior of the amplitude given shapes ``(..., 2)``: the mass of the movements they can make."""
    return _one_step.mass_of(_ends(axis, shapes), priors)


def tables(shapes: Any, consts: Any, nodes: Any, weights: Any) -> Any:
    """Hill values and complements ``(S, 2, D)``, averaged over nodes ``(D, J)``."""
    return np.stack(_hill.means(_hill.rates(shapes[:, 1]), shapes[:, 0], nodes, weights), 1)


def amplitudes(axis: Any, shapes: Any, consts: Any, move: Any) -> Any:
    """Amplitudes ``(..., 1)`` with which shapes ``(..., 2)`` move by `move`; NaN where they cannot."""
    return _one_step.amplitude_of(_ends(axis, shapes), move[..., 0])[..., None]


def from_ntc_to_low(b: Any, k: Any, n: Any) -> Any:
    """Predictor at the lowest dosages less that at NTC dosage."""
    z = -LN2 * n * k
    return np.asarray(np.logaddexp(0.0, z) - np.logaddexp(0.0, b + z))


def steps(params: Any, consts: Any) -> list[Step]:
    """Its one step."""
    a, b, k, n = params[..., 0], params[..., 1], params[..., 2], np.exp(params[..., 3])
    low = a + from_ntc_to_low(b, k, n)

    def at(logit: Any) -> Any:
        return k + logit / (n * LN2)

    return [Step(k, np.sign(b) * n, low, low + b, at)]


# ---- torch -----------------------------------------------------------------------------------------------------------


def torch_rows(params: Any, at: Any, weights: Any, consts: Any) -> Any:
    """Log curve up to its level ``(T, R)``, averaged over the nodes `at` ``(R, J)``."""
    import torch

    log_h, log_c = _hill.torch_log_means(LN2 * params["log_n"].exp(), params["log2_ec50"], at, weights)
    return torch.logaddexp(params["b"] + log_h, log_c)


def _torch_ends(params: Any, axis: Any) -> tuple[Any, Any, Any, Any]:
    rate, k = LN2 * params["log_n"].exp(), params["log2_ec50"]
    return (*_hill.torch_log_values(rate, k, axis.low), *_hill.torch_log_values(rate, k, axis.high))


def torch_movement(params: Any, axis: Any) -> tuple[Any, Any]:
    """Movement between the two ends of the observed axis, and its derivative by the amplitude, ``(T, 1)``."""
    return _one_step.torch_movement(params["b"], _torch_ends(params, axis))


def torch_prior(params: Any, axis: Any, priors: Any, consts: Any) -> Any:
    """Moment prior on the movement between the two ends of the observed axis, either way."""
    return _one_step.torch_prior(params["b"], _torch_ends(params, axis), priors)


def torch_log_mass(params: Any, axis: Any, priors: Any) -> Any:
    """Log of `amplitude_mass`, ``(T, 1)``."""
    return _one_step.torch_log_mass(_torch_ends(params, axis), priors)


# ---- compiled --------------------------------------------------------------------------------------------------------


@part
def _tables(shapes: Matrix, consts: Matrix, nodes: Matrix, weights: Matrix, out: Cube) -> None:
    """Means of the Hill value and of its complement."""
    _hill.fill_means(0, np.ones(out.shape[2]), shapes, nodes, weights, out)


@part
def _ends_compiled(shapes: Matrix, consts: Matrix, x: float, out: Matrix) -> None:
    """Logs of the Hill value and of its complement."""
    _hill.fill_logs(0, np.ones(out.shape[1]), shapes, x, out)


CURVE = Curve(
    "single_hill",
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
    min_dosages=1,
    monotone=True,
)
