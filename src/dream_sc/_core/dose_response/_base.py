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
    """

    name: str
    code: int
    params: tuple[str, ...]
    n_amplitudes: int
    log_curve: Callable[[Any, Any, Any], Any]
    slope: Callable[[Any, Any, Any], Any]
    lattice: Callable[..., tuple[Floats, Floats, Floats]]

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

    return np.logaddexp(0.0, z)
