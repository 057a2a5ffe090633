"""How responses change over ordered contexts: the hypothesis that describes a feature, and slopes with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._core.response.contexts.decision import weights_over
from dream_sc._core.response.contexts.describe import (
    CURVE_POINTS,
    LEAST_AMPLITUDE,
    LEVELS,
    N_RESAMPLED,
    Drawn,
    quantiles,
)

from .hypotheses import BOTH, HYPOTHESES, TREND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from dream_sc._core.response.contexts.decision import Block, Decision
    from dream_sc._core.response.contexts.measured import Measured

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


def described(measured: Measured, decision: Decision, blocks: list[Block], numbers: Floats) -> dict[str, Any]:
    """Columns ``(T,)``: the hypothesis, and slopes ``(3, T)`` per unit of the contexts' numbers, with intervals.

    Slopes of log2 EC50 and log2 amplitude are those of both trends together; they are read where the feature responds.
    """
    n = len(decision.lfdr)
    out: dict[str, Any] = {name: np.full((3, n), np.nan) for name in ("log2_ec50", "log2_amplitude")}
    log_tau, first, last = decision.prior.log_tau(decision.grid), int(numbers.argmin()), int(numbers.argmax())
    for block, rows in _refined(blocks):
        posterior = block.evidence.posteriors[BOTH]
        weights, theta = weights_over(posterior, log_tau), posterior.theta.astype(float)
        out["log2_ec50"][:, rows] = quantiles(theta[:, :, last, 0] - theta[:, :, first, 0], weights)
        size = np.abs(measured.shapes.amplitude(theta[..., 2])) + LEAST_AMPLITUDE
        out["log2_amplitude"][:, rows] = quantiles(np.log2(size[:, :, last] / size[:, :, first]), weights)
    for name in out:
        out[name] = out[name] / np.ptp(numbers)
    best = np.where(
        decision.lfdr > 0.5,
        np.where(TREND, -1.0, decision.probability).argmax(1),
        np.where(TREND, decision.probability, -1.0).argmax(1),
    )
    return out | {"hypothesis": np.array(HYPOTHESES)[best]}


def _refined(blocks: list[Block]) -> Iterator[tuple[Block, Ints]]:
    """Blocks in which features were looked at closely, and which of all these are."""
    first = 0
    for block in blocks:
        if len(block.evidence.rows):
            yield block, first + block.evidence.rows
        first += len(block.evidence.values)


def curves_of(measured: Measured, decision: Decision, blocks: list[Block], n_points: int = CURVE_POINTS) -> Drawn:
    """Curves of all contexts with their bands, each hypothesis by its probability; on the scale of the predictor."""
    x, shapes = measured.axis.points(n_points), measured.shapes
    log_tau, rows, out = decision.prior.log_tau(decision.grid), [], []
    for block, mine in _refined(blocks):
        theta = _resampled(block, log_tau, decision.probability[mine])
        values = np.stack([shapes.change(theta, float(at)) for at in x], -1)
        rows.append(mine)
        out.append(np.moveaxis(np.quantile(values, LEVELS, axis=1), 0, 2))
    if not rows:
        nothing = np.zeros((0, len(measured.sums), 3, n_points), dtype=np.float32)
        return Drawn(np.zeros(0, dtype=np.int64), x, nothing)
    return Drawn(np.concatenate(rows), x, np.concatenate(out).astype(np.float32))


def _resampled(block: Block, log_tau: Floats, probability: Floats) -> Floats:
    """Draws ``(T', N, C, 3)`` of all hypotheses as often as they are likely; no amplitude where none responds."""
    found = block.evidence.posteriors
    weights = [probability[:, [i]] * weights_over(found[name], log_tau) for i, name in enumerate(HYPOTHESES) if i]
    theta = np.concatenate([found[name].theta for name in HYPOTHESES[1:]], 1)
    nothing = np.zeros_like(theta[:, :1])
    # what is left of 1 is the probability of no response at all
    cumulative = np.concatenate(weights, 1).cumsum(1)
    at = (np.arange(N_RESAMPLED) + 0.5) / N_RESAMPLED
    pick = np.stack([np.searchsorted(line, at) for line in cumulative])
    every = np.concatenate([theta, nothing], 1).astype(float)
    return np.asarray(every[np.arange(len(every))[:, None], pick])
