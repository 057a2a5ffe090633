"""Counts of the cis gene, and what is expected of each cell at NTC dosage."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc import _compile, _validate
from dream_sc._core.response.ambient import MOST_SHARE
from dream_sc._data import ambient, covariates, results
from dream_sc._data.groups import group_codes
from dream_sc._keys import Slots

if TYPE_CHECKING:
    from anndata import AnnData

    from dream_sc._core.types import CisCells

    from ._cis_design import CisDesign


def cells_of(
    adata: AnnData,
    gene: int,
    name: str,
    layer: str | None,
    key: str,
    technical: Any,
    design: CisDesign,
    least: float,
    limit: int | str | None,
    progress: bool | None,
) -> CisCells:
    from dream_sc._core.types import CisCells

    _compile.ready("cis", progress, then=("trans",))
    params, used = technical["params"], design.used
    y = results.counts(adata, layer, limit).column(gene, used)
    _validate.counts(y, results.source(layer))
    row = adata.varm[key].iloc[gene]
    if y[used].sum() == 0:
        raise ValueError(f"the cis gene {name!r} has no count in any cell of its guides and the controls")
    if not np.isfinite(row["mu"]):
        raise ValueError(
            f"the cis gene {name!r} has no baseline, its status in .varm[{key!r}] is {row['status']!r}: without counts "
            "in control cells there is no dosage relative to them"
        )
    s = _validate.size_factors(adata, params["size_factor_key"])
    control = used & design.is_control[design.code]
    all_cells = bool(params.get("use_all_cells"))
    mean = y[control].sum() / s[control].sum() if all_cells else row["mu"]
    if mean < least or mean == 0:
        raise ValueError(
            f"the cis gene {name!r} has a mean of {mean:.3g} counts in control cells, less than min_count={least}: its "
            "dosage cannot be told from noise; lower min_count, or call tl.fit_trans(dosage='none', cis_targets=...)"
        )
    effects = adata.varm[Slots(key).effects][gene][group_codes(adata, technical)]
    exposure = s * row["mu"] * 2.0 ** (effects + covariates.log_factors(adata, technical, key, gene, used))
    o = float(row["overdispersion"])
    if all_cells:  # all cells differ in dosage, and the overdispersion must not hold that
        o = _of_controls(y[control], exposure[control] / row["mu"])
    found = CisCells(
        y[used],
        exposure[used],
        design.code[used].astype(np.int64),
        design.table["is_control"].to_numpy(bool),
        o,
        design.sets,
    )
    leaked = ambient.of_feature(adata, technical, key, gene)
    return found if leaked is None else _without_ambient(found, leaked[used], group_codes(adata, technical)[used])


def _without_ambient(cells: CisCells, floor: np.ndarray, group: np.ndarray) -> CisCells:
    """The cells with ambient counts of their own beside what is expected of the cis gene in them.

    What is expected at NTC dosage holds those of control cells: in each group the rest is left, a twentieth or more.
    """
    of_control = cells.is_control[cells.guide]
    use = of_control | ~np.isin(group, np.unique(group[of_control]))
    n = int(group.max()) + 1
    expected, leaked = (np.bincount(group[use], v[use], n) for v in (cells.exposure, floor))
    share = np.clip(leaked / np.maximum(expected, 1e-300), 0.0, MOST_SHARE)
    return replace(cells, exposure=cells.exposure * (1.0 - share[group]), floor=floor)


def _of_controls(y: np.ndarray, s: np.ndarray) -> float:
    """Overdispersion of one gene in control cells, given their counts and size factors, effects of groups in them."""
    from scipy import sparse

    from dream_sc._core.priors import TechnicalPriors
    from dream_sc._core.sums import guide_sums
    from dream_sc._core.sums.block import CountBlock
    from dream_sc._core.technical.counts import technical as fit_counts

    every, one = np.ones(len(y), dtype=bool), np.zeros(len(y), dtype=np.int64)
    bins, group_of_bin = guide_sums.size_factor_bins(s, one, every)
    sums = guide_sums.RowSums(bins, len(group_of_bin), 1)
    tails = guide_sums.TailSums(every, 1, float(y.max()))
    block = CountBlock.of(sparse.csr_matrix(y[:, None].astype(np.float64)))
    sums.add(block)
    tails.add(block)
    stats = guide_sums.technical_stats(sums, tails, s, group_of_bin, 1)
    return float(fit_counts(stats, TechnicalPriors()).overdispersion[0])
