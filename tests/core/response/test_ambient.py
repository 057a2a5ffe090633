"""Ambient counts taken off sums: what is left is unbiased, and its noise is that of all counts."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.response import ambient
from dream_sc._core.response.ambient import Ambient
from dream_sc._core.response.prepare import Technical
from dream_sc._core.response.rows import Cells
from dream_sc._core.types import GuideStats

N, T, SHARE = 4000, 30, 0.25
N_GUIDES, N_NTC = 8, 4


class _Screen:
    """Cells of eight guides, of which the last four are controls, in two groups with different ambient shares."""

    def __init__(self, rng: np.random.Generator, shares: tuple[float, float]) -> None:
        self.guide, self.group = rng.integers(N_GUIDES, size=N), rng.integers(2, size=N)
        self.fold = np.ones((T, N_GUIDES))
        self.fold[:10, : N_GUIDES - N_NTC] = 0.2
        self.base, self.s = rng.uniform(0.5, 6, T), rng.lognormal(0, 0.2, N)
        share = np.array(shares)[self.group]
        mean = self.base * self.fold[:, self.guide].T * self.s[:, None]
        total = mean.sum(1)
        self.profile = np.stack([mean[self.group == c].sum(0) for c in (0, 1)], 1)
        self.profile /= self.profile.sum(0)
        own, leaked = (1 - share)[:, None] * mean, (share * total)[:, None] * self.profile.T[self.group]
        self.counts = rng.poisson(own + leaked).astype(float)
        self.ambient = Ambient(share * self.counts.sum(1), share, self.profile)
        self.row = self.guide * 2 + self.group
        self.control = np.arange(N_GUIDES) >= N_GUIDES - N_NTC
        self.cells = Cells(self.guide, self.group, np.zeros(N), np.zeros(N), size_factor=self.s, ambient=self.ambient)

    def sums(self) -> GuideStats:
        y = np.stack([np.bincount(self.row, self.counts[:, t], 2 * N_GUIDES) for t in range(T)])
        w, w2 = (np.bincount(self.row, self.s**k) for k in (1, 2))
        r = np.arange(2 * N_GUIDES)
        return GuideStats(y, w, w2, r // 2, r % 2, N_GUIDES, 2)

    def technical(self) -> Technical:
        """The levels of all counts of control cells."""
        control = self.control[self.guide]
        use = [control & (self.group == c) for c in (0, 1)]
        level = np.stack([self.counts[i].sum(0) / self.s[i].sum() for i in use], 1)
        return Technical(level[:, 0], np.log2(level / level[:, :1]), np.full(T, 0.3), 0.1)


@pytest.mark.parametrize("shares", [(SHARE, SHARE), (0.1, 0.4)])
def test_what_is_left_has_the_levels_of_the_cells_themselves(
    shares: tuple[float, float], rng: np.random.Generator
) -> None:
    x = _Screen(rng, shares)
    technical, stats = x.technical(), x.sums()
    level = ambient.level(technical, x.cells, x.control)
    left, own = ambient.removed(stats, x.ambient, level, x.row, x.s), ambient.own(technical, level)
    ratio = left.counts / (own.baseline[:, None] * 2.0 ** own.effects[:, left.group] * left.exposure)
    error = np.sqrt(stats.counts) / left.counts
    z = (ratio - x.fold[:, left.guide]) / (ratio * error)
    assert abs(z.mean()) < 0.15
    assert (np.abs(z) < 3.5).mean() > 0.98
    before = stats.counts / (technical.baseline[:, None] * 2.0 ** technical.effects[:, stats.group] * stats.exposure)
    assert before[:10, :8].mean() > ratio[:10, :8].mean() + 0.05  # what the ambient counts hid


def test_the_noise_of_what_was_taken_off_stays(rng: np.random.Generator) -> None:
    x = _Screen(rng, (SHARE, SHARE))
    stats = x.sums()
    left = ambient.removed(stats, x.ambient, ambient.level(x.technical(), x.cells, x.control), x.row, x.s)
    variance = left.counts + left.weights * left.counts**2
    np.testing.assert_allclose(variance, stats.counts, rtol=1e-6)  # Poisson: of own and ambient counts together


def test_rows_of_ambient_counts_only_keep_a_bounded_weight(rng: np.random.Generator) -> None:
    x = _Screen(rng, (SHARE, SHARE))
    stats = x.sums()
    taken = x.ambient.rows(x.row, stats.group)
    empty = GuideStats(taken * 0.9, stats.exposure, stats.exposure2, stats.guide, stats.group, N_GUIDES, 2)
    left = ambient.removed(empty, x.ambient, ambient.level(x.technical(), x.cells, x.control), x.row, x.s)
    assert (left.counts == 0).all()
    assert (left.weights < 1.2).all()


def test_overdispersion_of_all_counts_is_spread_over_the_ambient_ones(rng: np.random.Generator) -> None:
    x = _Screen(rng, (SHARE, SHARE))
    technical = x.technical()
    level = ambient.level(technical, x.cells, x.control)
    np.testing.assert_allclose(ambient.own(technical, level).overdispersion, 0.3 / (1 - level.of_feature.mean(1)))
    assert level.share == pytest.approx(SHARE)


def test_a_share_of_zero_changes_nothing(rng: np.random.Generator) -> None:
    x = _Screen(rng, (0.0, 0.0))
    stats, technical = x.sums(), x.technical()
    level = ambient.level(technical, x.cells, x.control)
    left = ambient.removed(stats, x.ambient, level, x.row, x.s)
    np.testing.assert_array_equal(left.counts, stats.counts)
    np.testing.assert_allclose(left.exposure, stats.exposure)
    assert (left.weights == 0).all()
    np.testing.assert_allclose(ambient.own(technical, level).baseline, technical.baseline)


def test_own_counts_are_at_least_what_chance_would_leave(rng: np.random.Generator) -> None:
    """The variance that is added is the ambient counts over the square of the own ones, or of the noise of all."""
    x = _Screen(rng, (SHARE, SHARE))
    stats, level = x.sums(), ambient.level(x.technical(), x.cells, x.control)
    taken = x.ambient.rows(x.row, stats.group)
    counts = taken + rng.choice([-0.5, 0.5, 4.0], taken.shape) * np.sqrt(taken)  # far below and above the noise
    some = GuideStats(counts, stats.exposure, stats.exposure2, stats.guide, stats.group, N_GUIDES, 2)
    left = ambient.removed(some, x.ambient, level, x.row, x.s)
    above = counts - taken > np.sqrt(counts + 1)
    assert 0.2 < above.mean() < 0.5
    np.testing.assert_allclose(left.weights[above], (taken / (counts - taken) ** 2)[above])
    np.testing.assert_allclose(left.weights[~above], (taken / (counts + 1))[~above])
