"""Size factors of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dream_sc import _io, _validate
from dream_sc._keys import SIZE_FACTOR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData

    from dream_sc._reading import Counts

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
    memory_limit: int | str | None = None,
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
    memory_limit
        Bytes, or a text such as "4GB", for reading the counts; half of what is available by default.
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
    s = compute(adata, layer, method, keep, limit=memory_limit)
    _io.write(adata, "pp.size_factors", {("obs", key_added): s}, started)
    return data if copy else None


def compute(
    adata: AnnData, layer: str | None, method: str = "total", keep: np.ndarray | None = None,
    limit: int | str | None = None,
) -> np.ndarray:
    """Size factors with mean 1 over the features to keep."""
    counts = _io.counts(adata, layer, limit)
    keep = np.ones(adata.n_vars, dtype=bool) if keep is None else keep
    s = _totals(counts, keep) if method == "total" else _median_ratios(counts, keep)
    if method == "stable":
        # from totals, a feature that dominates them would seem the most stable of all
        s = _totals(counts, _stable(counts, s / s.mean(), keep))
    if (s <= 0).any():
        raise ValueError(
            f"{int((s <= 0).sum())} cells have no count in the features used: drop them first, "
            "scanpy.pp.filter_cells(adata, min_counts=1)"
        )
    return s / s.mean()


def _totals(counts: Counts, keep: np.ndarray) -> np.ndarray:
    """Total count of each cell over the features to keep."""
    from dream_sc._core.suffstats import add_cell_moments

    out = np.zeros((counts.shape[0], 3))
    for block in counts.blocks():
        add_cell_moments(block, keep.astype(np.float64), out)
    return out[:, 2].copy()


def _feature_moments(counts: Counts, s: np.ndarray) -> np.ndarray:
    """Sums over cells of each feature's counts, their squares, and counts times size factor, ``(3, T)``."""
    from dream_sc._core.suffstats import add_feature_moments

    out = np.zeros((counts.shape[1], 3))
    for block in counts.blocks():
        add_feature_moments(block, s, out)
    return out.T


def _median_ratios(counts: Counts, keep: np.ndarray) -> np.ndarray:
    """Median over a cell's detected features of count over mean."""
    from dream_sc._core.suffstats import median_ratios

    means = _feature_moments(counts, np.zeros(counts.shape[0]))[0] / counts.shape[0]
    s = np.zeros(counts.shape[0])
    for block in counts.cell_blocks():
        s[block.cells] = median_ratios(block, keep, means)
    return s


def _stable(counts: Counts, s: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Features whose overdispersion at the size factors `s` is least for their mean."""
    y, y2, ys = _feature_moments(counts, s)
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
