"""How the responses of two contexts differ: the hypothesis that describes a feature, and differences with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from .decision import weights_over
from .evidence import FIRST, SECOND, total
from .hypotheses import DIFFERS, HYPOTHESES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .decision import Block, Decision
    from .measured import Measured

    Floats = NDArray[np.float64]

LEVELS = (0.5, 0.025, 0.975)
LEAST_WORTH = 40.0  # draws
CURVE_POINTS, N_RESAMPLED = 25, 200
OF_DIFFERENCE = ("amplitude", "dosage", "free", FIRST, SECOND)  # posteriors, with the weight of the hypothesis
LEAST_AMPLITUDE = 1e-12


def described(measured: Measured, decision: Decision, blocks: list[Block], effect_unit: float) -> dict[str, Any]:
    """Columns ``(T,)``: the hypothesis, and differences (the second context less the reference) with intervals.

    EC50s and amplitudes are those of the free curves; they are read where both contexts respond. The difference of the
    effect is taken at the strongest dosage that both contexts reach, over all hypotheses of a difference. It is in
    `effect_unit`; all are missing where nothing responds. `opposite` is the probability of free curves that one rises
    and the other falls.
    """
    n = len(decision.lfdr)
    out = {name: np.full((3, n), np.nan) for name in ("log2_ec50", "log2_amplitude_ratio", "effect")}
    opposite = np.zeros(n)
    log_tau, first = decision.prior.log_tau(decision.grid), 0
    for block in blocks:
        found = block.evidence
        rows = first + found.rows
        first += len(found.values)
        if not len(rows):
            continue
        free = found.posteriors["free"]
        weights, theta = weights_over(free, log_tau), free.theta.astype(float)
        out["log2_ec50"][:, rows] = quantiles(theta[:, :, 1, 0] - theta[:, :, 0, 0], weights)
        amplitude = measured.shapes.amplitude(theta[..., 2])
        against = (amplitude[:, :, 0] * amplitude[:, :, 1] < 0) * weights
        opposite[rows] = against.sum(1) / weights.sum(1)
        size = np.abs(amplitude) + LEAST_AMPLITUDE
        out["log2_amplitude_ratio"][:, rows] = quantiles(np.log2(size[:, :, 1] / size[:, :, 0]), weights)
        out["effect"][:, rows] = quantiles(*_changes(measured, block, log_tau, decision.prior.weights)) / effect_unit
    best = np.where(
        decision.lfdr > 0.5,
        np.where(DIFFERS, -1.0, decision.probability).argmax(1),
        np.where(DIFFERS, decision.probability, -1.0).argmax(1),
    )
    return out | {
        "hypothesis": np.array(HYPOTHESES)[best],
        "responds_first": _first_alone(decision, blocks),
        "opposite": opposite,
    }


def _changes(measured: Measured, block: Block, log_tau: Floats, prior: Floats) -> tuple[Floats, Floats]:
    """Differences of the change to the full dosage ``(T', D)``, under all hypotheses of a difference, and weights."""
    x, shapes = measured.full, measured.shapes
    index = {name: i for i, name in enumerate(HYPOTHESES)} | {FIRST: 5, SECOND: 5}
    values, weights = [], []
    for name in OF_DIFFERENCE:
        one = block.evidence.posteriors[name]
        change = shapes.change(one.theta.astype(float), x)
        responds = np.array([name != SECOND, name != FIRST])
        values.append((change * responds) @ np.array([-1.0, 1.0]))
        share = np.log(prior[index[name]] * (0.5 if name in (FIRST, SECOND) else 1.0))
        share = share + logsumexp(total(one) + log_tau, axis=1)
        weights.append(np.log(weights_over(one, log_tau) + 1e-300) + share[:, None])
    log_weight = np.concatenate(weights, 1)
    return np.concatenate(values, 1), np.exp(log_weight - logsumexp(log_weight, axis=1, keepdims=True))


def _first_alone(decision: Decision, blocks: list[Block]) -> Floats:
    """Probability ``(T,)``, if one context alone responds, that it is the reference; NaN where nothing responds."""
    out, first = np.full(len(decision.lfdr), np.nan), 0
    log_tau = decision.prior.log_tau(decision.grid)
    for block in blocks:
        found = block.evidence
        if len(found.rows):
            a, b = (logsumexp(total(found.posteriors[name]) + log_tau, axis=1) for name in (FIRST, SECOND))
            out[first + found.rows] = np.exp(a - np.logaddexp(a, b))
        first += len(found.values)
    return out


def quantiles(values: Floats, weights: Floats) -> Floats:
    """Median, 2.5 and 97.5 % points ``(3, T)`` of weighted draws ``(T, D)``.

    Between points of `n` draws lies less than what is asked for, on average: an interval from 2.5 to 97.5 % of them
    has a probability of ``0.95 n / (n + 1)``. So points lie further out, by as many draws as the weights are worth;
    of fewer than `LEAST_WORTH` the outermost ones say nothing of that.
    """
    order = np.argsort(values, axis=1)
    sorted_values, w = np.take_along_axis(values, order, 1), np.take_along_axis(weights, order, 1)
    w = w / w.sum(1, keepdims=True)
    at, worth = w.cumsum(1) - 0.5 * w, np.maximum(1.0 / (w**2).sum(1), LEAST_WORTH)
    levels = np.array(LEVELS)
    further = levels + (levels - 0.5) / worth[:, None]
    rows = zip(further, at, sorted_values, strict=True)
    return np.array([np.interp(p, a, v) for p, a, v in rows]).T


@dataclass(frozen=True)
class Drawn:
    """Both curves of features that may respond, over all hypotheses, at even dosages."""

    rows: NDArray[np.int64]  # (T',)
    x: Floats  # (X,) log2 dosages
    curves: NDArray[np.float32]  # (T', 2, 3, X) median, lower and upper end of the 95 % band, less NTC dosage


def curves_of(measured: Measured, decision: Decision, blocks: list[Block], n_points: int = CURVE_POINTS) -> Drawn:
    """Curves of both contexts with their bands, each hypothesis by its probability; on the scale of the predictor."""
    x, shapes = measured.axis.points(n_points), measured.shapes
    log_tau, first = decision.prior.log_tau(decision.grid), 0
    rows, out = [], []
    for block in blocks:
        found = block.evidence
        mine = first + found.rows
        first += len(found.values)
        if not len(mine):
            continue
        theta, responds = _resampled(block, log_tau, decision.probability[mine])
        values = np.stack([shapes.change(theta, float(at)) for at in x], -1) * responds[..., None]
        rows.append(mine)
        out.append(np.moveaxis(np.quantile(values, LEVELS, axis=1), 0, 2))
    if not rows:
        return Drawn(np.zeros(0, dtype=np.int64), x, np.zeros((0, 2, 3, n_points), dtype=np.float32))
    return Drawn(np.concatenate(rows), x, np.concatenate(out).astype(np.float32))


def _resampled(block: Block, log_tau: Floats, probability: Floats) -> tuple[Floats, Floats]:
    """Draws ``(T', N, 2, 3)`` of all hypotheses as often as they are likely, and where they respond ``(T', N, 2)``."""
    found, n = block.evidence.posteriors, len(probability)
    names = ("equal", *OF_DIFFERENCE)
    share = [probability[:, HYPOTHESES.index(name)] for name in names[:-2]]
    alone = [logsumexp(total(found[name]) + log_tau, axis=1) for name in (FIRST, SECOND)]
    share += [probability[:, 5] * np.exp(each - np.logaddexp(*alone)) for each in alone]
    weights = [s[:, None] * weights_over(found[name], log_tau) for s, name in zip(share, names, strict=True)]
    theta = np.concatenate([found[name].theta for name in names], 1)
    responds = [np.tile([name != SECOND, name != FIRST], (found[name].theta.shape[1], 1)) for name in names]
    flat = np.concatenate(responds)
    # what is left of 1 is the probability of no response at all
    cumulative = np.concatenate(weights, 1).cumsum(1)
    at = (np.arange(N_RESAMPLED) + 0.5) / N_RESAMPLED
    pick = np.stack([np.searchsorted(line, at) for line in cumulative])
    none = pick >= theta.shape[1]
    pick = np.minimum(pick, theta.shape[1] - 1)
    return theta[np.arange(n)[:, None], pick].astype(float), flat[pick] & ~none[..., None]
