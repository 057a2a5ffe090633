"""Guides as pertpy's `GuideAssignment` assigns them, and results in the columns of its tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _validate
from dream_sc._keys import ASSIGNED_GUIDE, ASSIGNED_GUIDES, NTC, TARGET_COLUMNS, TRANS
from dream_sc._logging import logger

from . import _guides
from ._counts import counts
from ._files import file_to_write

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

NONE, SEVERAL, BETWEEN = ("negative", "nan", "none", ""), "multiple", "+"


def from_pertpy(
    data: AnnData | MuData,
    guides: AnnData | str | None = None,
    *,
    mod: str | None = None,
    targets: Mapping[str, str] | pd.Series | str | None = None,
    control: str | Iterable[str] = (),
    layer: str = ASSIGNED_GUIDES,
    obs_key: str = ASSIGNED_GUIDE,
    moi: str | None = None,
) -> AnnData:
    """Genes with the guides that pertpy assigned.

    Parameters
    ----------
    data
        AnnData of genes, or a MuData with modalities of genes and guides. It is only read.
    guides
        The AnnData of guides on which ``pertpy.pp.GuideAssignment`` ran, or its name in the MuData; cells are matched
        by name. Its layer `layer` is read (`assign_by_threshold`), or its column `obs_key` (`assign_to_max_guide`,
        `assign_mixture_model`). Without it that column is looked for in `data`.
    mod
        Modality of genes in a MuData.
    targets
        Target of each guide, or the name of a column of the `.var` of `guides`; by default its column "target" or
        "intended_target_name".
    control
        Target(s) that are controls besides those called "non-targeting" or "NTC", such as "NT".
    layer, obs_key
        Where pertpy wrote: `output_layer` and `obs_key` (`assigned_guides_key`) of its functions.
    moi
        "low": name the guide of cells with exactly one in `.obs`. "high": leave that out. By default low, if at least
        half of the cells with guides have one.

    Returns
    -------
    A new AnnData of genes with `.obsm["guides"]`, `.uns["guides_ids"]`, `.uns["guides_target"]`, `.obs["n_guides"]`
    and, with low MOI, `.obs["guide"]` and `.obs["target"]`. Cells that are "Negative" have no guide, and those that are
    "multiple", of which pertpy does not say which, are left out.

    Raises
    ------
    KeyError, ValueError
        If assignments or targets are not there, or genes are no counts.

    Examples
    --------
    `guides` has been through ``pertpy.pp.GuideAssignment().assign_by_threshold(guides, assignment_threshold=5)``.

    >>> adata = ds.io.from_pertpy(genes, guides, targets="gene", control="NT")
    >>> sorted(set(adata.uns["guides_target"].tolist()))
    ['A', 'NTC']
    """
    if moi is not None:
        _validate.one_of("moi", moi, ("low", "high"))
    genes = _validate.resolve(data, mod, views=True)
    holder = _holder(data, genes, guides)
    if guides is not None and layer in holder.layers:
        x, names = counts(holder.layers[layer], f"layer {layer!r}") > 0, [str(n) for n in holder.var_names]
        known = np.ones(holder.n_obs, dtype=bool)
    elif obs_key in holder.obs:
        listed = [str(n) for n in holder.var_names] if guides is not None else _names(targets)
        x, names, known = _of_column(holder.obs[obs_key], listed)
    else:
        raise KeyError(
            f"neither the layer {layer!r} of guides= nor a column {obs_key!r} of .obs is there: run "
            "pertpy.pp.GuideAssignment first and pass the AnnData of guides as guides="
        )
    _guides.unique(names, "guide", "the guides")
    found = _targets(names, holder if guides is not None else None, targets, control)
    at = holder.obs_names.get_indexer(genes.obs_names)
    keep = np.flatnonzero((at >= 0) & known[at])
    if not len(keep):
        raise ValueError(
            f"no cell of the genes has guides: cells are called {list(genes.obs_names[:3])} and "
            f"{list(holder.obs_names[:3])}, for example"
        )
    if len(keep) < genes.n_obs:
        logger.warning(
            "io.from_pertpy: %d cells are left out: not known is which guides they have", len(at) - len(keep)
        )
    out = _new(genes, keep)
    _guides.store(out, sparse.csr_matrix(x)[at[keep]].astype(np.int8), names, found)
    _guides.label_low_moi(out, "io.from_pertpy", found, moi)
    _guides.say("io.from_pertpy", out)
    return out


def _holder(data: Any, genes: AnnData, guides: Any) -> AnnData:
    """The object with the assignments."""
    if guides is None:
        return genes
    if isinstance(guides, str):
        if guides not in getattr(data, "mod", {}):
            raise KeyError(f"guides={guides!r} is no modality; there are {list(getattr(data, 'mod', {}))}")
        return data.mod[guides]
    if not (hasattr(guides, "layers") and hasattr(guides, "obs")):
        raise TypeError(f"guides= is a {type(guides).__name__}: give an AnnData of guides, or the name of a modality")
    return guides


def _names(targets: Any) -> list[str]:
    return [str(g) for g in targets] if isinstance(targets, Mapping) else list(map(str, getattr(targets, "index", [])))


def _of_column(column: pd.Series, listed: list[str]) -> tuple[Any, list[str], np.ndarray]:
    """Cells x guides of a column with one guide or several, joined by "+", and whether the guides of a cell are known.

    A name of a guide that has a "+" in it is that guide.
    """
    known, place = set(listed), {name: i for i, name in enumerate(listed)}
    rows, columns = [], []
    values = column.astype(object).where(column.notna(), "").astype(str)
    for i, text in enumerate(values):
        if text not in known and (text.lower() in NONE or text.lower() == SEVERAL):
            continue
        for name in [text] if text in known else text.split(BETWEEN):
            rows.append(i)
            columns.append(place.setdefault(name, len(place)))
    x = sparse.csr_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), (len(values), len(place)))
    unknown = (values.str.lower() == SEVERAL).to_numpy() & ~values.isin(known).to_numpy()
    return x > 0, list(place), ~unknown


def _targets(names: list[str], guides: AnnData | None, targets: Any, control: Any) -> dict[str, str]:
    """Target of each guide; controls are "NTC"."""
    if isinstance(targets, str) or targets is None:
        columns = [] if guides is None else list(guides.var.columns)
        wanted = [targets] if targets is not None else [c for c in TARGET_COLUMNS if c in columns]
        if guides is None or not wanted or wanted[0] not in columns:
            raise ValueError(
                f"targets={targets!r}: what the guides target is not known. Pass targets={{guide: target}}, or the "
                f"name of a column of the .var of guides=, which has {columns}"
            )
        targets = dict(zip(map(str, guides.var_names), guides.var[wanted[0]].astype(object), strict=True))
    given = {str(g): str(t) for g, t in targets.items() if not pd.isna(t)}
    lacking = [n for n in names if not given.get(n)]
    if lacking:
        raise ValueError(f"{len(lacking)} of {len(names)} guides have no target, {lacking[: _guides.SHOWN]} among them")
    labels = set(_validate.label_texts(control))
    absent = sorted(labels - set(given.values()))
    if absent:
        raise ValueError(f"control={absent}: no guide has that target{_validate.close(absent[0], set(given.values()))}")
    found = _guides.with_controls({n: NTC if given[n] in labels else given[n] for n in names})
    _guides.refuse_controls_only(found.values(), "the assignment")
    return found


def _new(genes: AnnData, cells: np.ndarray) -> AnnData:
    """Counts of some cells as a new object."""
    from anndata import AnnData

    x = counts(_validate.matrix(genes, None), ".X", genes)
    return AnnData(x[cells], genes.obs.iloc[cells].copy(), genes.var.copy())


def to_pertpy(
    data: AnnData | MuData,
    path: str | PathLike[str] | None = None,
    *,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Results in the columns of pertpy's tests of differential expression, such as its volcano plot reads.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run, with counts.
    path
        CSV to write; none by default.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names of genes.

    Returns
    -------
    A row per gene besides the cis gene, the smallest p-values first: variable, p_value, adj_p_value (the q-value),
    log_fc (log2, at the strongest observed knock-down; where nothing was knocked down, at the strongest activation) and
    contrast. NaN where a gene was not fitted.

    Raises
    ------
    KeyError, ValueError
        If the fit is not there, or is not of counts.

    Examples
    --------
    >>> table = ds.io.to_pertpy(adata)
    """
    from ._results import effects, responses

    of = responses(data, key, mod, gene_symbols=gene_symbols)
    table = of.others
    out = pd.DataFrame(
        {
            "variable": table.index.astype(str),
            "p_value": table["pvalue"].to_numpy(dtype=float),
            "adj_p_value": table["qvalue"].to_numpy(dtype=float),
            "log_fc": effects(of)[0].to_numpy(),
            "contrast": f"{of.target}_vs_{NTC}",
        }
    ).sort_values("p_value", kind="stable", ignore_index=True)
    if path is not None:
        out.to_csv(file_to_write(path), index=False)
    return out
