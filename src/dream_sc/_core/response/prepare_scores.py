"""What is measured of scores: their means per guide, robust ones of scores with heavy tails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.likelihoods import likelihood, normal
from dream_sc._core.sums.pair_sums import robust_means, score_sums
from dream_sc._core.types import GuideStats

from .prepare import Prepared
from .rows import layout

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from .rows import Cells, Guides

    Floats = NDArray[np.float64]

MIN_SCORES = 10


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
    else:
        sums = score_sums(blocks, rows.row_of_cell, n_rows, n_features)
        mean, precision = sums.mean, sums.n_cells / sd[:, None] ** 2
    y, w = normal.in_units(np.nan_to_num(mean), precision, at, sd)
    one, n_guides, n_groups = np.ones(n_rows), int(rows.guide.max()) + 1, int(rows.group.max()) + 1
    reason = np.full(n_features, "", dtype=object)
    reason[precision.sum(1) * sd**2 < MIN_SCORES] = f"filtered: fewer than {MIN_SCORES} scores in the cells used"
    reason[~known] = "filtered: no technical fit, scores missing or constant in control cells"
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
