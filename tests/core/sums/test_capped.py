"""A count that its guide does not allow is capped in the sums; bursts and strong responses are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import nbinom

from dream_sc._core.sums import capped
from dream_sc._core.sums.block import CountBlock
from dream_sc._core.sums.guide_sums import RowSums

N, T, N_G = 600, 40, 6
GUIDE = np.arange(N) % N_G
GROUP = (np.arange(N) // N_G) % 2
ROW = GUIDE * 2 + GROUP
OF_ROW = np.arange(2 * N_G) // 2, np.arange(2 * N_G) % 2
S = np.random.default_rng(1).uniform(0.5, 2.0, N)
OVERDISPERSION = np.full(T, 0.5)


def _counts(mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(mean * S[:, None] * rng.gamma(4.0, 0.25, (N, T))).astype(np.float64)


def _blocks(y: np.ndarray, kind: str) -> list[CountBlock]:
    if kind == "by cell":
        return [CountBlock.of(sparse.csr_matrix(y))]
    if kind == "by feature":
        return [CountBlock.of(sparse.csc_matrix(y.astype(np.int64)))]
    return [
        CountBlock.of(sparse.csr_matrix(y[i : i + 170, j : j + 13].astype(np.float32)), i, j)
        for i in range(0, N, 170)
        for j in range(0, T, 13)
    ]


def _capped(y: np.ndarray, kind: str = "by cell", expected: float = 2.0, used: np.ndarray | None = None):
    """Sums after capping, and what was capped."""
    row = ROW if used is None else np.where(used, ROW, -1)
    bounds = capped.bounds_of(np.full((T, 2), expected), OVERDISPERSION, S, row >= 0)
    noted, sums = capped.Noted(bounds), RowSums(row, 2 * N_G, T)
    for block in _blocks(y, kind):
        sums.add(block)
        noted.add(block)
    counts = sums.closed()[0].copy()
    return counts, capped.cap(noted, counts, row, *OF_ROW, S)


def _sums(y: np.ndarray) -> np.ndarray:
    return np.stack([y[r == ROW].sum(0) for r in range(2 * N_G)], 1)


@pytest.mark.parametrize("kind", ["by cell", "by feature", "in rectangles"])
def test_one_wild_cell_is_capped_at_what_so_many_cells_would_show(kind: str, rng: np.random.Generator) -> None:
    y = _counts(np.full((N, T), 2.0), rng)
    y[17, 5], y[44, 30] = 300, 5000
    counts, (feature, cell, taken) = _capped(y, kind)
    np.testing.assert_array_equal(feature, [5, 30])
    np.testing.assert_array_equal(cell, [17, 44])
    at = y[[17, 44], [5, 30]] - taken
    # the largest of so many counts at the mean of the guide's other cells
    for value, c, t in zip(at, cell, feature, strict=True):
        others = (GUIDE == GUIDE[c]) & (np.arange(N) != c)
        mean = S[c] * max(2.0, (y[others, t].sum() + 2.0) / S[others].sum())
        assert value == nbinom.isf(1 / N, 4.0, 4.0 / (4.0 + mean))
    want = _sums(y)
    want[feature, ROW[cell]] -= taken
    np.testing.assert_array_equal(counts, want)


def test_clean_counts_stay(rng: np.random.Generator) -> None:
    y = _counts(rng.lognormal(0.5, 0.3, T) * np.ones((N, 1)), rng)
    counts, (feature, _, _) = _capped(y, expected=2.0)
    assert not len(feature)
    np.testing.assert_array_equal(counts, _sums(y))


def test_a_strong_response_stays(rng: np.random.Generator) -> None:
    """A feature that one guide raises fifty times."""
    mean = np.full((N, T), 0.2)
    mean[GUIDE == 2, 7] = 10.0
    counts, (feature, _, _) = _capped(y := _counts(mean, rng), expected=0.2)
    assert not len(feature)
    np.testing.assert_array_equal(counts, _sums(y))


def test_bursts_in_several_cells_stay(rng: np.random.Generator) -> None:
    y = _counts(np.full((N, T), 0.2), rng)
    some = np.flatnonzero(GUIDE == 1)[:12]
    y[some, 3] = rng.integers(20, 60, len(some))
    _, (feature, _, _) = _capped(y, expected=0.2)
    assert not len(feature)


def test_two_wild_cells_of_one_feature_in_different_guides_are_capped(rng: np.random.Generator) -> None:
    y = _counts(np.full((N, T), 2.0), rng)
    y[0, 9], y[1, 9] = 400, 900
    _, (feature, cell, _) = _capped(y)
    np.testing.assert_array_equal(feature, [9, 9])
    np.testing.assert_array_equal(cell, [0, 1])


def test_cells_that_take_no_part_are_left(rng: np.random.Generator) -> None:
    y = _counts(np.full((N, T), 2.0), rng)
    y[17, 5] = 300
    used = np.ones(N, dtype=bool)
    used[17] = False
    assert not len(_capped(y, used=used)[1][0])


def test_of_a_feature_that_controls_say_nothing_of_one_cell_is_capped_and_one_guide_is_not(
    rng: np.random.Generator,
) -> None:
    y = np.zeros((N, T))
    y[GUIDE == 2, 5] = rng.poisson(4 * S[GUIDE == 2])
    y[8, 6] = 40
    bounds = capped.bounds_of(np.full((T, 2), np.nan), np.where(np.arange(T) < 3, 0.5, np.nan), S, ROW >= 0)
    noted, sums = capped.Noted(bounds), RowSums(ROW, 2 * N_G, T)
    for block in _blocks(y, "by cell"):
        sums.add(block)
        noted.add(block)
    feature, cell, taken = capped.cap(noted, sums.closed()[0].copy(), ROW, *OF_ROW, S)
    assert (feature.tolist(), cell.tolist()) == ([6], [8])
    assert taken[0] >= 36


def test_one_wild_control_cell_is_capped_though_its_mean_and_overdispersion_hold_it(rng: np.random.Generator) -> None:
    """The technical step has seen the cell: it says that the feature has a large mean and is bursty."""
    control = np.arange(N_G) < 4
    of_control = control[GUIDE]
    y = _counts(np.full((N, T), 0.5), rng)
    y[4, 9] = 0.0
    clean = _sums(y)
    y[0, 9] = 5000.0
    mean, overdispersion = np.full((T, 2), 0.5), np.full(T, 0.5)
    mean[9], overdispersion[9] = (y[of_control, 9] / S[of_control]).mean(), 15.0
    bounds = capped.bounds_of(mean, overdispersion, S, ROW >= 0)
    noted, sums = capped.Noted(bounds), RowSums(ROW, 2 * N_G, T)
    for block in _blocks(y, "by cell"):
        sums.add(block)
        noted.add(block)
    counts = sums.closed()[0].copy()
    feature, cell, taken = capped.cap(noted, counts, ROW, *OF_ROW, S, control)
    assert (feature.tolist(), cell.tolist()) == ([9], [0])
    assert 5000.0 - taken[0] < 40.0
    assert abs(counts[9] - clean[9]).max() < 40.0
    assert bounds.overdispersion[9] == pytest.approx(1.5)


def test_a_bursty_feature_is_not_taken_for_a_wild_one(rng: np.random.Generator) -> None:
    """Overdispersion far above that of other features, shown by many cells in all guides."""
    y = _counts(np.full((N, T), 0.5), rng)
    bursts = rng.choice(N, 60, replace=False)
    y[bursts, 9] = rng.integers(40, 90, 60)
    mean, overdispersion = np.full((T, 2), 0.5), np.full(T, 0.5)
    mean[9], overdispersion[9] = y[:, 9].mean(), y[:, 9].std() / y[:, 9].mean()
    bounds = capped.bounds_of(mean, overdispersion, S, ROW >= 0)
    noted, sums = capped.Noted(bounds), RowSums(ROW, 2 * N_G, T)
    for block in _blocks(y, "by cell"):
        sums.add(block)
        noted.add(block)
    feature, _, _ = capped.cap(noted, sums.closed()[0].copy(), ROW, *OF_ROW, S, np.arange(N_G) < 4)
    assert 9 not in feature.tolist()
