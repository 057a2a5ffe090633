"""Features simulated without response, alike real ones: what the evidence of real features is compared with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from .joint_departures import pairs_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.problem import Problem

    from .learned import Prior

    Floats = NDArray[np.float64]


def simulate_null(p: Problem, grid: Floats, values: Floats, lfdr: Floats, prior: Prior, n: int, seed: int) -> Problem:
    """Features without response, alike the likely null ones, by `lfdr` ``(T,)``, in all but the dosage."""
    rng = np.random.default_rng(seed)
    likely = np.flatnonzero(lfdr >= min(0.5, np.quantile(lfdr, 0.9)))
    pick = np.resize(rng.permutation(likely[by_content(p.counts[likely])]), n)
    return simulated_alike(p, pick, values[pick, 0], grid, prior, rng)


def by_content(counts: Floats) -> NDArray[np.int64]:
    """Order ``(T,)`` of features that depends on their rows ``(T, R)`` alone, not on the order in which they come."""
    at = np.arange(1.0, counts.shape[1] + 1)
    # of whole counts these sums are exact
    return np.lexsort([(counts * weight).sum(1) for weight in (at**2, at, np.ones_like(at))])


def simulated_alike(
    p: Problem,
    pick: NDArray[np.int64],
    null: Floats,
    grid: Floats,
    prior: Prior,
    rng: np.random.Generator,
) -> Problem:
    """Features without response, each alike one of `pick` with the evidence `null` ``(n, K)`` of no response."""
    q, n = p.take(pick), len(pick)
    log_tau = null + prior.log_tau(grid)
    weights = np.exp(log_tau - logsumexp(log_tau, axis=1, keepdims=True))
    tau = grid[(weights.cumsum(1) > rng.random(n)[:, None]).argmax(1)]
    d = p.design
    u = rng.normal(size=(n, len(d.guide_start) - 1))
    weight, sd = prior.wide.of(q.codes, u.shape[1])
    wide = rng.random(u.shape) < weight
    u *= np.sqrt(tau[:, None] ** 2 + wide * sd**2)
    for pair in pairs_of(q, prior.wide):
        together = rng.random(n) < pair.weight
        u[together, pair.other] = u[together, pair.one] = (
            np.hypot(tau, pair.sd)[together] * rng.normal(size=n)[together]
        )
    if q.shared is not None:
        of_guides = tau[:, None] * rng.normal(size=(n, q.shared.shape[1]))
        u = np.where(q.targeting, of_guides @ q.shared.T, u)
    # the fit takes the coefficients of covariates for known, so that their errors have to be in its null
    true = q if q.covariates is None else replace(q, covariates=q.covariates.drawn(rng.spawn(1)[0]))
    counts, weights = q.likelihood.simulate(rng, q.rows, q.level[:, None] + true.log_exposure + u[:, p.guide])
    level = q.likelihood.level(counts, weights, d.log_w)
    if q.covariates is not None:
        level -= q.covariates.log_total(np.exp(d.log_w))
    return replace(q, counts=counts, weights=weights, level=level, background=None, tau_weight=None)
