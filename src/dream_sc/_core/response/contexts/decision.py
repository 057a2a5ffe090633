"""Which features respond differently: weights of the hypotheses learned over features, local FDR, q- and p-values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp, softmax

from dream_sc._core.parallel import blocks, each_block
from dream_sc._core.response.decision import null_distribution, q_values
from dream_sc._core.response.learned import Prior, learn

from .dosage_errors import with_learned_dosages
from .evidence import Evidence, Posterior, evidence
from .hypotheses import DIFFERS, START
from .measured import levels_of
from .pair_likelihood import Curves, log_likelihood
from .simulated_nulls import Nulls, Usual, simulate_same

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .measured import Levels, Measured

    Floats = NDArray[np.float64]

TAUS = np.geomspace(0.02, 0.5, 5)  # sd of the guide effects, natural log
RHOS, USUAL_RHO = (0.1, 0.3, 0.5, 0.7, 0.9), 0.5
LEAST_FOR_RHO, MOST_FOR_RHO = 30, 500  # features without a response
N_NULL = 400  # simulated features
LEAST_INFORMATION = 1e-6


@dataclass(frozen=True)
class Decision:
    """What was learned, and of `T` features which respond differently."""

    values: Floats  # (T, H, K) log evidence of the hypotheses
    grid: Floats  # (K,) sd of the guide effects
    rho: float  # share of the variance of guide effects that the contexts have in common
    prior: Prior  # of the hypotheses, and of that sd
    probability: Floats  # (T, H) of the hypotheses
    log_bf: Floats  # (T,) natural log, a difference against none
    lfdr: Floats  # (T,) probability of no difference
    q_value: Floats  # (T,)
    p_value: Floats  # (T,) against features simulated without difference; NaN where none were


@dataclass(frozen=True)
class Block:
    """Evidence of a block of features with what it came from."""

    levels: Levels
    evidence: Evidence


def gather(
    measured: Measured, grid: Floats, rho: float, *, progress: Callable[[object], object] = lambda x: x
) -> list[Block]:
    """Evidence of all features, block by block."""

    def call(s: slice) -> Block:
        part = measured.take(s)
        levels = levels_of(part, grid, rho)
        found = evidence(measured.shapes, levels.pair, grid, rho, levels.tables, levels.start)
        return Block(levels.without_tables(), found)

    return each_block(call, len(measured.sums[0].overdispersion), progress)


def values_of(blocks: list[Block]) -> Floats:
    """Log evidence ``(T, H, K)``."""
    return np.concatenate([b.evidence.values for b in blocks])


def learn_rho(measured: Measured, grid: Floats) -> float:
    """Share of the variance of guide effects that is common, likeliest over features without a response.

    A half where too few features tell.
    """
    from .lattice_draws import first_look

    n = len(measured.sums[0].overdispersion)
    some = np.unique(np.linspace(0, n - 1, min(n, 2 * MOST_FOR_RHO)).astype(int))
    log_tau = Prior.start(measured.priors).log_tau(grid)
    found, n_still = np.log([4 * rho * (1 - rho) for rho in RHOS]), 0
    for s in blocks(len(some)):
        levels = levels_of(measured.take(some[s]), grid, USUAL_RHO)
        still = np.flatnonzero(first_look(measured.shapes, levels.tables)[:, 1:].max(1) < 0)[: MOST_FOR_RHO - n_still]
        pair, n_still = levels.pair.take(still), n_still + len(still)
        flat = Curves.flat(len(still), pair.n_targeting, len(pair.dosages))
        found += [logsumexp(log_likelihood(pair, flat, grid, rho)[:, 0] + log_tau, axis=1).sum() for rho in RHOS]
        if n_still == MOST_FOR_RHO:
            break
    return RHOS[int(np.argmax(found))] if n_still >= LEAST_FOR_RHO else USUAL_RHO


def decide(
    measured: Measured,
    *,
    seed: int = 0,
    n_null: int = N_NULL,
    learns: NDArray[np.bool_] | None = None,
    progress: Callable[[object], object] = lambda x: x,
) -> tuple[Decision, list[Block]]:
    """Learn over features, and say which respond differently.

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
    measured = with_learned_dosages(measured, some, grid, rho)
    found = gather(measured, grid, rho, progress=progress)
    values = values_of(found)
    prior = learn(values[some], grid, measured.priors, start=START)
    probability = probabilities(values, grid, prior)
    lfdr = probability[:, ~DIFFERS].sum(1)
    log_bf = log_bf_of(values, grid, prior)
    p_value, q_value = np.full(n, np.nan), np.full(n, np.nan)
    q_value[some] = q_values(lfdr[some])
    if n_null:
        simulated = simulate_same(measured, found, grid, rho, prior, probability, n=n_null, seed=seed)
        of_null = gather(simulated.measured, grid, rho, progress=progress)
        null = Nulls(log_bf_of(values_of(of_null), grid, prior), difference_sd(measured, of_null, grid, prior))
        known = difference_sd(measured, found, grid, prior)
        p_value = p_values(log_bf, known, probability, null, simulated.responds)
    decision = Decision(values, grid, rho, prior, probability, log_bf, lfdr, q_value, p_value)
    return decision, found


def p_values(log_bf: Floats, sd: Floats, probability: Floats, nulls: Nulls, responds: NDArray[np.bool_]) -> Floats:
    """Upper-tail probability ``(T,)`` of the log Bayes factor among simulated features without a difference.

    It is that among features that respond in both contexts alike, or in none, as a feature likely is: a feature with a
    response can tell a difference by chance, one without it hardly can. `sd` ``(T,)`` is how well each is known.
    """
    share = probability[:, 1] / np.maximum(probability[:, ~DIFFERS].sum(1), 1e-300)
    out: Floats = np.zeros(len(log_bf))
    for some, weight in ((~responds, 1 - share), (responds, share)) if responds.any() else ((~responds, 1.0),):
        usual = Usual.of(nulls.take(some))
        out = out + weight * null_distribution(usual.left_out).p_value(usual.less(log_bf, sd))
    return out


def difference_sd(measured: Measured, blocks: list[Block], grid: Floats, prior: Prior) -> Floats:
    """How well a feature tells a difference of movements over the axis ``(T,)``, as of responses linear in dosage."""
    span, out = measured.axis.high - measured.axis.low, []
    for block in blocks:
        pair, values = block.levels.pair, block.evidence.values
        joint = values + prior.log_tau(grid) + np.log(prior.weights)[:, None]
        tau = np.exp(softmax(joint, axis=(1, 2)).sum(1) @ np.log(grid))
        variance: Floats = np.zeros(len(tau))
        for c, dosages in enumerate(pair.dosages):
            x = np.zeros(pair.mean.shape[2])
            x[: pair.n_targeting] = (dosages.at * dosages.weight).sum(1)
            w = 1.0 / (pair.variance[:, c] + tau[:, None] ** 2)
            information = w @ x**2 - (w @ x) ** 2 / w.sum(1)
            variance = variance + span**2 / np.maximum(information, LEAST_INFORMATION / measured.priors.unit**2)
        out.append(np.sqrt(variance))
    return np.concatenate(out)


def probabilities(values: Floats, grid: Floats, prior: Prior) -> Floats:
    """Probability ``(T, H)`` of each hypothesis."""
    joint = logsumexp(values + prior.log_tau(grid), axis=2) + np.log(prior.weights)
    return np.asarray(np.exp(joint - logsumexp(joint, axis=1, keepdims=True)))


def log_bf_of(values: Floats, grid: Floats, prior: Prior, of: NDArray[np.bool_] = DIFFERS) -> Floats:
    """Log Bayes factor ``(T,)`` of some hypotheses (of a difference) against the others, mixed by their weights."""
    joint = logsumexp(values + prior.log_tau(grid), axis=2) + np.log(prior.weights)
    each = [logsumexp(joint[:, w], axis=1) - np.log(prior.weights[w].sum()) for w in (of, ~of)]
    return np.asarray(each[0] - each[1])


def weights_over(posterior: Posterior, log_tau: Floats) -> Floats:
    """Weights ``(T, D)`` of draws, with the sd of the guide effects summed out."""
    total = logsumexp(posterior.log_weight + log_tau, axis=2)
    return np.asarray(np.exp(total - logsumexp(total, axis=1, keepdims=True)))
