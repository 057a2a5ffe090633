"""Counts from every kind of storage: the same values, within a memory limit, and nothing altered."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anndata as ad
import dask.array as da
import h5py
import numpy as np
import pytest
from scipy import sparse

from dream_sc._data import counts as _reading
from dream_sc._data import storage
from dream_sc._data.counts import open_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

zarr = pytest.importorskip("zarr", reason="zarr is not installed")

pytestmark = pytest.mark.filterwarnings("ignore:zarr v3 autosharding")

N, T = 43, 41
CSR, CSC = sparse.csr_matrix, sparse.csc_matrix


@pytest.fixture(scope="module")
def y() -> np.ndarray:
    """Cells and features without counts, at the end too, and one feature with a count in every other cell."""
    rng = np.random.default_rng(0)
    y = rng.poisson(2.0, (N, T)) * (rng.random((N, T)) < 0.3).astype(np.int64)
    y[:, 30] += 1
    y[[10, *range(39, N)]] = 0
    y[:, [20, T - 2, T - 1]] = 0
    return y


@pytest.fixture(scope="module")
def used() -> np.ndarray:
    """Runs of cells, none at the ends."""
    used = np.zeros(N, dtype=bool)
    used[[5, 6, 7, 20, 21, 37]] = True
    return used


def _unsorted(y: np.ndarray, kind: Any) -> Any:
    """Entries in reverse, and the first of each slice in two parts."""
    x = kind(y)
    indptr, indices, data = [0], [], []
    for a, b in zip(x.indptr[:-1], x.indptr[1:], strict=True):
        indices += [*x.indices[a:b][::-1], *x.indices[a : a + 1]][: 0 if a == b else None]
        data += [*x.data[a:b][::-1] - np.eye(1, b - a, b - a - 1, dtype=int)[0], 1][: 0 if a == b else None]
        indptr.append(len(indices))
    return kind((data, indices, indptr), x.shape)


def _wide(x: Any) -> Any:
    x.indices, x.indptr = x.indices.astype(np.int64), x.indptr.astype(np.int64)
    return x


def _elem(store: Any, x: Any, **keywords: Any) -> Any:
    ad.io.write_elem(store, "x", x, **keywords)
    return store["x"]


def _backed(store: Any, x: Any, **keywords: Any) -> Any:
    return ad.io.sparse_dataset(_elem(store, x, **keywords))


def _filled(store: Any, y: np.ndarray, chunks: tuple[int, int]) -> Any:
    x = store.create_array("x", shape=y.shape, dtype=y.dtype, chunks=chunks)
    x[:] = y
    return x


def _rows(y: np.ndarray, form: Any) -> Any:
    return da.from_array(y, chunks=(20, -1)).map_blocks(form)


MEMORY: dict[str, Callable[[np.ndarray], Any]] = {
    "csr": CSR,
    "csc": CSC,
    "csr array": sparse.csr_array,
    "csc array": sparse.csc_array,
    "csr, int64": lambda y: _wide(CSR(y)),
    "csc, int64": lambda y: _wide(CSC(y)),
    "csr, unsorted": lambda y: _unsorted(y, CSR),
    "csc, unsorted": lambda y: _unsorted(y, CSC),
    "csr, longdouble": lambda y: CSR(y).astype(np.longdouble),
    "dense": lambda y: y.astype(np.float32),
    "dense, by column": np.asfortranarray,
    "dense, every other": lambda y: np.repeat(y, 2, 0)[::2],
    "dense, read only": lambda y: np.broadcast_to(y, y.shape),
    "dense, big endian": lambda y: y.astype(">i2"),
}
HDF5: dict[str, Callable[[Any, np.ndarray], Any]] = {
    "h5 csr": lambda f, y: _backed(f, CSR(y)),
    "h5 csc": lambda f, y: _backed(f, CSC(y)),
    "h5 csr, gzip": lambda f, y: _backed(f, CSR(y), dataset_kwargs={"compression": "gzip", "chunks": (50,)}),
    "h5 csr, unsorted": lambda f, y: _backed(f, _unsorted(y, CSR)),
    "h5 dense": lambda f, y: _elem(f, y.astype(np.float32)),
    "h5 dense, chunks": lambda f, y: f.create_dataset("x", data=y, chunks=(10, 7)),
    "h5 dense, columns": lambda f, y: f.create_dataset("x", data=y, chunks=(N, 3)),
}
ZARR: dict[str, Callable[[Any, np.ndarray], Any]] = {
    "zarr csr": lambda g, y: _backed(g, CSR(y)),
    "zarr csc": lambda g, y: _backed(g, CSC(y)),
    "zarr dense": lambda g, y: _filled(g, y, (10, 7)),
}
DASK: dict[str, Callable[[np.ndarray], Any]] = {
    "dask csr": lambda y: _rows(y, CSR),
    "dask csr array": lambda y: _rows(y, sparse.csr_array),
    "dask csc chunks of rows": lambda y: _rows(y, CSC),
    "dask csc": lambda y: da.from_array(y, chunks=(-1, 9)).map_blocks(CSC),
    "dask dense": lambda y: da.from_array(y.astype(np.float32), chunks=(17, 10)),
    "dask dense, by column": lambda y: da.from_array(y, chunks=(17, 10)).map_blocks(np.asfortranarray),
    "dask rectangles of csr": lambda y: da.from_array(y, chunks=(17, 10)).map_blocks(CSR),
}
LAZY = {"lazy h5 csr": CSR, "lazy h5 csc": CSC, "lazy h5 dense": np.asarray}


@pytest.fixture(scope="module", params=[*MEMORY, *HDF5, *ZARR, *DASK, *LAZY])
def x(request: pytest.FixtureRequest, y: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    name, path = request.param, tmp_path_factory.mktemp("store") / "store"
    if name in MEMORY:
        yield MEMORY[name](y.copy())
    elif name in DASK:
        yield DASK[name](y)
    elif name in ZARR:
        yield ZARR[name](zarr.open_group(str(path), mode="w"), y)
    else:
        with h5py.File(path, "w") as f:
            yield HDF5[name](f, y) if name in HDF5 else ad.experimental.read_elem_lazy(_elem(f, LAZY[name](y)))


def _dense(blocks: Iterator[Any]) -> np.ndarray:
    """The matrix that blocks make up; each entry comes once."""
    out, seen = np.zeros((N, T)), np.zeros((N, T), dtype=int)
    for b in blocks:
        part = sparse.csr_matrix((b.data, b.indices, b.indptr), (b.n_major, b.n_minor))
        assert part.has_canonical_format
        out[b.cells, b.features] += part.toarray() if b.by_cell else part.toarray().T
        seen[b.cells, b.features] += 1
    assert seen.max() == 1
    return out


@pytest.mark.parametrize("size", [None, 700, 100])
def test_every_storage_gives_the_same_counts(
    x: Any, y: np.ndarray, used: np.ndarray, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reading, "LARGEST_BLOCK", size or _reading.LARGEST_BLOCK)
    counts = open_counts(x, ".X")
    np.testing.assert_array_equal(_dense(counts.blocks()), y)
    np.testing.assert_array_equal(_dense(counts.blocks(used))[used], y[used])
    for j in (0, 20, 30, T - 3, T - 1):
        np.testing.assert_array_equal(counts.column(j), y[:, j])
        np.testing.assert_array_equal(counts.column(j, used), np.where(used, y[:, j], 0))
    if size == 100:  # a pass for each cell
        return
    by_cell = list(counts.cell_blocks())
    np.testing.assert_array_equal(_dense(iter(by_cell)), y)
    assert all(b.by_cell and b.n_minor == T for b in by_cell)
    assert [b.cell for b in by_cell] == sorted(b.cell for b in by_cell)


@pytest.mark.parametrize("name", list(MEMORY))
def test_the_matrix_is_left_as_it_was(y: np.ndarray, used: np.ndarray, name: str) -> None:
    x = MEMORY[name](y.copy())
    parts = [x] if isinstance(x, np.ndarray) else [x.data, x.indices, x.indptr]
    before = [p.copy() for p in parts]
    for p in parts:
        p.flags.writeable = False
    counts = open_counts(x, ".X")
    np.testing.assert_array_equal(_dense(counts.blocks()), y)
    list(counts.cell_blocks())
    counts.column(3, used)
    for p, q in zip(parts, before, strict=True):
        np.testing.assert_array_equal(p, q)
    if sparse.issparse(x) and "unsorted" not in name and "longdouble" not in name:
        block = next(counts.blocks())
        assert np.shares_memory(block.data, x.data)
        assert np.shares_memory(block.indices, x.indices)


# what is read from a file


class _Spy:
    """A stored vector that notes what is read of it."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.read = values, []
        self.dtype, self.shape = values.dtype, values.shape

    def __getitem__(self, part: Any) -> np.ndarray:
        self.read.append(part)
        return self.values[part]


def _file(x: Any) -> Any:
    group = {name: _Spy(getattr(x, name)) for name in ("data", "indices", "indptr")}
    return SimpleNamespace(format=x.format, shape=x.shape, dtype=x.dtype, group=group)


def _entries(spy: _Spy) -> list[int]:
    return [i for part in spy.read for i in range(part.start, part.stop)]


@pytest.mark.parametrize("kind", [CSR, CSC])
def test_a_file_is_read_once_in_order(y: np.ndarray, kind: Any) -> None:
    x = _file(kind(y))
    list(storage.FileSparse(x, ".X").blocks(np.ones(N, dtype=bool), 500))
    for name in ("data", "indices"):
        assert _entries(x.group[name]) == list(range(len(x.group["data"].values)))
        assert max(p.stop - p.start for p in x.group[name].read) <= max(500 // 12, np.diff(kind(y).indptr).max())


def test_cells_that_are_not_used_are_not_read(y: np.ndarray, used: np.ndarray) -> None:
    plain = CSR(y)
    x = _file(plain)
    list(storage.FileSparse(x, ".X").blocks(used, 500))
    wanted = {i for c in np.flatnonzero(used) for i in range(plain.indptr[c], plain.indptr[c + 1])}
    read = _entries(x.group["data"])
    assert wanted <= set(read)
    assert read == sorted(set(read))
    assert len(read) < 0.2 * plain.nnz
    x = _file(plain)
    assert list(storage.FileSparse(x, ".X").blocks(np.zeros(N, dtype=bool), 500)) == []
    assert not x.group["data"].read


def test_one_feature_of_a_csc_is_read_alone(y: np.ndarray) -> None:
    x = _file(CSC(y))
    np.testing.assert_array_equal(storage.FileSparse(x, ".X").column(30, np.ones(N, dtype=bool), 500), y[:, 30])
    assert len(_entries(x.group["data"])) == (y[:, 30] > 0).sum()


def test_chunks_without_cells_that_are_used_are_not_computed(y: np.ndarray, used: np.ndarray) -> None:
    computed = []

    def note(part: np.ndarray, block_info: Any = None) -> np.ndarray:
        computed.append(block_info[0]["chunk-location"])
        return part

    x = da.from_array(y, chunks=(10, 41)).map_blocks(note, dtype=y.dtype, meta=np.empty((0, 0), dtype=y.dtype))
    list(open_counts(x, ".X").blocks(used))
    assert sorted(computed) == [(0, 0), (2, 0), (3, 0)]


# memory


@pytest.fixture(scope="module")
def large() -> sparse.csr_matrix:
    """4 MB of counts in 1,500 cells and 800 features."""
    rng = np.random.default_rng(1)
    return sparse.random(1500, 800, 0.3, "csr", np.float32, rng, lambda n: rng.integers(1, 9, n))


@pytest.mark.parametrize("form", ["h5 csr", "h5 csc", "h5 dense", "h5 unsorted", "zarr csr", "dask csr", "dask dense"])
def test_the_limit_is_obeyed(large: sparse.csr_matrix, form: str, tmp_path: Path) -> None:
    limit = 1_000_000
    with h5py.File(tmp_path / "a.h5", "w") as f:
        if form == "zarr csr":
            group = _elem(zarr.open_group(str(tmp_path / "a"), mode="w"), large)
            for name in ("data", "indices"):
                values = group[name][...]
                del group[name]
                _filled_vector(group, name, values)
            x = ad.io.sparse_dataset(group)
        elif form.startswith("dask"):
            x = da.from_array(f.create_dataset("x", data=large.toarray(), chunks=(20, 800)), chunks=(20, 800))
            x = x if form.endswith("dense") else x.map_blocks(CSR)
        elif form == "h5 dense":
            x = f.create_dataset("x", data=large.toarray(), chunks=(10, 100))
        else:
            reverse = sparse.csr_matrix((large.data, large.indices.copy(), large.indptr), large.shape)
            for a, b in zip(large.indptr[:-1], large.indptr[1:], strict=True):
                reverse.indices[a:b] = large.indices[a:b][::-1]
            x = _backed(f, {"h5 csc": large.tocsc(), "h5 unsorted": reverse}.get(form, large))
        total, n_blocks = 0.0, 0
        for _ in open_counts(x, ".X", limit).blocks():  # what is loaded or compiled at first use
            break
        tracemalloc.start()
        try:
            for block in open_counts(x, ".X", limit).blocks():
                total, n_blocks = total + block.data.sum(), n_blocks + 1
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < limit + 500_000 * form.startswith("dask")  # its graphs
    assert n_blocks > 5
    assert total == large.sum()


def _filled_vector(group: Any, name: str, values: np.ndarray) -> None:
    x = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(5000,))
    x[:] = values


def test_a_limit_too_small_says_what_is_needed(large: sparse.csr_matrix, tmp_path: Path) -> None:
    needed = r"1 MB \(memory_limit='1MB'\).* 5 MB are needed, 5 MB for sums.*adata\[:, genes\]"
    with pytest.raises(ValueError, match=needed):
        open_counts(large, ".X", "1MB", {"sums": 5_000_000})
    with h5py.File(tmp_path / "a.h5", "w") as f:
        for matrix, what in ((large, "the cell with most values"), (large.tocsc(), "the longest feature")):
            x = _backed(f, matrix)
            needed = rf"1 kB \(memory_limit=1000\).*kB to read {what} of \.X.*Raise memory_limit="
            with pytest.raises(ValueError, match=needed):
                open_counts(x, ".X", 1000)
            del f["x"]
        x = f.create_dataset("d", data=large.toarray(), chunks=(100, 800))
        with pytest.raises(ValueError, match="one chunk of 100 x 800 values"):
            open_counts(x, ".X", "2MB")
    with pytest.raises(ValueError, match=r"one chunk of 1500 x 800 values; \.rechunk\(\)"):
        open_counts(da.from_array(large.toarray()), ".X", "2MB")
    with pytest.raises(ValueError, match=r"a chunk of \.X takes .* MB, but only 1 MB .*\.rechunk\(\)"):
        list(open_counts(da.from_array(large, asarray=False), ".X", "1MB").blocks())
    with pytest.raises(ValueError, match="by default half of what is available"):
        open_counts(large, ".X", None, {"sums": 10**18})
    with pytest.raises(ValueError, match="memory_limit='much' is no amount"):
        open_counts(large, ".X", "much")


# damaged or wrong


def _damage(x: Any, part: str, at: int, value: int) -> Any:
    getattr(x, part)[at] = value
    return x


@pytest.mark.parametrize("kind", [CSR, CSC])
@pytest.mark.parametrize(
    ("part", "at", "value"), [("indices", 5, 99), ("indices", 5, -1), ("indptr", 3, 9999), ("indptr", 0, 2)]
)
def test_damaged_matrices(y: np.ndarray, kind: Any, part: str, at: int, value: int, tmp_path: Path) -> None:
    bad = _damage(kind(y), part, at, value)
    with pytest.raises(ValueError, match=r"layers\['a'\] is damaged"):
        list(open_counts(bad, ".layers['a']").blocks())
    with h5py.File(tmp_path / "a.h5", "w") as f:
        x = _backed(f, kind(y))
        x.group[part][at] = value
        with pytest.raises(ValueError, match="damaged"):
            list(open_counts(x, ".X").blocks())
        if kind is CSC and part == "indices":
            with pytest.raises(ValueError, match="damaged"):
                open_counts(x, ".X").column(0)


def test_values_cut_short(y: np.ndarray, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        x = _backed(f, CSR(y))
        del x.group["indices"]
        x.group["indices"] = CSR(y).indices[:-10]
        with pytest.raises(ValueError, match="damaged"):
            list(open_counts(x, ".X").blocks())


@pytest.mark.parametrize("form", ["coo", "lil", "bsr"])
def test_other_formats_are_named(y: np.ndarray, form: str) -> None:
    with pytest.raises(TypeError, match=rf"\.X is a sparse matrix in format '{form}'.*tocsr"):
        open_counts(CSR(y).asformat(form), ".X")
    meta = CSR((0, 0), dtype=y.dtype)
    x = da.from_array(y, chunks=(20, -1)).map_blocks(lambda part: CSR(part).asformat(form), meta=meta)
    with pytest.raises(TypeError, match=rf"a chunk of \.X is a sparse matrix in format '{form}'"):
        list(open_counts(x, ".X").blocks())


def test_what_is_no_matrix(y: np.ndarray) -> None:
    with pytest.raises(TypeError, match=r"builtins\.list: use a scipy csr or csc matrix"):
        open_counts([[1, 2]], ".X")
    with pytest.raises(TypeError, match=r"values of type <U21.*layer="):
        open_counts(y.astype(str), ".X")
    with pytest.raises(TypeError, match="values of type complex"):
        open_counts(CSR(y.astype(complex)), ".X")


def test_a_closed_file(y: np.ndarray, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        x, dense = _backed(f, CSR(y)), f.create_dataset("d", data=y)
    for each in (x, dense):
        with pytest.raises(ValueError, match=r"\.X lies in a file that was closed: open the file again"):
            open_counts(each, ".X")


def test_dask_chunks_of_unknown_or_wrong_size(y: np.ndarray) -> None:
    x = da.from_array(y, chunks=(20, -1))
    with pytest.raises(ValueError, match=r"unknown chunk sizes: call its \.compute_chunk_sizes"):
        open_counts(x[x[:, 0] >= 0], ".X")
    wrong = x.map_blocks(lambda part: part[:3], dtype=y.dtype, chunks=x.chunks, meta=np.empty((0, 0), dtype=y.dtype))
    with pytest.raises(ValueError, match=r"a chunk of \.X is \(3, 41\), but dask takes it for \(20, 41\)"):
        list(open_counts(wrong, ".X").blocks())


@pytest.mark.parametrize("size", [200, 16_000_000])
def test_cells_are_taken_out_of_a_file(
    y: np.ndarray, used: np.ndarray, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anndata.io import sparse_dataset, write_elem

    monkeypatch.setattr(storage, "READ_AT_ONCE", size)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_elem(file, "x", CSR(y))
        x = sparse_dataset(file["x"])
        for at in (np.flatnonzero(used), np.arange(len(y)), np.array([], dtype=int), np.array([5, 2])):
            found = storage.cells_in_memory(x, at)
            assert found.dtype == y.dtype
            np.testing.assert_array_equal(found.toarray(), y[at])
