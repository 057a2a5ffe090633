"""Priors of the three steps, as frozen dataclasses. Sources are named in the documentation of the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .types import Axis

LEAST_EC50_SD = 1.0  # log2, where a single dose was tested


@dataclass(frozen=True)
class TechnicalPriors:
    """Control cells: ``y ~ NB(mu 2^a s, o)``.

    `beta_o` of ``o ~ Exponential(beta_o)`` is Gamma distributed and shared by all features; the scale of
    the group effects ``a ~ StudentT(df, 0, scale)`` (log2) is learned over features within its bounds, as is that of
    each covariate's coefficients (log2 per sd).
    """

    beta_o_shape: float = 9.0
    beta_o_rate: float = 3.0
    log_mu_sd: float = 3.0
    effect_df: float = 3.0
    effect_scale: float = 1.0
    effect_scale_bounds: tuple[float, float] = (0.02, 20.0)
    covariate_scale: float = 0.2
    covariate_scale_bounds: tuple[float, float] = (0.005, 5.0)


@dataclass(frozen=True)
class SharePriors:
    """Control cells: ``y ~ BetaBinomial(n, p, rho)`` with ``logit p = level + a``.

    ``level ~ Normal(logit of the pooled share, level_sd)``, ``a ~ StudentT(df, 0, scale)``, and
    ``-log(1 - rho) ~ Exponential(beta_o)``, that is ``rho ~ Beta(1, beta_o)``: most dense at 0, the binomial. Of a
    stick that divides a share `left` of its feature's counts it is ``left * rho / (1 - rho)`` that has this prior in
    place of ``rho / (1 - rho)``, as by a Dirichlet. `beta_o` and the scale are learned over sticks.
    """

    beta_o_shape: float = 9.0
    beta_o_rate: float = 3.0
    level_sd: float = 3.0
    effect_df: float = 3.0
    effect_scale: float = 0.7
    effect_scale_bounds: tuple[float, float] = (0.02, 20.0)


@dataclass(frozen=True)
class ScorePriors:
    """Control cells: a score is normal or Student t around the group's location, which has a flat prior.

    Group effects are ``StudentT(df, 0, scale)`` in units of the feature's sigma; the scale is learned over features.
    """

    effect_df: float = 3.0
    effect_scale: float = 0.5
    effect_scale_bounds: tuple[float, float] = (0.005, 20.0)


@dataclass(frozen=True)
class CisPriors:
    """Guide means ``StudentT(df, mu, sigma)`` over targeting guides, ``Normal(0, sd)`` over NTC guides.

    Within-guide spreads are ``LogNormal(log within_median, within_log_sd)``; all in log2 dosage.
    """

    guide_df: float = 3.0
    sigma_scale: float = 2.0
    control_sd_scale: float = 0.1
    within_median: float = 0.2
    within_log_sd: float = 0.4


@dataclass(frozen=True)
class TransPriors:
    """Curves, guide effects and group effects of one feature.

    The amplitude prior is non-local: a moment prior on the movement ``D`` (natural log) between the two ends
    of the observed dosage axis, its scale mixed over `movement_scales` :cite:p:`Johnson2010`. The guide
    effects have sd ``tau``, ``log tau ~ Normal(tau_log_mean, tau_log_sd)``, learned over features from this
    start. A few effects are wider: their weight and sd are learned on NTC guides from `wide_weights` and `wide_sds`.
    """

    level_sd: float = 2.0
    ec50_mean: float = 0.0  # log2
    ec50_sd: float = 2.5
    n_log_mean: float = log(2.0)
    n_log_sd: float = 0.8
    movement_scales: tuple[float, ...] = (0.4, 1.0, 2.0)
    movement_weights: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)
    turn_scale: float = 0.2  # natural log
    polynomial_sd: float = 0.7
    tau_log_mean: float = log(0.06)
    tau_log_sd: float = 0.9
    tau_grid: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
    tau_strength: float = 10.0  # features' worth of weight of the start
    wide_weights: tuple[float, ...] = (0.002, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2)
    wide_sds: tuple[float, ...] = (0.2, 0.35, 0.6, 1.0)
    wide_start: tuple[float, float] = (0.03, 0.35)  # weight and sd where NTC guides are too few to tell
    wide_strength: float = 60.0  # guide effects' worth of weight of the start
    null_weight: float = 0.8
    model_strength: float = 5.0
    unit: float = 1.0  # of all amplitudes and effects

    def over(self, axis: Axis, *, scores: bool) -> TransPriors:
        """The same with the EC50 about NTC dosage, or, where controls are at dose 0, over the doses that were tested.

        An sd of half their range and one spacing more is nearly flat over them. Scores of whole wells move by many
        times the sd between wells: their movements have larger scales as well, each twice the one before.
        """
        if not axis.from_zero:
            return self
        span, n = axis.high - axis.bottom, len(set(axis.guides.round(1)))
        sd = max(span / 2 + span / max(n - 1, 1), LEAST_EC50_SD)
        found = replace(self, ec50_mean=(axis.bottom + axis.high) / 2, ec50_sd=sd)
        if not scores:
            return found
        scales = (*self.movement_scales, *(self.movement_scales[-1] * 2.0**k for k in (1, 2, 3)))
        return replace(found, movement_scales=scales, movement_weights=(1 / len(scales),) * len(scales))

    def in_unit(self, unit: float) -> TransPriors:
        """The same priors for a predictor in another unit."""
        scales, grid, wide = (
            tuple(x * unit for x in values) for values in (self.movement_scales, self.tau_grid, self.wide_sds)
        )
        return replace(
            self,
            movement_scales=scales,
            tau_grid=grid,
            wide_sds=wide,
            unit=self.unit * unit,
            level_sd=self.level_sd * unit,
            turn_scale=self.turn_scale * unit,
            polynomial_sd=self.polynomial_sd * unit,
            tau_log_mean=self.tau_log_mean + log(unit),
            wide_start=(self.wide_start[0], self.wide_start[1] * unit),
        )
