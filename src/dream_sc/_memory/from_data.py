"""Sizes read off data: shapes, stored values, labels; never the counts themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from dream_sc import _validate
from dream_sc._data.guide_matrix import read_guides

if TYPE_CHECKING:
    from anndata import AnnData

FEW = 5  # cells of a set, below which it takes no part unless another number is asked for
Found = tuple[int, int, dict[str, Any], dict[str, Any]]


def read_sizes(data: Any, asked: dict[str, Any]) -> Found:
    """Numbers of features and cells, options of `memory.estimate`, and what was counted in place of being guessed."""
    if isinstance(data, str | Path):
        return _of_file(Path(data), asked)
    adata = _validate.resolve(data, asked["mod"], views=True)
    n_features, n_cells, options, counted = _of_anndata(adata, asked, held=None)
    return n_features, n_cells, options | _carried(data, adata, asked), counted


def _of_file(path: Path, asked: dict[str, Any]) -> Found:
    """Sizes of an h5ad file, opened and closed again."""
    import anndata as ad
    import h5py

    if not path.exists():
        raise ValueError(f"{str(path)!r} is not there: give the path of an h5ad file")
    if not path.is_file() or not h5py.is_hdf5(path):
        raise ValueError(f"{str(path)!r} is no h5ad file: give one that AnnData.write_h5ad has written")
    with h5py.File(path) as file:
        if "mod" in file:
            raise ValueError(f"{str(path)!r} holds a MuData: open it, mudata.read_h5mu(path, backed=True), and give it")
        if not {"obs", "var"} <= set(file):
            raise ValueError(f"{str(path)!r} is an HDF5 file but no h5ad: it has no tables obs and var")
    adata = ad.read_h5ad(path, backed="r")
    try:
        n_features, n_cells, options, counted = _of_anndata(adata, asked, held=None if asked["backed"] else 0)
        return n_features, n_cells, options | _carried(adata, adata, asked), counted
    finally:
        adata.file.close()


def _of_anndata(adata: AnnData, asked: dict[str, Any], held: int | None) -> Found:
    """Sizes of an object; `held` is 0 where it would be in memory but is not yet."""
    from dream_sc._core.likelihoods import likelihood

    like = likelihood(asked["distribution"])
    n_features, n_cells, options = adata.n_vars, adata.n_obs, _labels(adata, asked)
    layers = asked["category_layers"] or [asked["layer"]]
    if like.denominator:
        layers = [*layers, asked["denominator_layer"]]
        from dream_sc._data.shares import check

        check(like, asked["denominator_layer"], None, None, asked["layer"])
    matrices = [_validate.matrix(adata, layer) for layer in layers]
    if like.categories:
        if asked["category_key"] is not None:
            from dream_sc._data.shares import feature_labels

            n_features = len(set(feature_labels(adata, asked["category_key"])))
            options["n_categories"] = max(2, round(adata.n_vars / n_features))
        elif asked["category_layers"]:
            options["n_categories"] = max(2, len(layers))
    in_file = [not isinstance(x, np.ndarray) and not sparse.issparse(x) for x in matrices]
    lazy = [_is_lazy(x) for x in matrices]  # chunks that may be sparse or dense, not looked into
    dense = not any(lazy) and all(not _is_sparse(x) for x in matrices)
    stored = 0 if any(lazy) else max(_stored(x) for x in matrices) * (len(layers) if asked["category_layers"] else 1)
    backed = all(in_file) and held is None
    options |= {
        "distribution": like.name,
        "storage": ("backed_dense" if dense else "backed") if backed else "dense" if dense else "sparse",
    }
    if not any(lazy):
        options["sparsity"] = _zeros(matrices[-1], n_cells * adata.n_vars)
    counted = {"held": sum(_nbytes(x) for x in _matrices(adata) if held == 0 or _in_memory(x))}
    if not dense and not any(lazy):
        counted["stored"] = int(stored)
    return n_features, n_cells, options, counted


def _labels(adata: AnnData, asked: dict[str, Any]) -> dict[str, Any]:
    """Groups, guides and control cells, as far as `.obs` says."""
    obs, out = adata.obs, dict[str, Any]()
    if asked["batch_key"] is not None:
        out["n_groups"] = len(set(_validate.labels(adata, asked["batch_key"], "batch_key")))
    else:
        out["n_groups"] = 1
    control = np.zeros(adata.n_obs, dtype=bool)
    if asked["target_key"] in obs:
        target = _validate.labels(adata, asked["target_key"], "target_key")
        control = _validate.controls(target, asked["control"], asked["target_key"])
        out["n_ntc_cells"] = int(control.sum())
    if asked["guide_key"] in obs:
        guide = _validate.labels(adata, asked["guide_key"], "guide_key")
        acting = ~control & (guide != "")
        wanted = asked["cis_targets"] or asked["cis_gene"]
        if wanted is not None and asked["target_key"] in obs:
            names = _validate.label_texts(wanted)
            known = set(target) - {""}
            if not known & set(names):
                raise KeyError(f"no cell's target is {names}{_validate.close(names[0], known)}: see cis_targets=")
            acting &= np.isin(target, names)
        n_cis, n_ntc = len(set(guide[acting])), len(set(guide[control & (guide != "")]))
        out |= {"n_guides": max(1, n_cis + n_ntc), "n_cis_guides": n_cis}
    return out


def _carried(data: Any, adata: AnnData, asked: dict[str, Any]) -> dict[str, int]:
    """Guides that take part and control cells by a matrix of guides, where there is one."""
    if asked.get("guides") is None:
        return {}
    from dream_sc.tl._cis_design import MOST_CONTROLS

    found = read_guides(data, adata, _validate.guides_key(asked["guides"]))
    ntc = found.controls(_validate.label_texts(asked["control"]))
    wanted = asked["cis_targets"] or asked["cis_gene"]
    acting = ~ntc if wanted is None else found.targeting(_validate.label_texts(wanted))
    n_cis, n_ntc = int(acting.sum()), min(int(ntc.sum()), MOST_CONTROLS) + 1  # and cells without
    out = {"n_guides": n_cis + n_ntc, "n_cis_guides": n_cis, "n_ntc_cells": int(found.only(ntc).sum())}
    return out if wanted is None else out | {"n_guide_sets": _sets(found.carried[:, np.flatnonzero(acting)])}


def _sets(carried: Any) -> int:
    """Sets of guides `carried` (cells x guides) that enough cells have, as many as the trans step takes."""
    from dream_sc.tl._guide_sets import MOST_SETS

    some = carried[np.diff(carried.indptr) > 1].tocsr().sorted_indices()
    ends = some.indptr
    n_cells = Counter(some.indices[a:b].tobytes() for a, b in pairwise(ends))
    return min(MOST_SETS, sum(n >= FEW for n in n_cells.values()))


def _matrices(adata: AnnData) -> list[Any]:
    """Every matrix that the object holds."""
    return [adata.X, *adata.layers.values(), *adata.obsm.values(), *adata.varm.values()]


def _is_sparse(x: Any) -> bool:
    return sparse.issparse(x) or hasattr(x, "group")


def _is_lazy(x: Any) -> bool:
    """Whether this is a dask array."""
    return hasattr(x, "dask")


def _in_memory(x: Any) -> bool:
    return isinstance(x, np.ndarray) or sparse.issparse(x) or hasattr(x, "memory_usage")


def _parts(x: Any) -> Any:
    """The arrays of a sparse matrix, in memory or in a file."""
    names = ("data", "indices", "indptr")
    return [getattr(x, n) for n in names] if sparse.issparse(x) else [x.group[n] for n in names]


def _stored(x: Any) -> int:
    return int(_parts(x)[0].shape[0]) if _is_sparse(x) else int(np.prod(x.shape))


def _nbytes(x: Any) -> int:
    if x is None or isinstance(x, Mapping):
        return 0
    if hasattr(x, "memory_usage"):
        return int(x.memory_usage(index=True, deep=True).sum())
    if _is_sparse(x):
        return int(sum(int(np.prod(p.shape)) * p.dtype.itemsize for p in _parts(x)))
    return int(np.prod(x.shape)) * x.dtype.itemsize


def _zeros(x: Any, size: int) -> float:
    """Share of zeros; of a dense matrix by its first cells."""
    if _is_sparse(x):
        return float(min(1.0, max(0.0, 1 - _stored(x) / max(size, 1))))
    some = np.asarray(x[: max(1, min(len(x), 10**6 // max(x.shape[1], 1)))])
    return float((some == 0).mean()) if some.size else 0.0
