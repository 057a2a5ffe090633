"""Features that do not follow the perturbation."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.stats import stable_features


def _sums(
    rng: np.random.Generator, log_mean: np.ndarray, truth: np.ndarray, o: float = 0.4
) -> stable_features.GroupSums:
    """Sums over 100 cells of size factor 1 in each of the guides, whose offsets are `truth`."""
    n = 100
    mean = np.exp(log_mean + truth)
    shape = n / o**2
    counts = rng.poisson(rng.gamma(shape, n * mean / shape)).astype(float)
    size = np.full(mean.shape[1], float(n))
    return stable_features.GroupSums(counts, size, size, np.full(len(mean), o**2))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.45])
def test_features_that_rise_together_are_left_out(rng: np.random.Generator, share: float) -> None:
    """The totals of the guides rise by as much as to make all others fall."""
    n, dosage = 300, np.linspace(-1, 1, 10)
    rises = np.arange(n) < share * n
    level = rng.uniform(-1, 3, n)
    curve = level[:, None] + np.where(rises[:, None], rng.uniform(0.5, 1.2, (n, 1)) * dosage, 0.0)
    exposure = np.exp(curve).sum(0) / np.exp(curve).sum(0).mean()
    sums = _sums(rng, curve, np.zeros(10))
    leaking = stable_features.GroupSums(sums.counts, 100 * exposure, 100 * exposure**2, sums.overdispersion2)
    kept = stable_features.stable_features(leaking, np.exp(level))
    assert 0.45 < kept.mean() < 0.55
    assert (kept & rises).sum() <= 0.03 * n


def test_offsets_of_guides_do_not_count_as_a_difference(rng: np.random.Generator) -> None:
    level, truth = rng.uniform(0, 3, (200, 1)) * np.ones(8), rng.normal(0, 0.3, 8)
    sums = _sums(rng, level, truth)
    apart, at_truth = (stable_features.differences(sums, offset) for offset in (np.zeros(8), truth))
    noise = 1 / (100 * np.exp(level[:, 0])) + 0.4**2 / 100
    assert at_truth.mean() == pytest.approx(7 * (noise / (noise + 0.1**2)).mean(), rel=0.15)
    assert apart.mean() > 3 * at_truth.mean()


def test_overdispersion_by_moments(rng: np.random.Generator) -> None:
    n, o = 40_000, 0.6
    s, guide = np.exp(rng.normal(0, 0.3, n)), rng.integers(0, 4, n)
    mean = np.array([1.0, 2.0, 0.5, 4.0])[guide] * s
    y = rng.poisson(mean * rng.gamma(1 / o**2, o**2, n)).astype(float)
    counts, weighted = (np.bincount(guide, v, 4)[None] for v in (y, y * s))
    exposure, exposure2 = (np.bincount(guide, s**k, 4) for k in (1, 2))
    found = stable_features.overdispersion2(counts, weighted, np.array([(y**2).sum()]), exposure, exposure2)
    assert found[0] == pytest.approx(o**2, rel=0.1)


def test_half_of_every_window_is_kept() -> None:
    mean, values = np.arange(1.0, 201.0), np.tile([0.0, 1.0], 100)
    kept = stable_features.lowest_half(values, mean)
    np.testing.assert_array_equal(kept, values == 0)
