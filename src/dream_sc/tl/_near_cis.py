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

    Columns are "chrom", "start" and "end", or "gene_chr", "gene_start" and "gene_end".
    A feature is taken from its start to its end; the distance is that between the nearest bases of the two. The cis
    gene itself is not near itself, and features without coordinates are not near it. Chromosomes may be named "chr1"
    or "1", mitochondria "chrM" or "MT".
    """
    every, of_holder = _positions(adata), _positions(holder)
    if every is None or of_holder is None or cis_gene not in holder.var_names:
        return None
    (here,), low_cis, high_cis = (part[[holder.var_names.get_loc(cis_gene)]] for part in of_holder)
    if not np.isfinite([*low_cis, *high_cis]).all() or not here:
        return None
    chromosome, low, high = every
    gap = np.maximum(low - high_cis, low_cis - high)
    same = chromosome == here
    own = (adata.var_names == cis_gene) & (adata is holder)
    return np.asarray(same & (gap <= LARGEST_DISTANCE) & ~own)


def _positions(adata: AnnData) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Chromosome, start and end of each feature, by the first set of columns that is there; NaN where none is known."""
    columns = next((c for c in POSITION_COLUMNS if set(c) <= set(adata.var)), None)
    if columns is None:
        return None
    chrom, *ends = columns
    low, high = (pd.to_numeric(adata.var[name], errors="coerce").to_numpy(float) for name in ends)
    return _chromosomes(adata.var[chrom]), low, high


def _chromosomes(column: pd.Series) -> np.ndarray:
    """Names of chromosomes in one spelling, "1", "X", "M"; "" where there is none."""
    number = pd.to_numeric(column, errors="coerce").to_numpy(float)
    names = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    names = names.str.replace(r"^chr(omosome)?[_ ]?", "", case=False, regex=True).str.upper().replace("MT", "M")
    whole = np.isfinite(number) & (number == np.floor(number))  # a column of numbers with a gap holds 1.0, not 1
    return np.where(whole, np.nan_to_num(number).astype(int).astype(str), names.to_numpy(object)).astype(str)


def with_near(frame: pd.DataFrame, adata: AnnData, holder: AnnData, cis_gene: str) -> pd.DataFrame:
    """The table of the trans step with what is near the cis gene, where it can be told."""
    near = near_cis(adata, holder, cis_gene)
    return frame if near is None else frame.assign(**{NEAR_CIS: near})
