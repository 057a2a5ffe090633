"""Sufficient statistics from one pass over sparse counts, fed block by block.

Every class here takes blocks of cells and blocks of features alike; blocks with the same feature have to come in the
order of cells. Sums of whole counts are exact, weighted ones run in the order of cells: what comes out depends
neither on the blocks nor on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.parallel import in_runs, n_threads_for
from dream_sc._core.types import GuideStats, TechnicalStats

from . import kernels
from .kernels import TILE, shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .block import CountBlock

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

N_BINS = 32
MIN_PER_BIN = 8
MOST_COVARIATE_BINS, CELLS_PER_COVARIATE_BIN = 512, 4
EXACT_TAIL = 25
TAIL_RATIO = 1.15
LARGEST_COUNT = 1e7  # above it, the tail of a count's distribution is cut
DEPTH_VARIATION = (0.75, 0.9, 1.05, 1.2)  # coefficients of variation of size factors, one more bin from each on


class _Tiles:
    """Sums `(rows, T)` in tiles of features, transposed in place once they are complete."""

    def __init__(self, n_rows: int, n_features: int) -> None:
        self.n_rows, self.n_features = n_rows, n_features
        self.n_tiles = -(-n_features // TILE)
        self.flat = np.zeros(self.n_tiles * n_rows * TILE)

    def closed(self) -> Floats:
        """The sums as `(T, rows)`, in the same memory."""
        shape = self.n_rows, TILE
        buffer = np.empty(shape)
        for tile in self.flat.reshape(self.n_tiles, self.n_rows * TILE):
            buffer[:] = tile.reshape(shape)
            runs = -(-TILE // kernels.COLUMNS)
            in_runs(kernels.transpose, runs, buffer, tile.reshape(shape[::-1]), load=tile.size)
        return self.flat.reshape(self.n_tiles * TILE, self.n_rows)[: self.n_features]


class RowSums:
    """Sums of counts over the cells of each row, and sums weighted by a number of each cell.

    Parameters
    ----------
    row_of_cell
        ``(N,)``, -1 where a cell takes no part.
    n_rows, n_features
        R and T.
    weight
        ``(N,)``; rows whose cells have no weight but 0 have no weighted sums, which saves their memory.
    """

    def __init__(self, row_of_cell: Ints, n_rows: int, n_features: int, weight: Floats | None = None) -> None:
        if len(row_of_cell) and row_of_cell.max() >= n_rows:  # compiled code does not look
            raise IndexError(f"a cell is in row {row_of_cell.max()} of {n_rows}")
        self.row_of_cell, self.n_rows, self.used = row_of_cell, n_rows, row_of_cell >= 0
        self.weight = np.zeros(len(row_of_cell)) if weight is None else weight
        self.weighted_rows = weighted_rows(row_of_cell, weight)
        self._total, self._weighted = (_Tiles(n, n_features) for n in (n_rows, len(self.weighted_rows)))
        # the row of each cell among all and among those with weighted sums; for none, one beyond the last
        self._row = np.where(self.used, row_of_cell, n_rows)
        moved = self.used & (self.weight != 0)
        self._moved = np.full(len(row_of_cell), len(self.weighted_rows))
        self._moved[moved] = np.searchsorted(self.weighted_rows, row_of_cell[moved])

    def add(self, block: CountBlock) -> None:
        """Add the cells of a block."""
        c = block.cells
        arrays = block.indptr, block.indices, block.data, block.feature
        sums = (
            self._row[c],
            self._total.flat,
            self.n_rows,
            self.weight[c],
            self._moved[c],
            self._weighted.flat,
            self._weighted.n_rows,
        )
        load = len(block.data)
        n = n_threads_for(load)
        if block.by_cell:
            cells, bounds = _grouped(self.row_of_cell[c], block.indptr, n)
            in_runs(kernels.add_cells, len(bounds) - 1, *arrays, cells, bounds, *sums, load=load)
        else:
            in_runs(kernels.add_features, n, *arrays, shares(block.indptr, n), *sums, load=load)

    def closed(self) -> tuple[Floats, Floats]:
        """The sums ``(T, R)`` and the weighted ones ``(T, len(weighted_rows))``; nothing can be added from here on."""
        total, weighted = self._total.closed(), self._weighted.closed()
        del self._total, self._weighted
        return total, weighted


def weighted_rows(row_of_cell: Ints, weight: Floats | None) -> Ints:
    """The rows with a cell whose weight is not 0."""
    if weight is None:
        return np.zeros(0, dtype=np.int64)
    return np.unique(row_of_cell[(row_of_cell >= 0) & (weight != 0)])


def row_bytes(n_rows: int, n_features: int) -> int:
    """Memory that the sums of so many rows take."""
    return 8 * n_rows * TILE * (-(-n_features // TILE) + 1)


def _grouped(row: Ints, indptr: Ints, n: int) -> tuple[Ints, Ints]:
    """Cells sorted by row, and bounds of `n` runs of whole rows with about equal numbers of counts."""
    cells = np.flatnonzero(row >= 0)
    cells = cells[np.argsort(row[cells], kind="stable")]
    first = np.flatnonzero(np.diff(row[cells], prepend=-1))
    load = np.concatenate([[0], np.cumsum(np.diff(indptr)[cells])])
    bounds = np.append(first, len(cells))
    return cells, bounds[shares(load[bounds], n)]


def guide_stats(sums: RowSums, size_factor: Floats, guide: Ints, group: Ints) -> tuple[GuideStats, Floats]:
    """Close the sums of rows of (guide, group); `guide` and `group` are per row. The weighted sums come second."""
    rows, s = sums.row_of_cell[sums.used], size_factor[sums.used]
    exposure = np.bincount(rows, s, sums.n_rows).astype(np.float64)
    exposure2 = np.bincount(rows, s**2, sums.n_rows).astype(np.float64)
    counts, weighted = sums.closed()
    return GuideStats(counts, exposure, exposure2, guide, group, int(guide.max()) + 1, int(group.max()) + 1), weighted


def size_factor_bins(size_factor: Floats, group: Ints, control: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Bin of every control cell by group and size factor (-1 elsewhere), and the group of each bin."""
    bin_of_cell = np.full(len(size_factor), -1, dtype=np.int64)
    groups: list[int] = []
    for c in np.unique(group[control]):
        cells = np.flatnonzero(control & (group == c))
        n_bins = int(np.clip(len(cells) // MIN_PER_BIN, 1, N_BINS))
        rank = np.argsort(np.argsort(size_factor[cells], kind="stable"), kind="stable")
        bin_of_cell[cells] = len(groups) + rank * n_bins // len(cells)
        groups += [int(c)] * n_bins
    return bin_of_cell, np.array(groups, dtype=np.int64)


def n_depth_bins(size_factor: Floats) -> int:
    """How many bins of size factors the cells of a guide need.

    A sum gives each count the same weight, while a negative binomial one deserves less the larger its size factor;
    where these vary much, what the sum loses against the cells shows.
    """
    variation = size_factor.std() / size_factor.mean()
    return 1 + int(np.searchsorted(DEPTH_VARIATION, variation))


def depth_bins(size_factor: Floats, row: Ints, n_bins: int | Ints) -> Ints:
    """Bin ``(N,)`` of each cell by its size factor among the cells of its row, in equal numbers.

    `n_bins` may be given ``(N,)``, for the cells sorted by row.
    """
    order = np.lexsort((size_factor, row))
    start = np.searchsorted(row[order], row[order])
    size = np.searchsorted(row[order], row[order], side="right") - start
    out = np.empty(len(row), dtype=np.int64)
    out[order] = (np.arange(len(row)) - start) * n_bins // size
    return out


def covariate_bins(size_factor: Floats, z: Floats, group: Ints, control: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Bin of every control cell by group, covariates ``(N, Q)`` and size factor, and the group of each bin.

    At most 512 bins in all, or 32 for each group if that is more, and about four cells in a bin.
    """
    from dream_sc._core import covariates

    bin_of_cell = np.full(len(size_factor), -1, dtype=np.int64)
    groups: list[int] = []
    present = np.unique(group[control])
    for c in present:
        cells = np.flatnonzero(control & (group == c))
        depth = np.log(size_factor[cells])
        points = np.column_stack([z[cells], depth / (depth.std() + 1e-12)])
        most = min(max(N_BINS, MOST_COVARIATE_BINS // len(present)), len(cells) // CELLS_PER_COVARIATE_BIN)
        bins = covariates.alike(points, max(1, most))
        bin_of_cell[cells] = len(groups) + bins
        groups += [int(c)] * (int(bins.max()) + 1)
    return bin_of_cell, np.array(groups, dtype=np.int64)


def tail_edges(largest: float) -> Floats:
    """Edges of the count bins: every count up to 25, then ever wider bins."""
    edges = list(range(EXACT_TAIL + 1))
    while edges[-1] < largest:
        edges.append(int(np.ceil(edges[-1] * TAIL_RATIO)))
    return np.array(edges, dtype=np.float64)


def tail_bytes(n_features: int, largest: float) -> int:
    """Memory that the histograms of so many features take."""
    return 16 * n_features * len(tail_edges(largest))


@dataclass
class TailSums:
    """Per feature, the number of control cells above each count, summed over bins of counts."""

    control: NDArray[np.bool_]
    n_features: int
    largest: float

    def __post_init__(self) -> None:
        self.edges = tail_edges(self.largest)
        self._count = np.zeros((self.n_features, len(self.edges)), dtype=np.int64)
        self._excess = np.zeros((self.n_features, len(self.edges) - 1))

    def add(self, block: CountBlock) -> None:
        """Add the control cells of a block."""
        use, mine = self.control[block.cells], block.features
        matrix = block.indptr, block.indices, block.data
        bins = self.edges, EXACT_TAIL, self._count[mine], self._excess[mine]
        load = len(block.data)
        n = n_threads_for(load)
        if block.by_cell:
            runs = np.linspace(0, block.n_minor, n + 1).astype(np.int64)
            in_runs(kernels.add_tails_of_cells, n, *matrix, np.flatnonzero(use), runs, *bins, load=load)
        else:
            in_runs(kernels.add_tails_of_features, n, *matrix, use, shares(block.indptr, n), *bins, load=load)

    def closed(self) -> Floats:
        """The sums ``(T, J)``; nothing can be added from here on."""
        size = self._count.size
        in_runs(kernels.close_tails, self.n_features, self._count, self._excess, self.edges, EXACT_TAIL, load=size)
        del self._count
        return self._excess

    @property
    def at(self) -> Floats:
        """Representative count of each bin: the mean of its integers."""
        return (self.edges[:-1] + self.edges[1:] - 1) / 2


def technical_stats(
    sums: RowSums, tails: TailSums, size_factor: Floats, group_of_bin: Ints, n_groups: int, z: Floats | None = None
) -> TechnicalStats:
    """Close the sums over control cells, with the covariates `z` ``(N, Q)`` of the cells if there are any."""
    bins = sums.row_of_cell[sums.used]
    n_cells = np.bincount(bins, minlength=sums.n_rows).astype(np.float64)
    mean = np.bincount(bins, size_factor[sums.used], sums.n_rows) / n_cells
    counts, _ = sums.closed()
    of_bin = None
    if z is not None:
        from dream_sc._core import covariates

        of_bin = covariates.means(z[sums.used], bins, sums.n_rows, size_factor[sums.used])
    return TechnicalStats(counts, n_cells, mean, group_of_bin, n_groups, tails.closed(), tails.at, of_bin)


def add_feature_moments(block: CountBlock, weight: Floats, out: Floats) -> None:
    """Add to the sums over cells ``(T, 3)`` of counts, their squares, and counts times the cell's weight."""
    _add_moments(block, weight[block.cells], out[block.features], by_major=not block.by_cell)


def add_cell_moments(block: CountBlock, weight: Floats, out: Floats) -> None:
    """Add to the sums over features ``(N, 3)`` of counts, their squares, and counts times the feature's weight."""
    _add_moments(block, weight[block.features], out[block.cells], by_major=block.by_cell)


def _add_moments(block: CountBlock, weight: Floats, out: Floats, *, by_major: bool) -> None:
    matrix = block.indptr, block.indices, block.data, weight
    load = len(block.data)
    n = n_threads_for(load)
    if by_major:
        in_runs(kernels.major_moments, n, *matrix, shares(block.indptr, n), out, load=load)
    else:
        runs = np.linspace(0, block.n_minor, n + 1).astype(np.int64)
        in_runs(kernels.minor_moments, n, *matrix, runs, out, load=load)


def median_ratios(block: CountBlock, keep: NDArray[np.bool_], means: Floats) -> Floats:
    """Median over the features kept of a cell's counts above 0 over the features' means; 0 where there is none."""
    out = np.zeros(block.n_major)
    matrix = block.indptr, block.indices, block.data
    in_runs(kernels.median_ratios, block.n_major, *matrix, keep, means, out, load=len(block.data))
    return out
