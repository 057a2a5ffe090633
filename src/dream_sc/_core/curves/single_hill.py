r"""One Hill: :math:`f \propto 1 + (F - 1) h(x)`, :math:`h = \sigma(n (\ln x - \ln K))`, :math:`n > 0`.

With ``z = n ln2 (x - log2 K)`` and ``b = ln F`` the log of the curve is ``softplus(b + z) - softplus(z)``:
stable for any steepness, and its derivative by ``b`` is ``sigmoid(b + z)``. The level ``a`` is the log of
the curve at NTC dosage.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import erf

from ._base import LN2, Curve, sigmoid, softplus, torch_hill, torch_moment

PARAMS = ("a", "b", "log2_ec50", "log_n")
LARGEST = 600.0  # log amplitude of which the exponential is a number


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


def moment_mass(upper: Any, scales: Any, weights: Any) -> Any:
    """Mass of the moment mixture ``sum_s w_s D^2/s^2 Normal(D; 0, s)`` on ``0 < D < upper``."""
    r = np.asarray(upper)[..., None] / np.asarray(scales)
    cdf = 0.5 * erf(r / np.sqrt(2)) - r * np.exp(-0.5 * r**2) / np.sqrt(2 * np.pi)
    return (np.asarray(weights) * cdf).sum(-1)


def reachable(z_low: Any, z_high: Any) -> tuple[Any, Any]:
    """Largest fall and largest rise (positive natural logs) of a shape between the ends of the axis."""
    rise = softplus(-z_low) - softplus(-z_high)
    fall = softplus(z_high) - softplus(z_low)
    return fall, rise


def lattice(axis: Any, priors: Any, step: float = 0.5, n_points: int = 6) -> tuple[Any, Any, Any]:
    """Grid over (log2 EC50, log n) from 2.5 log2 below to 2.5 log2 above the observed axis."""
    k = np.linspace(axis.low - 2.5, axis.high + 2.5, int(np.ceil((axis.high - axis.low + 5.0) / step)) + 1)
    log_n = np.linspace(np.log(0.4), np.log(10.0), n_points)
    shapes = np.stack(np.meshgrid(k, log_n, indexing="ij"), -1).reshape(-1, 2)
    log_w = (
        -0.5 * (shapes[:, 0] / priors.ec50_sd) ** 2 - 0.5 * ((shapes[:, 1] - priors.n_log_mean) / priors.n_log_sd) ** 2
    )
    consts = np.zeros((len(shapes), 2))
    return shapes, log_w - np.log((np.exp(log_w) * amplitude_mass(shapes, consts, axis, priors)).sum()), consts


def amplitude_mass(shapes: Any, consts: Any, axis: Any, priors: Any) -> Any:
    """Integral of the prior of the amplitude given shapes ``(..., 2)``: the mass of the movements they can make."""
    rate = LN2 * np.exp(shapes[..., 1])
    ends = reachable(rate * (axis.low - shapes[..., 0]), rate * (axis.high - shapes[..., 0]))
    return sum(moment_mass(d, priors.movement_scales, priors.movement_weights) for d in ends)


def torch_rows(params: Any, at: Any, weights: Any, consts: Any) -> Any:
    """Log curve up to its level ``(T, R)``, averaged over the nodes `at` ``(R, J)``."""
    import torch

    log_h, log_c = torch_hill(LN2 * params["log_n"].exp(), params["log2_ec50"], at, weights)
    return torch.logaddexp(params["b"] + log_h, log_c)


def torch_movement(params: Any, axis: Any) -> tuple[Any, Any]:
    """Movement between the two ends of the observed axis, and its derivative by the amplitude, ``(T, 1)``."""
    from torch.nn.functional import softplus as sp

    rate, b = LN2 * params["log_n"].exp(), params["b"]
    zl, zh = (rate * (end - params["log2_ec50"]) for end in (axis.low, axis.high))
    # sigmoid(b + zh) - sigmoid(b + zl) without cancellation
    return sp(b + zh) - sp(zh) - sp(b + zl) + sp(zl), (b + zh).sigmoid() * (-b - zl).sigmoid() * -(zl - zh).expm1()


def torch_prior(params: Any, axis: Any, priors: Any, consts: Any) -> Any:
    """Moment prior on the movement between the two ends of the observed axis, either way."""
    return torch_moment(*torch_movement(params, axis), priors)


def torch_log_mass(params: Any, axis: Any, priors: Any) -> Any:
    """Log of `amplitude_mass`, ``(T, 1)``."""
    from torch.nn.functional import softplus as sp

    rate = LN2 * params["log_n"].exp()
    zl, zh = (rate * (end - params["log2_ec50"]) for end in (axis.low, axis.high))
    scales, weights = zl.new_tensor(priors.movement_scales), zl.new_tensor(priors.movement_weights)
    mass: Any = 0.0
    for reach in (sp(zh) - sp(zl), sp(-zl) - sp(-zh)):
        r = reach[..., None] / scales
        cdf = 0.5 * (r / 2**0.5).erf() - r * (-0.5 * r**2).exp() / (2 * np.pi) ** 0.5
        mass = mass + (weights * cdf).sum(-1)
    return mass.clamp_min(1e-300).log()


CURVE = Curve("single_hill", 1, PARAMS, 1, log_curve, slope, lattice, torch_rows, torch_prior, amplitude_mass)
