"""What is measured of scores: their means per guide, robust ones of scores with heavy tails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri, stdtrit

from dream_sc._core.likelihoods import likelihood, normal
from dream_sc._core.sums.pair_sums import robust_means, score_sums
from dream_sc._core.types import GuideStats

from .prepare import Prepared
from .rows import layout

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from dream_sc._core.sums.pair_sums import ScoreStats

    from .rows import Cells, Guides, Layout

    Floats = NDArray[np.float64]

MIN_SCORES = 10
FEW_CONTROLS = 50  # cells, whose sd has an error of a tenth
UPPER = 0.975


@dataclass(frozen=True)
class Technical:
    """What the technical step says of the scores of `T` features."""

    centre: Floats  # (T,)
    sd: Floats  # (T,) between cells; NaN where it is not known
    effect_sd: float  # in sds


def scores(
    blocks: Iterable[tuple[slice, Floats]],
    cells: Cells,
    guides: Guides,
    technical: Technical,
    *,
    distribution: str,
    by_cell: bool = False,
) -> Prepared:
    """What was measured of scores, given in blocks ``(N, T')`` with NaN where one is missing."""
    rows = layout(cells, guides, by_cell=by_cell)
    n_rows, n_features = rows.n_rows, len(technical.sd)
    known = np.isfinite(technical.sd) & (technical.sd > 0)
    at, sd = np.where(known, technical.centre, 0.0), np.where(known, technical.sd, 1.0)
    if likelihood(distribution).robust:
        mean, precision = robust_means(blocks, rows.row_of_cell, n_rows, at, sd)
        seen = precision.sum(1) * sd**2
    else:
        sums = score_sums(blocks, rows.row_of_cell, n_rows, n_features)
        noise = _noise(sums, rows, guides, sd)
        mean, precision, seen = sums.mean, sums.n_cells / noise[:, None] ** 2, sums.n_cells.sum(1)
    y, w = normal.in_units(np.nan_to_num(mean), precision, at, sd)
    one, n_guides, n_groups = np.ones(n_rows), int(rows.guide.max()) + 1, int(rows.group.max()) + 1
    reason = np.full(n_features, "", dtype=object)
    reason[seen < MIN_SCORES] = f"fewer than {MIN_SCORES} scores in the cells used"
    reason[~known] = "no technical fit, scores missing or constant in control cells"
    if (reason != "").all():
        raise ValueError(f"no feature can be fitted: {sorted(set(reason))[0]}, and so for the others")
    return Prepared(
        stats=GuideStats(y, one, one, rows.guide, rows.group, n_guides, n_groups, w, distribution),
        dosage=rows.dosage,
        overdispersion=np.ones(n_features),
        axis=guides.axis(rows.guide),
        group_effect_sd=technical.effect_sd * normal.UNIT,
        reason=reason,
        n_cells=rows.n_cells,
        one_dosage=guides.one_dosage(rows.guide),
        rows=rows,
        centre=technical.centre,
        scale=technical.sd,
    )


def _noise(sums: ScoreStats, rows: Layout, guides: Guides, sd: Floats) -> Floats:
    """Sd ``(T,)`` of a cell's score, given that of the technical step.

    Where control cells are few, as where a cell is a well or an animal, all replicates tell it: cells of one guide, or
    single cells at one dosage. It is then widened by the quantile of a t distribution with the degrees of freedom that
    the replicates leave, so that intervals are as wide as those of a t.
    """
    n_controls = int(np.isin(rows.guide[rows.row_of_cell[rows.row_of_cell >= 0]], np.flatnonzero(guides.control)).sum())
    if n_controls >= FEW_CONTROLS:
        return sd
    alone = rows.n_cells == rows.n_rows
    kind = np.stack([rows.dosage.mean, rows.group], 1) if alone else np.arange(rows.n_rows)[:, None]
    unit = np.unique(kind, axis=0, return_inverse=True)[1].reshape(-1)
    same = (unit[:, None] == np.arange(unit.max() + 1)).astype(np.float64)
    n, total, squares = (x @ same for x in (sums.n_cells, sums.total, sums.squares))
    left = (squares - total**2 / np.maximum(n, 1.0)).sum(1)
    df = np.maximum(n - 1.0, 0.0).sum(1)
    more = (df > max(n_controls - 1, 1)) & (left > 0)
    df, left = np.where(more, df, 1.0), np.where(more, left, 1.0)
    return np.where(more, np.sqrt(left / df) * stdtrit(df, UPPER) / ndtri(UPPER), sd)
