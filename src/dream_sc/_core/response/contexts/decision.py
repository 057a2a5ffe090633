"""Which features answer a question with yes: hypotheses weighted by what features say, local FDR, q- and p-values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp, softmax

from dream_sc._core.parallel import blocks, each_block
from dream_sc._core.response.decision import null_distribution, q_values
from dream_sc._core.response.learned import Prior, learn

from .dosage_errors import with_learned_dosages
from .evidence import DIFFERENCE
from .measured import levels_of
from .pair_likelihood import Curves, log_likelihood
from .simulated_nulls import Nulls, Usual, simulate_same

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .evidence import Evidence, Posterior
    from .measured import Levels, Measured
    from .question import Question

    Floats = NDArray[np.float64]

TAUS = np.geomspace(0.02, 0.5, 5)  # sd of the guide effects, natural log
RHOS, USUAL_RHO = (0.1, 0.3, 0.5, 0.7, 0.9), 0.5
LEAST_FOR_RHO, MOST_FOR_RHO = 30, 500  # features without a response
N_NULL = 400  # simulated features
LEAST_INFORMATION = 1e-6
N_ALIKE = 2  # first hypotheses, in which contexts do not differ: no response, and equal ones


@dataclass(frozen=True)
class Decision:
    """What was learned, and of `T` features which differ between contexts, or have what else is asked."""

    values: Floats  # (T, H, K) log evidence of the hypotheses
    grid: Floats  # (K,) sd of the guide effects
    rho: float  # share of the variance of guide effects that the contexts have in common
    prior: Prior  # of the hypotheses, and of that sd
    probability: Floats  # (T, H) of the hypotheses
    log_bf: Floats  # (T,) natural log, yes against no
    lfdr: Floats  # (T,) probability of no
    lfdr_differs: Floats  # (T,) probability that no context differs
    q_value: Floats  # (T,) of yes
    q_differs: Floats  # (T,) of any difference
    p_value: Floats  # (T,) against features simulated without a difference; NaN where none were


@dataclass(frozen=True)
class Block:
    """Evidence of a block of features with what it came from."""

    levels: Levels
    evidence: Evidence


def gather(
    measured: Measured,
    question: Question,
    grid: Floats,
    rho: float,
    *,
    progress: Callable[[object], object] = lambda x: x,
    with_draws: bool = True,
) -> list[Block]:
    """Evidence of all features, block by block; what was drawn is left out where it is not needed."""

    def call(s: slice) -> Block:
        levels = levels_of(measured.take(s), grid, rho)
        evidence = question.ask(measured.shapes, levels, grid, rho)
        return Block(levels.without_tables(), evidence if with_draws else replace(evidence, posteriors={}))

    return each_block(call, len(measured.sums[0].overdispersion), progress)


def values_of(blocks: list[Block]) -> Floats:
    """Log evidence ``(T, H, K)``."""
    return np.concatenate([b.evidence.values for b in blocks])


def learn_rho(measured: Measured, grid: Floats) -> float:
    """Share of the variance of guide effects that is common, likeliest over features without a response.

    A half where too few features tell.
    """
    from .lattice_draws import lattice_evidence

    n = len(measured.sums[0].overdispersion)
    some = np.unique(np.linspace(0, n - 1, min(n, 2 * MOST_FOR_RHO)).astype(int))
    log_tau = Prior.start(measured.priors).log_tau(grid)
    found, n_still = np.log([4 * rho * (1 - rho) for rho in RHOS]), 0
    for s in blocks(len(some)):
        levels = levels_of(measured.take(some[s]), grid, USUAL_RHO)
        best = lattice_evidence(measured.shapes, levels.tables)[:, 1:].max(1)
        still = np.flatnonzero(best < 0)[: MOST_FOR_RHO - n_still]
        pair, n_still = levels.pair.take(still), n_still + len(still)
        flat = Curves.flat(len(still), pair.n_targeting, len(pair.dosages))
        found += [logsumexp(log_likelihood(pair, flat, grid, rho)[:, 0] + log_tau, axis=1).sum() for rho in RHOS]
        if n_still == MOST_FOR_RHO:
            break
    return RHOS[int(np.argmax(found))] if n_still >= LEAST_FOR_RHO else USUAL_RHO


def decide(
    measured: Measured,
    question: Question = DIFFERENCE,
    *,
    seed: int = 0,
    n_null: int = N_NULL,
    learns: NDArray[np.bool_] | None = None,
    progress: Callable[[object], object] = lambda x: x,
) -> tuple[Decision, list[Block]]:
    """Learn over features, and answer a question of each; do two contexts differ, if no other is given.

    Parameters
    ----------
    seed
        Of the simulated features, of which there are `n_null`; without them there are no p-values.
    learns
        ``(T,)`` features that something is learned from; the others have no q-value. All by default.
    """
    grid, n = measured.priors.unit * TAUS, len(measured.sums[0].overdispersion)
    some = np.ones(n, dtype=bool) if learns is None or not learns.any() else learns
    rho = learn_rho(measured.take(some), grid)
    measured = with_learned_dosages(measured, question, some, grid, rho)
    found = gather(measured, question, grid, rho, progress=progress)
    values = values_of(found)
    prior = learn(values[some], grid, measured.priors, start=question.start, among=question.among)
    probability = probabilities(values, grid, prior)
    lfdr, alike = probability[:, ~question.yes].sum(1), probability[:, :N_ALIKE].sum(1)
    log_bf = log_bf_of(values, grid, prior, question.yes)
    p_value, q = np.full(n, np.nan), np.full((2, n), np.nan)
    for row, each in zip(q, (lfdr, alike), strict=True):
        row[some] = q_values(each[some])
    if n_null:
        simulated = simulate_same(
            measured, found, grid, rho, prior, probability, n=n_null, seed=seed, few_respond=question.few_respond
        )
        of_null = gather(simulated.measured, question, grid, rho, progress=progress, with_draws=False)
        known = [change_sd(measured, blocks, question.places, grid, prior) for blocks in (of_null, found)]
        beside = 1 if question.few_respond else 0
        of_change = [log_bf_of(each, grid, prior, question.yes, beside) for each in (values_of(of_null), values)]
        null = Nulls(of_change[0], known[0])
        p_value = p_values(of_change[1], known[1], probability, null, simulated.responds)
    return Decision(values, grid, rho, prior, probability, log_bf, lfdr, alike, q[0], q[1], p_value), found


def p_values(log_bf: Floats, sd: Floats, probability: Floats, nulls: Nulls, responds: NDArray[np.bool_]) -> Floats:
    """Upper-tail probability ``(T,)`` of a log Bayes factor among simulated features without a difference.

    It is that among features that respond in all contexts alike, or in none, as a feature likely is: a feature with a
    response can tell a difference by chance, one without it hardly can. `sd` ``(T,)`` is how well each is known.
    """
    share = probability[:, 1] / np.maximum(probability[:, :N_ALIKE].sum(1), 1e-300)
    out: Floats = np.zeros(len(log_bf))
    for some, weight in ((~responds, 1 - share), (responds, share)) if responds.any() else ((~responds, 1.0),):
        usual = Usual.of(nulls.take(some))
        out = out + weight * null_distribution(usual.left_out).p_value(usual.less(log_bf, sd))
    return out


def change_sd(measured: Measured, blocks: list[Block], places: Floats, grid: Floats, prior: Prior) -> Floats:
    """How well a feature tells a change of its movement over the axis ``(T,)``, as of responses linear in dosage.

    The change is linear along the places ``(C,)`` of the contexts, over a range of 1: of two contexts a difference.
    """
    span, out = measured.axis.high - measured.axis.low, []
    for block in blocks:
        pair, values = block.levels.pair, block.evidence.values
        joint = values + prior.log_tau(grid) + np.log(prior.weights)[:, None]
        tau = np.exp(softmax(joint, axis=(1, 2)).sum(1) @ np.log(grid))
        precision = np.empty(pair.mean.shape[:2])
        for c, dosages in enumerate(pair.dosages):
            x = np.zeros(pair.mean.shape[2])
            x[: pair.n_targeting] = (dosages.at * dosages.weight).sum(1)
            w = 1.0 / (pair.variance[:, c] + tau[:, None] ** 2)
            information = w @ x**2 - (w @ x) ** 2 / w.sum(1)
            precision[:, c] = np.maximum(information, LEAST_INFORMATION / measured.priors.unit**2) / span**2
        centre = precision @ places / precision.sum(1)
        out.append((precision * (places - centre[:, None]) ** 2).sum(1) ** -0.5)
    return np.concatenate(out)


def probabilities(values: Floats, grid: Floats, prior: Prior) -> Floats:
    """Probability ``(T, H)`` of each hypothesis."""
    joint = logsumexp(values + prior.log_tau(grid), axis=2) + np.log(prior.weights)
    return np.asarray(np.exp(joint - logsumexp(joint, axis=1, keepdims=True)))


def log_bf_of(values: Floats, grid: Floats, prior: Prior, of: NDArray[np.bool_], beside: int = 0) -> Floats:
    """Log Bayes factor ``(T,)`` of some hypotheses against the others, mixed by their weights.

    Those before the number `beside` are left out. Without the first one, no response, evidence of a change does not
    grow with that of a response: a weak one is neither like none nor like a clear one.
    """
    joint = logsumexp(values + prior.log_tau(grid), axis=2) + np.log(prior.weights)
    no = ~of & (np.arange(len(of)) >= beside)
    each = [logsumexp(joint[:, w], axis=1) - np.log(prior.weights[w].sum()) for w in (of, no)]
    return np.asarray(each[0] - each[1])


def weights_over(posterior: Posterior, log_tau: Floats) -> Floats:
    """Weights ``(T, D)`` of draws, with the sd of the guide effects summed out."""
    total = logsumexp(posterior.log_weight + log_tau, axis=2)
    return np.asarray(np.exp(total - logsumexp(total, axis=1, keepdims=True)))
