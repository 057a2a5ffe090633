"""What the trans step reads from an object: the earlier fits, opened, and the sums of the counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._data import ambient, made_from, results, stored
from dream_sc._data.cis_cells import zero_of
from dream_sc._data.covariates import cell_bins
from dream_sc._data.groups import group_codes, unit_codes
from dream_sc._data.guide_matrix import guides_of_cells
from dream_sc._keys import NO_DOSAGE, STICKS, Slots
from dream_sc._logging import logger

from ._direct_targets import check_cis_gene, direct_targets
from ._guide_sets import labels_of, only_controls, sets_of_cells
from ._without_dosage import STEP, without_dosage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from dream_sc._core.covariates import CellBins
    from dream_sc._core.likelihoods import Likelihood
    from dream_sc._core.response.inert_guides import Acting
    from dream_sc._core.response.prepare import Prepared
    from dream_sc._core.response.prepare import Technical as OfCounts
    from dream_sc._core.response.rows import Cells, Guides
    from dream_sc._core.sums.block import CountBlock
    from dream_sc._data.shares import Sticks

    from ._guide_sets import Labels


@dataclass(frozen=True)
class Opened:
    """The earlier fits and the cells of one trans fit."""

    adata: AnnData
    technical_key: str
    technical: Any
    cis: Any
    layer: str | None
    cells: Cells
    guides: Guides
    labels: pd.DataFrame  # guides of the cis fit, and sets of them
    direct: np.ndarray | None = None  # (T,) features that guides of the cis fit act on, but the cis gene
    no_dosage: bool = False  # whether guides act or do not, whatever their dosages

    @property
    def likelihood(self) -> Likelihood:
        """That of the technical fit."""
        return stored.likelihood_of(self.technical)

    @cached_property
    def covariates(self) -> CellBins | None:
        """The covariates of the cells that take part, where the technical fit has any."""
        return cell_bins(self.adata, self.technical, self.technical_key, self.cells.used)

    def counts(self, n_rows: int, n_weighted: int, limit: int | str | None = None) -> Iterator[CountBlock]:
        """The counts in blocks, within the `limit` of memory beside the sums of so many rows."""
        from dream_sc._core.sums.guide_sums import row_bytes

        n = self.adata.n_vars
        # what units add to the noise of rows is as large as the sums; so are ambient counts, and what they add
        n_rows *= 1 + (self.cells.unit is not None) + 2 * (self.cells.ambient is not None)
        sums = ((n_rows, "rows, one per guide and technical group"), (n_weighted, "of them weighted by dosage"))
        held = {f"sums of {n} features in {k} {what}": row_bytes(k, n) for k, what in sums if k}
        return results.counts(self.adata, self.layer, limit, held).blocks(self.cells.used)


@dataclass(frozen=True)
class ResponseInputs:
    """What was measured, and the names that go with it."""

    prepared: Prepared
    opened: Opened
    guides: pd.DataFrame  # of the cis fit, with the offset of each; sets of guides after them
    sticks: Sticks | None = None  # of shares
    acting: Acting | None = None  # which guides act, of a fit without dosages

    @property
    def cis_gene(self) -> str:
        """Whose dosage it is."""
        return str(self.opened.cis["cis_gene"])

    @property
    def zero(self) -> float | None:
        """The log2 dose at which the axis has dose 0; None where dosages are relative to NTC, or there are none."""
        return None if self.opened.no_dosage else zero_of(self.opened.cis)


def response_inputs(
    adata: AnnData,
    holder: AnnData,
    *,
    technical_key: str,
    cis_key: str,
    layer: str | None = None,
    dosage: str = "guide",
    offsets: bool = True,
    known: dict[str, Any] | None = None,
    slopes: bool = True,
    limit: int | str | None = None,
    min_denominator: int | None = None,
    fresh: bool = True,
    label: str = "tl.fit_trans",
    sets: bool = False,
) -> ResponseInputs:
    """Open the earlier fits and measure; `holder` is the object with the cis fit.

    `offsets` of the guides: take them into account or not; from an earlier fit where its learned numbers are `known`.
    `slopes`: sum also what the slopes within guides need. `limit`: of memory, for the counts and their sums.
    With a `dosage` of "none" guides act or do not, whatever the cis fit says of their dosages.
    `sets`: cells with several guides of the cis gene take part, under their set of guides.
    `fresh`: refuse earlier fits that were made from other things than are there now, in the name of the step `label`.
    """
    if known is not None:
        stored.check_learned(known, "hyper=")
    opened = open_fits(
        adata, holder, technical_key=technical_key, cis_key=cis_key, layer=layer, fresh=fresh, label=label, sets=sets
    )
    if dosage == "cell" and opened.cells.unit is not None:
        raise ValueError(
            'dosage="cell" sorts the cells of a guide by their own dosages, not by the units of unit_key= of the '
            'technical fit: use dosage="guide", or call dream_sc.tl.fit_technical without unit_key='
        )
    opened = replace(opened, direct=direct_targets(adata, opened.cis))
    given: dict[str, Any] = {"offsets": offsets, "known": known, "limit": limit, "min_denominator": min_denominator}
    if dosage == NO_DOSAGE:
        return _without_dosage(opened, **given)
    if opened.cis.get("step") == STEP:
        raise ValueError(
            f'cis_key={cis_key!r} names the guides of a fit without dosages: use dosage="{NO_DOSAGE}", or call '
            "dream_sc.tl.fit_cis and name its key"
        )
    return _measured(opened, by_cell=dosage == "cell", slopes=slopes, **given)


def _without_dosage(opened: Opened, **given: Any) -> ResponseInputs:
    """The same of guides that act at one level or do not, whatever their dosages."""
    opened = replace(opened, guides=without_dosage(opened.cis["guides"]), no_dosage=True)
    found = _measured(opened, by_cell=False, slopes=False, **given)
    return replace(found, prepared=replace(found.prepared, one_dosage=False))


def _measured(
    opened: Opened,
    *,
    by_cell: bool,
    offsets: bool,
    known: dict[str, Any] | None,
    slopes: bool,
    limit: int | str | None,
    min_denominator: int | None,
) -> ResponseInputs:
    """Sum counts, shares or scores over the rows, and measure what the sums say."""
    guides = opened.labels.assign(offset=0.0)
    if opened.likelihood.statistics == "counts":
        offset = None if offsets else np.zeros(len(guides))
        if offsets and known is not None:
            offset = _known_offsets(known, guides["guide"])
        prepared = _counts(opened, offset, by_cell=by_cell, slopes=slopes, limit=limit)
        guides["offset"] = prepared.guide_offset
        return ResponseInputs(prepared, opened, guides)
    if opened.likelihood.statistics == "scores":
        prepared = _scores(opened, by_cell=by_cell, limit=limit)
        return ResponseInputs(replace(prepared, direct=opened.direct), opened, guides)
    prepared, sticks = _shares(opened, min_denominator, by_cell=by_cell, limit=limit)
    if prepared.links is None:
        prepared = replace(prepared, direct=opened.direct)
    return ResponseInputs(prepared, opened, guides, sticks)


def open_fits(
    adata: AnnData,
    holder: AnnData,
    *,
    technical_key: str,
    cis_key: str,
    layer: str | None,
    fresh: bool,
    label: str,
    sets: bool = False,
) -> Opened:
    """The earlier fits, `fresh` ones only if so, and what they say of cells and guides, and of `sets` of guides."""
    technical = _validate.step(adata, technical_key, "fit_technical(data)")
    cis = _validate.step(holder, cis_key, "fit_cis(data, cis_gene)")
    check_cis_gene(holder, cis, cis_key)
    layer = technical["params"]["layer"] if layer is None else layer
    labels = labels_of(cis, sets=sets)
    cells = _cells(adata, holder, (technical_key, technical), cis, cis_key, sets=labels.members is not None)
    if not cells.used.any():
        raise ValueError(
            "no cell takes part in the cis fit: the cells of the modality and those of the one with the cis fit have "
            "no name in common, or the cis fit is of other cells; call dream_sc.tl.fit_cis on this data"
        )
    if labels.table["is_control"].to_numpy(bool)[cells.guide[cells.used]].all():
        raise ValueError(only_controls(adata, holder, cis, cis_key))
    if fresh:
        made_from.check(adata, technical_key, label, layer)
        made_from.check(holder, cis_key, label, cis["params"].get("layer"))
    return Opened(adata, technical_key, technical, cis, layer, cells, _guides(cis, labels), labels.table)


def _guides(cis: Any, labels: Labels) -> Guides:
    """The guides of a cis fit, and sets of them."""
    from dream_sc._core.dosage.known import above
    from dream_sc._core.response.rows import Guides

    table, zero = labels.table, zero_of(cis)
    names = ("log2_dosage", "sd", "log2_dosage_acting", "sd_acting", "within_sd", "escaper_fraction")
    mean, sd, acting, acting_sd, within_sd, escape = (table[name].to_numpy(float) for name in names)
    if zero is not None:
        mean, acting = above(mean, zero), above(acting, zero)
        sd, acting_sd = np.nan_to_num(sd), np.nan_to_num(acting_sd)
    return Guides.of(
        of_all=(mean, sd),
        of_acting=(acting, acting_sd),
        within_sd=within_sd,
        escape=escape,
        control=table["is_control"].to_numpy(bool),
        level_error=float(cis["diagnostics"]["ntc_level_sd"]),
        from_zero=zero is not None,
        members=labels.members,
    )


def _cells(adata: AnnData, holder: AnnData, step: tuple[str, Any], cis: Any, cis_key: str, *, sets: bool) -> Cells:
    """The cells of `adata`, matched by name with those of the cis fit."""
    from dream_sc._core.dosage.known import above
    from dream_sc._core.response.rows import Cells

    (technical_key, technical), table, cells = step, cis["guides"], holder.obsm[cis_key]
    code = pd.Series(range(len(table)), index=table["guide"].astype(str))
    by_name = guides_of_cells(holder, cis_key).map(code).fillna(-1).astype(np.int64)
    if sets:
        of_set = sets_of_cells(holder, cis, cis_key)
        by_name = by_name.where(of_set < 0, of_set)
    if cis.get("step") != STEP:  # whose cells have no dosages
        by_name[cells["x_true"].isna()] = -1
    dosage, sd = (cells[c].reindex(adata.obs_names).to_numpy(float, copy=True) for c in ("log2_x_true", "log2_sd"))
    if (zero := zero_of(cis)) is not None:
        dosage, sd = above(dosage, zero), np.nan_to_num(sd)
    counts = stored.likelihood_of(technical).statistics == "counts"
    return Cells(
        guide=by_name.reindex(adata.obs_names, fill_value=-1).to_numpy(np.int64),
        group=group_codes(adata, technical),
        dosage=dosage,
        dosage_sd=sd,
        size_factor=_validate.size_factors(adata, technical["params"]["size_factor_key"]) if counts else None,
        unit=unit_codes(adata, technical["params"].get("unit_key")),
        ambient=ambient.stored(adata, technical, technical_key),
    )


def technical_counts(opened: Opened) -> OfCounts:
    """What the technical fit says of counts."""
    from dream_sc._core.response.prepare import Technical

    varm, key = opened.adata.varm, opened.technical_key
    return Technical(
        baseline=varm[key]["mu"].to_numpy(float),
        effects=varm[Slots(key).effects],
        overdispersion=varm[key]["overdispersion"].to_numpy(float),
        effect_sd=float(opened.technical["effect_scale"]),
    )


def _counts(
    opened: Opened, offset: np.ndarray | None, *, by_cell: bool, slopes: bool, limit: int | str | None
) -> Prepared:
    """Counts, with these offsets of guides, or with estimated ones."""
    from dream_sc._core.response import prepare
    from dream_sc._core.response.status import OF_CIS_GENE

    prepared = prepare.counts(
        partial(opened.counts, limit=limit),
        opened.cells,
        opened.guides,
        technical_counts(opened),
        is_cis=np.asarray(opened.adata.var_names == opened.cis["cis_gene"]),
        direct=opened.direct,
        by_cell=by_cell,
        slopes=slopes,
        covariates=opened.covariates,
        offset=offset,
    )
    kinds = _validate.other_features(opened.adata)
    reason = np.where((kinds != "") & (prepared.reason != OF_CIS_GENE), _validate.NO_GENE + kinds, prepared.reason)
    prepared = replace(prepared, reason=reason)
    if prepared.n_stable == 0:
        logger.info("tl.fit_trans: too few features with counts for offsets of guides, none are used")
    if prepared.unit_sd is not None:
        logger.info(
            "tl.fit_trans: units within guides differ by a factor with a coefficient of variation of %.2f (median over "
            "features)",
            float(np.median(prepared.unit_sd[prepared.fitted])),
        )
    return prepared


def _scores(opened: Opened, *, by_cell: bool, limit: int | str | None) -> Prepared:
    from dream_sc._core.response import prepare_scores
    from dream_sc._data.scores import open_scores

    table = opened.adata.varm[opened.technical_key]
    technical = prepare_scores.Technical(
        centre=table["mu"].to_numpy(float),
        sd=table["sigma"].to_numpy(float),
        effect_sd=float(opened.technical["effect_scale"]),
    )
    return prepare_scores.scores(
        open_scores(opened.adata, opened.layer, limit).blocks(),
        opened.cells,
        opened.guides,
        technical,
        distribution=opened.likelihood.name,
        by_cell=by_cell,
    )


def _shares(
    opened: Opened, min_denominator: int | None, *, by_cell: bool, limit: int | str | None
) -> tuple[Prepared, Sticks]:
    from dream_sc._core.response import prepare_shares
    from dream_sc._data.shares import open_pairs

    adata, params, table = opened.adata, opened.technical["params"], opened.technical.get(STICKS)
    layers = params["category_layers"]
    pairs = open_pairs(
        adata,
        opened.likelihood,
        layer=opened.layer,
        denominator_layer=params["denominator_layer"],
        category_key=params["category_key"],
        category_layers=None if layers is None else list(layers),
        sticks=table,
        limit=limit,
    )
    sticks, lacks = pairs.sticks, np.zeros(len(pairs.sticks.features), dtype=bool)
    overdispersion = adata.varm[opened.technical_key]["overdispersion"].to_numpy(float)
    if table is not None:
        overdispersion = table["overdispersion"].to_numpy(float)[sticks.rows_in(table)]
        lacks = ~sticks.has_stick & np.isin(sticks.features, table["feature"].astype(str))
    technical = prepare_shares.Technical(
        overdispersion=overdispersion,
        effect_sd=float(opened.technical["effect_scale"]),
        feature=sticks.feature,
        has_share=sticks.has_stick,
        lacks=lacks,
    )
    prepared = prepare_shares.shares(
        pairs.covered(min_denominator),
        opened.cells,
        opened.guides,
        technical,
        distribution=opened.likelihood.name,
        by_cell=by_cell,
        min_denominator=min_denominator,
        links=_links(sticks) if opened.likelihood.categories else None,
    )
    return prepared, sticks


def _links(sticks: Sticks) -> Any:
    """Links of the categories, without the names."""
    from dream_sc._core.response.categories.links import Links

    s = sticks
    return Links(s.feature, s.category, s.following, s.column_feature, len(s.features))


def _known_offsets(known: Any, guides: pd.Series) -> np.ndarray:
    """Offsets of an earlier fit, by the names of the guides."""
    earlier = dict(zip(map(str, known.get("guides", ())), known.get("guide_offsets", ()), strict=True))
    lacking = [g for g in guides.astype(str) if g not in earlier]
    if lacking:
        raise ValueError(
            f"hyper= is of a fit without the guides {lacking[:8]}: give that of a fit with the same guides, or none"
        )
    return np.array([earlier[g] for g in guides.astype(str)], dtype=float)
