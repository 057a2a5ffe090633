"""Per-guide offsets against simulated composition effects."""

from __future__ import annotations

import numpy as np

from dream_sc._core.response.guide_offsets import guide_offsets, weighted_median


def test_weighted_median_of_equal_weights_is_the_median(rng: np.random.Generator) -> None:
    x = rng.normal(size=(101, 3))
    np.testing.assert_allclose(weighted_median(x, np.ones_like(x)), np.median(x, axis=0))


def test_offsets_are_recovered_beside_many_responders(rng: np.random.Generator) -> None:
    """A third of the features responds, nearly all of them upwards; the offsets are those of the others."""
    n, guide = 150, np.repeat(np.arange(10), 2)
    truth = rng.normal(0, 0.15, 10)
    expected = rng.uniform(50, 2000, (n, 1)) * rng.uniform(0.8, 1.2, 20)
    response = np.where(np.arange(n)[:, None] < 50, rng.uniform(0.2, 1.5, (n, 1)) * np.linspace(-1, 1, 10), 0.0)
    scale2 = np.full(20, 1 / 100)
    mean = expected * np.exp((response + truth + rng.normal(0, 0.05, (n, 10)))[:, guide])
    counts = rng.poisson(mean * rng.gamma(400, 1 / 400, mean.shape)).astype(float)
    offset, used = guide_offsets(counts, expected, np.full(n, 0.5), scale2, guide, int(guide.max()) + 1)
    assert used >= 70
    np.testing.assert_allclose(offset, truth, atol=0.05)


def test_too_few_features_give_no_offset(rng: np.random.Generator) -> None:
    counts = rng.poisson(100, (19, 4)).astype(float)
    offset, used = guide_offsets(counts, np.full((19, 4), 50.0), np.full(19, 0.3), np.full(4, 0.01), np.arange(4), 4)
    assert used == 0
    np.testing.assert_array_equal(offset, 0.0)


def test_guides_without_rows_have_none(rng: np.random.Generator) -> None:
    expected = rng.gamma(3.0, 60.0, (200, 3))
    counts = rng.poisson(expected * np.exp([0.1, 0.0, -0.2])).astype(float)
    rest = np.full(200, 0.1), np.full(3, 0.01)
    want, n = guide_offsets(counts, expected, *rest, np.arange(3), 3)
    got, m = guide_offsets(counts, expected, *rest, np.array([1, 3, 4]), 6)
    np.testing.assert_array_equal(got, [0, want[0], 0, want[1], want[2], 0])
    assert n == m == 100  # the half that differs least
