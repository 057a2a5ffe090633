"""The slope among the cells of one guide against a simulated one, and its sd."""

from __future__ import annotations

import numpy as np

from dream_sc._core.stats.within_guide_slope import WithinStats, centred_dosage, within_slope

N_ROWS, PER_ROW = 6, 400


def _sums(rng: np.random.Generator, slope: float, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    row = np.repeat(np.arange(N_ROWS), PER_ROW)
    s = rng.lognormal(0, 0.3, len(row))
    x = rng.normal(np.linspace(-2, 0, N_ROWS)[row], 0.3)
    d = centred_dosage(row, x, s, N_ROWS)
    mean = 2.0 * s * np.exp(0.2 * row + slope * np.log(2) * x)
    y = rng.poisson(mean * rng.gamma(4.0, 0.25, (n, len(row))))
    total = np.stack([np.bincount(row, v, N_ROWS) for v in y])
    weighted = np.stack([np.bincount(row, d * v, N_ROWS) for v in y])
    spread = [np.bincount(row, s**k * d**2, N_ROWS) for k in (1, 2)]
    stats = WithinStats(weighted, *spread)
    return within_slope(stats, total, np.bincount(row, s, N_ROWS), np.full(n, 0.5))


def test_slope_is_recovered_and_its_sd_is_right(rng: np.random.Generator) -> None:
    for slope in (0.0, 0.6):
        got, sd = _sums(rng, slope)
        assert abs(got.mean() - slope) < 0.03
        assert 0.85 < got.std() / sd.mean() < 1.15


def test_centred_dosage_has_no_weighted_mean(rng: np.random.Generator) -> None:
    row = np.array([0, 0, 1, 1, 1, -1])
    s, x = rng.uniform(0.5, 2, 6), rng.normal(size=6)
    d = centred_dosage(row, x, s, 3)
    np.testing.assert_allclose(np.bincount(row[:5], (s * d)[:5]), 0, atol=1e-12)
    assert d[-1] == 0


def test_cells_that_do_not_differ_have_no_slope() -> None:
    stats = WithinStats(np.zeros((2, 3)), np.zeros(3), np.zeros(3))
    slope, sd = within_slope(stats, np.ones((2, 3)), np.ones(3), np.full(2, 0.5))
    assert np.isnan(slope).all()
    assert np.isnan(sd).all()
