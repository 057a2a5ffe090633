"""Size factors of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dream_sc import _io, _validate
from dream_sc._keys import SIZE_FACTOR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData

METHODS = ("total", "median_ratio", "stable")
MIN_MEAN = 0.05  # counts per cell of a feature that may count as stable
MIN_STABLE = 10


def size_factors(
    data: Any,
    *,
    mod: str | None = None,
    layer: str | None = None,
    method: Literal["total", "median_ratio", "stable"] = "total",
    exclude: Iterable[str] | None = None,
    key_added: str = SIZE_FACTOR,
    copy: bool = False,
) -> Any:
    """Compute size factors, one per cell, with mean 1.

    Parameters
    ----------
    data
        AnnData or MuData with raw counts, cells x features.
    mod
        Modality of a MuData.
    layer
        Layer of the counts; `.X` by default.
    method
        "total": the cell's total count. "median_ratio": the median, over the cell's detected features, of the
        ratio of its counts to the features' means, for data with few features of which some dominate.
        "stable": the total over the half of the features (of at least 0.05 counts per cell) whose overdispersion, by
        moments, is least compared with features of similar mean: what moves with a perturbation is left out.
    exclude
        Names of features to leave out, such as the cis gene or one that holds much of all counts.
    key_added
        Column of `.obs` to write.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.obs[key_added]`.

    Raises
    ------
    ValueError
        If the counts are not counts, or a cell has none.
    """
    started = _io.now()
    _validate.one_of("method", method, METHODS)
    data = data.copy() if copy else data
    adata = _validate.resolve(data, mod)
    _validate.storable(key_added)
    names = [] if exclude is None else [exclude] if isinstance(exclude, str) else list(exclude)
    keep = np.ones(adata.n_vars, dtype=bool)
    for name in names:
        keep[_validate.feature(adata, name, "exclude")] = False
    _io.write(adata, "pp.size_factors", {("obs", key_added): compute(adata, layer, method, keep)}, started)
    return data if copy else None


def compute(
    adata: AnnData, layer: str | None, method: str = "total", keep: np.ndarray | None = None
) -> np.ndarray:
    """Size factors with mean 1 over the features to keep."""
    x = _validate.matrix(adata, layer)
    keep = np.ones(adata.n_vars, dtype=bool) if keep is None else keep
    blocks = lambda: _io.cell_blocks(x, _io.source(layer))  # noqa: E731
    if method == "total":
        s = _totals(blocks, keep, adata.n_obs)
    else:
        s = _median_ratios(blocks, keep, adata.n_obs)
    if method == "stable":
        # from totals, a feature that dominates them would seem the most stable of all
        s = _totals(blocks, _stable(blocks, s / s.mean(), keep), adata.n_obs)
    if (s <= 0).any():
        raise ValueError(
            f"{int((s <= 0).sum())} cells have no count in the features used: drop them first, "
            "scanpy.pp.filter_cells(adata, min_counts=1)"
        )
    return s / s.mean()


def _totals(blocks: Any, keep: np.ndarray, n: int) -> np.ndarray:
    """Total count of each cell over the features to keep."""
    s = np.zeros(n)
    for start, block in blocks():
        s[start : start + block.shape[0]] = np.asarray(block[:, keep].sum(1)).ravel()
    return s


def _median_ratios(blocks: Any, keep: np.ndarray, n: int) -> np.ndarray:
    """Median over a cell's detected features of count over mean."""
    means = np.sum([np.asarray(b.sum(0)).ravel() for _, b in blocks()], axis=0) / n
    s = np.zeros(n)
    for start, block in blocks():
        for i in range(block.shape[0]):
            row = slice(block.indptr[i], block.indptr[i + 1])
            use = keep[block.indices[row]] & (block.data[row] > 0)
            if use.any():
                s[start + i] = np.median(block.data[row][use] / means[block.indices[row][use]])
    return s


def _stable(blocks: Any, s: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Features whose overdispersion at the size factors `s` is least for their mean."""
    y, y2, ys = (np.zeros(len(keep)) for _ in range(3))
    for start, block in blocks():
        block = block.astype(np.float64)
        y += np.asarray(block.sum(0)).ravel()
        y2 += np.asarray(block.multiply(block).sum(0)).ravel()
        ys += block.T @ s[start : start + block.shape[0]]
    mean = y / s.sum()
    candidates = np.flatnonzero(keep & (mean >= MIN_MEAN))
    if len(candidates) < 2 * MIN_STABLE:
        raise ValueError(
            f'method="stable" needs at least {2 * MIN_STABLE} features of {MIN_MEAN} counts per cell or more, '
            f'there are {len(candidates)}: use method="median_ratio"'
        )
    m = mean[candidates]
    square = s @ s
    variance = y2[candidates] - 2 * m * ys[candidates] + m**2 * square
    overdispersion = (variance - m * s.sum()) / (m**2 * square)
    order = np.argsort(m, kind="stable")
    # half of the features in every window of similar means
    size = max(min(50, len(order) // 2), MIN_STABLE)
    stable = np.zeros(len(keep), dtype=bool)
    for window in np.array_split(order, max(len(order) // size, 1)):
        stable[candidates[window[overdispersion[window] <= np.median(overdispersion[window])]]] = True
    return stable
