"""The matrix of guides of a screen with several guides per cell, from wherever it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _validate
from dream_sc._data import results
from dream_sc._data.guide_matrix import read_guides
from dream_sc._keys import GUIDE_IDS, GUIDE_TARGETS, GUIDES
from dream_sc._logging import logger
from dream_sc.io._protospacer_calls import read_protospacer_calls

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData
    from mudata import MuData

    from dream_sc._data.guide_matrix import Guides


__all__ = ["guide_matrix", "read_protospacer_calls"]  # the latter was here before there was `io`


def guide_matrix(
    data: AnnData | MuData,
    guides: str | pd.DataFrame | AnnData,
    *,
    mod: str | None = None,
    layer: str | None = None,
    targets: str | Mapping[str, Any] | pd.Series | None = None,
    min_umis: int = 1,
    exclude: str | Iterable[str] = (),
    key_added: str = GUIDES,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Store which guides each cell carries, and what they target, for `guides=` of the steps.

    Parameters
    ----------
    data
        AnnData or MuData.
    guides
        Cells x guides, binary or UMI counts: key of `.obsm` (DataFrame, array or sparse matrix; names of guides are the
        columns, or the entry ``guides + "_ids"`` of `.uns`), the name of a modality of guides (which comes first where
        both have it), or a DataFrame or an AnnData such as `read_protospacer_calls` returns. All but the first are
        matched by the names of cells; cells that they lack have no guide.
    mod
        Modality of a MuData that gets the matrix.
    layer
        Layer of the AnnData or modality of guides; "guide_assignment" if there is one, else `.X`.
    targets
        Target of each guide: a mapping or Series (to a list where a guide has several), or the name of a column of the
        `.var` of the AnnData or modality of guides. By default the entry ``guides + "_target"`` of `.uns`, or the
        column "target" or "intended_target_name"; guides whose column "targeting" is False are controls, "NTC".
    min_umis
        Entries below it are no guide.
    exclude
        Names of guides to leave out, as if no cell had them.
    key_added
        Where it is stored.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.obsm[key_added]` (csr, cells x guides, 1 where a cell carries a guide),
    `.uns[key_added + "_ids"]` (names of guides) and `.uns[key_added + "_target"]` (their targets, several joined by
    ";").

    Raises
    ------
    KeyError, ValueError
        If there is no such matrix, its UMIs or guides would be lost by storing the result in its place, its entries are
        no counts, guides have no name or no target, cells of the two have no name in common, or no cell has a guide.

    Examples
    --------
    >>> ds.pp.guide_matrix(adata, "guide_umis", min_umis=5)
    >>> adata.obsm["guides"].shape == (adata.n_obs, len(adata.uns["guides_ids"]))
    True
    """
    started = results.now()
    _validate.whole("min_umis", min_umis)
    _validate.storable(key_added)
    data = results.own(data, copy)
    adata = _validate.resolve(data, mod)
    options: dict[str, Any] = {"layer": layer, "targets": targets, "min_umis": min_umis, "exclude": exclude}
    found = read_guides(data, adata, guides, raw=True, **options)
    check_overwrite(adata, guides, found, key_added)
    refuse_other(adata, guides, key_added, "pp.guide_matrix")
    n = np.diff(found.carried.indptr)
    if not n.any():
        raise ValueError(f"no cell has a guide with at least min_umis={min_umis} UMIs: lower it")
    logger.info(
        "pp.guide_matrix: %d guides of %d targets; %.2f guides per cell, %d cells with none, %d with several",
        len(found.names),
        len(set(found.targets)),
        n.mean(),
        (n == 0).sum(),
        (n > 1).sum(),
    )
    slots = {
        ("obsm", key_added): found.carried.astype(np.int8),
        ("uns", key_added + GUIDE_IDS): found.names.astype(str),
        ("uns", key_added + GUIDE_TARGETS): np.array(found.targets, dtype=str),
    }
    results.write(adata, "pp.guide_matrix", slots, started)
    return data if copy else None


def refuse_other(adata: AnnData, guides: Any, key: str, label: str) -> None:
    """Refuse to put a matrix of guides in the place of what is none."""
    same = isinstance(guides, str) and guides == key  # it may be an object, too
    if key in adata.obsm and not same and key + GUIDE_IDS not in adata.uns:
        raise ValueError(
            f"{label}: .obsm[{key!r}] would be overwritten, and is no matrix of guides of dream_sc: choose another "
            f"key_added than {key!r}"
        )


def check_overwrite(adata: AnnData, guides: Any, found: Guides, key_added: str) -> None:
    """Refuse to put the result in the place of counts that it does not hold."""
    if not isinstance(guides, str) or guides != key_added or key_added not in adata.obsm:
        return
    stored = adata.obsm[key_added]
    values = sparse.csr_matrix(stored.to_numpy() if isinstance(stored, pd.DataFrame) else stored)
    if values.shape != found.carried.shape or abs(values - found.carried.astype(values.dtype)).sum():
        raise ValueError(
            f".obsm[{key_added!r}] has UMIs or guides that would be lost if the result took its place: pass another "
            "key_added"
        )
