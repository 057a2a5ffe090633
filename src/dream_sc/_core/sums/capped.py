"""Counts of single cells that their distribution does not allow, and what they are capped at in the sums.

One cell is no evidence: it may hold hundreds of counts of a gene of which the other cells of its guide hold two.
Counts far beyond what control cells show are noted in the pass over the counts. Once the sums are complete, each is
compared with the other cells of its own guide. So a strong response is not capped, nor are bursts in several cells.

A wild control cell has itself in the mean and the overdispersion that it is held against. So the overdispersion is
taken to be at most a few times that of other features of the same mean, unless other cells have such counts too, and
what is taken off control cells is taken off the mean.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.ndimage import median_filter

from dream_sc._core.compiled import Indices, Vector, entry
from dream_sc._core.parallel import in_runs, n_threads_for

from .kernels import SPARSE, shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .block import CountBlock

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

UNLIKELY = 1e-6  # expected number of cells with such a count, among all cells of a feature
SILENT = 1e-9  # least mean of control cells
N_SWEEPS = 5
SPARE_COUNTS = 2.0  # of the other cells of a guide, whose mean is not known exactly
NEIGHBOURS = 51  # features of similar mean
MOST_BEYOND = 3.0  # times their overdispersion, which one feature has by itself


@entry(typical=SPARSE)
def note(
    first: int,
    last: int,
    indptr: Indices,
    indices: Any,
    data: Any,
    of_major: Vector,
    of_minor: Vector,
    bounds: Indices,
    found: Indices,
    place: Indices,
) -> None:
    """Count the entries above the product of the bounds of their slices, run by run, in `found`.

    Where there is a `place`, their positions go there, from the sum of `found` of earlier runs on.
    """
    for g in range(first, last):
        n, start = 0, 0
        if place.size > 0:
            for k in range(g):
                start += found[k]
        for i in range(bounds[g], bounds[g + 1]):
            for p in range(indptr[i], indptr[i + 1]):
                if data[p] > of_major[i] * of_minor[indices[p]]:
                    if place.size > 0:
                        place[start + n] = p
                    n += 1
        if place.size == 0:
            found[g] = n


class Bounds(NamedTuple):
    """Counts above ``feature * cell`` are noted."""

    feature: Floats  # (T,)
    cell: Floats  # (N,) infinite where a cell takes no part
    expected: Floats  # (T, C) count of a control cell of each group at size factor 1
    overdispersion: Floats  # (T,) at most a few times that of other features of the same mean
    measured: Floats  # (T,) as it was measured


def bounds_of(expected: Floats, overdispersion: Floats, size_factor: Floats, used: NDArray[np.bool_]) -> Bounds:
    """Bounds beyond which a count is unlikely in a control cell, of any group and at its size factor or above."""
    n, known = max(int(used.sum()), 1), np.isfinite(overdispersion)
    # features that are silent in control cells: their counts are all noted, and compared within guides only
    o = np.maximum(np.where(known, overdispersion, np.median(overdispersion[known]) if known.any() else 1.0), 0.01)
    expected = np.maximum(np.where(known[:, None], expected, 0.0), SILENT)
    usual = np.minimum(o, MOST_BEYOND * _of_neighbours(o, expected.max(1), known))
    limit = np.where(known, _quantile(expected.max(1), usual, UNLIKELY / n), 0.0)
    # a quantile grows by less than the mean does
    cell = np.where(used, np.maximum(size_factor, 1.0), np.inf)
    return Bounds(limit, cell, expected, usual, o)


def _of_neighbours(overdispersion: Floats, mean: Floats, known: NDArray[np.bool_]) -> Floats:
    """Median overdispersion ``(T,)`` of the features of similar mean; that of a feature itself where it is not known.

    With fewer features than neighbours it is that of all.
    """
    out, order = overdispersion.copy(), np.flatnonzero(known)
    order = order[np.argsort(mean[order], kind="stable")]
    if len(order) <= NEIGHBOURS:
        out[order] = np.median(overdispersion[order]) if len(order) else 0.0
    else:
        out[order] = median_filter(overdispersion[order], NEIGHBOURS, mode="mirror")
    return out


def _quantile(mean: Floats, overdispersion: Floats, tail: float) -> Floats:
    """Count that a negative binomial exceeds with the probability `tail` at most."""
    from scipy.stats import nbinom  # takes most of a second to import

    size = overdispersion**-2.0
    return np.asarray(nbinom.isf(tail, size, size / (size + mean)))


class Noted:
    """Entries that are noted in the pass over the counts."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._parts: list[tuple[Ints, Ints, Floats]] = []

    def add(self, block: CountBlock) -> None:
        """Note the entries of a block."""
        of = self.bounds.cell[block.cells], self.bounds.feature[block.features]
        major, minor = of if block.by_cell else of[::-1]
        load = len(block.data)
        runs = shares(block.indptr, n_threads_for(load))
        n = len(runs) - 1
        found, nowhere = np.zeros(n, dtype=np.int64), np.zeros(0, dtype=np.int64)
        matrix = block.indptr, block.indices, block.data, major, minor, runs
        in_runs(note, n, *matrix, found, nowhere, load=load)
        if not found.any():
            return
        place = np.zeros(found.sum(), dtype=np.int64)
        in_runs(note, n, *matrix, found, place, load=load)
        at_major = np.searchsorted(block.indptr, place, side="right") - 1
        at = at_major, block.indices[place].astype(np.int64)
        cell, feature = at if block.by_cell else at[::-1]
        self._parts.append((feature + block.feature, cell + block.cell, block.data[place].astype(np.float64)))

    def closed(self) -> tuple[Ints, Ints, Floats]:
        """Feature, cell and count of each, by feature and cell."""
        if not self._parts:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
        feature, cell, count = (np.concatenate(x) for x in zip(*self._parts, strict=True))
        order = np.lexsort((cell, feature))
        return feature[order], cell[order], count[order]


def cap(
    noted: Noted,
    counts: Floats,
    row_of_cell: Ints,
    guide: Ints,
    group: Ints,
    size_factor: Floats,
    control: NDArray[np.bool_] | None = None,
) -> tuple[Ints, Ints, Floats]:
    """Take what is beyond the caps off the sums `counts` ``(T, R)`` of rows, in place.

    Parameters
    ----------
    guide, group
        ``(R,)`` of the rows.
    size_factor
        ``(N,)`` of the cells.
    control
        ``(G,)`` control guides, whose cells the expected counts are of.

    Returns
    -------
    Feature and cell of each count that was capped, and what was taken off.
    """
    from scipy.stats import nbinom

    feature, cell, count = noted.closed()
    if not len(feature):
        return feature, cell, count
    b, row, used = noted.bounds, row_of_cell[cell], row_of_cell >= 0
    n_guides, n = int(guide.max()) + 1, int(used.sum())
    of_guide, whole = guide[row], b.expected[feature]  # (n, C)
    n_cells = np.bincount(guide[row_of_cell[used]], minlength=n_guides)[of_guide]
    exposure = np.bincount(row_of_cell[used], size_factor[used], len(guide))
    own = whole[np.arange(len(row)), group[row]] * size_factor[cell]
    total, mean = np.empty(len(row)), np.empty(len(row))
    for g in np.unique(of_guide):
        mine, at = of_guide == g, np.flatnonzero(guide == g)
        total[mine] = counts[np.ix_(feature[mine], at)].sum(1)
        mean[mine] = whole[mine][:, group[at]] @ exposure[at]
    of_control = np.zeros(n_guides, dtype=bool) if control is None else control[:n_guides]
    is_control, in_controls = of_control[of_guide], counts[np.ix_(np.unique(feature), of_control[guide])].sum(1)
    place, pair = (np.unique(key, return_inverse=True)[1] for key in (feature, feature * n_guides + of_guide))
    value = count.copy()
    for _ in range(N_SWEEPS):
        off = np.bincount(pair, count - value)[pair]
        others = total - off - value
        # what was taken off control cells was in their mean
        taken = np.bincount(place, (count - value) * is_control) / np.maximum(in_controls, 1.0)
        kept = 1.0 - taken[place]
        left = np.maximum((mean - own) * kept, SILENT * 1e-6)
        ratio = np.maximum((others + SPARE_COUNTS) / left, 1.0)  # of the guide's other cells to control cells
        at_own = np.maximum(others, SPARE_COUNTS) / np.maximum(n_cells - 1, 1)
        o2 = _overdispersion2(b, feature, (place, pair), value, at_own, n_cells, n)
        m, size = own * kept * ratio, 1.0 / np.maximum(o2, 1e-4)
        p = size / (size + m)
        beyond = (n_cells > 1) & (nbinom.sf(count - 1, size, p) < UNLIKELY / n)
        new = np.where(beyond, np.minimum(nbinom.isf(1.0 / n, size, p), value), value)
        if (new == value).all():
            break
        value = new
    capped, taken = value < count, count - value
    np.subtract.at(counts, (feature[capped], row[capped]), taken[capped])
    return feature[capped], cell[capped], taken[capped]


def _overdispersion2(
    b: Bounds, feature: Ints, places: tuple[Ints, Ints], value: Floats, at_own: Floats, n_cells: Ints, n: int
) -> Floats:
    """Squared overdispersion that each noted count is held against: other counts that were noted tell of bursts.

    `places` are those of a count's feature, and of its feature and guide.
    """
    place, pair = places
    in_guide = np.bincount(pair, value**2)[pair] - value**2
    bursts = in_guide / np.maximum(n_cells - 1, 1) / at_own**2 - 1.0
    # over all guides: what was measured, as far as it is not of this count alone
    everywhere = (np.bincount(place, value**2)[place] - value**2) / n / b.expected[feature].max(1) ** 2
    measured = np.minimum(b.measured[feature] ** 2, everywhere)
    return np.asarray(np.maximum.reduce([b.overdispersion[feature] ** 2, bursts, measured]))
