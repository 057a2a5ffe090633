"""Where counts lie: sparse or dense, in memory, in a file, or in the chunks of a dask array.

Each source gives blocks in the order of its storage: some cells of a matrix that is kept by cell, some features of one
that is kept by feature (never rows of it: that would read everything for every slab), chunks of one in chunks.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import sparse

from dream_sc._core.parallel import in_runs
from dream_sc._core.sums import kernels
from dream_sc._core.sums.block import CountBlock, run_end

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

READ_AT_ONCE = 16_000_000  # bytes, where cells are taken out of a file
INDEX_BYTES = 4  # of the indices that dense counts get


class Source(Protocol):
    """Counts, cells x features."""

    @property
    def where(self) -> str:
        """Its name in messages."""
        ...

    def least(self) -> tuple[int, str]:
        """Bytes of the smallest block that can be read, and what that is."""
        ...

    def blocks(self, used: np.ndarray, size: int) -> Iterator[CountBlock]:
        """Blocks of at most `size` bytes; what holds no cell that is used may be left out."""
        ...

    def column(self, j: int, used: np.ndarray, size: int) -> np.ndarray:
        """Counts of one feature, 0 where a cell is not used."""
        ...


def source_of(x: Any, where: str) -> Source:
    """The kind of storage of a matrix; `where` names it in messages."""
    if sparse.issparse(x):
        return MemorySparse(x, where)
    if isinstance(x, np.ndarray):
        return MemoryDense(x, where)
    _is_open(x, where)
    kind = _kind(x)
    if kind is None:
        raise TypeError(
            f"{where} is a {type(x).__module__}.{type(x).__qualname__}: use a scipy csr or csc matrix, a numpy array, "
            "a backed or zarr array of anndata, or a dask array of one of these"
        )
    return kind(x, where)


def _kind(x: Any) -> Any:
    """Class of what is not in memory."""
    import h5py
    from anndata.abc import CSCDataset, CSRDataset

    if isinstance(x, CSRDataset | CSCDataset):
        return FileSparse
    zarr = sys.modules.get("zarr")
    if isinstance(x, h5py.Dataset) or (zarr is not None and isinstance(x, zarr.Array)):
        return FileDense
    dask = sys.modules.get("dask.array")
    return DaskChunks if dask is not None and isinstance(x, dask.Array) else None


def _is_open(x: Any, where: str) -> None:
    """Refuse what lies in a file that was closed."""
    import h5py

    inner = getattr(x, "group", x)
    if isinstance(inner, h5py.Dataset | h5py.Group) and not inner:
        raise ValueError(f"{where} lies in a file that was closed: open the file again and read {where} from it")


def _check_pointers(indptr: np.ndarray, n_major: int, n_stored: int, where: str) -> np.ndarray:
    """Pointers of a compressed matrix, if they make sense."""
    pointers = np.asarray(indptr, dtype=np.int64)
    if len(pointers) != n_major + 1 or pointers[0] != 0 or pointers[-1] > n_stored or (np.diff(pointers) < 0).any():
        raise ValueError(
            f"{where} is damaged: its indptr does not cut {n_stored} stored values into {n_major} "
            "slices; make the matrix again from its source"
        )
    return pointers


def _runs(indptr: np.ndarray, used: np.ndarray | None, n_entries: int) -> Iterator[tuple[int, int]]:
    """Runs of major slices that hold at most so many entries, without unused slices at their ends."""
    start, n = 0, len(indptr) - 1
    while start < n:
        if used is not None and not used[start]:
            following = used[start:].argmax()
            if following == 0:  # none is left
                return
            start += int(following)
        stop = run_end(indptr, start, n_entries)
        yield start, stop if used is None else start + int(np.flatnonzero(used[start:stop])[-1]) + 1
        start = stop


def pick(blocks: Iterable[CountBlock], j: int, used: np.ndarray, where: str) -> np.ndarray:
    """One feature from blocks of cells, or of features that hold it; entries of the same place are summed."""
    out = np.zeros(len(used))
    for block in blocks:
        if not block.features.start <= j < block.features.stop:
            continue
        minor, known = j - block.feature, block.known()
        if block.by_cell:
            arrays, load = (known.indptr, known.indices, known.data), len(known.data)
            in_runs(kernels.pick, known.n_major, *arrays, minor, used[block.cells], out[block.cells], load=load)
        else:
            entries = slice(*known.indptr[minor : minor + 2])
            cells = known.indices[entries].astype(np.int64)
            if len(cells) and not 0 <= cells.min() <= cells.max() < block.n_minor:
                raise ValueError(damaged(where))
            np.add.at(out, block.cell + cells, known.data[entries].astype(np.float64))
    out[~used] = 0
    return out


@dataclass(frozen=True)
class MemorySparse:
    """A scipy matrix; its one block is the matrix itself, without a copy."""

    x: Any
    where: str

    def __post_init__(self) -> None:
        if self.x.format not in ("csr", "csc"):
            raise TypeError(
                f"{self.where} is a sparse matrix in format {self.x.format!r}: convert it once, with .tocsr()"
            )
        n_major = self.x.shape[0 if self.x.format == "csr" else 1]
        _check_pointers(self.x.indptr, n_major, min(len(self.x.data), len(self.x.indices)), self.where)

    def least(self) -> tuple[int, str]:
        """Nothing is copied."""
        return 0, ""

    def blocks(self, used: np.ndarray, size: int) -> Iterator[CountBlock]:
        """One block; where the kernels do not know the types, parts that fit are converted."""
        whole = CountBlock.of(self.x)
        yield from [whole] if whole.is_known else whole.parts(size)

    def column(self, j: int, used: np.ndarray, size: int) -> np.ndarray:
        """One feature."""
        return pick(self.blocks(used, size), j, used, self.where)


@dataclass(frozen=True)
class MemoryDense:
    """A numpy array, compressed slab by slab along its memory."""

    x: np.ndarray
    where: str

    @property
    def _by_cell(self) -> bool:
        return not self.x.flags.f_contiguous or self.x.flags.c_contiguous

    @property
    def _slice_bytes(self) -> int:
        return self.x.shape[1 if self._by_cell else 0] * (2 * self.x.itemsize + INDEX_BYTES)

    def least(self) -> tuple[int, str]:
        """One slice."""
        return self._slice_bytes, "one cell" if self._by_cell else "one feature"

    def blocks(self, used: np.ndarray, size: int) -> Iterator[CountBlock]:
        """Slabs of cells, or of features where these are the columns in memory."""
        x, step = np.asarray(self.x), max(1, size // max(self._slice_bytes, 1))
        if not self._by_cell:
            for start in range(0, x.shape[1], step):
                yield CountBlock.of_dense(x[:, start : start + step], used, by_cell=False, feature=start)
            return
        for start in range(0, x.shape[0], step):
            mine = used[start : start + step]
            if mine.any():
                yield CountBlock.of_dense(x[start : start + step], mine, by_cell=True, cell=start)

    def column(self, j: int, used: np.ndarray, size: int) -> np.ndarray:
        """One feature."""
        return np.where(used, np.asarray(self.x)[:, j], 0).astype(np.float64)


@dataclass(frozen=True)
class FileSparse:
    """A csr or csc matrix in h5ad or zarr, read once, in order, in contiguous pieces."""

    x: Any
    where: str

    @property
    def _by_cell(self) -> bool:
        return bool(self.x.format == "csr")

    @property
    def _entry_bytes(self) -> int:
        return int(self.x.group["data"].dtype.itemsize + self.x.group["indices"].dtype.itemsize)

    def _pointers(self) -> np.ndarray:
        group, n_major = self.x.group, self.x.shape[0 if self._by_cell else 1]
        n_stored = min(group["data"].shape[0], group["indices"].shape[0])
        return _check_pointers(group["indptr"][...], n_major, n_stored, self.where)

    def least(self) -> tuple[int, str]:
        """The longest slice."""
        longest = int(np.diff(self._pointers()).max(initial=0))
        return longest * self._entry_bytes, "the cell with most values" if self._by_cell else "the longest feature"

    def blocks(self, used: np.ndarray, size: int) -> Iterator[CountBlock]:
        """Slabs of cells of a csr, those around cells that are used, or of features of a csc."""
        indptr, by_cell = self._pointers(), self._by_cell
        data, indices = self.x.group["data"], self.x.group["indices"]
        for start, stop in _runs(indptr, used if by_cell else None, size // self._entry_bytes):
            low, high = int(indptr[start]), int(indptr[stop])
            at = {"cell": start} if by_cell else {"feature": start}
            yield CountBlock(
                indptr[start : stop + 1] - low,
                np.asarray(indices[low:high]),
                np.asarray(data[low:high]),
                self.x.shape[1 if by_cell else 0],
                by_cell,
                **at,
            )

    def column(self, j: int, used: np.ndarray, size: int) -> np.ndarray:
        """One pass through a csr; of a csc only the feature is read."""
        if self._by_cell:
            return pick(self.blocks(used, size), j, used, self.where)
        low, high = (int(p) for p in self._pointers()[j : j + 2])
        indices = np.asarray(self.x.group["indices"][low:high])
        block = CountBlock(
            np.array([0, high - low]), indices, np.asarray(self.x.group["data"][low:high]), len(used), False, feature=j
        )
        return pick([block], j, used, self.where)


@dataclass(frozen=True)
class FileDense:
    """A dense array in h5ad or zarr, read in rectangles of whole chunks."""

    x: Any
    where: str

    @property
    def _value_bytes(self) -> int:
        return int(2 * self.x.dtype.itemsize + INDEX_BYTES)

    def _chunk(self) -> tuple[int, int]:
        """Cells and features of what has to be read at once."""
        chunk = getattr(self.x, "shards", None) or self.x.chunks or (1, self.x.shape[1])
        rows, columns = (max(1, min(c, n)) for c, n in zip(chunk, self.x.shape, strict=True))
        return rows, columns

    def least(self) -> tuple[int, str]:
        """One chunk."""
        rows, columns = self._chunk()
        return rows * columns * self._value_bytes, f"one chunk of {rows} x {columns} values"

    def blocks(self, used: np.ndarray, size: int) -> Iterator[CountBlock]:
        """Slabs of cells, or where one row of chunks is too large, parts of it."""
        (n, t), (rows, columns), most = self.x.shape, self._chunk(), size // self._value_bytes
        height = max(rows, most // max(t, 1) // rows * rows)
        width = t if height * t <= most else max(columns, most // height // columns * columns)
        for start in range(0, n, height):
            mine = np.flatnonzero(used[start : start + height])
            if not len(mine):
                continue
            low, high = start + int(mine[0]), start + int(mine[-1]) + 1
            for first in range(0, t, width):
                values = np.asarray(self.x[low:high, first : first + width])
                yield CountBlock.of_dense(values, used[low:high], by_cell=True, cell=low, feature=first)

    def column(self, j: int, used: np.ndarray, size: int) -> np.ndarray:
        """One feature."""
        return np.where(used, np.asarray(self.x[:, j]), 0).astype(np.float64)


@dataclass(frozen=True)
class DaskChunks:
    """A dask array, computed chunk by chunk."""

    x: Any
    where: str

    def __post_init__(self) -> None:
        if np.isnan([size for sizes in self.x.chunks for size in sizes]).any():
            raise ValueError(f"{self.where} is a dask array of unknown chunk sizes: call its .compute_chunk_sizes()")

    def least(self) -> tuple[int, str]:
        """The largest chunk, as far as its size can be known before it is computed."""
        if not isinstance(self.x._meta, np.ndarray):
            return 0, ""
        rows, columns = (max(sizes, default=0) for sizes in self.x.chunks)
        each = 2 * self.x.dtype.itemsize + INDEX_BYTES
        return rows * columns * each, f"one chunk of {rows} x {columns} values; .rechunk() makes them smaller"

    def blocks(self, used: np.ndarray, size: int) -> Iterator[CountBlock]:
        """Chunk by chunk, those without cells that are used left out."""
        yield from self._chunks(used, size, range(self.x.numblocks[1]))

    def column(self, j: int, used: np.ndarray, size: int) -> np.ndarray:
        """One feature, from the chunks that hold it."""
        k = int(np.searchsorted(np.cumsum(self.x.chunks[1]), j, side="right"))
        return pick(self._chunks(used, size, range(k, k + 1)), j, used, self.where)

    def _chunks(self, used: np.ndarray, size: int, columns: range) -> Iterator[CountBlock]:
        cells, features = (np.concatenate([[0], np.cumsum(sizes)]).astype(int) for sizes in self.x.chunks)
        for i in range(self.x.numblocks[0]):
            mine = used[cells[i] : cells[i + 1]]
            if mine.any():
                for k in columns:
                    chunk = self.x.blocks[i, k].compute()
                    shape = int(cells[i + 1] - cells[i]), int(features[k + 1] - features[k])
                    if chunk.shape != shape:
                        raise ValueError(f"a chunk of {self.where} is {chunk.shape}, but dask takes it for {shape}")
                    inner = source_of(self._alike(chunk), f"a chunk of {self.where}")
                    for block in inner.blocks(mine, size):
                        yield block.moved(int(cells[i]), int(features[k]))

    def _alike(self, chunk: Any) -> Any:
        """A chunk in the order that dask takes all for, by cell or by feature."""
        if not sparse.issparse(chunk):
            return np.ascontiguousarray(chunk) if isinstance(chunk, np.ndarray) else chunk
        order = "csc" if getattr(self.x._meta, "format", "") == "csc" else "csr"
        return chunk if chunk.format not in ("csr", "csc") else chunk.asformat(order)


def cells_in_memory(x: Any, at: np.ndarray) -> Any:
    """Some cells, in memory; those of a csr in a file go to their places as they are read, without another copy."""
    if _kind_name(x) != "csr" or not (np.diff(at) > 0).all():
        return x[at]
    source, used = FileSparse(x, "the matrix"), np.zeros(x.shape[0], dtype=bool)
    used[at] = True
    group = x.group
    indptr = np.concatenate([[0], np.cumsum(np.diff(source._pointers())[at])])
    indices, data = (np.empty(indptr[-1], dtype=group[name].dtype) for name in ("indices", "data"))
    done = 0
    for block in source.blocks(used, READ_AT_ONCE):
        mine = np.repeat(used[block.cells], np.diff(block.indptr))
        end = done + int(mine.sum())
        indices[done:end], data[done:end] = block.indices[mine], block.data[mine]
        done = end
    return sparse.csr_matrix((data, indices, indptr), (len(at), x.shape[1]), copy=False)


def _kind_name(x: Any) -> str:
    """The format of a sparse matrix that is not in memory, "" of all else."""
    return "" if sparse.issparse(x) or not hasattr(x, "group") else str(getattr(x, "format", ""))


def damaged(where: str) -> str:
    """What to say of indices that lie outside."""
    return f"{where} is damaged: it holds indices outside its shape; make the matrix again from its source"
