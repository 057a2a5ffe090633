"""Features that the guides of a cis fit act on themselves: the cis gene, and other targets of the same guides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._data.guide_matrix import SEVERAL
from dream_sc._keys import CIS_POSITION, DIRECT_TARGET, SYMBOL_COLUMNS
from dream_sc._logging import logger

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd
    from anndata import AnnData


def direct_targets(adata: AnnData, cis: Any) -> np.ndarray | None:
    """Features ``(T,)`` with the name, or the symbol, of a target of the fit's guides, but the cis gene.

    Targets are those named as `cis_targets`, and all that guides with several targets have. None where there is none.
    """
    found = named(adata, targets_of(cis) - {str(cis["cis_gene"])}) & np.asarray(adata.var_names != cis["cis_gene"])
    return found if found.any() else None


def targets_of(cis: Any) -> set[str]:
    """Names of what the fit's guides target."""
    table = cis["guides"]
    texts = [
        *map(str, cis["params"].get("cis_targets", ())),
        *table["target"][~table["is_control"].astype(bool)].astype(str),
    ]
    return {t.strip() for text in texts for t in text.split(SEVERAL)} - {""}


def cis_genes(cis: Any) -> set[str]:
    """The cis gene, or, of a fit without dosages, what its guides target."""
    gene = str(cis["cis_gene"])
    return {gene} if gene else targets_of(cis)


def named(adata: AnnData, names: Collection[str]) -> np.ndarray:
    """Features ``(T,)`` with one of these names, or symbols."""
    found = np.asarray(adata.var_names.isin(list(names)))
    for column in SYMBOL_COLUMNS:
        if column in adata.var:
            found |= adata.var[column].astype(object).isin(list(names)).to_numpy(bool)
    return found


def with_direct(frame: pd.DataFrame, direct: np.ndarray | None) -> pd.DataFrame:
    """The table of the trans step with what is a direct target."""
    return frame.assign(**{DIRECT_TARGET: np.zeros(len(frame), dtype=bool) if direct is None else direct})


def check_cis_gene(holder: AnnData, cis: Any, cis_key: str) -> None:
    """Refuse a cis gene that goes by another name now, which would come back as a response to itself."""
    gene, at = str(cis["cis_gene"]), cis.get(CIS_POSITION)
    if not gene or gene in holder.var_names:
        return
    if at is not None and int(at[1]) == holder.n_vars:
        raise ValueError(
            f"the cis gene {gene!r} of .uns[{cis_key!r}] is not in var_names, where {holder.var_names[int(at[0])]!r} "
            "has its place: rename features before dream_sc.tl.fit_technical and dream_sc.tl.fit_cis, and call these "
            "again"
        )
    logger.warning(
        "tl.fit_trans: the cis gene %r is not in var_names: where it goes by another name, it is fitted as a response",
        gene,
    )
