"""Rows of the sums: the cells of one guide in one technical group, and one bin of depth or of dosage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.sums.guide_sums import depth_bins, n_depth_bins
from dream_sc._core.types import Axis, RowDosage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .ambient import Ambient

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

N_CELL_BINS = 8
CELLS_PER_BIN = 10
ONE_DOSAGE, ONE_DOSAGE_SDS = 0.2, 3.0  # range of dosages, log2 or in their sds, below which they are taken for one
SHARP_SD = 0.5  # log2: a guide whose dosage has a larger sd, and larger than most, is taken to reach less far


@dataclass(frozen=True)
class Guides:
    """What the cis step says of `G` guides; dosages are log2 relative to NTC."""

    mean: Floats  # (G,) of the cells in which a guide acts
    sd: Floats  # (G,) of the mean
    spread: Floats  # (G,) sd between cells, 0 of control guides
    escape: Floats  # (G,) share of cells without effect
    control: Bools  # (G,)
    level_error: float  # sd of the NTC level, which all guides share
    from_zero: bool = False  # whether controls are at dose 0: see `Axis`
    reach: Floats | None = None  # (G,) the dosage up to which the data say something; the mean if None
    members: Floats | None = None  # (G, S) guides of each, where some are sets of guides whose effects add up

    @classmethod
    def of(
        cls,
        *,
        of_all: tuple[Floats, Floats],
        of_acting: tuple[Floats, Floats],
        within_sd: Floats,
        escape: Floats,
        control: Bools,
        level_error: float,
        from_zero: bool = False,
        members: Floats | None = None,
    ) -> Guides:
        """From the dosages and sds ``(G,)`` of all cells of a guide, and of those that do not escape."""
        mean, sd = (np.where(escape > 0, acting, every) for acting, every in zip(of_acting, of_all, strict=True))
        reach = None if from_zero else reach_of(of_all, of_acting, escape, control)
        spread = np.where(control, 0.0, within_sd)
        return cls(mean, sd, spread, escape, control, level_error, from_zero, reach, members)

    def targeting(self, guide: Ints) -> Bools:
        """``(G,)`` targeting guides with a row, given the guides ``(R,)`` of the rows: a modality may lack some."""
        return np.isin(np.arange(len(self.control)), guide) & ~self.control

    def axis(self, guide: Ints) -> Axis:
        """The dosage axis of the targeting guides with a row.

        Raises
        ------
        ValueError
            If there is none.
        """
        here = self.targeting(guide)
        if not here.any():
            raise ValueError(
                "no cell that counts under a guide of the cis gene is among these cells, only controls are"
            )
        reach = self.mean if self.reach is None else self.reach
        return Axis.of(self.mean[here], reach=reach[here], from_zero=self.from_zero)

    def one_dosage(self, guide: Ints) -> bool:
        """Whether the dosages of the targeting guides cannot be told apart, so that there is no place for an EC50."""
        here = self.targeting(guide)
        return alike(self.mean[here], self.sd[here])


def reach_of(of_all: tuple[Floats, Floats], of_acting: tuple[Floats, Floats], escape: Floats, control: Bools) -> Floats:
    """How far from NTC the data of each guide ``(G,)`` say something of curves, log2.

    A dosage whose sd is above that of most guides, and above `SHARP_SD`, reaches less far by as much. Of a guide with
    escaping cells, the dosage of its acting cells counts, or that of all cells where that reaches further.
    """
    known = ~control & np.isfinite(of_all[1])
    sharp = max(SHARP_SD, float(np.median(of_all[1][known]))) if known.any() else SHARP_SD
    every, acting = (
        np.sign(x) * np.maximum(np.abs(x) - np.maximum(sd - sharp, 0.0), 0.0) for x, sd in (of_all, of_acting)
    )
    further = (escape > 0) & (np.abs(acting) > np.abs(every))
    return np.where(further, acting, every)


def alike(dosage: Floats, sd: Floats) -> bool:
    """Whether dosages ``(n,)`` with these errors cannot be told apart."""
    return bool(np.ptp(dosage) <= max(ONE_DOSAGE, ONE_DOSAGE_SDS * float(np.median(sd))))


@dataclass(frozen=True)
class Cells:
    """What is known of `N` cells."""

    guide: Ints  # (N,) -1 where a cell takes no part
    group: Ints  # (N,) technical group
    dosage: Floats  # (N,) log2 relative to NTC
    dosage_sd: Floats  # (N,)
    size_factor: Floats | None = None  # (N,) of counts
    unit: Ints | None = None  # (N,) replicate within its guide: clone, animal, well
    ambient: Ambient | None = None  # what leaked from other cells, of counts

    @property
    def used(self) -> Bools:
        """``(N,)`` cells that take part."""
        return self.guide >= 0


@dataclass(frozen=True)
class Layout:
    """Which of `N` cells make which of `R` rows, and the dosages of the rows."""

    row_of_cell: Ints  # (N,) -1 where a cell takes no part
    guide: Ints  # (R,)
    group: Ints  # (R,)
    dosage: RowDosage
    cell_dosage: Floats | None = None  # (N,) log2, NaN of control cells; None where rows are bins of dosage
    unit: Ints | None = None  # (R,) None where units are not told apart

    @property
    def n_rows(self) -> int:
        """R."""
        return len(self.guide)

    @property
    def n_cells(self) -> int:
        """Cells that take part."""
        return int((self.row_of_cell >= 0).sum())


def layout(cells: Cells, guides: Guides, *, by_cell: bool) -> Layout:
    """Sort cells into rows; `by_cell` splits the cells of a guide by their own dosages."""
    used = np.flatnonzero(cells.used)
    pairs, of_pair = _numbered(cells.guide[used], cells.group[used])
    if by_cell:
        part = _dosage_bins(cells.dosage[used], of_pair)
    elif cells.unit is not None:
        part = cells.unit[used]
    elif cells.size_factor is None:
        part = np.zeros(len(used), dtype=np.int64)
    else:
        s = cells.size_factor
        n_bins = n_depth_bins(s[used])
        part = depth_bins(s[used], of_pair, n_bins) if n_bins > 1 else np.zeros(len(used), dtype=np.int64)
    rows, of_used = _numbered(of_pair, part)
    row = np.full(len(cells.guide), -1, dtype=np.int64)
    row[used] = of_used
    guide, group = pairs[rows[:, 0]].T
    if by_cell:
        return Layout(row, guide, group, _dosage_of_bins(cells, guides, used, of_used, len(rows)))
    x = cells.dosage.copy()
    x[~cells.used | guides.control[cells.guide]] = np.nan
    d = RowDosage(
        guides.mean[guide],
        guides.spread[guide],
        guides.sd,
        guides.control,
        guides.level_error,
        guides.escape[guide],
        guides.members,
    )
    return Layout(row, guide, group, d, x, None if cells.unit is None else rows[:, 1])


def _numbered(one: Ints, other: Ints) -> tuple[Ints, Ints]:
    """Pairs ``(n, 2)`` of codes that occur, sorted, and the number of the pair of each cell."""
    base = int(other.max()) + 1
    found, number = np.unique(one * base + other, return_inverse=True)
    return np.stack([found // base, found % base], 1), number.reshape(-1)


def _dosage_bins(dosage: Floats, pair: Ints) -> Ints:
    """Bin of each cell by its dosage among the cells of its guide and group: up to 8, of ten cells or more."""
    size = np.bincount(pair)
    return depth_bins(dosage, pair, np.minimum(N_CELL_BINS, np.maximum(size // CELLS_PER_BIN, 1))[np.sort(pair)])


def _dosage_of_bins(cells: Cells, guides: Guides, used: Ints, row: Ints, n_rows: int) -> RowDosage:
    """Dosage of each row from those of its cells: their mean, and their spread and errors together."""
    x, n = cells.dosage[used], np.bincount(row, minlength=n_rows)
    mean = np.bincount(row, x, n_rows) / n
    variance = np.bincount(row, (x - mean[row]) ** 2 + cells.dosage_sd[used] ** 2, n_rows) / n
    none = np.zeros(len(guides.control))
    return RowDosage(mean, np.sqrt(variance), none, guides.control, guides.level_error, members=guides.members)
