"""Sufficient statistics from one pass over sparse counts, fed block by block of cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from .types import GuideStats, TechnicalStats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

N_BINS = 32
MIN_PER_BIN = 8
EXACT_TAIL = 25
TAIL_RATIO = 1.15


def indicator(row_of_cell: Ints, n_rows: int, weight: Floats | None = None) -> sparse.csr_matrix:
    """Rows x cells matrix of ones, or of the cells' weights; cells with row -1 take no part."""
    cells = np.flatnonzero(row_of_cell >= 0)
    shape = (n_rows, len(row_of_cell))
    values = np.ones(len(cells)) if weight is None else weight[cells]
    return sparse.csr_matrix((values, (row_of_cell[cells], cells)), shape=shape)


@dataclass
class RowSums:
    """Sums of counts over the cells of each row, weighted if there are weights, filled block by block."""

    row_of_cell: Ints
    n_rows: int
    n_features: int
    weight: Floats | None = None

    def __post_init__(self) -> None:
        self.total = np.zeros((self.n_rows, self.n_features))

    def add(self, start: int, block: Any) -> None:
        """Add the cells ``start, start + 1, ...`` of a sparse block."""
        part = slice(start, start + block.shape[0])
        weight = None if self.weight is None else self.weight[part]
        product = (indicator(self.row_of_cell[part], self.n_rows, weight) @ block).tocoo()
        self.total[product.row, product.col] += product.data


def guide_stats(sums: RowSums, size_factor: Floats, guide: Ints, group: Ints) -> GuideStats:
    """Close the sums of rows of (guide, group); `guide` and `group` are per row."""
    used = sums.row_of_cell >= 0
    rows, s = sums.row_of_cell[used], size_factor[used]
    exposure = np.bincount(rows, s, sums.n_rows).astype(np.float64)
    exposure2 = np.bincount(rows, s**2, sums.n_rows).astype(np.float64)
    counts = np.ascontiguousarray(sums.total.T)
    return GuideStats(counts, exposure, exposure2, guide, group, int(guide.max()) + 1, int(group.max()) + 1)


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


def tail_edges(largest: float) -> Floats:
    """Edges of the count bins: every count up to 25, then ever wider bins."""
    edges = list(range(EXACT_TAIL + 1))
    while edges[-1] < largest:
        edges.append(int(np.ceil(edges[-1] * TAIL_RATIO)))
    return np.array(edges, dtype=np.float64)


@dataclass
class TailSums:
    """Per feature, the number of control cells above each count, summed over bins of counts."""

    control: NDArray[np.bool_]
    n_features: int
    largest: float

    def __post_init__(self) -> None:
        self.edges = tail_edges(self.largest)
        self.total = np.zeros((self.n_features, len(self.edges) - 1))

    def add(self, start: int, block: Any) -> None:
        """Add the control cells of a sparse block that starts at cell `start`."""
        keep = np.flatnonzero(self.control[start : start + block.shape[0]])
        part = block[keep].tocoo()
        y, feature = part.data.astype(np.float64), part.col
        for j in range(len(self.edges) - 1):
            low, high = self.edges[j], self.edges[j + 1]
            above = y > low
            if not above.any():
                break
            y, feature = y[above], feature[above]
            self.total[:, j] += np.bincount(feature, np.minimum(y - low, high - low), self.n_features)

    @property
    def at(self) -> Floats:
        """Representative count of each bin: the mean of its integers."""
        return (self.edges[:-1] + self.edges[1:] - 1) / 2


def technical_stats(
    sums: RowSums, tails: TailSums, size_factor: Floats, group_of_bin: Ints, n_groups: int
) -> TechnicalStats:
    """Close the sums over control cells."""
    used = sums.row_of_cell >= 0
    n_cells = np.bincount(sums.row_of_cell[used], minlength=sums.n_rows).astype(np.float64)
    mean = np.bincount(sums.row_of_cell[used], size_factor[used], sums.n_rows) / n_cells
    counts = np.ascontiguousarray(sums.total.T)
    return TechnicalStats(counts, n_cells, mean, group_of_bin, n_groups, tails.total, tails.at)
