"""A part of the counts in compressed form, as the passes over counts take it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from dream_sc._core.parallel import in_runs, n_threads_for

from . import kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]

KNOWN = {np.dtype(t) for t in "bBhHiIlLqQfd"}  # types of values that the kernels are compiled for
NOBODY = np.empty(0, dtype=bool)
DISORDER, OUTSIDE = kernels.DISORDER, kernels.OUTSIDE
NOT_FINITE, NEGATIVE, FRACTION = kernels.NOT_FINITE, kernels.NEGATIVE, kernels.FRACTION


@dataclass(frozen=True)
class CountBlock:
    """Counts of some cells and features: a csr matrix if `by_cell`, else a csc matrix."""

    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    data: NDArray[Any]
    n_minor: int
    by_cell: bool = True
    cell: int = 0  # the first cell
    feature: int = 0  # the first feature

    @classmethod
    def of(cls, x: Any, cell: int = 0, feature: int = 0) -> CountBlock:
        """A scipy matrix in format csr or csc, without a copy."""
        by_cell = x.format == "csr"
        indptr = np.ascontiguousarray(x.indptr, dtype=np.int64)
        return cls(indptr, x.indices, x.data, x.shape[1 if by_cell else 0], by_cell, cell, feature)

    @classmethod
    def of_dense(cls, x: NDArray[Any], used: Bools, by_cell: bool, cell: int = 0, feature: int = 0) -> CountBlock:
        """Compress a matrix `(cells, features)`, by cell or by feature; cells not used become empty."""
        x = _native(x if by_cell else x.T)
        major, minor = (used, NOBODY) if by_cell else (np.ones(len(x), dtype=bool), used)
        stored = np.zeros(len(x) + 1, dtype=np.int64)
        in_runs(kernels.count_dense, len(x), x, major, minor, stored[1:], load=x.size)
        indptr = stored.cumsum()
        indices, data = np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1], dtype=x.dtype)
        in_runs(kernels.compress_dense, len(x), x, major, minor, indptr, indices, data, load=x.size)
        return cls(indptr, indices, data, x.shape[1], by_cell, cell, feature)

    @property
    def n_major(self) -> int:
        """Number of cells if `by_cell`, else of features."""
        return len(self.indptr) - 1

    @property
    def cells(self) -> slice:
        """The cells it holds."""
        return slice(self.cell, self.cell + (self.n_major if self.by_cell else self.n_minor))

    @property
    def features(self) -> slice:
        """The features it holds."""
        return slice(self.feature, self.feature + (self.n_minor if self.by_cell else self.n_major))

    @property
    def is_known(self) -> bool:
        """Whether the kernels take its arrays as they are."""
        return (
            self.data.dtype in KNOWN
            and self.data.dtype.isnative
            and self.data.flags.c_contiguous
            and self.indices.dtype in (np.int32, np.int64)
            and self.indices.flags.c_contiguous
        )

    def known(self) -> CountBlock:
        """The same with types that the kernels take: itself, or a copy."""
        if self.is_known:
            return self
        wide = np.int32 if self.indices.dtype == np.int32 else np.int64
        return replace(self, data=_native(self.data), indices=np.ascontiguousarray(self.indices, dtype=wide))

    def part(self, start: int, stop: int) -> CountBlock:
        """Major slices `start` to `stop`, without a copy of the values."""
        low, high = self.indptr[start], self.indptr[stop]
        indptr, indices, data = self.indptr[start : stop + 1] - low, self.indices[low:high], self.data[low:high]
        part = replace(self, indptr=indptr, indices=indices, data=data)
        return part.moved(start, 0) if self.by_cell else part.moved(0, start)

    def moved(self, cells: int, features: int) -> CountBlock:
        """The same at another place."""
        return replace(self, cell=self.cell + cells, feature=self.feature + features)

    def parts(self, size: int) -> Iterator[CountBlock]:
        """Runs of major slices of at most `size` bytes, or of one slice."""
        per = self.data.itemsize + self.indices.itemsize
        start = 0
        while start < self.n_major:
            stop = run_end(self.indptr, start, size // per)
            yield self.part(start, stop)
            start = stop

    def faults(self, used: Bools) -> int:
        """What is wrong with the values of the cells used, as flags of `sparse_pass`."""
        mine = used[self.cells]
        major = mine if self.by_cell else np.ones(self.n_major, dtype=bool)
        minor = NOBODY if self.by_cell or mine.all() else mine
        load = len(self.indices)
        bounds = kernels.shares(self.indptr, n_threads_for(load))
        found = np.zeros(len(bounds) - 1, dtype=np.int64)
        matrix = self.indptr, self.indices, self.data, self.n_minor
        in_runs(kernels.check, len(found), *matrix, major, minor, bounds, found, load=load)
        return reduce(or_, found.tolist(), 0)

    def canonical(self) -> CountBlock:
        """A copy with sorted indices, in which duplicates are summed."""
        x = sparse.csr_matrix(
            (self.data.astype(np.float64), self.indices.copy(), self.indptr.copy()), (self.n_major, self.n_minor)
        )
        x.sum_duplicates()
        return replace(self, indptr=x.indptr.astype(np.int64), indices=x.indices, data=x.data)


def run_end(indptr: NDArray[np.int64], start: int, n_entries: int) -> int:
    """End of the run of slices from `start` that holds at most so many entries, but one slice at least."""
    stop = int(np.searchsorted(indptr, indptr[start] + n_entries, side="right")) - 1
    return min(max(stop, start + 1), len(indptr) - 1)


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """Values in a type that the kernels take, in memory that is contiguous along rows."""
    if values.dtype == bool:
        return np.ascontiguousarray(values).view(np.uint8)
    known = values.dtype in KNOWN and values.dtype.isnative
    return np.ascontiguousarray(values, dtype=values.dtype if known else np.float64)
