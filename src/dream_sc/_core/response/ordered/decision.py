"""Which features have a trend over ordered contexts: weights of the hypotheses, local FDR, q- and p-values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from dream_sc._core.parallel import each_block
from dream_sc._core.response.contexts.decision import (
    LEAST_INFORMATION,
    N_NULL,
    TAUS,
    Block,
    learn_rho,
    log_bf_of,
    p_values,
    probabilities,
    values_of,
)
from dream_sc._core.response.contexts.measured import levels_of
from dream_sc._core.response.contexts.simulated_nulls import Nulls, simulate_same
from dream_sc._core.response.decision import q_values
from dream_sc._core.response.learned import Prior, learn

from .evidence import evidence
from .hypotheses import START, TREND

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.response.contexts.measured import Measured

    Floats = NDArray[np.float64]

N_ALIKE = 2  # hypotheses in which contexts do not differ: no response, and equal ones


@dataclass(frozen=True)
class Decision:
    """What was learned, and which of `T` features have a trend."""

    values: Floats  # (T, H, K) log evidence of the hypotheses
    grid: Floats  # (K,) sd of the guide effects
    rho: float  # share of the variance of guide effects that the contexts have in common
    prior: Prior  # of the hypotheses, and of that sd
    probability: Floats  # (T, H) of the hypotheses
    log_bf: Floats  # (T,) natural log, a trend against none
    lfdr: Floats  # (T,) probability of no trend
    lfdr_differs: Floats  # (T,) probability that no context differs
    q_value: Floats  # (T,) of a trend
    q_differs: Floats  # (T,) of any difference
    p_value: Floats  # (T,) of a trend, against features simulated without a difference; NaN where none were


def gather(
    measured: Measured,
    places: Floats,
    grid: Floats,
    rho: float,
    *,
    progress: Callable[[object], object] = lambda x: x,
) -> list[Block]:
    """Evidence of all features, block by block."""

    def call(s: slice) -> Block:
        levels = levels_of(measured.take(s), grid, rho)
        found = evidence(measured.shapes, levels.pair, places, grid, rho, levels.tables, levels.start)
        return Block(levels.without_tables(), found)

    return each_block(call, len(measured.sums[0].overdispersion), progress)


def decide(
    measured: Measured,
    places: Floats,
    *,
    seed: int = 0,
    n_null: int = N_NULL,
    learns: NDArray[np.bool_] | None = None,
    progress: Callable[[object], object] = lambda x: x,
) -> tuple[Decision, list[Block]]:
    """Learn over features, and say which have a trend.

    Parameters
    ----------
    places
        ``(C,)`` of the contexts, with mean 0 and a range of 1.
    seed
        Of the simulated features, of which there are `n_null`; without them there are no p-values.
    learns
        ``(T,)`` features that something is learned from; the others have no q-value. All by default.
    """
    grid, n = measured.priors.unit * TAUS, len(measured.sums[0].overdispersion)
    some = np.ones(n, dtype=bool) if learns is None or not learns.any() else learns
    rho = learn_rho(measured.take(some), grid)
    found = gather(measured, places, grid, rho, progress=progress)
    values = values_of(found)
    prior = learn(values[some], grid, measured.priors, start=START)
    probability = probabilities(values, grid, prior)
    lfdr, alike = probability[:, ~TREND].sum(1), probability[:, :N_ALIKE].sum(1)
    log_bf = log_bf_of(values, grid, prior, TREND)
    p_value, q = np.full(n, np.nan), np.full((2, n), np.nan)
    for row, each in zip(q, (lfdr, alike), strict=True):
        row[some] = q_values(each[some])
    if n_null:
        simulated = simulate_same(measured, found, grid, rho, prior, probability, n=n_null, seed=seed)
        of_null = gather(simulated.measured, places, grid, rho, progress=progress)
        known = [trend_sd(measured, blocks, places, grid, prior) for blocks in (of_null, found)]
        null = Nulls(log_bf_of(values_of(of_null), grid, prior, TREND), known[0])
        p_value = p_values(log_bf, known[1], probability, null, simulated.responds)
    return Decision(values, grid, rho, prior, probability, log_bf, lfdr, alike, q[0], q[1], p_value), found


def trend_sd(measured: Measured, blocks: list[Block], places: Floats, grid: Floats, prior: Prior) -> Floats:
    """How well a feature tells a trend of its movement over the axis ``(T,)``, as of responses linear in dosage."""
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
