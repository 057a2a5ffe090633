"""The technical step of scores: location in each group and scale of every feature, normal or Student t.

Normal scores need sums only. A Student t has none: its locations and scale are found by EM on blocks of features, and
their errors from the expected information. The shrinkage of group effects is the same for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._core.sums.pair_sums import indicator
from dream_sc._core.types import ScoreFit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from dream_sc._core.priors import ScorePriors
    from dream_sc._core.sums.pair_sums import ScoreStats

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

NU = 3.0  # degrees of freedom of the Student t
N_LEARN, N_SHRINK, N_EM = 20, 50, 500
TOLERANCE = 1e-8  # in units of the scale
LEAST_SCALE = 1e-9  # of sigma, relative to the sd and the size of the scores: below it they are constant


def technical_normal(stats: ScoreStats, priors: ScorePriors) -> ScoreFit:
    """Means and sd of normal scores; `stats` holds sums over the control cells of each group."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = stats.total / stats.n_cells
        within = stats.squares - np.nan_to_num(stats.total * mean)
        df = stats.n_cells.sum(1) - (stats.n_cells > 0).sum(1)
        sigma = np.sqrt(np.maximum(within.sum(1), 0.0) / df)
        spread = np.sqrt(stats.squares.sum(1) / stats.n_cells.sum(1))
    told = (df > 0) & _varies(sigma, spread, stats.centre)
    sd = sigma / np.sqrt(2 * np.maximum(df, 1))
    return _score_fit(mean, stats.n_cells, sigma, sd, stats.centre, told, stats.n_cells.sum(1), priors)


def technical_studentt(
    blocks: Iterable[tuple[slice, Floats]], row: Ints, n_rows: int, n_features: int, priors: ScorePriors
) -> ScoreFit:
    """Locations and scale of Student t scores (3 degrees of freedom), NaN where missing, by EM; row -1: not used."""
    used = row >= 0
    within = indicator(row[used], n_rows).T.tocsr()
    mean, n_cells = np.full((n_features, n_rows), np.nan), np.zeros((n_features, n_rows))
    sigma, centre, told = (np.full(n_features, np.nan) for _ in range(3))
    for part, scores in blocks:
        x = scores[used]
        seen = np.isfinite(x)
        n_cells[part] = (within @ seen.astype(np.float64)).T
        centre[part] = _median(x)
        spread = _root_mean(x - centre[part], seen)
        mean[part], sigma[part], settled = _em(x - centre[part], seen, row[used], within)
        told[part] = settled & _varies(sigma[part], spread, centre[part])
    total = n_cells.sum(1)
    told = (told > 0) & (total > (n_cells > 0).sum(1))
    sd = sigma / np.sqrt(np.maximum(total * 2 * NU / (NU + 3), 1.0))
    information = n_cells * (NU + 1) / (NU + 3)
    return _score_fit(mean, information, sigma, sd, centre, told, total, priors)


def _median(x: Floats) -> Floats:
    """Median of each column over what is not missing; NaN where all is."""
    out = np.full(x.shape[1], np.nan)
    some = np.isfinite(x).any(0)
    out[some] = np.nanmedian(x[:, some], axis=0)
    return out


def _root_mean(x: Floats, seen: Bools) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.where(seen, x**2, 0.0).sum(0) / seen.sum(0))


def _varies(sigma: Floats, spread: Floats, centre: Floats) -> Bools:
    """Whether the scale is more than rounding."""
    return np.isfinite(sigma) & (sigma > LEAST_SCALE * spread) & (sigma > 1e-12 * np.abs(centre)) & (sigma > 0)


def _em(x: Floats, seen: Bools, row: Ints, within: Any) -> tuple[Floats, Floats, Bools]:
    """Locations ``(B, R)``, scale ``(B,)`` and whether each feature settled; a feature stops by itself."""
    n_b, n_rows = x.shape[1], within.shape[0]
    values = np.where(seen, x, 0.0)
    mean = np.zeros((n_rows, n_b))
    for c in range(n_rows):
        mean[c] = _median(x[row == c])
    sigma = _root_mean(x - mean[row], seen)
    settled = np.zeros(n_b, dtype=bool)
    going = np.flatnonzero(sigma > 0)
    for _ in range(N_EM):
        if not len(going):
            break
        v, ok, s = values[:, going], seen[:, going], sigma[going]
        residual = np.where(ok, v - np.nan_to_num(mean[:, going])[row], 0.0)
        weight = np.where(ok, (NU + 1) / (NU + (residual / s) ** 2), 0.0)
        with np.errstate(invalid="ignore"):
            new = (within @ (weight * v)) / (within @ weight)
        residual = np.where(ok, v - np.nan_to_num(new)[row], 0.0)
        # scaled by the sum of weights: the same fixed point as by the number of cells, in far fewer steps
        scale = np.sqrt((weight * residual**2).sum(0) / weight.sum(0))
        moved = np.maximum(np.nanmax(np.abs(new - mean[:, going]), axis=0), np.abs(scale - s))
        mean[:, going], sigma[going] = new, scale
        still = (moved > TOLERANCE * scale) & (scale > 0)
        settled[going[~still]] = True
        going = going[still]
    return mean.T, sigma, settled


def _score_fit(
    mean: Floats,
    information: Floats,
    sigma: Floats,
    sigma_sd: Floats,
    centre: Floats,
    told: Bools,
    n_cells: Floats,
    priors: ScorePriors,
) -> ScoreFit:
    """Shrink the effects of groups, learn their scale over the features that vary, and put numbers in their unit.

    `mean` is relative to `centre`; `information` is that of each location in units of ``1 / sigma^2``.
    """
    n_t, n_c = mean.shape
    level, level_sd = np.full(n_t, np.nan), np.full(n_t, np.nan)
    effects, effects_sd = np.full((n_t, n_c), np.nan), np.full((n_t, n_c), np.nan)
    scale = priors.effect_scale
    unit = sigma[told, None]
    m, precision = np.nan_to_num(mean[told]) / unit, information[told]
    for _ in range(N_LEARN if n_c > 1 and told.any() else 0):
        scale = _learn(*_shrunk(m, precision, scale, priors)[2:], scale, priors)
    found = _shrunk(m, precision, scale, priors)
    level[told], level_sd[told] = (v * sigma[told] for v in found[:2])
    effects[told], effects_sd[told] = (v * unit for v in found[2:])
    sigma, sigma_sd = (np.where(told, v, np.nan) for v in (sigma, sigma_sd))
    return ScoreFit(centre + level, level_sd, sigma, sigma_sd, effects, effects_sd, float(scale), n_cells, told)


def _shrunk(m: Floats, precision: Floats, scale: float, priors: ScorePriors) -> tuple[Floats, Floats, Floats, Floats]:
    """Level, sd, effects ``(T, C)`` and sd, given locations and their precision.

    The Student t prior is a normal one, reweighted. A group without a score has the prior's effect, 0; a reference
    without one takes its level from the others.
    """
    df, a = priors.effect_df, np.zeros_like(m)
    for _ in range(N_SHRINK):
        w = (df + 1) / (df + (a / scale) ** 2) / scale**2
        share = precision / (precision + w)  # of a group's distance from the level that its effect takes
        weight = w * share
        weight[:, 0] = precision[:, 0]
        total = weight.sum(1, keepdims=True)
        level = (weight * m).sum(1, keepdims=True) / total
        a = share * (m - level)
        a[:, 0] = 0.0
    sd = np.sqrt(1 / (precision + w) + share**2 / total)
    sd[:, 0] = 0.0
    return level[:, 0], 1 / np.sqrt(total[:, 0]), a, sd


def _learn(effects: Floats, sd: Floats, scale: float, priors: ScorePriors) -> float:
    """EM update of the scale of the group effects, with ten features' worth of the start."""
    second = effects[:, 1:] ** 2 + sd[:, 1:] ** 2
    weight = (priors.effect_df + 1) / (priors.effect_df + second / scale**2)
    update = ((weight * second).sum() + 10 * priors.effect_scale**2) / (weight.size + 10)
    return float(np.clip(np.sqrt(update), *priors.effect_scale_bounds))
