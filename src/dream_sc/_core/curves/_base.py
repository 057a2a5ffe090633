"""What a dose-response curve is: the interface that every curve file fills."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LN2 = 0.6931471805599453


@dataclass(frozen=True)
class Curve:
    """A dose-response curve in ``x``, log2 dosage relative to NTC.

    Parameters
    ----------
    name, code
        Public name, and the number that stands for it in kernels and posterior records.
    params
        Names of the parameters, in their order. The first is always ``a``, the natural log of the expected
        count at NTC dosage and size factor 1; then the amplitudes, then the shape.
    n_amplitudes
        How many of the parameters, after ``a``, are amplitudes.
    log_curve
        ``(x (..., X), params (..., P), consts (..., 2)) -> (..., X)``: natural log of the expected count.
    slope
        The same signature: derivative of the log of the curve by the log of the dosage (no unit).
    lattice
        ``(axis, priors) -> (shapes (S, n_shape), log weights (S,), consts (S, 2))``: the coarse grid of
        shapes that all features share, with the log prior weights (they include the global normaliser of the
        amplitude prior).
    torch_rows
        ``(params (T, 1) each, at (R, J), weights (R, J), consts (T, 2)) -> (T, R)``: the log of the curve up to its
        level, averaged over the nodes `at`; for the Pyro models.
    torch_prior
        ``(params, axis, priors, consts) -> (T, 1)``: log prior density of the amplitudes given the shape.
    amplitude_mass
        ``(shapes (..., n_shape), consts (..., 2), axis, priors) -> (...)``: integral of that prior; 1 by default.
    """

    name: str
    code: int
    params: tuple[str, ...]
    n_amplitudes: int
    log_curve: Callable[[Any, Any, Any], Any]
    slope: Callable[[Any, Any, Any], Any]
    lattice: Callable[..., tuple[Floats, Floats, Floats]]
    torch_rows: Callable[..., Any]
    torch_prior: Callable[..., Any]
    amplitude_mass: Callable[..., Any] = lambda shapes, consts, axis, priors: 1.0

    @property
    def n_shape(self) -> int:
        """Number of shape parameters."""
        return len(self.params) - 1 - self.n_amplitudes


def sigmoid(z: Floats) -> Floats:
    """Logistic function without overflow."""
    import numpy as np

    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, e) / (1.0 + e)


def softplus(z: Floats) -> Floats:
    """``log(1 + exp(z))`` without overflow."""
    import numpy as np

    # numpy has vector forms of these, not of logaddexp
    return np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0.0)


def torch_hill(rate: Any, k: Any, at: Any, weights: Any) -> tuple[Any, Any]:
    """Log of the mean of ``sigmoid(rate (x - k))`` over nodes, and of its complement."""
    from torch.nn.functional import logsigmoid

    z = rate[..., None] * (at - k[..., None])
    log_w = weights.log()
    return (logsigmoid(z) + log_w).logsumexp(-1), (logsigmoid(-z) + log_w).logsumexp(-1)


def torch_moment(d: Any, d1: Any, priors: Any, square: bool = True) -> Any:
    """Log density of an amplitude whose movement is `d`, with derivative `d1`, under the moment prior.

    Without the `square` of the movement it is the normal prior that the moment prior is made from.
    """
    import torch

    s2 = d.new_tensor(priors.movement_scales) ** 2
    w = d.new_tensor(priors.movement_weights)
    terms = w.log() - 1.5 * s2.log() - 0.5 * torch.log(2 * s2.new_tensor(torch.pi)) - 0.5 * d[..., None] ** 2 / s2
    return terms.logsumexp(-1) + d1.log() + (2 * d.abs().log() if square else 0.0)
