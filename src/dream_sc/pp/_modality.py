"""From checked counts to a new AnnData: parts of the columns, sums within genes, all of it sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _validate
from dream_sc._data import results
from dream_sc._keys import DENOMINATOR, MODALITY
from dream_sc._logging import wrote

from ._junctions import group_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anndata import AnnData

    from dream_sc._data.counts import Counts

PART = 64_000_000  # bytes of the counts that are worked on at a time
LARGEST_INT32 = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Input:
    """Counts of an AnnData that is only read."""

    adata: AnnData
    counts: Counts
    totals: np.ndarray  # of each column over all cells
    started: float

    @classmethod
    def of(cls, data: Any, mod: str | None, layer: str | None) -> Input:
        """Open the counts of an AnnData, a view of one, or a modality of a MuData."""
        from dream_sc._core.sums.guide_sums import add_feature_moments

        started, adata = results.now(), _validate.resolve(data, mod, views=True)
        counts = results.counts(adata, layer)
        sums, weight = np.zeros((counts.shape[1], 3)), np.zeros(counts.shape[0])
        for block in counts.blocks():
            add_feature_moments(block, weight, sums)
        return cls(adata, counts, sums[:, 0].copy(), started)

    def parts(self, columns: np.ndarray) -> Iterator[sparse.csr_matrix]:
        """Some columns in the order given, some cells at a time, in float64 and canonical."""
        for block in self.counts.cell_blocks():
            for part in block.parts(PART):
                arrays = part.data.astype(np.float64), part.indices, part.indptr
                x = sparse.csr_matrix(arrays, (part.n_major, part.n_minor))[:, columns]
                x.sort_indices()
                x.eliminate_zeros()
                yield x

    def columns(self, columns: np.ndarray) -> sparse.csr_matrix:
        """Some columns of all cells, as integers."""
        return stack([whole(x) for x in self.parts(columns)], len(columns))


REASONS = {
    "no_strand": "have no known strand",
    "no_gene": "have no gene",
    "min_counts": "have fewer than min_counts={} counts",
    "min_categories": "are in a group with too few",
}


class Kept:
    """Rows of `.var` that take part, and how many were left out for which reason."""

    def __init__(self, known: np.ndarray, what: str, totals: np.ndarray, min_counts: int) -> None:
        self.mask = known & (totals >= min_counts)
        self.min_counts = min_counts
        self.left_out = {f"no_{what}": int((~known).sum()), "min_counts": int((known & ~self.mask).sum())}

    def drop_small(self, group: np.ndarray, least: int, feature: str, rows: str) -> None:
        """Leave out groups with fewer than `least` rows; an error if none is left."""
        size = np.bincount(group[self.mask], minlength=group.max(initial=-1) + 1)
        few = self.mask & (size[group] < least)
        self.mask = self.mask & ~few
        self.left_out["min_categories"] = int(few.sum())
        if not self.mask.any():
            told = [f"{n} {REASONS[reason].format(self.min_counts)}" for reason, n in self.left_out.items()]
            raise ValueError(
                f"no {feature} has {least} {rows} or more: of {len(group)} {rows}, {', '.join(told)}; lower "
                "min_counts=, or look at the columns of .var"
            )

    def sorted(self, *keys: np.ndarray) -> np.ndarray:
        """Positions of the rows that take part, sorted by keys, the first one foremost."""
        rows = np.flatnonzero(self.mask)
        return rows[np.argsort(group_of(*(key[rows] for key in keys)), kind="stable")]


def whole(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """Whole numbers as int32, or as int64 where that is too small."""
    kind = np.int32 if x.data.max(initial=0) <= LARGEST_INT32 else np.int64
    return sparse.csr_matrix((x.data.astype(kind), x.indices, x.indptr), x.shape)


def stack(parts: list[sparse.csr_matrix], n_columns: int) -> sparse.csr_matrix:
    """Cells one below another."""
    return sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix((0, n_columns), dtype=np.int32)


def per_group(x: sparse.csr_matrix, group: np.ndarray, n_groups: int, reduce: np.ufunc) -> sparse.csr_matrix:
    """Reduce the stored values of each cell within groups of columns; `group` ``(n_columns,)`` never falls."""
    groups = group[x.indices]
    rows = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    first = np.flatnonzero((np.diff(groups, prepend=-1) != 0) | (np.diff(rows, prepend=-1) != 0))
    values = reduce.reduceat(x.data, first) if len(first) else x.data
    return sparse.csr_matrix((values, (rows[first], groups[first])), (x.shape[0], n_groups))


def spread(x: sparse.csr_matrix, group: np.ndarray) -> sparse.csr_matrix:
    """Give each column its group's value; `group` ``(n_columns,)`` never falls and `x` has sorted indices.

    The result is written in place, part by part: it is by far the largest matrix of all.
    """
    size = np.bincount(group, minlength=x.shape[1])
    begin = np.concatenate([[0], np.cumsum(size)[:-1]])
    indptr = np.concatenate([[0], np.cumsum(size[x.indices])])[x.indptr]
    kind = np.int32 if max(indptr[-1], len(group)) <= LARGEST_INT32 else np.int64
    indices, data = np.empty(indptr[-1], dtype=kind), np.empty(indptr[-1], dtype=x.dtype)
    step = max(1, PART // 8 * x.shape[0] // max(int(indptr[-1]), 1))
    for cell in range(0, x.shape[0], step):
        entries = slice(x.indptr[cell], x.indptr[min(cell + step, x.shape[0])])
        places = slice(indptr[cell], indptr[min(cell + step, x.shape[0])])
        times = size[x.indices[entries]]
        offset = begin[x.indices[entries]] - (np.cumsum(times) - times)
        indices[places] = np.repeat(offset, times) + np.arange(times.sum())
        data[places] = np.repeat(x.data[entries], times)
    out = sparse.csr_matrix((x.shape[0], len(group)), dtype=x.dtype)
    out.data, out.indices, out.indptr = data, indices, indptr.astype(kind)
    return out


def modality(
    source: Input,
    step: str,
    x: sparse.csr_matrix,
    var: pd.DataFrame,
    fit: Mapping[str, Any],
    denominator: sparse.csr_matrix | None = None,
) -> AnnData:
    """A new AnnData with the cells of the input; `.uns` says by which function it was made and how to fit it."""
    from anndata import AnnData

    note = {"step": f"pp.{step}", **fit}
    layers = None if denominator is None else {DENOMINATOR: denominator}
    out = AnnData(x, obs=source.adata.obs.copy(), var=var, uns={MODALITY: note}, layers=layers)
    slots = [f".X, {out.n_obs} cells x {out.n_vars}", f".uns[{MODALITY!r}]"]
    wrote(note["step"], slots + [f".layers[{k!r}]" for k in out.layers], results.now() - source.started)
    return out
