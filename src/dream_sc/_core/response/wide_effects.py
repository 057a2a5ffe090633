"""How often guides shift a feature by much: the wide component of the guide effects, learned on NTC guides.

NTC guides tell of guide effects without telling of dosage, so neither responders nor their curves take part.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.parallel import each_block
from dream_sc._core.response.problem import null_evidence

from .learned import Wide, learn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.problem import Problem

    from .learned import Departures

LEAST_GUIDES = 3
MOST_FEATURES, LEAST_FEATURES = 1000, 200
MOST_EFFECTS = 20_000  # pairs of a feature and a guide: enough to tell the tail
LOG_SD_SD = 0.7  # prior sd of the log of the wide sd


def with_wide(p: Problem, weight: float, sd: float, departures: Departures | None = None) -> Problem:
    """The problem with a wide component of the guide effects, that of each guide if known; none at a weight of 0."""
    n = len(p.targeting)
    if weight <= 0:
        return p.with_design(wide_sd=np.zeros((n, 1)), wide_weight=np.ones((n, 1)))
    weights, sds = Wide(weight, sd, departures).of(p.codes, n)
    if p.shared is not None:  # labels have no effects of their own
        sds = np.where(p.targeting, 0.0, sds)
    return p.with_design(wide_sd=np.stack([np.zeros(n), sds], 1), wide_weight=np.stack([1.0 - weights, weights], 1))


def _null_evidence(p: Problem, grid: NDArray[np.float64], s: slice) -> NDArray[np.float64]:
    """Log evidence ``(T, 1, K)`` of the null for some features."""
    q = p.take(s)
    return null_evidence(q, np.repeat(grid[None], len(q.counts), 0))[0][:, None]


def learn_wide(p: Problem, grid: NDArray[np.float64]) -> tuple[float, float]:
    """Weight and sd (natural log) of the wide component.

    Maximises the marginal likelihood of the NTC guides' sums over the values of the prior; tau is learned beside.
    """
    priors = p.priors
    if (~p.targeting).sum() < LEAST_GUIDES:
        return priors.wide_start
    n = min(len(p.counts), max(LEAST_FEATURES, min(MOST_FEATURES, MOST_EFFECTS // int((~p.targeting).sum()))))
    some = np.unique(np.linspace(0, len(p.counts) - 1, n).round().astype(int))
    q = p.take(some).guides(~p.targeting)
    values: dict[tuple[int, int], float] = {}
    # uphill from the start, over a surface with one top
    here = _nearest(priors.wide_weights, priors.wide_start[0]), _nearest(priors.wide_sds, priors.wide_start[1])
    while True:
        around = [
            (i, j)
            for i in range(max(here[0] - 1, 0), min(here[0] + 2, len(priors.wide_weights)))
            for j in range(max(here[1] - 1, 0), min(here[1] + 2, len(priors.wide_sds)))
        ]
        for i, j in around:
            if (i, j) not in values:
                values[i, j] = _value(q, grid, priors.wide_weights[i], priors.wide_sds[j])
        best = max(around, key=values.__getitem__)
        if best == here:
            return priors.wide_weights[here[0]], priors.wide_sds[here[1]]
        here = best


def _nearest(values: tuple[float, ...], wanted: float) -> int:
    return int(np.abs(np.log(np.array(values) / wanted)).argmin())


def _value(q: Problem, grid: NDArray[np.float64], weight: float, sd: float) -> float:
    """Log marginal likelihood of the NTC guides' sums with this tail, and its log prior."""
    priors, tail = q.priors, with_wide(q, weight, sd)
    start_weight, start_sd = priors.wide_start
    log_z = np.concatenate(each_block(partial(_null_evidence, tail, grid), len(q.counts)))
    prior = learn(log_z, grid, priors, n_iter=30)
    value = float(logsumexp(log_z[:, 0] + prior.log_tau(grid), axis=1).sum())
    value += priors.wide_strength * (start_weight * np.log(weight) + (1 - start_weight) * np.log1p(-weight))
    return value - 0.5 * float(np.log(sd / start_sd) / LOG_SD_SD) ** 2
