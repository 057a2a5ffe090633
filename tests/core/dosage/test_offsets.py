"""What size factors do to all features of a guide alike: the offset is found, and its variance is that of its error."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.dosage.offsets import LEAST_FEATURES, offsets

N_GUIDES, N_FEATURES = 40, 300


def _counts(rng: np.random.Generator, log2: np.ndarray, depth: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Counts of guides and, last, of many control cells, with the guides' offsets; and what is expected without."""
    expected = rng.lognormal(3.5, 0.5, (N_FEATURES, 1)) * np.append(np.full(len(log2), depth), 400.0)
    noise = np.pad(rng.normal(0, 0.1, (N_FEATURES, len(log2))), ((0, 0), (0, 1)))
    return rng.poisson(expected * 2.0 ** np.append(log2, 0.0) * np.exp(noise)).astype(float), expected


def test_the_error_is_as_large_as_the_variance_says(rng: np.random.Generator) -> None:
    truth = rng.normal(0, 0.3, N_GUIDES)
    counts, expected = _counts(rng, truth)
    found, variance = offsets(counts, expected, np.zeros(N_FEATURES), np.full(N_GUIDES + 1, 0.01))
    assert np.corrcoef(found, truth)[0, 1] > 0.98
    assert np.polyfit(truth, found, 1)[0] == pytest.approx(1.0, abs=0.1)
    assert 0.3 < np.mean((found - truth) ** 2 / variance) < 2.5


def test_noise_of_cells_makes_an_offset_less_certain(rng: np.random.Generator) -> None:
    counts, expected = _counts(rng, rng.normal(0, 0.3, N_GUIDES))
    scale2 = np.full(N_GUIDES + 1, 0.05)
    small, large = (offsets(counts, expected, np.full(N_FEATURES, each), scale2)[1].mean() for each in (0.0, 1.0))
    assert 1.5 < large / small < 10.0


def test_a_guide_with_few_counts_has_the_mean_and_the_spread_of_all(rng: np.random.Generator) -> None:
    truth = rng.normal(0, 0.3, N_GUIDES)
    counts, expected = _counts(rng, truth)
    counts[LEAST_FEATURES - 1 :, 0] = expected[LEAST_FEATURES - 1 :, 0] = 1.0
    found, variance = offsets(counts, expected, np.zeros(N_FEATURES), np.full(N_GUIDES + 1, 0.01))
    assert found[0] == 0.0
    assert np.sqrt(variance[0]) == pytest.approx(truth[1:].std(), rel=0.15)
    assert (variance[1:] < 0.1 * variance[0]).all()
    none, spread = offsets(counts[:, [0, 0, -1]], expected[:, [0, 0, -1]], np.zeros(N_FEATURES), np.full(3, 0.01))
    np.testing.assert_array_equal((none, spread), np.zeros((2, 2)))
