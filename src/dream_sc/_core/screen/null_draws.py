"""Features simulated without response, once for each class of designs: what p-values of all targets compare with.

A simulated feature has the level, the group effects and the guide effects that the NTC guides say a real one has, each
drawn from their posterior, and new counts of targeting guides. They take the road of real features, so that the first
pass is part of the null distribution. It depends on the feature and on the class: which curves compete, and at what
dosages guides act, to 0.4 log2. On the null scale the rest hardly matters, nor which guides a target has.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.response.decision import N_NULL
from dream_sc._core.response.rows import Guides
from dream_sc._core.response.simulated_nulls import by_content

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.learned import Wide
    from dream_sc._core.response.problem import Problem

    from .controls import Controls

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

STEP = 0.4  # log2, of the dosages of a class
ERROR, SPREAD, LEVEL_ERROR = 0.1, 0.2, 0.05  # log2, of them
LEAST_MEAN = 10.0  # counts that NTC guides have of a feature to be simulated


class Rows(NamedTuple):
    """The rows of a usual targeting guide."""

    exposure: Floats  # (R,)
    exposure2: Floats  # (R,)
    group: Ints  # (R,)


Key = tuple[tuple[str, ...], tuple[float, ...]]  # curves and dosages


class NullDraws(NamedTuple):
    """What the evidence of `n` simulated features says."""

    marginal: Floats  # (n, M) log evidence of each curve over that of the null
    sd: Floats  # (n,) how well the movement is known


@dataclass(frozen=True)
class Classes:
    """Null draws of each class of designs, made when they are first asked for."""

    rows: Rows
    seed: int
    found: dict[Key, NullDraws] = field(default_factory=dict)


def guides_like(dosages: Floats) -> Guides:
    """Guides of a class, the controls as one guide at last, for dosages ``(G,)`` of targeting guides, log2."""
    far = np.abs(dosages)
    mean = np.append(np.sort(np.where(dosages > 0, 1.0, -1.0) * (np.floor(far / STEP) + 0.5) * STEP), 0.0)
    mine = np.append(np.ones(len(dosages)), 0.0)
    return Guides(mean, ERROR * mine, SPREAD * mine, 0.0 * mine, mine == 0, level_error=LEVEL_ERROR)


def picked(controls: Controls, seed: int) -> Ints:
    """Features that are simulated, whatever the order in which they come."""
    counts = controls.stats.counts
    some = np.flatnonzero(counts.sum(1) >= LEAST_MEAN)
    some = some if len(some) else np.arange(len(counts))
    order = some[by_content(counts[some])]
    return np.resize(np.random.default_rng(seed).permutation(order), N_NULL)


def simulated(p: Problem, controls: Controls, seed: int, wide: Wide) -> Problem:
    """The problem with new counts of the targeting guides, as without a response; `controls` are of its features.

    `wide` are the wide guide effects, those of each guide where it has its own.
    """
    rng, n, d = np.random.default_rng([seed, 1]), len(p.counts), p.design
    grid, prior = controls.grid, controls.prior
    every = np.repeat(grid[None], n, 0)
    log_tau = controls.background.evidence(every) + prior.log_tau(grid)
    weights = np.exp(log_tau - logsumexp(log_tau, axis=1, keepdims=True))
    tau = grid[(weights.cumsum(1) > rng.random(n)[:, None]).argmax(1)]
    anchor = controls.background.at(tau[:, None])
    mode, root = anchor.mode[:, 0], np.linalg.cholesky(np.linalg.inv(anchor.precision[:, 0]))
    effects = mode + np.einsum("tij,tj->ti", root, rng.normal(size=mode.shape))
    group = np.eye(mode.shape[1])[d.group]
    group[:, 0] = 1.0
    u = rng.normal(size=(n, len(p.targeting)))
    own = wide.departures
    weight, sd = (np.asarray(x) for x in ((wide.weight, wide.sd) if own is None else (own.weight, own.sd)))
    u *= np.sqrt(tau[:, None] ** 2 + (rng.random(u.shape) < weight) * sd**2)
    drawn, _ = p.likelihood.simulate(rng, p.rows, effects @ group.T + p.log_exposure + u[:, p.guide])
    counts = np.where(p.targeting[p.guide], drawn, p.counts)
    return replace(p, counts=counts, level=p.likelihood.level(counts, p.weights, d.log_w))
