"""Counts, checked, block by block, within a memory limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc import _validate
from dream_sc._core.parallel import in_runs, n_threads_for
from dream_sc._core.sums.block import DISORDER, FRACTION, NEGATIVE, NOT_FINITE, OUTSIDE, CountBlock, run_end
from dream_sc._core.sums.kernels import regroup
from dream_sc._memory.budget import beside_blocks, in_words, memory_budget

from .storage import MemoryDense, MemorySparse, Source, damaged, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LARGEST_BLOCK = 256_000_000  # larger ones are no faster
FAULTS = {NOT_FINITE: "not finite", NEGATIVE: "negative", FRACTION: "fraction"}
COPIES = 4  # of a block at a time, at most: the last one, one being read, and parts of it being put in order


@dataclass(frozen=True)
class Counts:
    """Counts of one matrix, cells x features."""

    source: Source
    shape: tuple[int, int]
    size: int  # bytes of a block
    room: int  # bytes for all that is not held by the caller
    elsewhere: Callable[[], str] | None = None  # says where else counts are, if these are none

    def blocks(self, used: np.ndarray | None = None) -> Iterator[CountBlock]:
        """Blocks with sorted indices and without duplicates, in the order of cells for every feature.

        Parameters
        ----------
        used
            ``(N,)`` cells that matter, all by default. Only their values are checked, others may be left out.

        Raises
        ------
        TypeError, ValueError
            If values are not counts, or the matrix is damaged.
        """
        used = self._mask(used)
        for raw in self.source.blocks(used, self.size):
            self._fits(raw)
            yield from self._sound(raw.known(), used)

    def column(self, j: int, used: np.ndarray | None = None) -> np.ndarray:
        """Values of one feature as a dense vector, 0 where a cell is not used; they are not checked."""
        return self.source.column(j, self._mask(used), self.size)

    def cell_blocks(self) -> Iterator[CountBlock]:
        """Blocks of some cells with all their features, whatever the storage.

        Where that is by feature, each block takes a pass through it.
        """
        stored = np.zeros(self.shape[0], dtype=np.int64)
        whole = True
        for block in self.blocks():
            if whole := whole and block.by_cell and block.n_minor == self.shape[1]:
                yield block
            elif block.by_cell:
                stored[block.cells] += np.diff(block.indptr)
            else:
                for part in block.parts(self.size):  # bincount copies
                    stored[block.cells] += np.bincount(part.indices, minlength=block.n_minor)
        ends = np.concatenate([[0], np.cumsum(stored)])
        for start, stop in () if whole else _cuts(ends, self.size // 12):
            yield self._gathered(ends[start : stop + 1] - ends[start], start)

    def _mask(self, used: np.ndarray | None) -> np.ndarray:
        return np.ones(self.shape[0], dtype=bool) if used is None else used

    def _fits(self, block: CountBlock) -> None:
        """Refuse a chunk larger than what was granted; its size was not known before."""
        taken = block.data.nbytes + block.indices.nbytes
        if taken > self.room and not isinstance(self.source, MemorySparse | MemoryDense):
            raise ValueError(
                f"a chunk of {self.source.where} takes {in_words(taken)}, but only {in_words(self.room)} are left for "
                "reading: make the chunks smaller with .rechunk(), or raise memory_limit="
            )

    def _sound(self, block: CountBlock, used: np.ndarray) -> Iterator[CountBlock]:
        """The block, if it holds counts; in copies of parts of it where its indices are not in order."""
        faults = block.faults(used)
        if faults & OUTSIDE:
            raise ValueError(damaged(self.source.where))
        for flag, fault in FAULTS.items():
            if faults & flag:
                whole_number = fault == "negative" and block.data.dtype.kind != "f"
                named = "negative integer" if whole_number else fault
                _validate.not_counts(named, self.source.where, self.elsewhere)
        if not faults & DISORDER:
            yield block
            return
        for part in block.parts(self.size // 2):
            yield part.canonical()

    def _gathered(self, indptr: np.ndarray, start: int) -> CountBlock:
        """The cells from `start` on, gathered from all blocks."""
        indices, data = np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1])
        place, stop = indptr[:-1].copy(), start + len(indptr) - 1
        for block in self.blocks():
            low, high = max(start, block.cells.start), min(stop, block.cells.stop)
            if low >= high:
                continue
            if block.by_cell:
                block = by_feature(block.part(low - block.cell, high - block.cell))
            n = n_threads_for(len(block.data))
            runs = np.linspace(low, high, n + 1).astype(np.int64) - block.cell
            arrays = block.indptr, block.indices, block.data, block.feature
            mine = place[low - start : high - start]
            in_runs(regroup, n, *arrays, runs, mine, indices, data, load=len(block.data))
        return CountBlock(indptr, indices, data, self.shape[1], cell=start)


def open_counts(
    x: Any,
    where: str,
    limit: int | str | None = None,
    held: Mapping[str, int] | None = None,
    elsewhere: Callable[[], str] | None = None,
) -> Counts:
    """Get ready to read a matrix within a memory limit.

    Parameters
    ----------
    x
        Matrix, cells x features, in memory or not.
    where
        Its name in messages.
    limit
        See `memory_budget`.
    held
        What the caller holds while it reads, and how many bytes of each.
    elsewhere
        Says where else there are counts, for the message where these are none.

    Raises
    ------
    TypeError, ValueError
        If this is no matrix of counts, or the limit is too small.
    """
    source = source_of(x, where)
    _validate.kind_of_counts(x.dtype, where)
    budget, own = memory_budget(limit), dict(held or {})
    least, what = source.least()
    needed = sum(own.values()) + COPIES * least
    if needed > budget:
        parts = [f"{in_words(n)} for {name}" for name, n in own.items()]
        parts += [f"{in_words(COPIES * least)} to read {what} of {where}"] if least else []
        given = "by default half of what is available" if limit is None else f"memory_limit={limit!r}"
        raise ValueError(
            f"too little memory: {in_words(budget)} ({given}), but at least {in_words(needed)} are needed, "
            f"{', and '.join(parts)}. Raise memory_limit=, use a machine with more memory, or take fewer features, "
            "adata[:, genes]"
        )
    room = budget - sum(own.values())
    free = room if isinstance(source, MemorySparse | MemoryDense) else room - beside_blocks(budget, x.shape[0])
    return Counts(source, tuple(x.shape), min(LARGEST_BLOCK, max(free // COPIES, least, 1)), room, elsewhere)


def by_feature(block: CountBlock) -> CountBlock:
    """The same block, compressed by feature."""
    from scipy import sparse

    x = sparse.csr_matrix((block.data, block.indices, block.indptr), (block.n_major, block.n_minor)).tocsc()
    return CountBlock.of(x, block.cell, block.feature)


def _cuts(ends: np.ndarray, n_entries: int) -> Iterator[tuple[int, int]]:
    """Runs of cells that hold at most so many entries."""
    start = 0
    while start < len(ends) - 1:
        stop = run_end(ends, start, n_entries)
        yield start, stop
        start = stop
