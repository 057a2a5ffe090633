"""The technical step of counts out of totals: level, group effects and overdispersion of each stick.

For every value of the overdispersion on a grid, the level and the group effects follow by Newton steps and a Laplace
term; the grid zooms twice onto the mass of its posterior. What sticks share is learned between the passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.parallel import blocks, each
from dream_sc._core.types import ShareFit

from . import share_kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import SharePriors
    from dream_sc._core.types import ShareStats

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

N_GRID = 16
N_PASSES = 3
MOST_STICKS = 2000  # that what is shared is learned from
N_OUT = 6  # level, sd, rho, sd, converged, mean of the feature's -log(1 - rho)


def _pass(
    stats: ShareStats, beta_o: float, scale: float, priors: SharePriors, overdispersed: bool
) -> tuple[Floats, Floats]:
    """Fit sticks given what is shared."""

    def call(s: slice) -> tuple[Floats, Floats]:
        some = stats.take(s)
        out, effects = np.zeros((len(some.numerator), N_OUT)), np.zeros((*some.numerator.shape, 3))
        share_kernels.fit_shares(
            some.numerator,
            some.rest,
            some.tail_numerator,
            some.tail_rest,
            some.tail_total,
            some.at,
            some.left,
            priors.level_sd,
            scale,
            priors.effect_df,
            beta_o,
            N_GRID if overdispersed else 1,
            out,
            effects,
        )
        return out, effects

    out, effects = zip(*(found for _, found in each(call, blocks(len(stats.numerator)))), strict=True)
    return np.concatenate(out), np.concatenate(effects)


def technical_shares(stats: ShareStats, priors: SharePriors, overdispersed: bool = True) -> ShareFit:
    """Fit all sticks of `stats`; those without a count must have been left out.

    `beta_o` is the posterior mean given the overdispersions (Gamma prior), `effect_scale` an EM update of a Student t
    scale; both are learned from `MOST_STICKS` sticks at most, evenly spaced ones. Without `overdispersed` the counts
    are binomial.
    """
    n = len(stats.numerator)
    beta_o, scale = priors.beta_o_shape / priors.beta_o_rate, priors.effect_scale
    some = np.unique(np.linspace(0, n - 1, min(n, MOST_STICKS)).round().astype(np.int64))
    learned_from = stats.take(some)
    for _ in range(N_PASSES - 1):
        beta_o, scale = _learn(*_pass(learned_from, beta_o, scale, priors, overdispersed), scale, priors)
    out, effects = _pass(stats, beta_o, scale, priors, overdispersed)
    level, level_sd, rho, rho_sd = out[:, :4].T.copy()
    mean, sd, cov = np.moveaxis(effects, -1, 0).copy()
    return ShareFit(level, level_sd, rho, rho_sd, mean, sd, cov, float(beta_o), float(scale), out[:, 4] > 0)


def _learn(out: Floats, effects: Floats, scale: float, priors: SharePriors) -> tuple[float, float]:
    """Rate of the prior of the overdispersion, and scale of the group effects."""
    beta_o = float((priors.beta_o_shape + len(out)) / (priors.beta_o_rate + out[:, 5].sum()))
    if effects.shape[1] > 1:
        second = (effects[:, 1:, :2] ** 2).sum(-1)
        weight = (priors.effect_df + 1) / (priors.effect_df + second / scale**2)
        update = ((weight * second).sum() + 10 * priors.effect_scale**2) / (weight.size + 10)
        scale = float(np.clip(np.sqrt(update), *priors.effect_scale_bounds))
    return beta_o, scale
