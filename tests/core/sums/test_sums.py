"""Sums, tails and moments against plain numpy, exactly, whatever the format, the blocks and the threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import sparse

from dream_sc._core import parallel
from dream_sc._core.sums import guide_sums
from dream_sc._core.sums.block import FRACTION, NEGATIVE, NOT_FINITE, OUTSIDE, CountBlock
from dream_sc._core.sums.kernels import TILE, shares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

N, T, R = 90, 2 * TILE + 37, 6


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    rng = np.random.default_rng(0)
    y = rng.poisson(rng.gamma(0.2, 5.0, T), (N, T)) * (rng.random((N, T)) < 0.5)
    y[5, 7], y[6, 7], y[0, 3], y[1, T - 1] = 26, 1234, 20_000_000, 25
    y[:, 11] = 0
    y[13] = 0
    return y.astype(np.float64)


@pytest.fixture(scope="module")
def row() -> np.ndarray:
    """Row 3 has no cell, and rows 4 and 5 have no weights."""
    row = np.random.default_rng(1).choice([-1, 0, 1, 2, 4, 5], N)
    row[:2] = 0, -1
    return row


@pytest.fixture(scope="module")
def weight(row: np.ndarray) -> np.ndarray:
    weight = np.random.default_rng(2).normal(size=N)
    weight[row > 2] = 0
    weight[row < 0] = np.nan
    return weight


def _by_cell(y: np.ndarray) -> Iterator[CountBlock]:
    yield CountBlock.of(sparse.csr_matrix(y))


def _by_feature(y: np.ndarray) -> Iterator[CountBlock]:
    yield CountBlock.of(sparse.csc_array(y.astype(np.int64)))


def _in_parts(y: np.ndarray) -> Iterator[CountBlock]:
    yield from CountBlock.of(sparse.csr_matrix(y.astype(np.float32))).parts(5000)


def _in_parts_by_feature(y: np.ndarray) -> Iterator[CountBlock]:
    for part in CountBlock.of(sparse.csc_matrix(y)).parts(3000):
        wide = part.indices.astype(np.int64)
        yield CountBlock(part.indptr, wide, part.data, part.n_minor, False, feature=part.feature)


def _in_rectangles(y: np.ndarray) -> Iterator[CountBlock]:
    """Of both kinds in turn."""
    every = np.ones(N, dtype=bool)
    for cell in range(0, N, 23):
        for k, feature in enumerate(range(0, T, 777)):
            part = y[cell : cell + 23, feature : feature + 777]
            yield CountBlock.of_dense(part, every[cell : cell + 23], bool(k % 2), cell, feature)


BLOCKS = [_by_cell, _by_feature, _in_parts, _in_parts_by_feature, _in_rectangles]


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def _threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "LOAD", 100)
    monkeypatch.setattr(parallel, "n_threads", lambda: request.param)  # however many this process is granted


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("blocks", BLOCKS)
def test_sums_of_rows(
    counts: np.ndarray, row: np.ndarray, weight: np.ndarray, blocks: Callable[[Any], Iterator[CountBlock]]
) -> None:
    sums = guide_sums.RowSums(row, R, T, weight)
    for block in blocks(counts):
        sums.add(block)
    np.testing.assert_array_equal(sums.weighted_rows, [0, 1, 2])
    total, weighted = sums.closed()
    expected, in_order = np.zeros((T, R)), np.zeros((T, R))
    for i in np.flatnonzero(row >= 0):
        expected[:, row[i]] += counts[i]
        in_order[:, row[i]] += weight[i] * counts[i]
    np.testing.assert_array_equal(total, expected)
    np.testing.assert_array_equal(weighted, in_order[:, :3])
    assert total.flags.c_contiguous
    assert weighted.flags.c_contiguous


def test_sums_without_weights_or_cells(counts: np.ndarray, row: np.ndarray) -> None:
    for rows in (row, np.full(N, -1)):
        sums = guide_sums.RowSums(rows, R, T)
        for block in _in_rectangles(counts):
            sums.add(block)
        total, weighted = sums.closed()
        assert total.sum() == counts[rows >= 0].sum()
        assert weighted.shape == (T, 0)


def test_memory_of_sums_is_known_before(row: np.ndarray, weight: np.ndarray) -> None:
    sums = guide_sums.RowSums(row, R, T, weight)
    flat = sums._total.flat, sums._weighted.flat
    assert [f.nbytes + f.nbytes // 3 for f in flat] == [guide_sums.row_bytes(n, T) for n in (R, 3)]
    tails = guide_sums.TailSums(row == 0, T, 1e7)
    assert tails._count.nbytes + tails._excess.nbytes <= guide_sums.tail_bytes(T, 1e7)


def _tails(y: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Cells above each count, summed over the counts of each bin, by their definition."""
    out = np.zeros((y.shape[1], len(edges) - 1))
    for j in range(len(edges) - 1):
        out[:, j] = np.clip(y - edges[j], 0, edges[j + 1] - edges[j]).sum(0)
    return out


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("blocks", BLOCKS)
def test_tails(counts: np.ndarray, row: np.ndarray, blocks: Callable[[Any], Iterator[CountBlock]]) -> None:
    tails = guide_sums.TailSums(row == 0, T, 1e7)
    for block in blocks(counts):
        tails.add(block)
    np.testing.assert_array_equal(tails.closed(), _tails(counts[row == 0], tails.edges))
    assert (counts[row == 0] > tails.edges[-1]).any()


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("blocks", BLOCKS)
def test_moments(counts: np.ndarray, blocks: Callable[[Any], Iterator[CountBlock]]) -> None:
    rng = np.random.default_rng(3)
    s, kept = rng.lognormal(size=N), (rng.random(T) < 0.5).astype(float)
    features, cells = np.zeros((T, 3)), np.zeros((N, 3))
    for block in blocks(counts):
        guide_sums.add_feature_moments(block, s, features)
        guide_sums.add_cell_moments(block, kept, cells)
    ordered = np.zeros(T)
    for i in range(N):
        ordered += s[i] * counts[i]
    np.testing.assert_array_equal(features, np.stack([counts.sum(0), (counts**2).sum(0), ordered], 1))
    np.testing.assert_array_equal(cells, np.stack([counts.sum(1), (counts**2).sum(1), counts @ kept], 1))


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "float32", "bool", "float16", ">i4", ">f8"])
def test_every_type_of_count(row: np.ndarray, dtype: str) -> None:
    y = np.random.default_rng(4).poisson(0.5, (N, 30)).clip(0, 1 if dtype == "bool" else 9)
    x = sparse.csr_matrix(y)
    for block in (
        CountBlock(x.indptr.astype(np.int64), x.indices, x.data.astype(dtype), 30).known(),
        CountBlock.of_dense(y.astype(dtype), np.ones(N, dtype=bool), by_cell=True),
        CountBlock.of_dense(y.astype(dtype), np.ones(N, dtype=bool), by_cell=False),
    ):
        assert not block.faults(row >= 0)
        sums = guide_sums.RowSums(row, R, 30)
        sums.add(block)
        total, _ = sums.closed()
        for r in range(R):
            np.testing.assert_array_equal(total[:, r], y[row == r].sum(0))


@pytest.mark.parametrize("by_cell", [True, False])
def test_faults_of_cells_that_are_used(by_cell: bool) -> None:
    y = np.ones((4, 5))
    y[0, 1], y[1, 2], y[2, 3] = -1, np.nan, 0.5
    block = CountBlock.of_dense(y, np.ones(4, dtype=bool), by_cell)
    assert block.faults(np.ones(4, dtype=bool)) == NEGATIVE | NOT_FINITE | FRACTION
    for cell, flag in enumerate([NEGATIVE, NOT_FINITE, FRACTION, 0]):
        assert block.faults(np.arange(4) == cell) == flag
    block.indices[-1] = 5
    assert block.faults(np.ones(4, dtype=bool)) & OUTSIDE
    block.indices[-1] = -1
    assert block.faults(np.ones(4, dtype=bool)) & OUTSIDE


def test_entries_out_of_order_and_twice() -> None:
    x = sparse.csr_matrix((np.array([3, 1, 2], dtype=np.uint8), [2, 0, 2], [0, 3, 3]), (2, 3))
    block = CountBlock.of(x)
    ordered = block.canonical()
    assert ordered.indices.tolist() == [0, 2]
    assert ordered.data.tolist() == [1, 5]
    assert block.indices.tolist() == [2, 0, 2]


def test_shares_are_even_and_cover_all() -> None:
    ends = np.array([0, 5, 5, 6, 30, 31, 40])
    for n in (1, 2, 3, 10):
        bounds = shares(ends, n)
        assert len(bounds) == n + 1
        assert (bounds[0], bounds[-1]) == (0, 6)
        assert (np.diff(bounds) >= 0).all()
    assert shares(ends, 2).tolist() == [0, 4, 6]
