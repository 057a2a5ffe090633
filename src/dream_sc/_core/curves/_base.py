"""What a dose-response curve is: the interface that every curve file fills."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ._compiled import Kernels

    Floats = NDArray[np.float64]

LN2 = 0.6931471805599453


class Step(NamedTuple):
    """One of a curve's steps, in draws ``(T, S)``."""

    log2_ec50: Floats  # where half of the step is done, on the scale of the exponential of the predictor
    n: Floats  # steepness, a Hill coefficient: negative where the step falls with the dosage
    bottom: Floats  # predictor below the step, and above it
    top: Floats
    at: Callable[[Any], Any] | None = None  # log2 dosage where log odds of the step are done; None beside another step


@dataclass(frozen=True)
class Factor:
    """A factor of the prior of a curve, where it competes with simpler ones: small where it says no more than they do.

    `axis` and `priors` are the last two arguments of all; `shapes`, `consts` and `params` as in `Curve`.
    """

    # (): its prior mean
    mass: Callable[..., float]
    # (params (N, P), consts (N, 2)) -> (N,) its log
    log_weight: Callable[..., Any]
    # (log_z (T, S, K), modes (T, S, K, n), covs, shapes (1 or T, S, d), consts): add the log of its mean over the
    # amplitudes, in place
    add_mean: Callable[..., None]
    # (out (T, N), theta (T, N, n), shapes (T, N, d), consts (T, 2)): add its log at each point, in place
    add_each: Callable[..., None]
    # (params, consts) -> (T, 1), for the Pyro models
    torch: Callable[..., Any]
    entries: tuple[Any, ...]  # the compiled functions among these


@dataclass(frozen=True)
class Curve:
    """A dose-response curve in ``x``, log2 dosage relative to NTC.

    Parameters
    ----------
    name
        Public name.
    params
        Names of the parameters, in their order. The first is always ``a``, the natural log of the expected
        count at NTC dosage and size factor 1; then the amplitudes, then the shape: pairs of a log2 EC50 and the log
        of a steepness.
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
    kernels
        The compiled form.
    torch_rows
        ``(params (T, 1) each, at (R, J), weights (R, J), consts (T, 2)) -> (T, R)``: the log of the curve up to its
        level, averaged over the nodes `at`; for the Pyro models.
    torch_prior
        ``(params, axis, priors, consts) -> (T, 1)``: log prior density of the amplitudes given the shape.
    amplitude_mass
        ``(shapes (..., n_shape), consts (..., 2), axis, priors) -> (...)``: integral of that prior; 1 by default.
    moves
        Edges of the movements, in the unit of the priors, that the first pass looks at; None: it is not made.
    signs
        Of these movements.
    tables
        ``(shapes (S, n_shape), consts (S, 2), nodes (D, J), weights (D, J)) -> (S, W, D)``: as the kernels have them.
    log_mean
        ``(amplitudes (S, A), table (S, W, D)) -> (S, D)``: log curve up to its level.
    amplitudes
        ``(axis, shapes (..., n_shape), consts (..., 2), move (..., A)) -> (..., A)``: amplitudes with which a shape
        moves by `move`, natural log; NaN where it cannot.
    steps
        ``(params (T, S, P), consts (T, 2)) -> list[Step]``.
    factor
        Of its prior where simpler curves compete.
    start
        Amplitudes from which the mode is looked for, in the unit of the priors.
    min_dosages
        Distinct dosages that it takes part in the choice "auto" from; None: never.
    n_closer
        Shapes that the kernel looks at, where the first pass leaves a response possible.
    monotone
        Whether its range is between the ends of the axis.
    log_amplitudes
        Whether amplitudes are logs of what has a unit.
    by_degree
        Whether the number of amplitudes is an argument of the fit, `n_amplitudes` being the most.
    by_acting
        Whether all that it knows of a cell is whether a guide acts in it: designs then give it the dosages 1 and 0.
    """

    name: str
    params: tuple[str, ...]
    n_amplitudes: int
    log_curve: Callable[[Any, Any, Any], Any]
    slope: Callable[[Any, Any, Any], Any]
    lattice: Callable[..., tuple[Floats, Floats, Floats]]
    kernels: Kernels
    torch_rows: Callable[..., Any]
    torch_prior: Callable[..., Any]
    amplitude_mass: Callable[..., Any] = lambda shapes, consts, axis, priors: 1.0
    moves: Any = None
    signs: tuple[float, ...] = (1.0,)
    tables: Callable[..., Any] = lambda shapes, consts, nodes, weights: None
    log_mean: Callable[..., Any] = lambda amplitudes, table: None
    amplitudes: Callable[..., Any] = lambda axis, shapes, consts, move: None
    steps: Callable[..., list[Step]] = lambda params, consts: []
    factor: Factor | None = None
    start: float = 0.0
    min_dosages: int | None = None
    n_closer: int = 32
    monotone: bool = False
    log_amplitudes: bool = False
    by_degree: bool = False
    by_acting: bool = False

    @property
    def n_shape(self) -> int:
        """Number of shape parameters."""
        return len(self.params) - 1 - self.n_amplitudes

    def n_free(self, degree: int) -> int:
        """Number of amplitudes of a fit."""
        return degree if self.by_degree else self.n_amplitudes

    @property
    def one_step(self) -> bool:
        """Whether it is a step between two plateaus that the first pass looks at."""
        return self.moves is not None and self.n_amplitudes == 1


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


def moment_mass(upper: Any, scales: Any, weights: Any) -> Any:
    """Mass of the moment mixture ``sum_s w_s D^2/s^2 Normal(D; 0, s)`` on ``0 < D < upper``."""
    import numpy as np
    from scipy.special import erf

    r = np.asarray(upper)[..., None] / np.asarray(scales)
    cdf = 0.5 * erf(r / np.sqrt(2)) - r * np.exp(-0.5 * r**2) / np.sqrt(2 * np.pi)
    return (np.asarray(weights) * cdf).sum(-1)


def shape_log_weight(shapes: Floats, priors: Any) -> Floats:
    """Log prior density of shapes ``(..., n_shape)``, pairs of a log2 EC50 and a log steepness, up to a constant."""
    import numpy as np

    out = np.zeros(shapes.shape[:-1])
    for d in range(0, shapes.shape[-1], 2):
        out += -0.5 * ((shapes[..., d] - priors.ec50_mean) / priors.ec50_sd) ** 2
        out += -0.5 * ((shapes[..., d + 1] - priors.n_log_mean) / priors.n_log_sd) ** 2
    return out


def torch_moment(d: Any, d1: Any, priors: Any, square: bool = True) -> Any:
    """Log density of an amplitude whose movement is `d`, with derivative `d1`, under the moment prior.

    Without the `square` of the movement it is the normal prior that the moment prior is made from.
    """
    import torch

    s2 = d.new_tensor(priors.movement_scales) ** 2
    w = d.new_tensor(priors.movement_weights)
    terms = w.log() - 1.5 * s2.log() - 0.5 * torch.log(2 * s2.new_tensor(torch.pi)) - 0.5 * d[..., None] ** 2 / s2
    return terms.logsumexp(-1) + d1.log() + (2 * d.abs().log() if square else 0.0)
