"""What is learned over features: the weights of the models and the prior of the guide effects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from dream_sc._core.priors import TransPriors

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LEAST_DENSITY = 1e-300
TAU_SDS = (0.3, 3.0)  # of log tau, least and largest
MOST_STEP = 2.0  # of a natural parameter


@dataclass(frozen=True)
class Departures:
    """Wide effects of each of the `G` guides of the cis step: those of guides in general, or its own.

    A guide that goes with a partner has, in a share `together` of features, the same wide effect as the partner.
    """

    weight: Floats  # (G,) of the wide component
    sd: Floats  # (G,) natural log
    share: Floats  # (G,) of features in which an effect is wide; NaN where there are no cells
    partner: Ints  # (G,) the guide that it goes with, -1 for none
    together: Floats  # (G,) 0 without a partner
    own: NDArray[np.bool_]  # (G,) guides with wide effects of their own

    def beside(self, general: Wide) -> Departures:
        """The same beside other effects of guides in general."""
        weight, sd = np.where(self.own, self.weight, general.weight), np.where(self.own, self.sd, general.sd)
        return replace(self, weight=weight, sd=sd)


class Wide(NamedTuple):
    """The wide component of the guide effects: in general, and of each guide where that was learned."""

    weight: float
    sd: float
    departures: Departures | None = None

    def of(self, codes: Ints | None, n: int) -> tuple[Floats, Floats]:
        """Weight and sd ``(n,)`` of the guides with these codes; of guides in general without codes."""
        if self.departures is None or codes is None:
            return np.full(n, self.weight), np.full(n, self.sd)
        return self.departures.weight[codes], self.departures.sd[codes]


@dataclass(frozen=True)
class Prior:
    """What is learned over features: weights of the models and the prior of the guide effects.

    An effect has sd tau, which is log-normal over features; with probability `wide_weight` also `wide_sd`.
    """

    weights: Floats  # (M,) null first
    tau_log_mean: float
    tau_log_sd: float
    wide_weight: float = 0.0
    wide_sd: float = 0.3
    departures: Departures | None = None  # wide effects of each guide, where they were learned

    @classmethod
    def start(cls, priors: TransPriors) -> Prior:
        """The prior of tau before anything is learned, of the null alone."""
        return cls(np.ones(1), priors.tau_log_mean, priors.tau_log_sd)

    @property
    def wide(self) -> Wide:
        """The wide effects."""
        return Wide(self.wide_weight, self.wide_sd, self.departures)

    def without_wide(self) -> Prior:
        """The same without wide effects."""
        return replace(self, wide_weight=0.0, departures=None)

    @property
    def log_odds(self) -> float:
        """Prior log odds of a response."""
        return float(np.log1p(-self.weights[0]) - np.log(self.weights[0]))

    def log_tau(self, grid: Floats) -> Floats:
        """Log prior weights of the grid of tau."""
        z = (np.log(grid) - self.tau_log_mean) / self.tau_log_sd
        return np.asarray(-0.5 * z**2 - logsumexp(-0.5 * z**2))

    def log_density(self, tau: Floats) -> Floats:
        """Log prior density of log tau, up to a constant."""
        return np.asarray(-0.5 * ((np.log(tau) - self.tau_log_mean) / self.tau_log_sd) ** 2)


# how departures are stored: an entry of each guide
OF_GUIDES = ("guide_wide_weight", "guide_wide_sd", "guide_departs", "guide_partner", "guide_together")


def stored_departures(found: Departures | None) -> dict[str, list[float]]:
    """Departures as lists, for the guides of the cis step in their order; nothing where there are none."""
    if found is None:
        return {}
    values = (found.weight, found.sd, found.share, found.partner.astype(float), found.together)
    return {name: value.tolist() for name, value in zip(OF_GUIDES, values, strict=True)}


def restored_wide(hyper: Mapping[str, Any]) -> Wide:
    """Wide effects from how they are stored."""
    general = Wide(float(hyper["wide_weight"]), float(hyper["wide_sd"]))
    if not all(name in hyper for name in OF_GUIDES):
        return general
    weight, sd, share, partner, together = (np.asarray(hyper[name], float) for name in OF_GUIDES)
    own = (weight != general.weight) | (sd != general.sd)
    return general._replace(departures=Departures(weight, sd, share, partner.astype(np.int64), together, own))


def learn(
    evidence: Floats,
    grid: Floats,
    priors: TransPriors,
    *,
    wide: tuple[float, float] | Wide = (0.0, 0.3),
    start: Floats | None = None,
    among: float | None = None,
    n_iter: int = 500,
) -> Prior:
    """Learn the prior by EM over features.

    Parameters
    ----------
    evidence
        ``(T, M, K)`` log evidence of each model at each tau; ``-inf`` where a model was not tried.
    grid
        ``(K,)`` sd of the guide effects.
    wide
        Weight and sd of the wide component, which the evidence took for given.
    start
        ``(M,)`` weights of the models; by default that of the null in `priors`, the rest shared out evenly.
    among
        Features that respond which the start counts as, for the shares of the other models among these. A few that
        respond tell little of the shares, and one that goes a little better with a model would make the next likelier.

    The start counts as `tau_strength` and `model_strength` features, so nothing collapses with few features.
    """
    n_models = evidence.shape[1]
    if start is None:
        start = np.full(n_models, (1 - priors.null_weight) / max(n_models - 1, 1))
        start[0] = priors.null_weight if n_models > 1 else 1.0
    prior = Prior(start, priors.tau_log_mean, priors.tau_log_sd, *wide)
    if not len(evidence):
        return prior
    log_grid, before = np.log(grid), priors.tau_strength * np.exp(prior.log_tau(grid))
    likelihood = np.exp(evidence - evidence.max(axis=(1, 2), keepdims=True)).reshape(len(evidence), -1)
    for _ in range(n_iter):
        mass = (prior.weights[:, None] * np.exp(prior.log_tau(grid))).ravel()
        joint = (mass * ((1.0 / (likelihood @ mass + LEAST_DENSITY)) @ likelihood)).reshape(n_models, -1)
        weights = joint.sum(1) + priors.model_strength * start
        if among is not None:
            shares = joint[1:].sum(1) + among * start[1:] / start[1:].sum()
            weights[1:] = weights[1:].sum() * shares / shares.sum()
        mean, sd = _normal_on(log_grid, joint.sum(0) + before, prior.tau_log_mean, prior.tau_log_sd)
        new = Prior(weights / weights.sum(), mean, sd, *wide)
        change = max(np.abs(new.weights - prior.weights).max(), abs(new.tau_log_mean - prior.tau_log_mean))
        prior = new
        if change < 1e-7:
            break
    return prior


def _normal_on(x: Floats, mass: Floats, mean: float, sd: float) -> tuple[float, float]:
    """Mean and sd of the normal density whose values at the points `x` are likeliest to give their `mass`.

    Where points are further apart than the sd, its moments are not those of the mass. The mean is kept among the
    points, the outer ones half a step away at least, and the sd within `TAU_SDS`.
    """
    if len(x) < 2:
        return mean, sd
    p, centre = mass / mass.sum(), float(mass @ x / mass.sum())
    z, b = x - centre, -0.5 / sd**2
    found = _natural(np.stack([z, z**2]), p, np.array([-2 * b * (mean - centre), b]))
    sd = float((-0.5 / found[1]) ** 0.5)
    mean = centre + float(found[0]) * sd**2
    low, high = (x[0] + x[1]) / 2, (x[-2] + x[-1]) / 2
    if low <= mean <= high:
        return mean, sd
    edge = float(low if mean < low else high)
    found = _natural((x - edge)[None] ** 2, p, np.array([b]))
    return edge, float((-0.5 / found[0]) ** 0.5)


def _natural(statistics: Floats, p: Floats, start: Floats) -> Floats:
    """Natural parameters at which the expected `statistics` ``(D, K)`` are those under `p`, by Newton's method.

    The last one, that of a square, is kept where the sd is within `TAU_SDS`.
    """
    low, high = (-0.5 / s**2 for s in TAU_SDS)
    at, target = start.copy(), statistics @ p
    at[-1] = min(max(at[-1], low), high)
    for _ in range(50):
        log_q = at @ statistics
        q = np.exp(log_q - log_q.max())
        q /= q.sum()
        expected = statistics @ q
        gap = target - expected
        cov = (statistics * q) @ statistics.T - np.outer(expected, expected)
        cov[np.diag_indices(len(cov))] += 1e-9
        step = np.linalg.solve(cov, gap)
        if (at[-1] <= low and step[-1] < 0) or (at[-1] >= high and step[-1] > 0):
            step = np.append(gap[:-1] / np.diag(cov)[:-1], 0.0)  # of the others alone, of which there is one
        step *= min(1.0, MOST_STEP / max(np.abs(step).max(), 1e-12))
        at += step
        at[-1] = min(max(at[-1], low), high)
        if np.abs(step).max() < 1e-6:
            break
    return at
