"""Log Bayes factors of many sums at once, in closed form.

Given a curve, the sum of a guide is negative binomial: the overdispersion of its cells and its guide effect both add to
its squared coefficient of variation. The log likelihood ratio of a curve against none is then linear in the sums, and
so are its first two derivatives by the level of the feature. All curves of all draws are three products of matrices;
the level is integrated by Laplace's method.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import gammaln, logsumexp

from dream_sc._core.curves import single_hill
from dream_sc._core.curves._base import moment_mass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import TransPriors
    from dream_sc._core.response.learned import Prior

    from .guide_sums import Design

    Floats = NDArray[np.float64]

MOVES = np.geomspace(0.06, 6.0, 8)  # edges of movements, natural log
EC50_STEP, N_STEEPNESSES = 1.0, 3  # of the lattice of a Hill
LEAST_WEIGHT = 4e-3  # of a value of tau
MOST_STEP = 1.0  # of the level, natural log: a curve that asks for more is out of question
HILL = single_hill.CURVE


@dataclass(frozen=True)
class Curves:
    """Curves that a response may have on a design, each with its prior weight within its model."""

    moves: Floats  # (C, G) natural log, of targeting guides
    log_weight: Floats  # (C,)
    log2_ec50: Floats  # (C,) NaN of a switch

    @cached_property
    def factors(self) -> Floats:
        """The moves as factors."""
        return np.exp(self.moves)

    @cached_property
    def model(self) -> NDArray[np.int64]:
        """Which model each is of ``(C,)``: 0 a switch, 1 a Hill."""
        return np.isfinite(self.log2_ec50).astype(np.int64)


@dataclass(frozen=True)
class Known:
    """What is known of features that are alike, and of all features."""

    design: Design
    mean: float  # counts of a cell at NTC dosage
    overdispersion: float
    prior: Prior  # what the trans step learned, of null, switch and one Hill
    grid: Floats  # (K,) values of tau
    extra: Floats | float = 0.0  # (G + H,) variance of further noise, natural log

    @cached_property
    def log_tau(self) -> Floats:
        """Log prior weights ``(K,)`` of the values of tau."""
        return self.prior.log_tau(self.grid)

    @cached_property
    def taus(self) -> NDArray[np.int64]:
        """The values of tau that matter."""
        return np.flatnonzero(self.log_tau > np.log(LEAST_WEIGHT))

    @cached_property
    def log_model(self) -> Floats:
        """Log prior weights of switch and Hill, given a response."""
        if self.design.one_level:
            return np.array([0.0, -np.inf])
        return np.asarray(np.log(self.prior.weights[1:] / self.prior.weights[1:].sum()))

    def shape(self, k: int) -> Floats:
        """Shape of the negative binomial of each guide ``(G + H,)`` at one value of tau."""
        noise = (1.0 + self.overdispersion**2 * self.design.noise) * np.exp(self.grid[k] ** 2 + self.extra) - 1.0
        return np.asarray(1.0 / noise)


def curves_of(
    design: Design,
    priors: TransPriors,
    *,
    step: float = EC50_STEP,
    n_steepnesses: int = N_STEEPNESSES,
    beyond: float = 0.0,
) -> Curves:
    """The curves of a switch and of one Hill, with movements of either sign.

    `step` (log2) and `n_steepnesses` are those of the lattice of the Hill, `beyond` (log2) is by how much it goes
    further than that of the trans step at either end.
    """
    axis = design.axis
    mass = np.diff(moment_mass(MOVES, priors.movement_scales, priors.movement_weights))
    middle = np.sqrt(MOVES[1:] * MOVES[:-1])
    # the prior of a movement of known sign has its whole mass on that side
    signed = [(sign * d, m) for sign in (1.0, -1.0) for d, m in zip(middle, mass, strict=True)]
    wide = replace(axis, low=axis.low - beyond, high=axis.high + beyond)
    shapes, log_prior, consts = single_hill.lattice(wide, priors, step, n_steepnesses)
    table = HILL.tables(shapes, consts, *design.nodes)
    moves = [np.ones(len(design.dosages)) * np.array([[d] for d, _ in signed])]
    weights, ec50 = [np.log([m for _, m in signed])], [np.full(len(signed), np.nan)]
    for d, m in signed:
        amplitude = HILL.amplitudes(axis, shapes, consts, np.full((len(shapes), 1), d))
        some = np.isfinite(amplitude).all(1)
        log_mean = HILL.log_mean(amplitude[some], table[some])
        moves.append(log_mean[:, :-1] - log_mean[:, -1:])
        weights.append(log_prior[some] + np.log(m))
        ec50.append(shapes[some, 0])
    return Curves(np.concatenate(moves), np.concatenate(weights), np.concatenate(ec50))


def log_bayes_factors(sums: Floats, known: Known, curves: Curves) -> Floats:
    """Log Bayes factor ``(N,)`` of a response against none, for sums ``(N, G + H)`` of features that are alike."""
    at = [_at(sums, known, curves, k) for k in known.taus]
    null = np.stack([at_null for at_null, _ in at])
    response = np.stack([at_null + _log_sum(ratio) for at_null, ratio in at])
    return np.asarray(logsumexp(response, axis=0) - logsumexp(null, axis=0))


def masses(sums: Floats, known: Known, curves: Curves) -> Any:
    """Posterior mass ``(N, C)`` of each curve, up to a factor per feature."""
    every = [(at_null, ratio) for at_null, ratio in (_at(sums, known, curves, k) for k in known.taus)]
    best = np.max([at_null + ratio.max(1) for at_null, ratio in every], axis=0)
    return sum(np.exp(ratio + _single(at_null - best)[:, None]) for at_null, ratio in every)


def _log_sum(ratio: Any) -> Any:
    top = ratio.max(1)
    return top + np.log(np.exp(ratio - top[:, None]).sum(1))


def _at(sums: Floats, known: Known, curves: Curves, k: int) -> tuple[Floats, Any]:
    """Log evidence of the null ``(N,)`` and log Bayes factor of each curve ``(N, C)`` against it, at one tau.

    Prior weights are in both. To second order in the level about the true one, at which a guide has the expectation
    `mean` without a response.
    """
    n_g = curves.moves.shape[1]
    mean, shape = known.mean * known.design.exposure, known.shape(k)
    off = sums - mean  # keeps single precision precise
    fixed = sums @ np.log(mean / (mean + shape)) + (shape * np.log(shape / (mean + shape))).sum()
    fixed += (gammaln(sums + shape) - gammaln(shape)).sum(1)
    targeting, own, own_shape = off[:, :n_g], mean[:n_g], shape[:n_g]
    ntc, ntc_information = _slope(off[:, n_g:], mean[n_g:], mean[n_g:], shape[n_g:])
    slope, information = _slope(targeting, own, own, own_shape)
    null = fixed + _followed(ntc + slope, ntc_information + information)
    moved = own * curves.factors
    spread = np.log((own_shape + moved) / (own_shape + own))
    loading = curves.moves - spread
    constant = loading @ own - spread @ own_shape + curves.log_weight + known.log_model[curves.model]
    slope, information = _slope(_single(targeting), own, moved, own_shape)
    slope += _single(ntc)[:, None]
    information += _single(ntc_information)[:, None]
    ratio = _single(targeting) @ _single(loading).T + _single(constant)
    ratio += _followed(slope, information)
    ratio += _single(fixed - null)[:, None]
    return null + known.log_tau[k], ratio


def _single(values: Floats) -> Any:
    return values.astype(np.float32)


def _slope(off: Any, own: Floats, mean: Floats, shape: Floats) -> tuple[Any, Any]:
    """Derivative by the level at means ``(G,)`` or ``(C, G)``, and minus the second one, in the precision of `off`.

    `off` ``(N, G)`` are sums less `own`. In place of the second derivative its expectation, where that is larger: then
    no step goes beyond the maximum.
    """
    slope = shape / (shape + mean)
    bend = slope * mean / (shape + mean)
    expected = (slope * mean).sum(-1)
    first = off @ slope.astype(off.dtype).T + (slope @ own - expected).astype(off.dtype)
    second = off @ bend.astype(off.dtype).T + (bend @ own + bend @ shape).astype(off.dtype)
    return first, np.maximum(second, expected.astype(off.dtype))


def _followed(slope: Any, information: Any) -> Any:
    """What integrating over the level adds to a log likelihood, up to a constant."""
    step = np.clip(slope / information, -MOST_STEP, MOST_STEP)
    return step * (slope - 0.5 * step * information) - 0.5 * np.log(information)
