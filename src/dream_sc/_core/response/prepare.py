"""What is measured, before anything is inferred: sums per guide, exposures, dosages, offsets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.curves import LN2
from dream_sc._core.likelihoods import likelihood
from dream_sc._core.parallel import blocks
from dream_sc._core.priors import TransPriors
from dream_sc._core.stats.within_guide_slope import WithinStats, centred_dosage, within_slope
from dream_sc._core.sums import capped, guide_sums
from dream_sc._core.types import RowDosage, SingleCells

from . import ambient, guide_sets, replicates
from .guide_offsets import guide_offsets
from .overdispersion import with_silent, without_wild
from .rows import layout
from .status import OF_CIS_GENE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from dream_sc._core.covariates import CellBins
    from dream_sc._core.likelihoods import Likelihood
    from dream_sc._core.sums.block import CountBlock
    from dream_sc._core.types import Axis, GuideStats

    from .categories.links import Links
    from .rows import Cells, Guides, Layout

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

MIN_COUNT = 10  # of a feature in the cells used
FEW_GUIDES = 2  # targeting ones, which do not determine an EC50


@dataclass(frozen=True)
class Prepared:
    """What was measured of `F` features, in `R` rows of `G` guides.

    The sums are of `T` binomials: the features themselves, or the links of features with several categories.
    """

    stats: GuideStats  # of T
    dosage: RowDosage
    overdispersion: Floats  # (T,) of single cells; NaN where it is not known
    axis: Axis
    group_effect_sd: float  # in the unit of the predictor
    reason: NDArray[np.object_]  # (F,) why a feature is not fitted, "" of one that is
    n_cells: int  # that take part
    one_dosage: bool = False  # whether the dosages of the targeting guides cannot be told apart
    rows: Layout | None = None  # which cells make which row
    guide_offset: Floats | None = None  # (G,) log2, which the exposures have in them
    n_stable: int | None = None  # features that the offsets rest on, where they were estimated
    n_capped: Ints | None = None  # (T,) counts of single cells that are capped in the sums
    slope: tuple[Floats, Floats] | None = None  # (T,) between cells of the same guide, and its sd
    centre: Floats | None = None  # (T,) of scores
    scale: Floats | None = None  # (T,) sd of scores
    links: Links | None = None  # which of T make which feature
    cells: SingleCells | None = None  # behind the rows, of the features to fit
    direct: Bools | None = None  # (F,) features that guides act on themselves, from which nothing is learned
    unit_sd: Floats | None = None  # (T,) coefficient of variation of units within guides, where these are told apart

    @classmethod
    def of_sums(
        cls,
        stats: GuideStats,
        dosage: RowDosage,
        overdispersion: Floats,
        *,
        axis: Axis,
        group_effect_sd: float,
        links: Links | None = None,
    ) -> Prepared:
        """Of sums that are there already, with every feature to be fitted."""
        n = len(stats.counts) if links is None else links.n_features
        reason = np.full(n, "", dtype=object)
        return cls(stats, dosage, overdispersion, axis, group_effect_sd, reason, n_cells=0, links=links)

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood of the rows."""
        return likelihood(self.stats.distribution)

    @property
    def priors(self) -> TransPriors:
        """Priors of the trans step, in the unit of the likelihood."""
        like = self.likelihood
        return TransPriors().in_unit(like.unit).over(self.axis, scores=like.statistics == "scores")

    @property
    def fitted(self) -> Bools:
        """``(F,)`` features to fit."""
        return np.asarray(self.reason == "")

    @property
    def used(self) -> Bools:
        """``(T,)`` sums that take part: those of the features to fit."""
        return self.fitted if self.links is None else self.fitted[self.links.feature]

    @property
    def learns(self) -> Bools | None:
        """``(F',)`` of the features that are fitted, those that have q-values and that something is learned from.

        None: all of them have. Where none has, something has to be learned from all.
        """
        out = None if self.direct is None else ~self.direct[self.fitted]
        return None if out is None or out.all() else out

    @cached_property
    def few_guides(self) -> Bools:
        """``(F,)`` features with reads or scores in too few targeting guides for an EC50."""
        targeting = ~np.asarray(self.dosage.control)
        if self.stats.weights is None or self.likelihood.statistics == "counts":
            n_here = int(np.isin(np.flatnonzero(targeting), self.stats.guide).sum())
            return np.full(len(self.reason), n_here <= FEW_GUIDES)
        told = np.zeros((len(self.stats.weights), len(targeting)), dtype=bool)
        for row, guide in enumerate(self.stats.guide):
            told[:, guide] |= self.stats.weights[:, row] > 0
        n = told[:, targeting].sum(1)
        return np.asarray((n if self.links is None else self.links.largest(n)) <= FEW_GUIDES)

    @property
    def no_ec50(self) -> Bools:
        """``(F,)`` features whose dosages do not determine an EC50."""
        return self.few_guides | self.one_dosage

    @property
    def mean(self) -> Floats:
        """``(T,)`` mean count at size factor 1, share, or score in sds from its centre."""
        stats = self.stats
        if stats.weights is None or self.likelihood.statistics == "counts":
            return np.asarray(stats.counts.sum(1) / stats.exposure.sum())
        total = np.maximum(stats.weights.sum(1), 1e-300)
        if self.scale is None:
            return np.asarray(stats.counts.sum(1) / total)
        return np.asarray((stats.weights * stats.counts).sum(1) / total / self.likelihood.unit)


@dataclass(frozen=True)
class Technical:
    """What the technical step says of `T` features of counts in `C` groups."""

    baseline: Floats  # (T,) expected count of a control cell of the reference group at size factor 1
    effects: Floats  # (T, C) log2
    overdispersion: Floats  # (T,) of single cells; NaN where it is not known
    effect_sd: float  # log2


@dataclass(frozen=True)
class CountSums:
    """Sums of counts over the cells of rows, and those weighted by the dosages of the cells."""

    stats: GuideStats
    within: WithinStats | None = None  # None where cells have no dosages of their own
    n_capped: Ints | None = None  # (T,) counts of single cells that are capped


def count_sums(
    counts: Iterable[CountBlock],
    rows: Layout,
    size_factor: Floats,
    n_features: int,
    *,
    distance: Floats | None = None,
    covariates: CellBins | None = None,
    bounds: capped.Bounds | None = None,
) -> CountSums:
    """Sum counts and size factors ``(N,)`` over the cells of each row, in one pass.

    Parameters
    ----------
    distance
        ``(N,)`` of a cell's dosage from the mean of its row, for sums weighted by it; see `distances`.
    covariates
        Of the cells.
    bounds
        Counts of single cells beyond which they may have to be capped; see `sums.capped`.
    """
    row, s, n_rows = rows.row_of_cell, size_factor, rows.n_rows
    sums = guide_sums.RowSums(row, n_rows, n_features, distance)
    noted = None if bounds is None else capped.Noted(bounds)
    for block in counts:
        sums.add(block)
        if noted is not None:
            noted.add(block)
    stats, weighted = guide_sums.guide_stats(sums, s, rows.guide, rows.group)
    n_capped = None
    if noted is not None:
        feature, cell, taken = capped.cap(noted, stats.counts, row, rows.guide, rows.group, s, rows.dosage.control)
        n_capped = np.bincount(feature, minlength=n_features)
        if distance is not None:
            to = np.searchsorted(sums.weighted_rows, row[cell])
            here = distance[cell] != 0
            np.subtract.at(weighted, (feature[here], to[here]), (taken * distance[cell])[here])
    if covariates is not None:
        stats = replace(stats, covariates=covariates.effects(row, n_rows, s))
    if distance is None:
        return CountSums(stats, n_capped=n_capped)
    use, moved = np.isfinite(np.asarray(rows.cell_dosage)) & (row >= 0), sums.weighted_rows
    spread, spread2 = (np.bincount(row[use], (s**k * distance**2)[use], n_rows)[moved].astype(float) for k in (1, 2))
    by_bin = None if covariates is None else covariates.sums(s * distance, row, n_rows)[moved]
    return CountSums(stats, WithinStats(weighted, spread, spread2, moved, by_bin), n_capped)


def bounds_of(technical: Technical, cells: Cells) -> capped.Bounds:
    """Counts that cells like the control cells hardly have."""
    expected = technical.baseline[:, None] * np.exp2(technical.effects)
    return capped.bounds_of(expected, technical.overdispersion, np.asarray(cells.size_factor), cells.used)


def distances(rows: Layout, size_factor: Floats) -> Floats | None:
    """Distance ``(N,)`` of each cell's dosage from the mean of its row, log2; None where cells have no own dosage."""
    if rows.cell_dosage is None:
        return None
    own = np.isfinite(rows.cell_dosage)
    row = np.where(own, rows.row_of_cell, -1)
    return centred_dosage(row, np.where(own, rows.cell_dosage, 0.0), size_factor, rows.n_rows)


def counts(
    open_counts: Callable[[int, int], Iterable[CountBlock]],
    cells: Cells,
    guides: Guides,
    technical: Technical,
    *,
    is_cis: Bools,
    by_cell: bool = False,
    slopes: bool = True,
    covariates: CellBins | None = None,
    offset: Floats | None = None,
    direct: Bools | None = None,
) -> Prepared:
    """Sum counts over the rows of the cells, in one pass, and measure what the sums say.

    Parameters
    ----------
    open_counts
        Gives the counts in blocks, for a number of rows and of rows with sums weighted by dosage.
    is_cis
        ``(T,)`` the cis gene, which is not fitted.
    by_cell
        Split the cells of a guide by their own dosages.
    slopes
        Measure the slope between cells of the same guide.
    covariates
        Of the cells that take part.
    offset
        ``(G,)`` log2, of the guides' exposures; estimated where it is not given.
    direct
        ``(T,)`` features that guides act on themselves, besides the cis gene.

    Raises
    ------
    ValueError
        If no feature can be fitted, or no targeting guide has cells.
    """
    rows, size_factor = layout(cells, guides, by_cell=by_cell), np.asarray(cells.size_factor)
    distance = distances(rows, size_factor) if slopes else None
    opened = open_counts(rows.n_rows, len(guide_sums.weighted_rows(rows.row_of_cell, distance)))
    # what covariates do to single cells is not known here
    bounds = bounds_of(technical, cells) if covariates is None else None
    sums = count_sums(opened, rows, size_factor, len(is_cis), distance=distance, covariates=covariates, bounds=bounds)
    stats = replace(sums.stats, n_guides=len(guides.control))  # some may have no cell here
    technical = with_silent(without_wild(technical, bounds, sums.n_capped), stats)
    if cells.ambient is not None:
        level = ambient.level(technical, cells, guides.control)
        stats = ambient.removed(stats, cells.ambient, level, rows.row_of_cell, size_factor)
        technical = ambient.own(technical, level)
        sums = replace(sums, within=ambient.without(sums.within, cells.ambient, rows, distance))
    reason = reasons(stats.counts.sum(1), technical.overdispersion, is_cis)
    n_stable = None
    if offset is None:
        ok = (reason == "") & np.isfinite(technical.baseline)
        offset, n_stable = offsets(stats, technical, ok & (True if direct is None else ~direct), guides)
    factor = 2.0 ** offset[stats.guide]
    stats = replace(stats, exposure=stats.exposure * factor, exposure2=stats.exposure2 * factor**2)
    unit_sd = None
    if rows.unit is not None:
        every = np.ones(len(stats.counts), dtype=bool)
        mean = expected(stats, technical, every)
        stats, unit_sd = replicates.with_units(stats, mean, technical.overdispersion, rows.unit)
    return Prepared(
        stats=stats,
        dosage=rows.dosage,
        overdispersion=technical.overdispersion,
        axis=guides.axis(stats.guide),
        group_effect_sd=technical.effect_sd * LN2,
        reason=reason,
        n_cells=rows.n_cells,
        one_dosage=guides.one_dosage(stats.guide),
        rows=rows,
        guide_offset=offset,
        n_stable=n_stable,
        n_capped=sums.n_capped,
        slope=_slope(stats, sums.within, technical.overdispersion, factor),
        direct=direct,
        unit_sd=unit_sd,
    )


def reasons(total: Floats, overdispersion: Floats, is_cis: Bools) -> NDArray[np.object_]:
    """Why a feature ``(T,)`` of so many counts is not fitted, "" of one that is."""
    out = np.full(len(is_cis), "", dtype=object)
    out[total < MIN_COUNT] = f"fewer than {MIN_COUNT} counts in the cells used"
    out[np.isnan(overdispersion)] = "no overdispersion, too few counts in control cells"
    out[is_cis] = OF_CIS_GENE
    if not (out == "").any():
        raise ValueError(
            f"no feature can be fitted: each is the cis gene, has fewer than {MIN_COUNT} counts, or has no "
            "overdispersion in the technical fit"
        )
    return out


def offsets(stats: GuideStats, technical: Technical, ok: Bools, guides: Guides | None = None) -> tuple[Floats, int]:
    """Offset ``(G,)`` of the exposure of each guide, log2, and the number of features that they rest on."""
    pool, n = np.arange(stats.n_guides), stats.n_guides
    if guides is not None and guides.members is not None:
        size = np.asarray(np.bincount(stats.guide, stats.exposure, stats.n_guides), dtype=np.float64)
        pool, n = guide_sets.pooled(guides.members, guides.mean, size)
    found, used = guide_offsets(
        stats.counts[ok],
        expected(stats, technical, ok),
        technical.overdispersion[ok],
        stats.exposure2 / stats.exposure**2,
        pool[stats.guide],
        n,
    )
    return np.asarray(found[pool] / LN2), used


def expected(stats: GuideStats, technical: Technical, ok: Bools) -> Floats:
    """Counts ``(T', R)`` of some features in each row, expected at NTC dosage."""
    # in place: with many guides each array of this shape is large
    out = technical.effects[ok][:, stats.group].astype(np.float64, copy=False)
    np.exp2(out, out=out)
    out *= technical.baseline[ok, None]
    out *= stats.exposure
    if stats.covariates is not None:
        of_ok = stats.covariates.take(ok)
        for s in blocks(len(out)):
            out[s] *= np.exp(of_ok.take(s).log_rows())
    return out


def _slope(
    stats: GuideStats, within: WithinStats | None, overdispersion: Floats, factor: Floats
) -> tuple[Floats, Floats] | None:
    """Slope between cells of the same guide ``(T,)`` and its sd, given the factor ``(R,)`` on the exposures."""
    if within is None:
        return None
    mine = factor[within.rows]
    within = replace(within, spread=within.spread * mine, spread2=within.spread2 * mine**2)
    return within_slope(within, stats.counts, stats.exposure, overdispersion, stats.covariates)


def with_cells(prepared: Prepared, cells: Cells, read: Callable[[Ints], Floats]) -> Prepared:
    """With the cells behind the rows of counts; `read` gives the counts ``(T', n used)`` of some features to fit."""
    rows, d = prepared.rows, prepared.dosage
    if rows is None or prepared.guide_offset is None or cells.size_factor is None:
        raise TypeError("single cells are of counts")
    row = rows.row_of_cell[cells.used]
    guide = rows.guide[row]
    s = cells.size_factor[cells.used] * 2.0 ** prepared.guide_offset[guide]
    mean, spread, escape = (np.broadcast_to(x, d.mean.shape)[row] for x in (d.mean, d.spread, d.escape))
    of_cells = RowDosage(mean, spread, d.error, d.control, d.level_error, escape)
    features = np.arange(int(prepared.fitted.sum()))
    found = SingleCells(read, features, s, guide, rows.group[row], of_cells, prepared.stats.n_groups)
    return replace(prepared, cells=found)
