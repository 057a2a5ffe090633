"""Features near the cis gene on the chromosome, which its guides may act on directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dream_sc._keys import NEAR_CIS, POSITION_COLUMNS
from dream_sc._logging import logger

from ._direct_targets import named

if TYPE_CHECKING:
    from collections.abc import Collection

    from anndata import AnnData

LARGEST_DISTANCE = 1_000_000  # bases


def near_cis(adata: AnnData, holder: AnnData, cis_genes: Collection[str]) -> np.ndarray | None:
    """Which features ``(T,)`` are within a million bases of a cis gene; None where `.var` has no coordinates.

    Columns are "chrom", "start" and "end", or "gene_chr", "gene_start" and "gene_end".
    A feature is taken from its start to its end; the distance is that between the nearest bases of the two. A cis
    gene itself is not near itself, and features without coordinates are not near it. Chromosomes may be named "chr1"
    or "1", mitochondria "chrM" or "MT".
    """
    every, of_holder = _positions(adata), _positions(holder)
    if every is None or of_holder is None:
        return None
    own = named(holder, cis_genes)
    known = own & np.isfinite(of_holder[1]) & np.isfinite(of_holder[2]) & (of_holder[0] != "")
    if not known.any():
        return None
    chromosome, low, high = every
    near = np.zeros(adata.n_vars, dtype=bool)
    for here, first, last in zip(*(part[known] for part in of_holder), strict=True):
        near |= (chromosome == here) & (np.maximum(low - last, first - high) <= LARGEST_DISTANCE)
    return near & ~own if adata is holder else near


def _positions(adata: AnnData) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Chromosome, start and end of each feature, by the first set of columns that is there; NaN where none is known."""
    columns = next((c for c in POSITION_COLUMNS if set(c) <= set(adata.var)), None)
    if columns is None:
        return None
    chrom, *ends = columns
    low, high = (_numbers(adata.var[name]) for name in ends)
    return _chromosomes(adata.var[chrom]), low, high


def tell_of_positions(adata: AnnData, who: str) -> None:
    """Say where positions are text that is none."""
    for name in next((c[1:] for c in POSITION_COLUMNS if set(c) <= set(adata.var)), ()):
        column = adata.var[name]
        text = column.astype(object).where(column.notna(), "").astype(str).str.strip()
        other = np.isnan(_numbers(column)) & ~text.str.lower().isin(["", "nan"]).to_numpy(bool)
        if other.any():
            logger.warning(
                "%s: .var[%r] holds %r, which is no position: near_cis is False for %d such features",
                who,
                name,
                text[other].iloc[0],
                int(other.sum()),
            )


def _numbers(column: pd.Series) -> np.ndarray:
    """Bases, which may be text with commas between the thousands; NaN where there is none."""
    if pd.api.types.is_numeric_dtype(column):
        return pd.to_numeric(column).to_numpy(float, na_value=np.nan)
    text = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    return pd.to_numeric(text.str.replace(",", ""), errors="coerce").to_numpy(float)


def _chromosomes(column: pd.Series) -> np.ndarray:
    """Names of chromosomes in one spelling, "1", "X", "M"; "" where there is none."""
    number = pd.to_numeric(column, errors="coerce").to_numpy(float)
    names = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    names = names.str.replace(r"^chr(omosome)?[_ ]?", "", case=False, regex=True).str.upper().replace("MT", "M")
    whole = np.isfinite(number) & (number == np.floor(number))  # a column of numbers with a gap holds 1.0, not 1
    return np.where(whole, np.nan_to_num(number).astype(int).astype(str), names.to_numpy(object)).astype(str)


def with_near(frame: pd.DataFrame, adata: AnnData, holder: AnnData, cis_genes: Collection[str]) -> pd.DataFrame:
    """The table of the trans step with what is near the cis gene, where it can be told."""
    near = near_cis(adata, holder, cis_genes)
    return frame if near is None else frame.assign(**{NEAR_CIS: near})
