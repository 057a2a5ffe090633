"""The technical step: baseline, group effects, covariates and overdispersion of each feature from binned control cells.

For every value of the overdispersion on a grid, the level, the group effects and the coefficients of the covariates
follow by Newton steps and a Laplace term; the grid zooms twice onto the mass of its posterior. The rate of the prior of
the overdispersion and the scales of group effects and coefficients are learned over features between the passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._core.curves import LN2
from dream_sc._core.parallel import blocks, each
from dream_sc._core.types import TechnicalFit

from . import count_kernels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.priors import TechnicalPriors
    from dream_sc._core.types import TechnicalStats

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    _Pass = tuple[Floats, Floats]

N_GRID = 16
N_PASSES = 3
MOST_FEATURES = 2000  # that what is shared is learned from


def _pass(
    stats: TechnicalStats,
    some: Ints,
    beta_o: float,
    scale: Floats,
    priors: TechnicalPriors,
    progress: Callable[[Any], Any] = lambda x: x,
) -> _Pass:
    """Fit some features given what is shared."""
    log_s, n_cells, z = np.log(stats.size_factor), stats.n_cells.astype(np.float64), np.ascontiguousarray(stats.z)

    def call(s: slice) -> _Pass:
        out, effects = np.zeros((s.stop - s.start, 5)), np.zeros((s.stop - s.start, len(scale), 2))
        count_kernels.fit_counts(
            stats.counts[some[s]].astype(np.float64),
            n_cells,
            log_s,
            stats.group,
            z,
            stats.tail[some[s]].astype(np.float64),
            stats.tail_at.astype(np.float64),
            priors.log_mu_sd,
            scale * LN2,
            priors.effect_df,
            beta_o,
            N_GRID,
            out,
            effects,
        )
        return out, effects

    out, effects = zip(*(found for _, found in each(call, blocks(len(some)), progress)), strict=True)
    return np.concatenate(out), np.concatenate(effects)


def technical(
    stats: TechnicalStats, priors: TechnicalPriors, *, progress: Callable[[Any], Any] = lambda x: x
) -> TechnicalFit:
    """Fit all features of `stats`; features without a count must have been left out.

    `beta_o` is the posterior mean given the overdispersions (Gamma prior), `effect_scale` an EM update of a Student t
    scale, as is that of each covariate's coefficients. They are learned from `MOST_FEATURES` features at most, evenly
    spaced ones. `progress` wraps the blocks of the last pass, over all features.
    """
    n_t, n_c, n_z = len(stats.counts), stats.n_groups, stats.z.shape[1]
    beta_o = priors.beta_o_shape / priors.beta_o_rate
    scale = np.append(np.full(n_c, priors.effect_scale), np.full(n_z, priors.covariate_scale))
    some = np.unique(np.linspace(0, n_t - 1, min(n_t, MOST_FEATURES)).round().astype(np.int64))
    for _ in range(N_PASSES - 1):
        beta_o, scale = _learn(*_pass(stats, some, beta_o, scale, priors), scale, n_c, priors)
    out, effects = _pass(stats, np.arange(n_t), beta_o, scale, priors, progress)
    beta_o, scale = _learn(out[some], effects[some], scale, n_c, priors)
    return TechnicalFit(
        mu=np.exp(out[:, 0]),
        mu_sd=out[:, 1].copy(),
        overdispersion=out[:, 2].copy(),
        overdispersion_sd=out[:, 3].copy(),
        effects=effects[:, :n_c, 0] / LN2,
        effects_sd=effects[:, :n_c, 1] / LN2,
        beta_o=float(beta_o),
        effect_scale=float(scale[0]),
        converged=out[:, 4] > 0,
        coefficients=effects[:, n_c:, 0] / LN2,
        coefficients_sd=effects[:, n_c:, 1] / LN2,
        coefficient_scale=scale[n_c:],
    )


def _learn(out: Floats, effects: Floats, scale: Floats, n_groups: int, priors: TechnicalPriors) -> tuple[float, Floats]:
    """Rate of the prior of the overdispersion, and scales ``(C + Q,)`` of group effects and coefficients (log2)."""
    beta_o = float((priors.beta_o_shape + len(out)) / (priors.beta_o_rate + out[:, 2].sum()))
    second, new = (effects**2).sum(-1) / LN2**2, scale.copy()
    if n_groups > 1:
        new[:n_groups] = _scale(second[:, 1:n_groups], scale[0], priors.effect_scale, priors)
        new[:n_groups] = np.clip(new[:n_groups], *priors.effect_scale_bounds)
    for i in range(n_groups, len(scale)):
        new[i] = np.clip(_scale(second[:, i], scale[i], priors.covariate_scale, priors), *priors.covariate_scale_bounds)
    return beta_o, new


def _scale(second: Floats, scale: float, start: float, priors: TechnicalPriors) -> float:
    """EM update of the scale of a Student t prior from second moments."""
    weight = (priors.effect_df + 1) / (priors.effect_df + second / scale**2)
    # ten features' worth of the start, so that a few features do not decide alone
    return float(np.sqrt(((weight * second).sum() + 10 * start**2) / (weight.size + 10)))
