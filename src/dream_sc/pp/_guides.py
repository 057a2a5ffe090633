"""From a matrix of guides to the guide of each cell, for screens with one guide per cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _io, _validate
from dream_sc._keys import (
    GUIDE,
    GUIDE_ASSIGNMENT,
    GUIDE_IDS,
    GUIDE_TARGETS,
    N_GUIDES,
    NTC,
    TARGET,
    TARGET_COLUMNS,
    TARGETING,
)
from dream_sc._logging import logger

if TYPE_CHECKING:
    from anndata import AnnData

SHOWN = 8
TRUE, FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")


def assign_guides(
    data: Any,
    guides: str,
    *,
    mod: str | None = None,
    layer: str | None = None,
    targets: str | Mapping[str, str] | None = None,
    min_umis: int = 1,
    guide_key: str = GUIDE,
    target_key: str = TARGET,
    copy: bool = False,
) -> Any:
    """Name the guide and the target of every cell with exactly one guide, from a matrix of guides.

    For screens with one guide per cell. Cells with none or with several get no label, and take no part in the steps;
    the log says how many they are.

    Parameters
    ----------
    data
        AnnData or MuData.
    guides
        Key of `.obsm` with cells x guides (DataFrame, array or sparse matrix; binary, or UMI counts), or the name of a
        modality of guides, whose cells are matched by name. Names of guides are the columns of the DataFrame, the
        entry ``guides + "_ids"`` of `.uns`, or the names of the modality's features.
    mod
        Modality of a MuData whose cells are labelled.
    layer
        Layer of the modality of guides; "guide_assignment" if there is one, else `.X`.
    targets
        Target of each guide: a mapping, or the name of a column of the `.var` of the modality of guides. By default
        the entry ``guides + "_target"`` of `.uns`, or the column "target" or "intended_target_name"; guides whose
        column "targeting" is False are controls, "NTC".
    min_umis
        Entries below it are no guide.
    guide_key, target_key
        Columns of `.obs` to write.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.obs[guide_key]`, `.obs[target_key]` (missing for cells without one
    guide) and `.obs["n_guides"]`.

    Raises
    ------
    KeyError, ValueError
        If there is no such matrix, its entries are no counts, guides have no name or no target, or no cell has exactly
        one guide.
    """
    started = _io.now()
    _validate.whole("min_umis", min_umis)
    data = data.copy() if copy else data
    adata = _validate.resolve(data, mod)
    given = dict(targets) if isinstance(targets, Mapping) else None
    x, names, found = _matrix(data, adata, guides, layer, targets if given is None else None)
    target = _targets(names, found if given is None else given, guides)
    carried = (x >= min_umis).tocsr()
    n = np.diff(carried.indptr)
    one = n == 1
    if not one.any():
        raise ValueError(
            f"no cell has exactly one guide: {int((n == 0).sum())} have none and {int((n > 1).sum())} several, with at "
            f"least {min_umis} UMIs each; change min_umis, or check guides={guides!r}"
        )
    code = np.full(len(n), -1)
    code[one] = carried.indices[carried.indptr[:-1][one]]
    logger.info(
        "pp.assign_guides: %d cells have one guide, %d none, %d several", one.sum(), (n == 0).sum(), (n > 1).sum()
    )
    labels = pd.Categorical.from_codes(code, names)
    of_cell = pd.Series(labels).map(dict(zip(names, target, strict=True)))
    slots = {
        ("obs", guide_key): labels.remove_unused_categories(),
        ("obs", target_key): pd.Categorical(of_cell.to_numpy(dtype=object)), ("obs", N_GUIDES): n.astype(np.int64),
    }  # fmt: skip
    _io.write(adata, "pp.assign_guides", slots, started)
    return data if copy else None


def _matrix(
    data: Any, adata: AnnData, guides: str, layer: str | None, column: Any
) -> tuple[Any, list[str], Mapping[str, Any]]:
    """The matrix of the object's cells, names of guides, and what is known of their targets."""
    mods = data.mod if isinstance(getattr(data, "mod", None), Mapping) else {}
    if guides in mods:
        return _of_modality(mods[guides], adata, guides, layer, column)
    if guides not in adata.obsm:
        known = [*(f".obsm[{k!r}]" for k in adata.obsm), *(f"modality {k!r}" for k in mods)]
        raise KeyError(f"guides={guides!r} is neither a key of .obsm nor a modality; there are {known}")
    for what, value in (("layer", layer), ("targets", column)):
        if value is not None:
            raise ValueError(f"{what}={value!r} is of a modality, but {guides!r} is a key of .obsm: leave it out")
    x = adata.obsm[guides]
    if isinstance(x, pd.DataFrame):
        names = x.columns
        x = sparse.csr_matrix(x.sparse.to_coo() if hasattr(x, "sparse") else x.to_numpy())
    else:
        key = guides + GUIDE_IDS
        if key not in adata.uns:
            raise KeyError(
                f".obsm[{guides!r}] has no names of guides: make it a DataFrame, or put them into .uns[{key!r}]"
            )
        names = adata.uns[key]
    stored = adata.uns.get(guides + GUIDE_TARGETS)
    if stored is not None and len(stored) != len(names):
        raise ValueError(
            f".uns[{guides + GUIDE_TARGETS!r}] has {len(stored)} targets, but there are {len(names)} guides"
        )
    found = {} if stored is None else dict(zip(map(str, names), stored, strict=True))
    return _checked(x, names, f".obsm[{guides!r}]"), list(map(str, names)), found


def _of_modality(
    other: AnnData, adata: AnnData, name: str, layer: str | None, column: Any
) -> tuple[Any, list[str], Mapping[str, Any]]:
    """The same of a modality of guides, its cells matched by name; cells that it lacks have no guide."""
    if layer is None and GUIDE_ASSIGNMENT in other.layers:
        layer = GUIDE_ASSIGNMENT
    x = _checked(_validate.matrix(other, layer), other.var_names, f"modality {name!r}")
    at = other.obs_names.get_indexer(adata.obs_names)
    if (at < 0).all():
        raise ValueError(f"the cells of modality {name!r} and those to be labelled have no name in common")
    padded = sparse.vstack([x, sparse.csr_matrix((1, x.shape[1]), dtype=x.dtype)], format="csr")
    names = list(map(str, other.var_names))
    own = column is None
    if column is None:
        column = next((c for c in TARGET_COLUMNS if c in other.var), None)
    elif column not in other.var:
        raise KeyError(f"targets={column!r} is not a column of the modality; there are {list(other.var.columns)}")
    found = {} if column is None else dict(zip(names, other.var[column].astype(object), strict=True))
    if own and TARGETING in other.var:
        found |= dict.fromkeys(_non_targeting(other.var[TARGETING], names), NTC)
    return padded[at], names, found


def _non_targeting(column: pd.Series, names: list[str]) -> list[str]:
    """Guides that a column of flags says not to target anything; a missing flag says nothing."""
    values = ["" if pd.isna(v) else str(v).strip().lower() for v in column]
    unknown = sorted(set(values) - {"", *TRUE, *FALSE})
    if unknown:
        raise ValueError(
            f"column {TARGETING!r} of the modality of guides holds {unknown[:SHOWN]}, which is neither true nor false: "
            "name the column of targets as targets="
        )
    return [name for name, value in zip(names, values, strict=True) if value in FALSE]


def _checked(x: Any, names: Any, where: str) -> Any:
    """The matrix as csr, its entries counts and its guides named once each."""
    x = x.to_memory() if hasattr(x, "to_memory") else x
    x = sparse.csr_matrix(x)
    if x.dtype == bool:
        x = x.astype(np.int8)
    _validate.counts(x.data, where)
    if x.shape[1] != len(names):
        raise ValueError(f"{where} has {x.shape[1]} columns, but there are {len(names)} names of guides")
    twice = pd.Index(names)[pd.Index(names).duplicated()]
    if len(twice):
        raise ValueError(f"{where} names guides more than once: {list(map(str, twice[:SHOWN]))}")
    x.eliminate_zeros()
    return x


def _targets(names: list[str], found: Mapping[str, Any], guides: str) -> list[str]:
    """Target of each guide."""
    known = {str(k): str(v) for k, v in found.items() if not pd.isna(v) and str(v) != ""}
    lacking = [n for n in names if n not in known]
    if lacking:
        raise ValueError(
            f"{len(lacking)} of {len(names)} guides of {guides!r} have no target, {lacking[:SHOWN]} among them: give "
            "targets={guide: target} for all, or the column of the modality that holds them"
        )
    return [known[n] for n in names]
