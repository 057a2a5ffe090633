"""The trend of guide means over dosage."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.stats.dosage_trend import trend


@pytest.mark.parametrize("n", [2, 3, 5, 8, 40])
def test_a_line_is_a_line(rng: np.random.Generator, n: int) -> None:
    x = rng.normal(size=n)
    np.testing.assert_allclose(trend(x, 0.3 * x - 1, rng.uniform(0.1, 2, n)), 0.3 * x - 1, atol=1e-9)


def test_a_bend_is_followed_by_enough_guides(rng: np.random.Generator) -> None:
    x = np.r_[np.linspace(-3, 1.2, 12), 0.0]
    wanted = 0.6 / (1 + np.exp(-2 * (x + 1)))
    found = np.mean([trend(x, wanted + rng.normal(0, 0.03, 13), np.full(13, 0.03**2)) for _ in range(50)], axis=0)
    np.testing.assert_allclose(found, wanted, atol=0.04)


def test_noise_is_smoothed(rng: np.random.Generator) -> None:
    x = np.linspace(-3, 1, 20)
    y = rng.normal(0, 0.1, (200, 20))
    left = np.std([trend(x, row, np.full(20, 1e-4)) for row in y])
    assert left < 0.06


def test_guides_of_one_dosage_are_pooled(rng: np.random.Generator) -> None:
    x = np.array([0.0, -1, -1, -1, -1, -1, -1])
    y = np.array([0.0, 1, 1, 1, 3, 3, 3])
    np.testing.assert_allclose(trend(x, y, np.full(7, 0.01)), [0, 2, 2, 2, 2, 2, 2], atol=1e-9)
