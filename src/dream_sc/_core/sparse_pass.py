"""Compiled passes over compressed counts: checks, sums per row, tails, moments.

A compressed matrix has major slices (cells of a csr, features of a csc) whose entries name their minor index. All
but `check` and `pick` take entries that are sorted by minor index, without duplicates. Threads write to disjoint
places, and every sum runs in the order of cells, so results depend neither on their number nor on the blocks.

Sums of rows are kept in tiles of `TILE` features, each row by row: a cell's counts then fall on memory that is near,
and a tile can be transposed in place.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numba as nb
import numpy as np

TILE = 1000
OUTSIDE, DISORDER, NOT_FINITE, NEGATIVE, FRACTION = 1, 2, 4, 8, 16


def shares(ends, n):
    """Bounds of `n` runs of items with about equal load; `ends` is the load before each item, and of all."""
    bounds = np.searchsorted(ends, np.linspace(ends[0], ends[-1], n + 1))
    bounds[0], bounds[-1] = 0, len(ends) - 1
    return bounds.astype(np.int64)


@nb.njit(cache=True, error_model="numpy")
def _lower(indices, low, high, value):
    """First place from `low` on whose index is at least `value`."""
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@nb.njit(cache=True, error_model="numpy")
def _check_indices(indices, start, stop, n_minor):
    outside, disorder = False, False
    for p in range(start, stop):
        outside |= (indices[p] < 0) | (indices[p] >= n_minor)
    for p in range(start + 1, stop):
        disorder |= indices[p] <= indices[p - 1]
    return (OUTSIDE if outside else 0) | (DISORDER if disorder else 0)


@nb.njit(cache=True, error_model="numpy")
def _reason(value):
    if not np.isfinite(value):
        return NOT_FINITE
    if value < 0:
        return NEGATIVE
    return FRACTION if value != np.floor(value) else 0


@nb.njit(cache=True, error_model="numpy")
def _check_values(data, start, stop):
    good, found = True, 0
    for p in range(start, stop):
        v = np.float64(data[p])
        good &= (v >= 0.0) & (v < np.inf) & (v == np.floor(v))
    if not good:
        for p in range(start, stop):
            found |= _reason(np.float64(data[p]))
    return found


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def check(indptr, indices, data, n_minor, use_major, use_minor, bounds):
    """What is wrong with the entries of the slices used, as flags, per run of slices.

    Values are looked at where `use_minor` holds, too; if it is empty, all are.
    """
    found = np.zeros(len(bounds) - 1, dtype=np.int64)
    for g in nb.prange(len(bounds) - 1):
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
    return found


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def count_dense(x, use_major, use_minor, n_stored):
    """Entries that are not zero in each row of a dense matrix, where used."""
    for i in nb.prange(x.shape[0]):
        n = 0
        if use_major[i]:
            for j in range(x.shape[1]):
                if x[i, j] != 0 and (len(use_minor) == 0 or use_minor[j]):
                    n += 1
        n_stored[i] = n


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def compress_dense(x, use_major, use_minor, indptr, indices, data):
    """Fill a compressed matrix with the entries that `count_dense` counted."""
    for i in nb.prange(x.shape[0]):
        p = indptr[i]
        if use_major[i]:
            for j in range(x.shape[1]):
                if x[i, j] != 0 and (len(use_minor) == 0 or use_minor[j]):
                    indices[p], data[p] = j, x[i, j]
                    p += 1


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def pick(indptr, indices, data, minor, use_major, out):
    """Add the entries of one minor index to `out`, one value per major slice."""
    for i in nb.prange(len(indptr) - 1):
        if use_major[i]:
            for p in range(indptr[i], indptr[i + 1]):
                if indices[p] == minor:
                    out[i] += data[p]


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def add_cells(indptr, indices, data, feature, cells, bounds, row, total, n_rows, weight, moved, weighted, n_weighted):
    """Add cells to the sums of their rows; `cells` come grouped by row, `bounds` never cut a row.

    `row` and `moved` name the row of each cell among all and among those with weighted sums; it is beyond the last
    for none.
    """
    for g in nb.prange(len(bounds) - 1):
        for k in range(bounds[g], bounds[g + 1]):
            i = cells[k]
            p, stop = indptr[i], indptr[i + 1]
            while p < stop:
                tile = (indices[p] + feature) // TILE
                end = (tile + 1) * TILE - feature
                # where the feature of index 0 of this block would lie
                at = (tile * n_rows + row[i] - tile) * TILE + feature
                first = p
                while p < stop and indices[p] < end:
                    total[at + indices[p]] += data[p]
                    p += 1
                if moved[i] < n_weighted:
                    at = (tile * n_weighted + moved[i] - tile) * TILE + feature
                    w = weight[i]
                    for m in range(first, p):
                        weighted[at + indices[m]] += w * data[m]


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def add_features(indptr, indices, data, feature, bounds, row, total, n_rows, weight, moved, weighted, n_weighted):
    """Add features, given over cells, to the sums of the cells' rows."""
    for g in nb.prange(len(bounds) - 1):
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


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def transpose(x, out):
    """Transpose a matrix, `(n, m) -> (m, n)`."""
    n, m = x.shape
    for g in nb.prange((m + 31) // 32):
        for start in range(0, n, 32):
            for j in range(32 * g, min(32 * g + 32, m)):
                for i in range(start, min(start + 32, n)):
                    out[j, i] = x[i, j]


@nb.njit(cache=True, error_model="numpy")
def _add_tail(value, edges, n_exact, count, excess):
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


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def add_tails_of_cells(indptr, indices, data, cells, runs, edges, n_exact, count, excess):
    """Add cells to the histograms of features; each run of features is one thread's."""
    for g in nb.prange(len(runs) - 1):
        for k in range(len(cells)):
            p, stop = indptr[cells[k]], indptr[cells[k] + 1]
            p = _lower(indices, p, stop, runs[g])
            while p < stop and indices[p] < runs[g + 1]:
                j = indices[p]
                _add_tail(np.float64(data[p]), edges, n_exact, count[j], excess[j])
                p += 1


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def add_tails_of_features(indptr, indices, data, use, bounds, edges, n_exact, count, excess):
    """Add features, given over cells, to their histograms; cells not used do not count."""
    for g in nb.prange(len(bounds) - 1):
        for j in range(bounds[g], bounds[g + 1]):
            for p in range(indptr[j], indptr[j + 1]):
                if use[indices[p]]:
                    _add_tail(np.float64(data[p]), edges, n_exact, count[j], excess[j])


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def close_tails(count, excess, edges, n_exact):
    """Number of cells above each count, summed over the counts of each bin, from the histograms, in `excess`."""
    for f in nb.prange(len(count)):
        above = count[f, len(edges) - 1]
        for b in range(len(edges) - 2, -1, -1):
            own = np.float64(count[f, b]) if b < n_exact else excess[f, b]
            excess[f, b] = own + (edges[b + 1] - edges[b]) * above
            above += count[f, b]


@nb.njit(cache=True, error_model="numpy")
def _add_moments(value, weight, out):
    v = np.float64(value)
    out[0] += v
    out[1] += v * v
    out[2] += weight * v


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def major_moments(indptr, indices, data, weight, bounds, out):
    """Sums over each major slice of the values, their squares and the values times the minor index's weight."""
    for g in nb.prange(len(bounds) - 1):
        for i in range(bounds[g], bounds[g + 1]):
            for p in range(indptr[i], indptr[i + 1]):
                _add_moments(data[p], weight[indices[p]], out[i])


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def minor_moments(indptr, indices, data, weight, runs, out):
    """The same sums for each minor index, over the major slices and with their weights."""
    for g in nb.prange(len(runs) - 1):
        for i in range(len(indptr) - 1):
            stop = indptr[i + 1]
            p = _lower(indices, indptr[i], stop, runs[g])
            while p < stop and indices[p] < runs[g + 1]:
                _add_moments(data[p], weight[i], out[indices[p]])
                p += 1


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def regroup(indptr, indices, data, feature, runs, place, out_indices, out_data):
    """Append the entries of features to those of their cells from `runs[0]` to `runs[-1]`; `place` says where."""
    for g in nb.prange(len(runs) - 1):
        for j in range(len(indptr) - 1):
            stop = indptr[j + 1]
            p = _lower(indices, indptr[j], stop, runs[g])
            while p < stop and indices[p] < runs[g + 1]:
                i = indices[p] - runs[0]
                out_indices[place[i]], out_data[place[i]] = j + feature, data[p]
                place[i] += 1
                p += 1


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def median_ratios(indptr, indices, data, keep, means, out):
    """Median over the features kept of a cell's counts, where there are any, over the features' means."""
    for i in nb.prange(len(indptr) - 1):
        ratio, n = np.empty(indptr[i + 1] - indptr[i]), 0
        for p in range(indptr[i], indptr[i + 1]):
            if keep[indices[p]] and data[p] > 0:
                ratio[n] = data[p] / means[indices[p]]
                n += 1
        out[i] = np.median(ratio[:n]) if n else 0.0
