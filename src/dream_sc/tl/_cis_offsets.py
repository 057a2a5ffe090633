"""Offsets of the guides in the cis step, from the counts of all features."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc import _validate
from dream_sc._data import results
from dream_sc._data.covariates import cell_bins
from dream_sc._keys import Slots

if TYPE_CHECKING:
    from anndata import AnnData

    from dream_sc._core.types import CisCells

    from ._cis_design import CisDesign

MOST_FEATURES = 2000  # of most counts


def cis_offsets(
    adata: AnnData,
    gene: int,
    layer: str | None,
    key: str,
    technical: Any,
    groups: np.ndarray,
    design: CisDesign,
    limit: int | str | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Offset of each guide, log2, and its variance; controls, counted as one, have none.

    They come from cells with one guide of the cis gene and the controls, in one pass over the counts.
    """
    from dream_sc._core.dosage.offsets import offsets
    from dream_sc._core.sums.guide_sums import RowSums, row_bytes

    control = design.table["is_control"].to_numpy(bool)
    n = int((~control).sum())
    of_guide = np.append(np.where(control, n, np.cumsum(~control) - 1), -1)
    row = of_guide[design.row_guide]
    table = adata.varm[key]
    known = np.isfinite(table["mu"].to_numpy(float)) & np.isfinite(table["overdispersion"].to_numpy(float))
    known[gene] = False
    mean = np.where(known, table["mu"].to_numpy(float), -1.0)
    features = np.sort(np.argsort(-mean, kind="stable")[: min(MOST_FEATURES, int(known.sum()))])
    held = {f"sums of {adata.n_vars} features in {n + 1} guides": row_bytes(n + 1, adata.n_vars)}
    counts = results.counts(adata, layer, limit, held)
    sums = RowSums(row, n + 1, adata.n_vars)
    for block in counts.blocks(row >= 0):
        sums.add(block)
    total = sums.closed()[0][features]
    s, use = _validate.size_factors(adata, technical["params"]["size_factor_key"]), row >= 0
    effects = adata.varm[Slots(key).effects][features].astype(np.float64)
    exposure = np.zeros((effects.shape[1], n + 1))
    np.add.at(exposure, (groups[use], row[use]), s[use])
    expected = mean[features, None] * (2.0**effects @ exposure)
    bins = cell_bins(adata, technical, key, use)
    if bins is not None:
        expected *= np.exp(bins.effects(row, n + 1, s).take(features).log_rows())
    w, w2 = (np.bincount(row[use], s[use] ** k, n + 1) for k in (1, 2))
    offset, var = np.zeros((2, len(control)))
    overdispersion = table["overdispersion"].to_numpy(float)[features]
    offset[~control], var[~control] = offsets(total, expected, overdispersion, w2 / np.where(w > 0, w, 1.0) ** 2)
    return offset, var


def at_offsets(cells: CisCells, offset: np.ndarray, var: np.ndarray) -> CisCells:
    """The cells with the offsets of their guides in the exposure."""
    members = cells.members[cells.guide]
    shift = np.where(members >= 0, offset[members], 0.0).sum(1)
    return replace(cells, exposure=cells.exposure * 2.0**shift, offset=offset, offset_var=var)
