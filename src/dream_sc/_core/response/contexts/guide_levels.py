"""What each guide's sums say of a feature in one context: its level, with a variance, as if it had been measured.

The likelihood of a guide's level is replaced by a normal one with the same slope and curvature at the level's likeliest
value, given a curve: of counts in the hundreds they hardly differ, and a guide without counts still says that its level
is low.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from dream_sc._core.likelihoods import likelihood

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.types import GuideStats

    Floats = NDArray[np.float64]

NOTHING = 1e8  # variance of the level of a guide without cells, in squared units of the priors
N_STEPS, LARGEST_STEP = 12, 1.5
START_SD = 1.0  # of a guide's level about that of all, before there is a curve
LEAST_OVERDISPERSION = 0.01
LEAST_INFORMATION = 1e-6


@dataclass(frozen=True)
class Sums:
    """Sums of `T` features over the rows of one context, whose guides are numbered as in all contexts."""

    stats: GuideStats
    overdispersion: Floats  # (T,)
    group_effect_sd: float  # on the scale of the predictor
    unit: float = 1.0  # of the likelihood

    def take(self, features: NDArray[np.generic] | slice) -> Sums:
        """Those of some features."""
        every = np.arange(len(self.overdispersion))
        return Sums(self.stats.take(every[features]), self.overdispersion[features], self.group_effect_sd, self.unit)

    @property
    def log_exposure(self) -> Floats:
        """Log exposure ``(1 or T, R)``, covariates included."""
        log_w = np.log(self.stats.exposure)[None]
        return log_w if self.stats.covariates is None else log_w + self.stats.covariates.log_rows()


@dataclass(frozen=True)
class GuideLevels:
    """Levels of the predictor ``(T, G)`` and their variances."""

    mean: Floats
    variance: Floats


def slopes(sums: Sums, predictor: Floats) -> tuple[Floats, Floats]:
    """First and negative second derivative ``(T, R)`` of the log likelihood of each row by its predictor."""
    stats, kind = sums.stats, likelihood(sums.stats.distribution).statistics
    y = stats.counts
    if kind == "counts":
        scale2 = stats.exposure2 / stats.exposure**2
        extra = np.maximum(sums.overdispersion, LEAST_OVERDISPERSION)[:, None] ** 2 * scale2
        mean = np.exp(predictor)
        part = 1.0 / (1.0 + extra * mean)
        return (y - mean) * part, mean * (1.0 + extra * y) * part**2
    weights = np.asarray(stats.weights)
    if kind == "scores":
        return weights * (y - predictor), weights
    p = expit(predictor)
    return y - weights * p, weights * p * (1.0 - p)


def simulate(sums: Sums, predictor: Floats, rng: np.random.Generator) -> Sums:
    """The same rows with sums drawn at this predictor ``(T, R)``."""
    from dataclasses import replace

    from dream_sc._core.likelihoods import Rows

    stats = sums.stats
    none = np.zeros((len(stats.counts), 0))
    rows = Rows(
        stats.counts,
        none if stats.weights is None else stats.weights,
        np.maximum(sums.overdispersion, LEAST_OVERDISPERSION),
        stats.exposure2 / stats.exposure**2,
        stats.group,
        np.zeros(1, dtype=np.int64),
    )
    counts, weights = likelihood(stats.distribution).simulate(rng, rows, predictor)
    return replace(sums, stats=replace(stats, counts=counts, weights=None if stats.weights is None else weights))


def guide_levels(sums: Sums, curve: Floats | None = None, sd: Floats | float = START_SD) -> tuple[GuideLevels, Floats]:
    """Levels of the guides, and what the predictor ``(T, R)`` of the rows has beside them: exposure and group effects.

    Parameters
    ----------
    curve
        ``(T, G)`` what the level of each guide is expected to differ by from that of NTC guides; nothing if None.
    sd
        ``(T, G)`` or one for all, in units of the priors: how far from that it may be.

    Group effects are taken at their likeliest values.
    """
    stats, unit = sums.stats, sums.unit
    of_guide = (stats.guide[:, None] == np.arange(stats.n_guides)).astype(float)
    of_group = (stats.group[:, None] == np.arange(stats.n_groups)).astype(float)
    prior = (unit * np.broadcast_to(sd, (len(stats.counts), stats.n_guides))) ** -2.0
    curve = np.zeros(prior.shape) if curve is None else curve
    log_w = np.broadcast_to(sums.log_exposure, stats.counts.shape)
    level = _level(sums, log_w)
    own, group = curve.copy(), np.zeros((len(level), stats.n_groups))
    for _ in range(N_STEPS):
        slope, information = slopes(sums, log_w + level[:, None] + own @ of_guide.T + group @ of_group.T)
        step = (slope @ of_guide - prior * (own - curve)) / (information @ of_guide + prior)
        own += np.clip(step, -LARGEST_STEP * unit, LARGEST_STEP * unit)
        slope, information = slopes(sums, log_w + level[:, None] + own @ of_guide.T + group @ of_group.T)
        if stats.n_groups > 1:
            step = (slope @ of_group - group / sums.group_effect_sd**2) / (
                information @ of_group + sums.group_effect_sd**-2.0
            )
            step[:, 0] = 0.0  # the reference
            group += np.clip(step, -LARGEST_STEP * unit, LARGEST_STEP * unit)
            slope, information = slopes(sums, log_w + level[:, None] + own @ of_guide.T + group @ of_group.T)
        step = slope.sum(1) / np.maximum(information.sum(1), LEAST_INFORMATION / unit**2)
        level += np.clip(step, -LARGEST_STEP * unit, LARGEST_STEP * unit)
    base = log_w + group @ of_group.T
    slope, information = slopes(sums, base + level[:, None] + own @ of_guide.T)
    known = information @ of_guide
    seen = known > LEAST_INFORMATION / unit**2
    known = np.where(seen, known, 1.0)
    mean = np.where(seen, level[:, None] + own + (slope @ of_guide) / known, level[:, None])
    return GuideLevels(mean, np.where(seen, 1.0 / known, NOTHING * unit**2)), base


def _level(sums: Sums, log_w: Floats) -> Floats:
    """Level ``(T,)`` of all rows together."""
    stats, like = sums.stats, likelihood(sums.stats.distribution)
    if like.statistics == "counts":
        return np.asarray(np.log((stats.counts.sum(1) + 0.5) / np.exp(log_w).sum(1)))
    return np.asarray(like.level(stats.counts, np.asarray(stats.weights), log_w[0])).astype(float).copy()
