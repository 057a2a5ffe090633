"""Counts that leaked from other cells: taken off the sums of rows, whose noise they leave behind.

A cell's expected ambient counts are its total times its ambient share; how they fall on features is the profile of its
lane. What is left of a row is an estimate of its cells' own counts, and what was taken off adds to its variance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.stats.within_guide_slope import WithinStats
    from dream_sc._core.types import GuideStats

    from .prepare import Technical
    from .rows import Cells, Layout

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

MOST_SHARE = 0.95  # of a feature's counts in control cells that may be ambient


@dataclass(frozen=True)
class Ambient:
    """Ambient counts of `N` cells in `C` technical groups."""

    counts: Floats  # (N,) expected of each cell, over all features
    share: Floats  # (N,) of its counts
    profile: Floats  # (T, C) share of each feature in the ambient counts of a group

    def rows(self, row: Ints, group: Ints, weight: Floats | None = None) -> Floats:
        """Expected ambient counts ``(T, R)`` of rows of these groups ``(R,)``, given the row ``(N,)`` of each cell.

        With a `weight` ``(N,)`` of each cell, those weighted by it.
        """
        used = row >= 0
        values = self.counts if weight is None else self.counts * weight
        return np.asarray(self.profile[:, group] * np.bincount(row[used], values[used], len(group)))


@dataclass(frozen=True)
class Level:
    """What control cells show of the ambient counts in each group."""

    share: Floats  # (C,) of the counts of a control cell, weighted by size factors
    of_feature: Floats  # (T, C) of a feature's counts


def level(technical: Technical, cells: Cells, is_control: Bools) -> Level:
    """From the control cells of each group, or all cells of a group without any; `is_control` ``(G,)`` are guides."""
    ambient, group, s = cells.ambient, cells.group, np.asarray(cells.size_factor)
    if ambient is None:
        raise TypeError("cells have no ambient counts")
    expected = technical.baseline[:, None] * np.exp2(technical.effects)
    control, n = cells.used & is_control[cells.guide], expected.shape[1]
    use = control | ~np.isin(group, np.unique(group[control]))
    exposure = np.maximum(np.bincount(group[use], s[use], n), 1e-300)
    share = np.bincount(group[use], (ambient.share * s)[use], n) / exposure
    counts = np.bincount(group[use], ambient.counts[use], n) / exposure
    with np.errstate(invalid="ignore", divide="ignore"):
        of_feature = np.clip(ambient.profile * counts / expected, 0.0, MOST_SHARE)
    return Level(share, np.nan_to_num(of_feature))


def removed(stats: GuideStats, ambient: Ambient, level: Level, row: Ints, size_factor: Floats) -> GuideStats:
    """Sums without the ambient counts, exposures of what cells have of their own.

    What is taken off has a variance of its own: as a squared overdispersion of the row it is the ambient counts over
    the square of the own ones, of which there are at least as many as chance would leave.

    Parameters
    ----------
    row
        ``(N,)`` of each cell, -1 where it takes no part.
    """
    taken = ambient.rows(row, stats.group)
    own = np.maximum(stats.counts - taken, 0.0)
    added = taken / np.maximum(own, np.sqrt(stats.counts + 1.0)) ** 2
    used = row >= 0
    of_row = np.bincount(row[used], (ambient.share * size_factor)[used], len(stats.group)) / stats.exposure
    factor = (1.0 - of_row) / (1.0 - level.share[stats.group])
    return replace(
        stats,
        counts=own,
        exposure=stats.exposure * factor,
        exposure2=stats.exposure2 * factor**2,
        weights=added if stats.weights is None else stats.weights + added,
    )


def own(technical: Technical, level: Level) -> Technical:
    """The same of the cells' own counts.

    The overdispersion of all counts is that of the own ones, spread over the ambient ones as well.
    """
    left = 1.0 - level.of_feature
    return replace(
        technical,
        baseline=technical.baseline * left[:, 0],
        effects=technical.effects + np.log2(left / left[:, :1]),
        overdispersion=technical.overdispersion / left.mean(1),
    )


def without(within: WithinStats | None, ambient: Ambient, rows: Layout, distance: Floats | None) -> WithinStats | None:
    """Sums weighted by the cells' distances ``(N,)``, without the ambient counts."""
    if within is None or distance is None:
        return within
    taken = ambient.rows(rows.row_of_cell, rows.group, distance)[:, within.rows]
    return replace(within, counts=within.counts - taken)
