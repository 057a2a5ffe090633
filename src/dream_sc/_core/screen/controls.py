"""What the NTC guides of a library say of each feature, summed up once for all targets.

NTC guides are at NTC dosage, whatever the target: level, group effects and guide effects of a feature follow from them
before any target is looked at. The prior of the guide effects is learned on them alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.parallel import each_block
from dream_sc._core.priors import TransPriors
from dream_sc._core.response import ntc_guides
from dream_sc._core.response.learned import Prior, Wide, learn
from dream_sc._core.response.problem import problem
from dream_sc._core.response.wide_effects import learn_wide, with_wide
from dream_sc._core.types import Axis, GuideStats, RowDosage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NO_EFFECTS = 1e-6  # sd of guide effects where there are none
FINER = 2  # points of the grid of their sd for each of the priors'


@dataclass(frozen=True)
class Controls:
    """The NTC guides of `T` features."""

    stats: GuideStats  # (T, C) sums over all of them, a row per technical group
    overdispersion: Floats  # (T,) of single cells; the median where it is not known
    n_guides: int
    background: ntc_guides.Background  # of level and group effects
    grid: Floats  # (K,) of the sd of the guide effects
    tau_weight: Floats  # (T, K) log weights of the grid
    tau: Floats  # (T,) likely sd of the guide effects
    tau2: Floats  # (T,) mean of its square
    prior: Prior  # of the guide effects

    def take(self, features: NDArray[np.generic]) -> Controls:
        """Those of some features."""
        return replace(
            self,
            stats=self.stats.take(features),
            overdispersion=self.overdispersion[features],
            background=self.background.take(features),
            tau_weight=self.tau_weight[features],
            tau=self.tau[features],
            tau2=self.tau2[features],
        )


def controls(
    stats: GuideStats,
    overdispersion: Floats,
    *,
    group_effect_sd: float,
    guide_effects: bool = True,
    known: Prior | None = None,
) -> Controls:
    """Sum up the NTC guides.

    Parameters
    ----------
    stats
        ``(T, R)`` sums of the rows of NTC guides, their offsets in the exposures.
    overdispersion
        ``(T,)`` of single cells; a feature where it is not known gets the median, and is not fitted.
    group_effect_sd
        Prior sd of the effects of technical groups, natural log.
    known
        Prior of the guide effects; learned where it is not given.
    """
    n = stats.n_guides
    priors, ok = TransPriors(), np.isfinite(overdispersion)
    none = np.zeros(len(stats.guide))
    dosage = RowDosage(none, none, np.zeros(n), np.ones(n, dtype=bool))
    o = np.where(ok, overdispersion, np.median(overdispersion[ok]) if ok.any() else 1.0)
    p = problem(stats, dosage, o, group_effect_sd=group_effect_sd, axis=Axis.of(np.array([-1.0])), priors=priors)
    knots = np.array(priors.tau_grid if guide_effects else [NO_EFFECTS * priors.unit])
    if known is not None:
        wide = known.wide
    else:
        wide = Wide(*learn_wide(p.take(ok), knots)) if guide_effects else Wide(0.0, 0.0)
    p = with_wide(p, *wide)
    parts = each_block(lambda s: p.take(s).summed_up(knots).arrays, len(p.counts))
    background = ntc_guides.joined([ntc_guides.Background(*part) for part in parts])
    grid = np.geomspace(knots[0], knots[-1], FINER * (len(knots) - 1) + 1) if guide_effects else knots
    evidence = background.evidence(np.repeat(grid[None], len(p.counts), 0))
    prior = learn(evidence[ok][:, None], grid, priors, wide=wide) if known is None else known
    weight = ntc_guides.grid_weights(background, grid, Prior.start(priors).log_tau(grid))
    log_tau = evidence + prior.log_tau(grid)
    post = np.exp(log_tau - log_tau.max(1, keepdims=True))
    tau, tau2 = np.exp(post @ np.log(grid) / post.sum(1)), post @ grid**2 / post.sum(1)
    return Controls(_by_group(stats), o, n, background, grid, weight, tau, tau2, prior)


def _by_group(stats: GuideStats) -> GuideStats:
    """The rows of all guides added up, a row per technical group."""
    groups, row = np.unique(stats.group, return_inverse=True)
    add = (row.reshape(-1)[:, None] == np.arange(len(groups))).astype(float)
    return replace(
        stats,
        counts=stats.counts @ add,
        exposure=stats.exposure @ add,
        exposure2=stats.exposure2 @ add,
        guide=np.zeros(len(groups), dtype=np.int64),
        group=groups.astype(np.int64),
        n_guides=1,
    )
