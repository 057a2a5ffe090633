"""From evidence to calls: prior odds learned over features, the null distribution, lfdr, q and p."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.curves import NULL
from dream_sc._core.parallel import under

from . import null_scale
from .evidence import evaluate
from .graded import FOLLOWS, Graded, described_by, graded_of
from .learned import Prior, learn, restored_wide, stored_departures
from .simulated_nulls import simulate_null

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.parallel import Kept

    from .evidence import Evidence

    Floats = NDArray[np.float64]

N_NULL, N_NULL_OF_SETS = 1000, 300  # simulated features; those whose guides come in sets take longer
MORE_COMPLEX = float(np.log(3.0))
LIKELY_NULL = 0.5  # local FDR above which a feature is called null
LEAST_P = 1e-300
TAIL_STRENGTH = 10.0  # features' worth of weight of an exponential tail of rate 1


def marginals(evidence: Floats, grid: Floats, prior: Prior) -> Floats:
    """Log evidence of each model ``(T, M)``, with tau summed over its prior."""
    return np.asarray(logsumexp(evidence + prior.log_tau(grid), axis=2))


def log_bayes_factor(marginal: Floats, prior: Prior) -> Floats:
    """Log Bayes factor of "responds" (its models mixed by their prior weights) against the null, ``(T,)``."""
    w = np.log(prior.weights[1:] / prior.weights[1:].sum())
    return np.asarray(logsumexp(marginal[:, 1:] + w, axis=1) - marginal[:, 0])


def local_fdr(log_bf: Floats, prior: Prior) -> Floats:
    """``P(null | data)`` of each feature."""
    odds = log_bf + np.log1p(-prior.weights[0]) - np.log(prior.weights[0])
    return np.asarray(np.exp(-np.logaddexp(0.0, odds)))


def q_values(lfdr: Floats) -> Floats:
    """Running mean of the sorted local FDR: expected share of false calls among all features as good.

    That of a feature that rather does not respond is at least its own local FDR, see `none_unlikely`.
    """
    order = np.argsort(lfdr, kind="stable")
    running = np.cumsum(lfdr[order]) / np.arange(1, len(lfdr) + 1)
    out = np.empty_like(lfdr)
    # ties share the largest value of their group
    last = np.searchsorted(lfdr[order], lfdr[order], side="right") - 1
    out[order] = running[last]
    return none_unlikely(out, lfdr)


def none_unlikely(q: Floats, lfdr: Floats) -> Floats:
    """Q-values by which no feature is called that is more probably a null than a response.

    A running mean alone lets clear responses carry features that say nothing over any false discovery rate. Above
    0.5 the q-value is at least the local FDR, which no running mean exceeds. So it stays monotone in the local FDR;
    fewer are called, the best of those that the mean alone would call, and their mean local FDR is smaller.
    """
    return np.where(lfdr > LIKELY_NULL, np.maximum(q, lfdr), q)


def _q_of(some: NDArray[np.bool_] | None, lfdr: Floats) -> Floats:
    """Q-values among some features, or all, NaN of the others."""
    if some is None:
        return q_values(lfdr)
    out = np.full(len(lfdr), np.nan)
    out[some] = q_values(lfdr[some])
    return out


@dataclass(frozen=True)
class NullDistribution:
    """A statistic of simulated null features: the body by ranks, the tail by an exponential."""

    body: Floats  # sorted
    threshold: float
    rate: float

    def p_value(self, statistic: Floats) -> Floats:
        """Upper-tail probability under the null, at least 1e-300."""
        n = len(self.body)
        above = n - np.searchsorted(self.body, statistic, side="left")
        p = (above + 1.0) / (n + 1.0)
        share = (self.body > self.threshold).mean()
        tail = share * np.exp(-self.rate * np.maximum(statistic - self.threshold, 0.0))
        out = np.where(statistic > self.threshold, tail, p)
        return np.asarray(np.clip(out, LEAST_P, 1.0))


def null_distribution(
    statistic: Floats,
    tail: float = 0.05,
    *,
    strength: float = TAIL_STRENGTH,
    rates: tuple[float, float] = (0.5, np.inf),
) -> NullDistribution:
    """Fit the null distribution: an exponential tail above the ``1 - tail`` quantile.

    Its rate is shrunk to 1, with the weight of `strength` features, and kept within `rates`. At 1 falls the tail of
    half a squared normal variable, and that of minus the log of a p-value.
    """
    body = np.sort(statistic[np.isfinite(statistic)])
    threshold = float(np.quantile(body, 1 - tail))
    if threshold >= body[-1]:  # ties at the top are the tail: one of no share would give p-values of 0
        threshold = float(np.nextafter(threshold, -np.inf))
    excess = body[body > threshold] - threshold
    rate = (len(excess) + strength) / (excess.sum() + strength)
    return NullDistribution(body, threshold, float(np.clip(rate, *rates)))


@dataclass(frozen=True)
class Decision:
    """Which of `T` features respond, and what was learned over them to tell."""

    evidence: Evidence
    prior: Prior
    null: NullDistribution  # of the strength of simulated features without response
    log_bf: Floats  # (T,) natural log, of a response against none
    lfdr: Floats  # (T,) probability of no response
    q_value: Floats  # (T,) false discovery rate of this feature and all better ones; NaN of direct targets
    p_value: Floats  # (T,) against simulated null features
    graded: Graded  # whether the response follows the dosage
    q_graded: Floats  # (T,) of that
    best: NDArray[np.int64]  # (T,) index of the curve to describe a response by
    model: NDArray[np.str_]  # (T,) its name, or the null where that is likelier
    learned: dict[str, Any]  # prior and null distribution, as they are stored

    @property
    def likely(self) -> NDArray[np.bool_]:
        """Which features rather respond than not."""
        return self.log_bf + self.prior.log_odds > 0

    def take(self, features: Any) -> Decision:
        """That of some features."""
        per_feature = ("log_bf", "lfdr", "q_value", "p_value", "q_graded", "best", "model")
        some = {name: getattr(self, name)[features] for name in per_feature}
        some["graded"] = Graded(self.graded.log_bf[features], self.graded.lfdr[features])
        return replace(self, evidence=self.evidence.take(features), **some)


def decide(evidence: Evidence, *, progress: Callable[[Any], Any] = lambda x: x, kept: Kept | None = None) -> Decision:
    """Learn the prior and the null distribution, or take them from an earlier fit, and say which features respond."""
    e = evidence
    if e.settings.learned is None:
        some = e.learning
        prior = learn(some.values, e.comparison.grid, e.problem.priors, wide=e.wide)
        null = _null_of(some, prior, progress=progress, kept=under(kept, "simulated"))
    else:
        prior, null = known(e)
    return conclude(e, prior, null, marginals(e.values, e.comparison.grid, prior), strength(e, prior))


def conclude(evidence: Evidence, prior: Prior, null: NullDistribution, marginal: Floats, strength: Floats) -> Decision:
    """Calls of all features, given the log evidence ``(T, M)`` of each curve and its strength ``(T,)``."""
    curves, log_bf = evidence.comparison.curves, log_bayes_factor(marginal, prior)
    names, lfdr, graded = [c.name for c in curves], local_fdr(log_bf, prior), graded_of(marginal, prior, curves)
    # a feature that follows the dosage responds
    q_value = _q_of(evidence.learns, lfdr)
    q_graded = np.maximum(_q_of(evidence.learns, graded.lfdr), q_value)
    no_switch = np.where([c.by_acting for c in curves], -np.inf, 0.0)
    best = described_by(
        simplest(marginal, prior),
        simplest(marginal + no_switch, prior),
        curves,
        called=q_value < FOLLOWS,
        follows=q_graded < FOLLOWS,
    )
    return Decision(
        evidence=evidence,
        prior=prior,
        null=null,
        log_bf=log_bf,
        lfdr=lfdr,
        q_value=q_value,
        p_value=null.p_value(strength),
        graded=graded,
        q_graded=q_graded,
        best=best,
        model=np.where(lfdr > LIKELY_NULL, NULL.name, np.array(names)[best]),
        learned=store(prior, null) | {"curves": names},
    )


def known(evidence: Evidence) -> tuple[Prior, NullDistribution]:
    """What an earlier fit learned, where that is to be used."""
    learned = dict(evidence.settings.learned or {})
    check_curves(learned, evidence.comparison.curves)
    prior, null = restore(learned)
    return (prior if evidence.settings.guide_effects else prior.without_wide()), null


def _null_of(e: Evidence, prior: Prior, *, progress: Callable[[Any], Any], kept: Kept | None) -> NullDistribution:
    """Distribution of the strength of features simulated without response."""
    lfdr = local_fdr(log_bf_of(e, prior), prior)
    n = N_NULL if e.problem.shared is None else N_NULL_OF_SETS
    sim = simulate_null(e.problem, e.comparison.grid, e.values, lfdr, prior, n, e.settings.seed)
    return null_distribution(strength(evaluate(sim, e.settings, prior.wide, progress=progress, kept=kept), prior))


def log_bf_of(e: Evidence, prior: Prior) -> Floats:
    """Log Bayes factor ``(T,)`` of a response under this prior."""
    return log_bayes_factor(marginals(e.values, e.comparison.grid, prior), prior)


def strength(e: Evidence, prior: Prior) -> Floats:
    """Strength ``(T,)`` of the evidence, which null features are compared by."""
    p = e.problem.seen_by(e.comparison.curves[-1])  # a switch that is alone moves with no dosage
    known = null_scale.movement_sd(p, e.values, e.comparison.grid, prior)
    return null_scale.strength(log_bf_of(e, prior), known, e.problem.priors)


def simplest(marginal: Floats, prior: Prior) -> NDArray[np.int64]:
    """Index ``(T,)`` of the curve to describe a response by: a more complex one has to be three times as probable."""
    joint = marginal[:, 1:] + np.log(prior.weights[1:])
    best = np.zeros(len(joint), dtype=np.int64)
    for m in range(1, joint.shape[1]):
        best = np.where(joint[:, m] > joint[np.arange(len(joint)), best] + MORE_COMPLEX, m, best)
    return 1 + best


def check_curves(hyper: dict[str, Any], curves: list[Curve]) -> None:
    have, want = [str(name) for name in hyper["curves"]], [c.name for c in curves]
    if have != want:
        raise ValueError(f"hyper= is of a fit that compared {have}, but this one compares {want}: leave it out")


def store(prior: Prior, null: NullDistribution) -> dict[str, Any]:
    return {
        "model_weights": prior.weights.tolist(),
        "tau_log_mean": prior.tau_log_mean,
        "tau_log_sd": prior.tau_log_sd,
        "wide_weight": prior.wide_weight,
        "wide_sd": prior.wide_sd,
        "null_strength": null.body,
        "null_threshold": null.threshold,
        "null_rate": null.rate,
    } | stored_departures(prior.departures)


def restore(hyper: dict[str, Any]) -> tuple[Prior, NullDistribution]:
    """What a fit has learned, from how it is stored."""
    prior = Prior(
        np.asarray(hyper["model_weights"], float),
        float(hyper["tau_log_mean"]),
        float(hyper["tau_log_sd"]),
        *restored_wide(hyper),
    )
    null = NullDistribution(
        np.asarray(hyper["null_strength"]), float(hyper["null_threshold"]), float(hyper["null_rate"])
    )
    return prior, null
