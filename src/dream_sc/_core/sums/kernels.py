"""Compiled passes over compressed counts: checks, sums per row, tails, moments.

The first two arguments of a pass are the runs that one call looks after: see `threads.in_runs`.

A compressed matrix has major slices (cells of a csr, features of a csc) whose entries name their minor index. All
but `check` and `pick` take entries that are sorted by minor index, without duplicates. Threads write to disjoint
places, and every sum runs in the order of cells, so results depend neither on their number nor on the blocks.

Sums of rows are kept in tiles of `TILE` features, each row by row: a cell's counts then fall on memory that is near,
and a tile can be transposed in place.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from dream_sc._core.compiled import Flags, IndexMatrix, Indices, Matrix, Vector, entry, inline

TILE = 1000
COLUMNS = 32  # of a run of `transpose`
# what indices and values of counts usually are
SPARSE = ({"indices": nb.types.Array(nb.int32, 1, "C"), "data": nb.types.Array(nb.float32, 1, "C")},)
OUTSIDE, DISORDER, NOT_FINITE, NEGATIVE, FRACTION = 1, 2, 4, 8, 16


def shares(ends: Any, n: int) -> Any:
    """Bounds of `n` runs of items with about equal load; `ends` is the load before each item, and of all."""
    bounds = np.searchsorted(ends, np.linspace(ends[0], ends[-1], n + 1))
    bounds[0], bounds[-1] = 0, len(ends) - 1
    return bounds.astype(np.int64)


@inline
def _lower(indices: Any, low: int, high: int, value: float) -> int:
    """First place from `low` on whose index is at least `value`."""
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@inline
def _check_indices(indices: Any, start: int, stop: int, n_minor: int) -> int:
    outside, disorder = False, False
    for p in range(start, stop):
        outside |= (indices[p] < 0) | (indices[p] >= n_minor)
    for p in range(start + 1, stop):
        disorder |= indices[p] <= indices[p - 1]
    return (OUTSIDE if outside else 0) | (DISORDER if disorder else 0)


@inline
def _reason(value: float) -> int:
    if not np.isfinite(value):
        return NOT_FINITE
    if value < 0:
        return NEGATIVE
    return FRACTION if value != np.floor(value) else 0


@inline
def _check_values(data: Any, start: int, stop: int) -> int:
    good, found = True, 0
    for p in range(start, stop):
        v = np.float64(data[p])
        good &= (v >= 0.0) & (v < np.inf) & (v == np.floor(v))
    if not good:
        for p in range(start, stop):
            found |= _reason(np.float64(data[p]))
    return found


@entry(typical=SPARSE)
def check(
    first: int,
    last: int,
    indptr: Indices,
    indices: Any,
    data: Any,
    n_minor: int,
    use_major: Flags,
    use_minor: Flags,
    bounds: Indices,
    found: Indices,
) -> None:
    """What is wrong with the entries of the slices used, as flags, per run of slices, in `found`.

    Values are looked at where `use_minor` holds, too; if it is empty, all are.
    """
    for g in range(first, last):
        flags = 0
        for i in range(bounds[g], bounds[g + 1]):
            if not use_major[i]:
                continue
            start, stop = indptr[i], indptr[i + 1]
            flags |= _check_indices(indices, start, stop, n_minor)
            wrong = _check_values(data, start, stop)
            if wrong and len(use_minor):
                wrong = 0
                for p in range(start, stop if not flags & OUTSIDE else start):
                    if use_minor[indices[p]]:
                        wrong |= _reason(np.float64(data[p]))
            flags |= wrong
        found[g] = flags


@entry
def count_dense(first: int, last: int, x: Any, use_major: Flags, use_minor: Flags, n_stored: Indices) -> None:
    """Entries that are not zero in each row of a dense matrix, where used."""
    for i in range(first, last):
        n = 0
        if use_major[i]:
            for j in range(x.shape[1]):
                if x[i, j] != 0 and (len(use_minor) == 0 or use_minor[j]):
                    n += 1
        n_stored[i] = n


@entry
def compress_dense(
    first: int, last: int, x: Any, use_major: Flags, use_minor: Flags, indptr: Indices, indices: Any, data: Any
) -> None:
    """Fill a compressed matrix with the entries that `count_dense` counted."""
    for i in range(first, last):
        p = indptr[i]
        if use_major[i]:
            for j in range(x.shape[1]):
                if x[i, j] != 0 and (len(use_minor) == 0 or use_minor[j]):
                    indices[p], data[p] = j, x[i, j]
                    p += 1


@entry(typical=SPARSE)
def pick(
    first: int, last: int, indptr: Indices, indices: Any, data: Any, minor: int, use_major: Flags, out: Vector
) -> None:
    """Add the entries of one minor index to `out`, one value per major slice."""
    for i in range(first, last):
        if use_major[i]:
            for p in range(indptr[i], indptr[i + 1]):
                if indices[p] == minor:
                    out[i] += data[p]


@entry(typical=SPARSE)
def add_cells(
    first: int,
    last: int,
    indptr: Indices,
    indices: Any,
    data: Any,
    feature: int,
    cells: Indices,
    bounds: Indices,
    row: Indices,
    total: Vector,
    n_rows: int,
    weight: Vector,
    moved: Indices,
    weighted: Vector,
    n_weighted: int,
) -> None:
    """Add cells to the sums of their rows; `cells` come grouped by row, `bounds` never cut a row.

    `row` and `moved` name the row of each cell among all and among those with weighted sums; it is beyond the last
    for none.
    """
    for g in range(first, last):
        for k in range(bounds[g], bounds[g + 1]):
            i = cells[k]
            p, stop = indptr[i], indptr[i + 1]
            while p < stop:
                tile = (indices[p] + feature) // TILE
                end = (tile + 1) * TILE - feature
                # where the feature of index 0 of this block would lie
                at = (tile * n_rows + row[i] - tile) * TILE + feature
                start = p
                while p < stop and indices[p] < end:
                    total[at + indices[p]] += data[p]
                    p += 1
                if moved[i] < n_weighted:
                    at = (tile * n_weighted + moved[i] - tile) * TILE + feature
                    w = weight[i]
                    for m in range(start, p):
                        weighted[at + indices[m]] += w * data[m]


@entry
def add_features(
    first: int,
    last: int,
    indptr: Indices,
    indices: Any,
    data: Any,
    feature: int,
    bounds: Indices,
    row: Indices,
    total: Vector,
    n_rows: int,
    weight: Vector,
    moved: Indices,
    weighted: Vector,
    n_weighted: int,
) -> None:
    """Add features, given over cells, to the sums of the cells' rows."""
    for g in range(first, last):
        # one place more, for cells that take no part: no branch for each count
        own, own_weighted = np.zeros(n_rows + 1), np.zeros(n_weighted + 1)
        for j in range(bounds[g], bounds[g + 1]):
            tile, at = (j + feature) // TILE, (j + feature) % TILE
            for r in range(n_rows):
                own[r] = total[(tile * n_rows + r) * TILE + at]
            for q in range(n_weighted):
                own_weighted[q] = weighted[(tile * n_weighted + q) * TILE + at]
            for p in range(indptr[j], indptr[j + 1]):
                own[row[indices[p]]] += data[p]
            if n_weighted:
                for p in range(indptr[j], indptr[j + 1]):
                    i = indices[p]
                    own_weighted[moved[i]] += weight[i] * data[p]
            for r in range(n_rows):
                total[(tile * n_rows + r) * TILE + at] = own[r]
            for q in range(n_weighted):
                weighted[(tile * n_weighted + q) * TILE + at] = own_weighted[q]


@entry
def transpose(first: int, last: int, x: Matrix, out: Matrix) -> None:
    """Transpose a matrix, `(n, m) -> (m, n)`."""
    n, m = x.shape
    for g in range(first, last):
        for start in range(0, n, COLUMNS):
            for j in range(COLUMNS * g, min(COLUMNS * (g + 1), m)):
                for i in range(start, min(start + COLUMNS, n)):
                    out[j, i] = x[i, j]


@inline
def _add_tail(value: float, edges: Vector, n_exact: int, count: Indices, excess: Vector) -> None:
    """Count a value in its bin, and what it exceeds the bin's lower edge by; the last bin of `count` is beyond all."""
    if value <= 0:
        return
    if value <= n_exact:
        count[int(value) - 1] += 1
        return
    last = len(edges) - 1
    if value > edges[last]:
        count[last] += 1
        return
    b = _lower(edges, 0, last + 1, value) - 1
    count[b] += 1
    excess[b] += value - edges[b]


@entry(typical=SPARSE)
def add_tails_of_cells(
    first: int,
    last: int,
    indptr: Indices,
    indices: Any,
    data: Any,
    cells: Indices,
    runs: Indices,
    edges: Vector,
    n_exact: int,
    count: IndexMatrix,
    excess: Matrix,
) -> None:
    """Add cells to the histograms of features; each run of features is one thread's."""
    for g in range(first, last):
        for k in range(len(cells)):
            p, stop = indptr[cells[k]], indptr[cells[k] + 1]
            p = _lower(indices, p, stop, runs[g])
            while p < stop and indices[p] < runs[g + 1]:
                j = indices[p]
                _add_tail(np.float64(data[p]), edges, n_exact, count[j], excess[j])
                p += 1


@entry
def add_tails_of_features(
    first: int,
    last: int,
    indptr: Indices,
    indices: Any,
    data: Any,
    use: Flags,
    bounds: Indices,
    edges: Vector,
    n_exact: int,
    count: IndexMatrix,
    excess: Matrix,
) -> None:
    """Add features, given over cells, to their histograms; cells not used do not count."""
    for g in range(first, last):
        for j in range(bounds[g], bounds[g + 1]):
            for p in range(indptr[j], indptr[j + 1]):
                if use[indices[p]]:
                    _add_tail(np.float64(data[p]), edges, n_exact, count[j], excess[j])


@entry
def close_tails(first: int, last: int, count: IndexMatrix, excess: Matrix, edges: Vector, n_exact: int) -> None:
    """Number of cells above each count, summed over the counts of each bin, from the histograms, in `excess`."""
    for f in range(first, last):
        above = count[f, len(edges) - 1]
        for b in range(len(edges) - 2, -1, -1):
            own = np.float64(count[f, b]) if b < n_exact else excess[f, b]
            excess[f, b] = own + (edges[b + 1] - edges[b]) * above
            above += count[f, b]


@inline
def _add_moments(value: float, weight: float, out: Vector) -> None:
    v = np.float64(value)
    out[0] += v
    out[1] += v * v
    out[2] += weight * v


@entry(typical=SPARSE)
def major_moments(
    first: int, last: int, indptr: Indices, indices: Any, data: Any, weight: Vector, bounds: Indices, out: Matrix
) -> None:
    """Sums over each major slice of the values, their squares and the values times the minor index's weight."""
    for g in range(first, last):
        for i in range(bounds[g], bounds[g + 1]):
            for p in range(indptr[i], indptr[i + 1]):
                _add_moments(data[p], weight[indices[p]], out[i])


@entry
def minor_moments(
    first: int, last: int, indptr: Indices, indices: Any, data: Any, weight: Vector, runs: Indices, out: Matrix
) -> None:
    """The same sums for each minor index, over the major slices and with their weights."""
    for g in range(first, last):
        for i in range(len(indptr) - 1):
            stop = indptr[i + 1]
            p = _lower(indices, indptr[i], stop, runs[g])
            while p < stop and indices[p] < runs[g + 1]:
                _add_moments(data[p], weight[i], out[indices[p]])
                p += 1


@entry
def regroup(
    first: int,
    last: int,
    indptr: Indices,
    indices: Any,
    data: Any,
    feature: int,
    runs: Indices,
    place: Indices,
    out_indices: Any,
    out_data: Vector,
) -> None:
    """Append the entries of features to those of their cells from `runs[0]` to `runs[-1]`; `place` says where."""
    for g in range(first, last):
        for j in range(len(indptr) - 1):
            stop = indptr[j + 1]
            p = _lower(indices, indptr[j], stop, runs[g])
            while p < stop and indices[p] < runs[g + 1]:
                i = indices[p] - runs[0]
                out_indices[place[i]], out_data[place[i]] = j + feature, data[p]
                place[i] += 1
                p += 1


@entry
def median_ratios(
    first: int, last: int, indptr: Indices, indices: Any, data: Any, keep: Flags, means: Vector, out: Vector
) -> None:
    """Median over the features kept of a cell's counts, where there are any, over the features' means."""
    for i in range(first, last):
        ratio, n = np.empty(indptr[i + 1] - indptr[i]), 0
        for p in range(indptr[i], indptr[i + 1]):
            if keep[indices[p]] and data[p] > 0:
                ratio[n] = data[p] / means[indices[p]]
                n += 1
        out[i] = np.median(ratio[:n]) if n else 0.0
