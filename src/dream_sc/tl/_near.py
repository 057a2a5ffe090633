"""Features near the cis gene on the chromosome, which its guides may act on directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dream_sc._keys import NEAR_CIS, POSITION_COLUMNS

if TYPE_CHECKING:
    from anndata import AnnData

LARGEST_DISTANCE = 1_000_000  # bases


def near_cis(adata: AnnData, holder: AnnData, cis_gene: str) -> np.ndarray | None:
    """Which features ``(T,)`` are within a million bases of the cis gene; None where `.var` has no coordinates.

    A feature is taken from its start to its end; the distance is that between the nearest bases of the two. The cis
    gene itself is not near itself, and features without coordinates are not near it.
    """
    chrom, start, end = POSITION_COLUMNS
    for each in (adata, holder):
        if not set(POSITION_COLUMNS) <= set(each.var):
            return None
    if cis_gene not in holder.var_names:
        return None
    cis = holder.var.loc[cis_gene]
    low, high = (pd.to_numeric(adata.var[name], errors="coerce").to_numpy(float) for name in (start, end))
    at = pd.to_numeric(pd.Series([cis[start], cis[end]]), errors="coerce").to_numpy(float)
    if not np.isfinite(at).all():
        return None
    gap = np.maximum(low - at[1], at[0] - high)
    same = (adata.var[chrom].astype(str) == str(cis[chrom])).to_numpy()
    own = (adata.var_names == cis_gene) & (adata is holder)
    return np.asarray(same & (gap <= LARGEST_DISTANCE) & ~own)


def with_near(frame: pd.DataFrame, adata: AnnData, holder: AnnData, cis_gene: str) -> pd.DataFrame:
    """The table of the trans step with what is near the cis gene, before the status, where it can be told."""
    near = near_cis(adata, holder, cis_gene)
    if near is not None:
        frame.insert(len(frame.columns) - 1, NEAR_CIS, near)
    return frame
