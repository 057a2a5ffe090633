r"""Features with several categories: chains of binomials ("sticks") that share the shape of their dose-response.

Each stick moves or does not, with even odds; of a feature that responds at least one does. Given the shape `s`, sticks
are independent, so that the evidence of a feature is

.. math::

    B = \frac{\sum_s \pi(s) \prod_k (1 + B_k(s)) / 2 - 2^{-K}}{1 - 2^{-K}}

over the Bayes factors :math:`B_k(s)` of its `K` sticks. With one stick it is the evidence of a binomial.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_softmax, logsumexp

from dream_sc._core.blocks import under
from dream_sc._core.response import decision, guide_support
from dream_sc._core.response.evidence import Comparison, Found
from dream_sc._core.response.fit import (
    N_NULL,
    Options,
    by_content,
    check_curves,
    evaluate,
    restore,
    set_up,
    simplest,
    simulated_alike,
    store,
)
from dream_sc._core.response.null_scale import strength
from dream_sc._core.response.problem import Problem
from dream_sc._core.response.problem import problem as problem_of
from dream_sc._core.response.wide_effects import learn_tail

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.blocks import Kept
    from dream_sc._core.curves import Curve
    from dream_sc._core.priors import TransPriors
    from dream_sc._core.response.evidence import Lattice
    from dream_sc._core.types import Axis, GuideStats, RowDosage

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LOG_2 = float(np.log(2.0))
AUTO = "single_hill"
NO_PRIOR = -30.0  # log prior of a shape that cannot move anything


@dataclass(frozen=True)
class Chains:
    """Which sticks make which feature: sticks of one follow each other."""

    start: Ints  # (F,) first stick of each feature
    length: Ints  # (F,)

    @classmethod
    def of(cls, feature: Ints) -> Chains:
        """From the feature of each stick, sorted."""
        _, start, length = np.unique(feature, return_index=True, return_counts=True)
        return cls(start, length)

    def sticks(self, features: Ints) -> tuple[Ints, Chains]:
        """The sticks of some features, one feature after another, and the chains that they make."""
        length = self.length[features]
        start = np.concatenate([[0], np.cumsum(length)[:-1]]).astype(np.int64)
        within = np.arange(length.sum()) - np.repeat(start, length)
        return np.repeat(self.start[features], length) + within, Chains(start, length)

    def sum(self, values: Floats) -> Floats:
        """Sums over the sticks of each feature."""
        return np.asarray(np.add.reduceat(values, self.start, axis=0))


def shape_prior(c: Curve, lattice: Lattice, p: Problem) -> Floats:
    """Log prior probability of each shape of the lattice, its amplitudes integrated."""
    mass = np.broadcast_to(c.amplitude_mass(lattice.shapes, lattice.consts, p.axis, p.priors), len(lattice.shapes))
    return np.asarray(log_softmax(lattice.log_weight + np.log(np.maximum(mass, 1e-300))))


def together(log_bf: Floats, chains: Chains) -> Floats:
    """Log Bayes factor ``(F, ...)`` of whole chains, given those ``(S, ...)`` of their sticks at the same shapes."""
    total = chains.sum(np.logaddexp(0.0, log_bf) - LOG_2)
    none = -LOG_2 * chains.length.reshape(-1, *[1] * (log_bf.ndim - 1))
    return np.asarray(total + np.log(-np.expm1(np.minimum(none - total, -1e-12))) - np.log(-np.expm1(none)))


@dataclass(frozen=True)
class ChainEvidence:
    """What the evidence of the sticks says of chains."""

    problem: Problem  # of the sticks
    comparison: Comparison
    found: Found  # of the sticks
    chains: Chains
    prior: decision.Prior  # of tau, learned on sticks; its weights are of the curves of whole chains
    by_shape: tuple[Floats, ...]  # (S, n shapes) log Bayes factor of each stick, for each curve
    marginal: Floats  # (F, M) log evidence of each curve relative to the null's

    @property
    def log_bf(self) -> Floats:
        """``(F,)`` log Bayes factor of a response."""
        return decision.log_bayes_factor(self.marginal, self.prior)

    @property
    def strength(self) -> Floats:
        """``(F,)`` what null features are compared by."""
        sd = guide_support.movement_sd(self.problem, self.found.values, self.comparison.grid, self._sticks_prior)
        known = 1.0 / np.sqrt(self.chains.sum(1.0 / sd**2))
        return strength(self.log_bf, known, self.problem.priors)

    @property
    def _sticks_prior(self) -> decision.Prior:
        n = self.found.values.shape[1]
        return replace(self.prior, weights=np.append(0.5, np.full(n - 1, 0.5 / (n - 1))))

    def posterior(self, m: int, features: Ints) -> Floats:
        """Log posterior ``(F', n shapes)`` of the shapes of curve `m` for some features, given that they respond."""
        sticks, part = self.chains.sticks(features)
        curve = self.comparison.curves[m]
        log_prior = shape_prior(curve, self.comparison.lattices[curve.name], self.problem)
        return np.asarray(log_softmax(log_prior + together(self.by_shape[m - 1][sticks], part), axis=1))


def chain_evidence(p: Problem, c: Comparison, found: Found, chains: Chains, prior: decision.Prior) -> ChainEvidence:
    """Put the evidence of sticks together; the weights of `prior` are learned where they are of the null alone."""
    log_tau = prior.log_tau(c.grid)
    null = logsumexp(found.values[:, 0] + log_tau, axis=1)
    marginal, by_shape = [np.zeros(len(chains.start))], []
    for m, curve in enumerate(c.curves[1:], 1):
        log_prior = shape_prior(curve, c.lattices[curve.name], p)
        total = logsumexp(found.values[:, m] + log_tau, axis=1) - null
        share = log_softmax(found.masses[m - 1].astype(float), axis=1)
        by_shape.append(np.where(log_prior > NO_PRIOR, total[:, None] + share - log_prior, 0.0))
        marginal.append(logsumexp(log_prior + together(by_shape[-1], chains), axis=1))
    every = np.stack(marginal, 1)
    if len(prior.weights) == 1:
        prior = replace(prior, weights=decision.learn(every[:, :, None], np.ones(1), p.priors).weights)
    return ChainEvidence(p, c, found, chains, prior, tuple(by_shape), every)


@dataclass(frozen=True)
class ChainFit:
    """Evidence and calls of features with categories."""

    evidence: ChainEvidence
    best: Ints  # (F,) curve to describe a response by
    columns: dict[str, NDArray[np.generic]]  # each (F,)
    hyper: dict[str, Any]


def fit(
    stats: GuideStats,
    dosage: RowDosage,
    overdispersion: Floats,
    feature: Ints,
    *,
    axis: Axis,
    priors: TransPriors,
    alpha_sd: float,
    options: Options,
    hyper: dict[str, Any] | None = None,
    progress: Callable[[Any], Any] = lambda x: x,
    kept: Kept | None = None,
) -> ChainFit:
    """Evidence of every feature.

    Parameters
    ----------
    stats, overdispersion
        Of the sticks, those of a feature one after another.
    feature
        ``(S,)`` of each stick, sorted.

    The rest is as in `trans.fit`, but that "auto" stands for one Hill: how much two of them turn is no matter of a
    single stick.
    """
    options = replace(options, function_type=AUTO) if options.function_type == "auto" else options
    chains = Chains.of(feature)
    p = problem_of(stats, dosage, overdispersion, alpha_sd=alpha_sd, axis=axis, priors=priors)
    if not options.guide_effects:
        tail = (0.0, 0.0)
    elif hyper is None:
        tail = learn_tail(p, np.array(priors.tau_grid))
    else:
        tail = float(hyper["wide_weight"]), float(hyper["wide_sd"])
    p, c = set_up(p, options, tail, kept)
    found = evaluate(p, c, progress, kept)
    if hyper is None:
        on_sticks = decision.learn(found.values, c.grid, priors, tail=tail)
        e = chain_evidence(p, c, found, chains, replace(on_sticks, weights=np.ones(1)))
        null = _null_distribution(e, options, progress, under(kept, "null"))
    else:
        check_curves(hyper, c.curves)
        prior, null = restore(hyper)
        e = chain_evidence(p, c, found, chains, prior if options.guide_effects else replace(prior, wide_weight=0.0))
    lfdr, best = decision.local_fdr(e.log_bf, e.prior), simplest(e.marginal, e.prior)
    columns: dict[str, Any] = {
        "lfdr": lfdr,
        "qvalue": decision.q_values(lfdr),
        "pvalue": null.p_value(e.strength),
        "log_bf": e.log_bf,
        "model": np.where(lfdr > 0.5, "null", np.array([curve.name for curve in c.curves])[best]),
    }
    learned = store(e.prior, null) | {"curves": [curve.name for curve in c.curves]}
    return ChainFit(e, best, columns, learned)


def _null_distribution(
    e: ChainEvidence, options: Options, progress: Callable[[Any], Any], kept: Kept | None
) -> decision.NullDistribution:
    """Of the strength of features simulated without response, alike the likely null ones, chain by chain."""
    rng = np.random.default_rng(options.seed)
    lfdr = decision.local_fdr(e.log_bf, e.prior)
    likely = np.flatnonzero(lfdr >= min(0.5, np.quantile(lfdr, 0.9)))
    likely = likely[by_content(e.chains.sum(e.problem.counts)[likely])]
    sticks, chains = e.chains.sticks(np.resize(rng.permutation(likely), N_NULL))
    sim = simulated_alike(e.problem, sticks, e.found.values[sticks, 0], e.comparison.grid, e.prior, rng)
    sim, c = set_up(sim, options, (e.prior.wide_weight, e.prior.wide_sd), kept)
    found = evaluate(sim, c, progress, kept)
    return decision.null_distribution(chain_evidence(sim, c, found, chains, e.prior).strength)
