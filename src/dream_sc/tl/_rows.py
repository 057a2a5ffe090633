"""Counts and dosages of the rows that the trans step works on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._data import results, shares, stored
from dream_sc._data.covariates import CellBins
from dream_sc._data.guide_matrix import guides_of_cells
from dream_sc._keys import Slots
from dream_sc._logging import logger

from ._fit_cis import group_codes
from ._modality_rows import score_rows, share_rows

if TYPE_CHECKING:
    from anndata import AnnData

N_CELL_BINS = 8
MIN_COUNT = 10
FEW_GUIDES = 2
OF_EC50 = ("log2_ec50", "hill_n", "p_ec50", "inflection")  # how columns begin that few guides do not determine
ONE_DOSAGE, ONE_DOSAGE_SDS = 0.2, 3.0  # range of dosages, log2 or in their sds, below which they are taken for one


@dataclass(frozen=True)
class TransInputs:
    """What the trans step reads from the object."""

    stats: Any  # GuideStats of all features
    dosage: Any  # RowDosage
    overdispersion: np.ndarray  # (T,) NaN where unknown
    is_cis: np.ndarray  # (T,)
    ok: np.ndarray  # (T,) features to fit
    reason: np.ndarray  # (T,) why a feature is not fitted, "" of others
    axis: Any
    alpha_sd: float  # natural log
    n_cells: int
    layer: str | None
    cis_gene: str
    guides: pd.DataFrame
    within: Any = None  # WithinStats of all features; None for dosages of cells, or where not asked for
    distribution: str = "negbinom"
    sticks: Any = None  # of shares: which make which feature; `stats` and `overdispersion` are then theirs
    centre: np.ndarray | None = None  # (T,) of scores
    scale: np.ndarray | None = None  # (T,) sd of scores

    @property
    def likelihood(self) -> Any:
        """The likelihood of the rows."""
        from dream_sc._core.likelihoods import likelihood

        return likelihood(self.distribution)

    @property
    def priors(self) -> Any:
        """Priors of the trans step, in the unit of the likelihood."""
        from dream_sc._core.priors import TransPriors

        return TransPriors().in_unit(self.likelihood.unit)

    @property
    def few_guides(self) -> np.ndarray:
        """``(F,)`` features with reads or scores in too few targeting guides for an EC50."""
        if self.stats.weights is None:
            return np.full(len(self.ok), len(_targeting(self.guides, self.stats)) <= FEW_GUIDES)
        told = np.zeros((len(self.stats.weights), len(self.guides)), dtype=bool)
        for row, guide in enumerate(self.stats.guide):
            told[:, guide] |= self.stats.weights[:, row] > 0
        n = told[:, ~self.guides["is_control"].to_numpy(bool)].sum(1)
        if self.sticks is None:
            return np.asarray(n <= FEW_GUIDES)
        most = np.zeros(len(self.ok), dtype=np.int64)
        np.maximum.at(most, self.sticks.feature, n)
        return most <= FEW_GUIDES

    @property
    def one_dosage(self) -> bool:
        """Whether the dosages of the targeting guides cannot be told apart, so that there is no place for an EC50."""
        mean, sd = acting(_targeting(self.guides, self.stats))
        return bool(np.ptp(mean) <= max(ONE_DOSAGE, ONE_DOSAGE_SDS * float(np.median(sd))))


def trans_inputs(
    adata: AnnData,
    holder: AnnData,
    technical_key: str,
    cis_key: str,
    layer: str | None,
    dosage: str,
    *,
    offsets: bool,
    known: dict[str, Any] | None = None,
    slopes: bool = True,
    limit: int | str | None = None,
    min_denominator: int | None = None,
) -> TransInputs:
    """Read the earlier fits and sum the counts; `holder` is the object with the cis fit.

    `offsets` of the guides: take them into account or not; from an earlier fit where its learned numbers are `known`.
    `slopes`: sum also what the slopes within guides need. `limit`: of memory, for the counts and their sums.
    """
    if known is not None:
        stored.check_learned(known, "hyper=")
    technical = _validate.step(adata, technical_key, "fit_technical(data)")
    cis = _validate.step(holder, cis_key, "fit_cis(data, cis_gene)")
    layer = technical["params"]["layer"] if layer is None else layer
    layout = row_layout(adata, holder, technical, cis, cis_key, dosage)
    if technical["params"].get("distribution", "negbinom") != "negbinom":
        return _other_inputs(adata, technical, technical_key, cis, layer, layout, min_denominator, limit)
    x = layout.x if slopes else None
    bins = CellBins.of(adata, technical, technical_key, layout.row >= 0)
    stats, within = row_stats(adata, technical, layer, layout.row, layout.rows, x, limit=limit, bins=bins)
    overdispersion = adata.varm[technical_key]["overdispersion"].to_numpy(float)
    is_cis = np.asarray(adata.var_names == cis["cis_gene"])
    reason = np.full(len(is_cis), "", dtype=object)
    reason[stats.counts.sum(1) < MIN_COUNT] = f"filtered: fewer than {MIN_COUNT} counts in the cells used"
    reason[np.isnan(overdispersion)] = "filtered: no overdispersion, too few counts in control cells"
    reason[is_cis] = "cis gene"
    ok = reason == ""
    guides = cis["guides"].assign(offset=0.0)
    stats = replace(stats, n_guides=len(guides))  # some may have no cell here
    if offsets and known is None:
        guides["offset"] = _offsets(stats, _expected(adata, technical_key, stats, ok), overdispersion, ok)
    elif offsets:
        guides["offset"] = _known_offsets(known, guides["guide"])
    factor = 2.0 ** guides["offset"].to_numpy()[stats.guide]
    stats = replace(stats, exposure=stats.exposure * factor, exposure2=stats.exposure2 * factor**2)
    if within is not None:
        mine = factor[within.rows]
        within = replace(within, spread=within.spread * mine, spread2=within.spread2 * mine**2)
    if not ok.any():
        raise ValueError(
            f"no feature can be fitted: each is the cis gene, has fewer than {MIN_COUNT} counts, or has no "
            "overdispersion in the technical fit"
        )
    scale = float(technical["effect_scale"]) * float(np.log(2))
    return TransInputs(
        stats,
        layout.dosage,
        overdispersion,
        is_cis,
        ok,
        reason,
        _axis(guides, stats),
        scale,
        int((layout.row >= 0).sum()),
        layer,
        str(cis["cis_gene"]),
        guides,
        within,
    )


def _other_inputs(
    adata: AnnData,
    technical: Any,
    technical_key: str,
    cis: Any,
    layer: str | None,
    layout: Layout,
    min_denominator: int | None,
    limit: int | str | None,
) -> TransInputs:
    """Inputs of shares and scores: no offsets of guides, which are of counts, and no slopes within guides."""
    distribution, table = technical["params"]["distribution"], adata.varm[technical_key]
    sticks = centre = scale = None
    if distribution in shares.SCORES:
        centre, scale = table["mu"].to_numpy(float), table["sigma"].to_numpy(float)
        stats, reason = score_rows(adata, technical, layer, layout, centre, scale, limit)
        overdispersion = np.ones(adata.n_vars)
    else:
        overdispersion = table["overdispersion"].to_numpy(float)
        found = share_rows(adata, technical, layer, layout, min_denominator, overdispersion, limit)
        stats, reason, overdispersion, sticks = found
    if (reason != "").all():
        raise ValueError(f"no feature can be fitted: {sorted(set(reason))[0]}, and so for the others")
    guides = cis["guides"].assign(offset=0.0)
    stats = replace(stats, distribution=distribution)
    inputs = TransInputs(
        stats,
        layout.dosage,
        overdispersion,
        np.zeros(len(reason), dtype=bool),
        reason == "",
        reason,
        _axis(guides, stats),
        float(technical["effect_scale"]),
        int((layout.row >= 0).sum()),
        layer,
        str(cis["cis_gene"]),
        guides,
        None,
        distribution,
        sticks,
        centre,
        scale,
    )
    return replace(inputs, alpha_sd=inputs.alpha_sd * inputs.likelihood.unit)


def means(inputs: TransInputs) -> np.ndarray:
    """Mean of each feature, or of each stick: count at size factor 1, share, or score in sds from its centre."""
    stats = inputs.stats
    if stats.weights is None:
        return np.asarray(stats.counts.sum(1) / stats.exposure.sum())
    total = np.maximum(stats.weights.sum(1), 1e-300)
    if inputs.scale is None:
        return np.asarray(stats.counts.sum(1) / total)
    return np.asarray((stats.weights * stats.counts).sum(1) / total / inputs.likelihood.unit)


def _known_offsets(known: Any, guides: pd.Series) -> np.ndarray:
    """Offsets of an earlier fit, by the names of the guides."""
    earlier = dict(zip(map(str, known.get("guides", ())), known.get("guide_offsets", ()), strict=True))
    lacking = [g for g in guides.astype(str) if g not in earlier]
    if lacking:
        raise ValueError(
            f"hyper= is of a fit without the guides {lacking[:8]}: give that of a fit with the same guides, or none"
        )
    return np.array([earlier[g] for g in guides.astype(str)], dtype=float)


def _expected(adata: AnnData, technical_key: str, stats: Any, ok: np.ndarray) -> np.ndarray:
    """Counts of the features to fit, per row, expected at NTC dosage."""
    from dream_sc._core.blocks import blocks

    # in place: with many guides each array of this shape is large
    out = adata.varm[Slots(technical_key).effects][ok][:, stats.group].astype(np.float64, copy=False)
    np.exp2(out, out=out)
    out *= adata.varm[technical_key]["mu"].to_numpy(float)[ok, None]
    out *= stats.exposure
    if stats.covariates is not None:
        of_ok = stats.covariates.take(ok)
        for s in blocks(len(out)):
            out[s] *= np.exp(of_ok.take(s).log_rows())
    return out


def _offsets(stats: Any, expected: np.ndarray, overdispersion: np.ndarray, ok: np.ndarray) -> np.ndarray:
    """Offset of each guide, log2."""
    from dream_sc._core.response.guide_offsets import guide_offsets

    scale2 = stats.exposure2 / stats.exposure**2
    row = stats.guide, stats.n_guides
    offset, used = guide_offsets(stats.counts[ok], expected, overdispersion[ok], scale2, *row)
    if not used:
        logger.info("tl.fit_trans: too few features with counts for offsets of guides, none are used")
    return np.asarray(offset / np.log(2))


@dataclass(frozen=True)
class Layout:
    """Which cells make which row of (guide, group), or (guide, group, dosage bin), and the rows' dosages."""

    row: np.ndarray  # (N,) -1 where a cell takes no part
    rows: np.ndarray  # (R, 2 or 3) codes
    dosage: Any  # RowDosage
    x: np.ndarray | None = None  # (N,) log2 dosage of the cells of targeting guides, NaN of others


def row_stats(
    adata: AnnData,
    technical: Any,
    layer: str | None,
    row: np.ndarray,
    rows: np.ndarray,
    x: np.ndarray | None = None,
    factor: float | np.ndarray = 1.0,
    limit: int | str | None = None,
    bins: CellBins | None = None,
) -> tuple[Any, Any]:
    """Sum the counts and size factors of the cells of each row, in one pass.

    The second value holds the sums weighted by the cells' dosages `x` (NaN: takes no part in them), if there are any.
    `factor` scales the size factors of the cells; `limit` is that of memory; `bins` are those of covariates.
    """
    from dream_sc._core.stats import within_guide_slope
    from dream_sc._core.sums import guide_sums

    s = _validate.size_factors(adata, technical["params"]["size_factor_key"]) * factor
    differs = np.full(len(row), -1) if x is None else np.where(np.isfinite(x), row, -1)
    d = None if x is None else within_guide_slope.centred_dosage(differs, np.nan_to_num(x), s, len(rows))
    n_moved = len(guide_sums.weighted_rows(row, d))
    held = {
        f"sums of {adata.n_vars} features in {n} {what}": guide_sums.row_bytes(n, adata.n_vars)
        for n, what in ((len(rows), "rows, one per guide and technical group"), (n_moved, "of them weighted by dosage"))
        if n
    }
    counts = results.counts(adata, layer, limit, held)
    sums = guide_sums.RowSums(row, len(rows), adata.n_vars, d)
    for block in counts.blocks(row >= 0):
        sums.add(block)
    stats, weighted = guide_sums.guide_stats(sums, s, rows[:, 0], rows[:, 1])
    if bins is not None:
        stats = replace(stats, covariates=bins.effects(row, len(rows), s))
    if d is None:
        return stats, None
    use, moved = differs >= 0, sums.weighted_rows
    spread, spread2 = (np.bincount(differs[use], (s**k * d**2)[use], len(rows))[moved].astype(float) for k in (1, 2))
    by_bin = None if bins is None else bins.sums(s * d, row, len(rows))[moved]
    return stats, within_guide_slope.WithinStats(weighted, spread, spread2, moved, by_bin)


def row_layout(adata: AnnData, holder: AnnData, technical: Any, cis: Any, cis_key: str, dosage: str) -> Layout:
    """Sort the cells into rows; `holder` is the object with the cis fit."""
    from dream_sc._core.types import RowDosage

    table = cis["guides"]
    cells = holder.obsm[cis_key]
    # of the cells with one guide of the cis gene: several would tie the rows of sets together by what they share
    code = pd.Series(range(len(table)), index=table["guide"].astype(str))
    by_name = guides_of_cells(holder, cis_key).map(code).fillna(-1).astype(np.int64)
    by_name[cells["log2_x_true"].isna()] = -1
    guide_code = by_name.reindex(adata.obs_names, fill_value=-1).to_numpy(np.int64)
    group = group_codes(adata, technical)
    frame = pd.DataFrame({"guide": guide_code, "group": group})
    keys = ["guide", "group", *_depth_bins(adata, technical, frame)]
    if dosage == "cell":
        x = cells["log2_x_true"].reindex(adata.obs_names)
        frame["x"], frame["var"] = x.to_numpy(), cells["log2_sd"].reindex(adata.obs_names).to_numpy() ** 2
        keys = keys[:2]  # bins of dosage take the place of those of depth
        rank = frame.groupby(keys)["x"].rank(method="first")
        size = frame.groupby(keys)["x"].transform("size")
        bins = np.minimum(N_CELL_BINS, np.maximum(size // 10, 1))
        frame["bin"] = np.where(frame["x"].notna(), ((rank - 1) * bins // size).fillna(0), 0).astype(int)
        keys = [*keys, "bin"]
    used = guide_code >= 0
    if not used.any():
        raise ValueError(
            "no cell takes part in the cis fit: the cells of the modality and those of the one with the cis fit have "
            "no name in common, or the cis fit is of other cells; call dream_sc.tl.fit_cis on this data"
        )
    index = frame[used].groupby(keys, sort=True)
    row = np.full(adata.n_obs, -1, dtype=np.int64)
    row[used] = index.ngroup().to_numpy()
    rows = np.array([k for k, _ in index], dtype=np.int64)
    mean, error = acting(table)
    spread = np.where(table["is_control"].astype(bool), 0.0, table["within_sd"].to_numpy(float))
    control = table["is_control"].to_numpy(bool)
    level = float(cis["diagnostics"]["ntc_level_sd"])
    if dosage == "cell":
        centre = index["x"].mean().to_numpy()
        width = np.sqrt(index["var"].mean().to_numpy() + index["x"].var(ddof=0).to_numpy())
        return Layout(row, rows, RowDosage(centre, width, np.zeros(len(table)), control, level))
    escape = table["escaper_fraction"].to_numpy(float)[rows[:, 0]]
    x = cells["log2_x_true"].reindex(adata.obs_names).to_numpy(float, copy=True)
    x[~used | control[guide_code]] = np.nan
    return Layout(row, rows, RowDosage(mean[rows[:, 0]], spread[rows[:, 0]], error, control, level, escape), x)


def _depth_bins(adata: AnnData, technical: Any, frame: pd.DataFrame) -> list[str]:
    """Add bins of size factors to the frame of guides and groups where these vary much; names of what was added."""
    from dream_sc._core.sums import guide_sums

    if technical["params"].get("distribution", "negbinom") != "negbinom":
        return []
    s = _validate.size_factors(adata, technical["params"]["size_factor_key"])
    used = frame["guide"].to_numpy() >= 0
    n_bins = guide_sums.n_depth_bins(s[used]) if used.any() else 1
    if n_bins == 1:
        return []
    frame["depth"] = guide_sums.depth_bins(s, frame.groupby(["guide", "group"]).ngroup().to_numpy(np.int64), n_bins)
    return ["depth"]


def _targeting(table: pd.DataFrame, stats: Any) -> pd.DataFrame:
    """The targeting guides that have cells here: a modality may lack some of those with a dosage."""
    here = np.isin(np.arange(len(table)), stats.guide)
    return table[here & ~table["is_control"].to_numpy(bool)]


def _axis(table: pd.DataFrame, stats: Any) -> Any:
    from dream_sc._core.types import Axis

    targeting = _targeting(table, stats)
    if not len(targeting):
        raise ValueError(
            "no cell of a guide that acts on the cis gene is among these cells: the modality has cells of controls only"
        )
    return Axis.of(acting(targeting)[0])


def acting(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Log2 dosage of the cells in which each guide acts, and its sd; those of all its cells where none escape."""
    two = table["escaper_fraction"].to_numpy(float) > 0
    mean, sd = (
        np.where(two, table[a].to_numpy(float), table[b].to_numpy(float))
        for a, b in (("log2_dosage_acting", "log2_dosage"), ("sd_acting", "sd"))
    )
    return mean, sd
