"""Features simulated with the same response in all contexts, alike real ones: what p-values compare with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from dream_sc._core.response.simulated_nulls import by_content

from .guide_levels import simulate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.learned import Prior

    from .decision import Block
    from .measured import Measured
    from .pair_likelihood import Pair

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LIKELY = 0.5  # probability from which on features serve as models
EACH = 20  # simulated features for each coefficient
LEAST_SPREAD = 0.25  # of the mean
FEW = 5  # features with a response, below which they are no models


@dataclass(frozen=True)
class Simulated:
    """Simulated features, and which of them respond, alike in both contexts."""

    measured: Measured
    responds: NDArray[np.bool_]  # (n,)


@dataclass(frozen=True)
class Nulls:
    """Evidence of a difference in simulated features without one."""

    log_bf: Floats  # (n,)
    sd: Floats  # (n,) how well a difference would be known

    def take(self, some: NDArray[np.generic]) -> Nulls:
        """Some of them."""
        return Nulls(self.log_bf[some], self.sd[some])


@dataclass(frozen=True)
class Usual:
    """The log Bayes factor that is usual without a difference, by how well a difference would be known.

    It is far below 0 where the counts are many, and near 0 where they say nothing: one distribution of all would give
    small p-values to features with hardly a count. A parabola in the log of the sd, and a line for the spread about it.
    """

    ends: tuple[float, float]  # of the log sd
    at: Floats  # coefficients of what is usual
    spread: Floats  # and of the spread
    mean_spread: float
    left_out: Floats  # (n,) simulated features less what is usual, each without its own part in that

    @classmethod
    def of(cls, nulls: Nulls) -> Usual:
        """From simulated features; fewer than `EACH` of them for a coefficient tell fewer coefficients."""
        log_sd, n = np.log(nulls.sd), len(nulls.sd)
        ends = (float(np.quantile(log_sd, 0.02)), float(np.quantile(log_sd, 0.98)))
        basis = _powers(log_sd, ends, int(np.clip(n // EACH, 1, 3)))
        inverse = np.linalg.pinv(basis)
        own = np.minimum((basis * inverse.T).sum(1), 0.9)
        at = inverse @ nulls.log_bf
        rest = (nulls.log_bf - basis @ at) / (1.0 - own)
        line = basis[:, :2]
        spread = np.linalg.pinv(line) @ np.abs(rest)
        mean = float(np.abs(rest).mean())
        return cls(ends, at, spread, mean, rest / _width(line @ spread, mean))

    def less(self, log_bf: Floats, sd: Floats) -> Floats:
        """Log Bayes factors less what is usual, in their own spread: 1 is one of features that tell as much as most."""
        basis = _powers(np.log(sd), self.ends, len(self.at))
        return np.asarray(
            (log_bf - basis @ self.at) / _width(basis[:, : len(self.spread)] @ self.spread, self.mean_spread)
        )


def _powers(log_sd: Floats, ends: tuple[float, float], n: int) -> Floats:
    """The first `n` powers ``(T, n)`` of numbers from -1 to 1 between the ends, and those of the ends beyond."""
    half = max((ends[1] - ends[0]) / 2, 1e-6)
    return np.vander(np.clip((log_sd - sum(ends) / 2) / half, -1.0, 1.0), n, increasing=True)


def _width(spread: Floats, mean: float) -> Floats:
    """Spread in units of the mean one, of which it is a part at least."""
    return np.maximum(spread / max(mean, 1e-12), LEAST_SPREAD)


def simulate_same(
    measured: Measured,
    blocks: list[Block],
    grid: Floats,
    rho: float,
    prior: Prior,
    probability: Floats,
    *,
    n: int,
    seed: int,
    few_respond: bool = False,
) -> Simulated:
    """`n` features alike those that do not differ, in level, depth, response and guide effects.

    Half of them respond, if enough features do. `few_respond`: a single one is enough, and dosages have errors, which
    few features that respond leave large.
    """
    rng = np.random.default_rng(seed)
    counts = measured.sums[0].stats.counts
    null, equal = (_models(probability[:, i], counts, rng) for i in (0, 1))
    n_responding = 0 if (probability[:, 1] > LIKELY).sum() < (1 if few_respond else FEW) else n // 2
    pick = np.concatenate([np.resize(equal, n_responding), np.resize(null, n - n_responding)])
    responds = np.arange(n) < n_responding
    errors = np.zeros((n, len(measured.sums), measured.n_targeting))
    if few_respond:
        errors = errors_of_dosages(blocks[0].levels.pair, n, rng)
    curve, level, base, values = _of_blocks(measured, blocks, grid, prior, pick, responds, errors, rng)
    weights = softmax(values + prior.log_tau(grid), axis=1)
    tau = grid[np.minimum((weights.cumsum(1) < rng.random((n, 1))).sum(1), len(grid) - 1)]
    shared = rng.normal(size=(n, len(measured.targeting))) * rho**0.5
    out = []
    for c, sums in enumerate(measured.sums):
        own = shared + (1 - rho) ** 0.5 * rng.normal(size=shared.shape)
        moved = curve[c] + tau[:, None] * own
        picked = sums.take(pick)
        out.append(simulate(picked, base[c] + level[:, c, None] + moved[:, picked.stats.guide], rng))
    return Simulated(measured.with_sums(*out), responds)


def errors_of_dosages(pair: Pair, n: int, rng: np.random.Generator) -> Floats:
    """Errors ``(n, C, G)`` of the dosages of targeting guides, those that go together and each guide's own.

    A real feature has them in its levels, and where they are large seems to differ.
    """
    together = pair.together
    common = np.einsum("nf,fcg->ncg", rng.normal(size=(n, len(together))), together)
    own = np.stack([d.error for d in pair.dosages])
    return np.asarray(common + own * rng.normal(size=(n, *own.shape)))


def _models(probability: Floats, counts: Floats, rng: np.random.Generator) -> Ints:
    """Features that probably are of a kind, or the likeliest tenth, in an order that depends on their counts alone."""
    likely = np.flatnonzero(probability >= min(LIKELY, float(np.quantile(probability, 0.9))))
    return rng.permutation(likely[by_content(counts[likely])])


def _of_blocks(
    measured: Measured,
    blocks: list[Block],
    grid: Floats,
    prior: Prior,
    pick: Ints,
    responds: NDArray[np.bool_],
    errors: Floats,
    rng: np.random.Generator,
) -> tuple[list[Floats], Floats, list[Floats], Floats]:
    """Of picked features: curves ``(n, G)``, levels ``(n, C)``, rest of the predictor, log evidence ``(n, K)``.

    Their guides are at dosages with `errors` ``(n, C, G)``.
    """
    n, first = len(pick), 0
    n_contexts = len(measured.sums)
    curve = [np.zeros((n, len(measured.targeting))) for _ in range(n_contexts)]
    level, values = np.zeros((n, n_contexts)), np.zeros((n, len(grid)))
    base = [np.zeros((n, len(s.stats.guide))) for s in measured.sums]
    targeting, numbers = measured.order[: measured.n_targeting], rng.random(n)
    for block in blocks:
        found, pair = block.evidence, block.levels.pair
        mine = np.flatnonzero((pick >= first) & (pick < first + len(found.values)))
        here = pick[mine] - first
        first += len(found.values)
        z, v = pair.mean[here], pair.variance[here]
        at = np.searchsorted(found.rows, here)
        looked = (
            np.zeros(len(here), dtype=bool)
            if not len(found.rows)
            else (found.rows[np.minimum(at, len(found.rows) - 1)] == here)
        )
        close = responds[mine] & looked
        values[mine] = found.values[here, 0]
        values[mine[close]] = found.values[here[close], 1]
        if close.any():
            posterior = found.posteriors["equal"]
            log_weight = posterior.log_weight[at[close]] + prior.log_tau(grid)
            total = softmax(log_weight.max(-1), axis=1).cumsum(1)
            draw = np.minimum((total < numbers[mine[close], None]).sum(1), total.shape[1] - 1)
            theta = posterior.theta[at[close], draw]
            for c, dosages in enumerate(pair.dosages):
                for i, each in zip(mine[close], theta[:, c], strict=True):
                    moved = dosages.moved(errors[i, c, :, None])
                    curve[c][i, targeting] = measured.shapes.curve(each, moved)[0]
        for c in range(n_contexts):
            rest = z[:, c] - curve[c][mine][:, measured.order]
            weight = 1.0 / (v[:, c] + np.exp(2 * prior.tau_log_mean))
            level[mine, c] = block.levels.level[here, c] + (weight * rest).sum(1) / weight.sum(1)
            base[c][mine] = block.levels.base[c][here]
    return curve, level, base, values
