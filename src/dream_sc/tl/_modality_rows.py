"""Rows of shares and of scores that the trans step works on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._data import shares
from dream_sc._keys import STICKS

if TYPE_CHECKING:
    from anndata import AnnData

    from ._rows import Layout

MIN_READS = 10  # of a feature's denominators, in the cells used
MIN_SCORES = 10


def share_rows(
    adata: AnnData,
    technical: Any,
    layer: str | None,
    layout: Layout,
    min_denominator: int | None,
    overdispersion: np.ndarray,
    limit: int | str | None,
) -> tuple[Any, np.ndarray, np.ndarray, Any]:
    """Sums of sticks, the reason why a feature is left out, the overdispersion of sticks, and the sticks.

    The reason ``(F,)`` is empty for features to fit. `overdispersion` ``(T,)`` is that of a binomial's features.
    """
    from dream_sc._core.likelihoods.binomial import effective
    from dream_sc._core.sums.pair_sums import pair_sums
    from dream_sc._core.types import GuideStats

    params, distribution = technical["params"], technical["params"]["distribution"]
    table = technical.get(STICKS)
    layers = params["category_layers"]
    pairs = shares.open_pairs(
        adata,
        distribution,
        layer=layer,
        denominator_layer=params["denominator_layer"],
        category_key=params["category_key"],
        category_layers=None if layers is None else list(layers),
        sticks=table,
        limit=limit,
    )
    n_rows = len(layout.rows)
    sums = pair_sums(pairs.covered(min_denominator), layout.row, n_rows, pairs.n_sticks)
    if table is not None:
        overdispersion = table["overdispersion"].to_numpy(float)[pairs.sticks.rows_in(table)]
    y, n = effective(sums.numerator, sums.denominator, sums.pairs, np.nan_to_num(overdispersion))
    if distribution == "multinomial":
        y, n = _without_structural_zeros(y, n, layout.rows[:, 1])
    one, guide, group = np.ones(n_rows), layout.rows[:, 0], layout.rows[:, 1]
    stats = GuideStats(y, one, one, guide, group, int(guide.max()) + 1, int(group.max()) + 1, n, distribution)
    reads = np.zeros(len(pairs.sticks.features))
    np.maximum.at(reads, pairs.sticks.feature, sums.denominator.sum(1))
    known = np.ones(len(reads), dtype=bool)
    known[pairs.sticks.feature[~np.isfinite(overdispersion)]] = False
    reason = np.full(len(reads), "", dtype=object)
    reason[~known] = "filtered: no technical fit, too few counts in control cells"
    left_out = "" if min_denominator is None else f" with a denominator of {min_denominator} or more"
    reason[reads < MIN_READS] = f"filtered: denominators below {MIN_READS} in the cells used{left_out}"
    reason[~pairs.sticks.has_stick] = "filtered: only one category occurs"
    if table is not None:
        lacks = ~pairs.sticks.has_stick & np.isin(pairs.sticks.features, table["feature"].astype(str))
        reason[lacks] = "filtered: a category of the technical fit is missing, call fit_technical again"
    return stats, reason, overdispersion, pairs.sticks


def _without_structural_zeros(y: np.ndarray, n: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without the rows of groups that a stick's category, or all after it, is missing from by more than chance."""
    from dream_sc._core.sums.pair_sums import structural_zeros

    by_group = (group[:, None] == np.unique(group)).astype(np.float64)
    keep = ~structural_zeros(y @ by_group, n @ by_group)[:, np.unique(group, return_inverse=True)[1]]
    return y * keep, n * keep


def score_rows(
    adata: AnnData,
    technical: Any,
    layer: str | None,
    layout: Layout,
    centre: np.ndarray,
    sigma: np.ndarray,
    limit: int | str | None = None,
) -> tuple[Any, np.ndarray]:
    """Means of scores, and the reason ``(T,)`` why a feature is left out, empty for features to fit."""
    from dream_sc._core.likelihoods import normal
    from dream_sc._core.sums.pair_sums import robust_means, score_sums
    from dream_sc._core.types import GuideStats

    distribution, n_rows = technical["params"]["distribution"], len(layout.rows)
    scores = shares.open_scores(adata, layer, limit)
    known = np.isfinite(sigma) & (sigma > 0)
    at, sd = np.where(known, centre, 0.0), np.where(known, sigma, 1.0)
    if distribution == "normal":
        sums = score_sums(scores.blocks(), layout.row, n_rows, adata.n_vars)
        mean, precision = sums.mean, sums.n_cells / sd[:, None] ** 2
    else:
        mean, precision = robust_means(scores.blocks(), layout.row, n_rows, at, sd)
    y, w = normal.in_units(np.nan_to_num(mean), precision, at, sd)
    one, guide, group = np.ones(n_rows), layout.rows[:, 0], layout.rows[:, 1]
    stats = GuideStats(y, one, one, guide, group, int(guide.max()) + 1, int(group.max()) + 1, w, distribution)
    reason = np.full(adata.n_vars, "", dtype=object)
    reason[precision.sum(1) * sd**2 < MIN_SCORES] = f"filtered: fewer than {MIN_SCORES} scores in the cells used"
    reason[~known] = "filtered: no technical fit, scores missing or constant in control cells"
    return stats, reason
