"""How much the units within a guide (clones, animals, wells) differ, beside the counts' own noise.

A unit multiplies a feature's mean by a factor of its own, with squared coefficient of variation `v` ``(T,)``. Its sums
then have a squared overdispersion of `v` more, which no number of its cells makes smaller. That of single control
cells, of several units, holds `v` already: the share of `v` that a cell has in its row is in the row's noise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dream_sc._core.parallel import blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.types import GuideStats

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LEAST, MOST, HALVINGS = 1e-4, 30.0, 20  # of the squared coefficient of variation, beside 0; of its log
START = 0.1  # a squared variation, at which features are weighed against each other first
N_ITER = 5  # of the levels of guides at a given one
PRIOR_UNITS = 4.0  # units' worth of weight of what features have in common


class Units(NamedTuple):
    """Which unit each row belongs to, and which guide each unit."""

    of_row: Ints  # (R,)
    guide: Ints  # (U,)

    @classmethod
    def of(cls, unit: Ints, guide: Ints) -> Units:
        """Units within guides, given the labels and the guides ``(R,)`` of rows: a label may be in several guides."""
        pairs, of_row = np.unique(np.stack([guide, unit], 1), axis=0, return_inverse=True)
        return cls(of_row.reshape(-1), pairs[:, 0])

    @property
    def spare(self) -> int:
        """Units beyond the first of each guide, which tell how much units differ."""
        return len(self.guide) - len(np.unique(self.guide))


def with_units(stats: GuideStats, expected: Floats, overdispersion: Floats, unit: Ints) -> tuple[GuideStats, Floats]:
    """With what units ``(R,)`` within guides add to the overdispersion of rows, and their variation ``(T,)``.

    `expected` ``(T, R)`` are counts at one dosage for all guides.

    Raises
    ------
    ValueError
        If no guide has cells of two units.
    """
    units = Units.of(unit, stats.guide)
    if units.spare == 0:
        raise ValueError(
            "no guide has cells of two units, so that units cannot be told from guides: name another column as "
            "unit_key= of dream_sc.tl.fit_technical, or leave it out"
        )
    scale2 = stats.exposure2 / stats.exposure**2
    added, variation = row_overdispersion(stats.counts, expected, overdispersion, scale2, units)
    weights = added if stats.weights is None else stats.weights + added
    return replace(stats, weights=weights), np.sqrt(variation)


def row_overdispersion(
    counts: Floats, expected: Floats, overdispersion: Floats, scale2: Floats, units: Units
) -> tuple[Floats, Floats]:
    """Squared overdispersion ``(T, R)`` that units add to each row, and their squared variation ``(T,)``.

    Where a unit has several rows (technical groups), these share its factor; taken for independent, they get as much
    more as makes the variance of the unit's sum right.

    Parameters
    ----------
    counts, expected
        ``(T, R)`` observed, and expected at one dosage for all guides; NaN where a feature is not known.
    overdispersion
        ``(T,)`` of single cells.
    scale2
        ``(R,)`` W2 / W^2 of the rows.
    """
    found, noise, spare = np.zeros((3, len(counts)))
    for s in blocks(len(counts)):
        found[s], noise[s], spare[s] = _of_features(counts[s], expected[s], overdispersion[s], scale2, units)
    # what all have in common comes from features whose counts tell it, and they hold to it less than others
    start = float((spare * found / (START + noise) ** 2).sum() / max((spare / (START + noise) ** 2).sum(), 1e-300))
    at = max(start, LEAST)
    worth = spare * (at / (at + noise)) ** 2
    common = _weighted_median(found, worth) if worth.any() else 0.0
    squared = (worth * found + PRIOR_UNITS * common) / (worth + PRIOR_UNITS)
    return squared[:, None] * (_rows_of_unit(expected, units) * (1.0 - np.minimum(scale2, 1.0))), squared


def _rows_of_unit(expected: Floats, units: Units) -> Floats:
    """``(R,)`` number of rows of each row's unit, weighted by what is expected of them over all features."""
    share = np.nansum(expected, 0)
    share = share / np.maximum(np.bincount(units.of_row, share)[units.of_row], 1e-300)
    squares = np.bincount(units.of_row, share**2)
    return np.asarray(1.0 / np.maximum(squares, 1e-300)[units.of_row])


def _of_features(
    counts: Floats, expected: Floats, overdispersion: Floats, scale2: Floats, units: Units
) -> tuple[Floats, Floats, Floats]:
    """Squared variation of units ``(T,)``, that of their counts at NTC level, and the units that tell it.

    The second is typical of the units with counts; the third counts those beyond the first of each guide.
    """
    n_units = len(units.guide)
    of_unit = np.zeros((len(units.of_row), n_units))
    of_unit[np.arange(len(units.of_row)), units.of_row] = 1.0
    known = np.isfinite(expected).all(1) & np.isfinite(overdispersion)
    expected, o2 = np.where(known[:, None], expected, 0.0), np.where(known, overdispersion, 0.0)[:, None] ** 2
    y, e = counts @ of_unit, expected @ of_unit
    of_cell = np.minimum(((expected**2 * scale2) @ of_unit) / np.maximum(e, 1e-150) ** 2, 1.0)
    noise, room = o2 * of_cell, 1.0 - of_cell
    guides, guide = np.unique(units.guide, return_inverse=True)
    of_guide = np.zeros((n_units, len(guides)))
    of_guide[np.arange(n_units), guide] = 1.0
    has = (y @ of_guide > 0) & known[:, None]  # a guide without counts tells nothing
    spare = np.where(has, (of_guide > 0).sum(0) - 1, 0).sum(1)
    use = has[:, guide]
    found = np.zeros(len(y))
    differs = np.flatnonzero(_chi2(y, e, noise + room * LEAST, of_guide, guide, use)[0] > spare)
    low, high = np.full(len(differs), np.log(LEAST)), np.full(len(differs), np.log(MOST))
    mine = y[differs], e[differs], noise[differs], room[differs], use[differs]
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        extra = mine[2] + mine[3] * np.exp(middle)[:, None]
        chi2 = _chi2(mine[0], mine[1], extra, of_guide, guide, mine[4])[0]
        above = chi2 > spare[differs]
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    found[differs] = np.exp((low + high) / 2)
    mean = _chi2(y, e, noise + room * found[:, None], of_guide, guide, use)[1]
    of_counts = 1.0 / (noise + 1.0 / np.maximum(mean, 1e-9))
    typical = np.maximum(use.sum(1), 1) / np.maximum(np.where(use, of_counts, 0.0).sum(1), 1e-9)
    return found, typical, spare


def _chi2(
    y: Floats, e: Floats, extra: Floats, of_guide: Floats, guide: Ints, use: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Pearson's statistic ``(T,)`` of the units around their guides at this overdispersion, and their means."""
    level = (y @ of_guide) / np.maximum(e @ of_guide, 1e-150)
    for _ in range(N_ITER):
        weight = 1.0 / (1.0 + extra * e * level[:, guide])
        level = ((y * weight) @ of_guide) / np.maximum((e * weight) @ of_guide, 1e-150)
    mean = e * level[:, guide]
    variance = np.maximum(mean + extra * mean**2, 1e-150)
    return np.where(use & (mean > 0), (y - mean) ** 2 / variance, 0.0).sum(1), mean


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values, kind="stable")
    total = weights[order].cumsum()
    return float(values[order][np.searchsorted(total, total[-1] / 2)])
