"""What is measured of shares: sums of counts and of trials per guide, worth as much as independent trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.likelihoods.binomial import effective
from dream_sc._core.sums.pair_sums import pair_sums, structural_zeros
from dream_sc._core.types import GuideStats

from .prepare import Prepared
from .rows import layout

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from numpy.typing import NDArray

    from .categories.links import Links
    from .rows import Cells, Guides

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

MIN_READS = 10  # of a feature's denominators, in the cells used


@dataclass(frozen=True)
class Technical:
    """What the technical step says of `T` shares of `F` features."""

    overdispersion: Floats  # (T,) correlation of the reads of a cell; NaN where it is not known
    effect_sd: float  # of the log odds
    feature: Ints  # (T,)
    has_share: Bools  # (F,) whether a feature has a share that can move
    lacks: Bools  # (F,) whether categories of the technical step are missing here


def shares(
    pairs: Iterable[tuple[slice, Any, Any]],
    cells: Cells,
    guides: Guides,
    technical: Technical,
    *,
    distribution: str,
    by_cell: bool = False,
    min_denominator: int | None = None,
    links: Links | None = None,
) -> Prepared:
    """What was measured of shares.

    Parameters
    ----------
    pairs
        Blocks of numerators and denominators, sparse ``(N, T')``, without those below `min_denominator`.
    links
        Which shares make which feature with several categories.
    """
    rows = layout(cells, guides, by_cell=by_cell)
    sums = pair_sums(pairs, rows.row_of_cell, rows.n_rows, len(technical.feature))
    y, n = effective(sums.numerator, sums.denominator, sums.pairs, np.nan_to_num(technical.overdispersion))
    if links is not None:
        y, n = _without_structural_zeros(y, n, rows.group)
    one, n_guides, n_groups = np.ones(rows.n_rows), int(rows.guide.max()) + 1, int(rows.group.max()) + 1
    stats = GuideStats(y, one, one, rows.guide, rows.group, n_guides, n_groups, n, distribution)
    reason = _reason(sums.denominator.sum(1), technical, min_denominator)
    if (reason != "").all():
        raise ValueError(f"no feature can be fitted: {sorted(set(reason))[0]}, and so for the others")
    return Prepared(
        stats=stats,
        dosage=rows.dosage,
        overdispersion=technical.overdispersion,
        axis=guides.axis(rows.guide),
        group_effect_sd=technical.effect_sd,
        reason=reason,
        n_cells=rows.n_cells,
        one_dosage=guides.one_dosage(rows.guide),
        rows=rows,
        links=links,
    )


def _reason(denominator: Floats, technical: Technical, min_denominator: int | None) -> NDArray[np.object_]:
    """Why a feature ``(F,)`` is left out, given the sums ``(T,)`` of its denominators."""
    feature, n = technical.feature, len(technical.has_share)
    reads = np.zeros(n)
    np.maximum.at(reads, feature, denominator)
    unknown = np.zeros(n, dtype=bool)
    unknown[feature[~np.isfinite(technical.overdispersion)]] = True
    out = np.full(n, "", dtype=object)
    out[unknown] = "no technical fit, too few counts in control cells"
    left_out = "" if min_denominator is None else f" with a denominator of {min_denominator} or more"
    out[reads < MIN_READS] = f"denominators below {MIN_READS} in the cells used{left_out}"
    out[~technical.has_share] = "only one category occurs"
    out[technical.lacks] = "a category of the technical fit is missing, call fit_technical again"
    return out


def _without_structural_zeros(y: Floats, n: Floats, group: Ints) -> tuple[Floats, Floats]:
    """Without the rows of groups that a link's category, or all after it, is missing from by more than chance."""
    by_group = (group[:, None] == np.unique(group)).astype(np.float64)
    keep = ~structural_zeros(y @ by_group, n @ by_group)[:, np.unique(group, return_inverse=True)[1]]
    return y * keep, n * keep
