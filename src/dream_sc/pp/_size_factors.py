"""Size factors of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dream_sc import _io, _validate
from dream_sc._keys import SIZE_FACTOR

if TYPE_CHECKING:
    from collections.abc import Iterable

METHODS = ("total", "median_ratio")


def size_factors(
    data: Any,
    *,
    mod: str | None = None,
    layer: str | None = None,
    method: Literal["total", "median_ratio"] = "total",
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
    _validate.one_of("method", method, METHODS)
    data = data.copy() if copy else data
    adata = _validate.resolve(data, mod)
    x = _validate.matrix(adata, layer)
    names = [] if exclude is None else [exclude] if isinstance(exclude, str) else list(exclude)
    keep = np.ones(adata.n_vars, dtype=bool)
    for name in names:
        keep[_validate.feature(adata, name, "exclude")] = False
    means = None
    if method == "median_ratio":
        means = (
            sum(np.asarray(b.sum(0)).ravel() for _, b in _io.cell_blocks(x, _io.source(layer))) / adata.n_obs
        )
    s = np.zeros(adata.n_obs)
    for start, block in _io.cell_blocks(x, _io.source(layer)):
        if means is None:
            s[start : start + block.shape[0]] = np.asarray(block[:, keep].sum(1)).ravel()
            continue
        for i in range(block.shape[0]):
            row = slice(block.indptr[i], block.indptr[i + 1])
            use = keep[block.indices[row]] & (block.data[row] > 0)
            if use.any():
                s[start + i] = np.median(block.data[row][use] / means[block.indices[row][use]])
    if (s <= 0).any():
        raise ValueError(
            f"{int((s <= 0).sum())} cells have no count in the features used: drop them first, "
            "scanpy.pp.filter_cells(adata, min_counts=1)"
        )
    _io.write(adata, "pp.size_factors", {("obs", key_added): s / s.mean()}, _io.now())
    return data if copy else None
