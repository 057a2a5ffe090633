"""Guides that fail in a part of their cells: a two-part dosage where the counts of the cis gene ask for it.

A cell of such a guide is at the NTC level with probability `pi`, else normal around the guide's mean. Mean, spread and
`pi` are looked at together, so that the mean is as uncertain as `pi` makes it.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import logsumexp

from .lattice import STRIDE, fine, log_likelihood, look
from .population import log_student, weighted_quantiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import CisPriors

    from .lattice import Guide, Lattice

    Floats = NDArray[np.float64]

SHARES = np.array([0.0, 0.03, 0.08, 0.15, 0.22, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
LEAST_DOSAGE = 0.5  # log2: nearer to NTC the two parts can hardly be told apart, nor does it matter
EVERY = 2  # of the spreads are tried with each share
LEAST_PROBABILITY = 0.9  # of two parts, for a guide to be given them
PRIOR_WEIGHT, PRIOR_GUIDES = 0.1, 3.0  # probability of two parts, learned over guides; guides' worth of the start
WITHIN = 4  # points of the interval that a share stands for
SHARE_SD = 0.1  # of the share between guides, at least: with few guides EM would end at a single value
TRIED = 1e-2  # probability of two parts below which a guide has one
LOOKED_AT = np.array([0.0, 0.1, 0.3, 0.6])


class Parts(NamedTuple):
    """Log prior weights of spread and share."""

    spread: Floats  # (S,)
    share: Floats  # (K,) the first of one part
    median: float  # of the spread

    @property
    def log(self) -> Floats:
        """``(S, K)``, of the spreads that each share is tried with."""
        out = self.spread[:, None] + self.share
        out[np.arange(len(self.spread)) % EVERY > 0, 1:] = -np.inf
        out[::EVERY, 1:] += log(EVERY)
        return np.asarray(out)


class Shape(NamedTuple):
    """Log likelihood of one guide at means of its own, every spread and share."""

    x: Floats  # (X,) less the NTC level
    value: Floats  # (X, S, K) with the log of the width of each point; (X, S, 1) of a guide with one part


def start(spreads: Floats, priors: CisPriors) -> Parts:
    """Prior weights before anything is learned: few cells without effect are likelier than many."""
    share = np.log((1 - SHARES[1:]) * np.gradient(SHARES[1:]))
    share += log(PRIOR_WEIGHT) - logsumexp(share)
    return Parts(
        _of_spread(spreads, priors.within_median, priors), np.append(log(1 - PRIOR_WEIGHT), share), priors.within_median
    )


def _of_spread(spreads: Floats, median: float, priors: CisPriors) -> Floats:
    out = -0.5 * ((np.log(spreads) - log(median)) / priors.within_log_sd) ** 2
    return np.asarray(out - logsumexp(out))


def shape(lat: Lattice, guide: Guide, level: float, parts: Parts, priors: CisPriors, *, two: bool) -> Shape:
    """The likelihood of one guide, with two parts only where they are tried and not improbable."""
    at_ntc = level - guide.offset
    points = look(lat, guide, LOOKED_AT if two else LOOKED_AT[:1], at_ntc)
    one = log_likelihood(lat, guide, points, STRIDE, lat.spreads, SHARES[:1], at_ntc)
    if not two:
        x, value = fine(lat, points, one, parts.log[:, :1], guide.known)
        return Shape(x - level, value)
    some = log_likelihood(lat, guide, points, STRIDE, lat.spreads[::EVERY], SHARES[1:], at_ntc)
    used = np.isfinite(parts.log)
    every = np.full((len(one), *used.shape), -np.inf)
    every[:, :, :1], every[:, ::EVERY, 1:] = one, _acting_only(lat.z[points][::STRIDE], some, guide.offset)
    x, flat = fine(lat, points, every[:, used][:, :, None], parts.log[used][:, None], guide.known)
    value = np.full((len(x), *used.shape), -np.inf)
    value[:, used] = flat[:, :, 0]
    found = Shape(x - level, value)
    log_x = log_student(found.x, 0.0, priors.sigma_scale, priors.guide_df)
    by_share = logsumexp(value + log_x[:, None, None] + parts.log, axis=(0, 1))
    return found if logsumexp(by_share[1:]) - by_share[0] > log(TRIED) else Shape(found.x, value[:, :, :1])


def _acting_only(z: Floats, value: Floats, offset: float) -> Floats:
    """The likelihood ``(X, S, K)`` with the guide's offset in the exposure of its acting cells, and of these alone.

    An offset comes from what the cells' other genes do, and in a cell in which the guide does nothing they do nothing.
    """
    if offset == 0:
        return value
    spline = CubicSpline(z, value)
    by = offset * SHARES[1:] / (1 - SHARES[1:])
    return np.stack([spline(np.clip(z + d, z[0], z[-1]))[:, :, k] for k, d in enumerate(by)], 2)


def learn(shapes: list[Shape], spreads: Floats, priors: CisPriors) -> Parts:
    """Prior weights of spread and share, learned over guides by EM."""
    begin = parts = start(spreads, priors)
    values = np.full((len(shapes), len(spreads), len(SHARES)), -np.inf)
    for g, (x, value) in enumerate(shapes):
        log_x = log_student(x, 0.0, priors.sigma_scale, priors.guide_df)
        values[g, :, : value.shape[2]] = logsumexp(value + log_x[:, None, None], axis=0)
    for _ in range(100):
        weights = values + parts.log
        weights = np.exp(weights - logsumexp(weights, axis=(1, 2), keepdims=True))
        centre = (weights.sum(2) @ np.log(spreads)).sum() + 3 * log(priors.within_median)
        median = float(np.exp(centre / (len(shapes) + 3)))
        share = _smooth(weights.sum((0, 1))) + PRIOR_GUIDES * np.exp(begin.share)
        before, parts = parts, Parts(_of_spread(spreads, median, priors), np.log(share / share.sum()), median)
        if np.abs(np.exp(before.share) - np.exp(parts.share)).max() + abs(before.median - median) < 1e-5:
            break
    return parts


def _smooth(weight: Floats) -> Floats:
    """Weights of the shares, each spread over those beside it; that of one part stays."""
    kernel = np.exp(-0.5 * ((SHARES[1:, None] - SHARES[1:]) / SHARE_SD) ** 2) * np.gradient(SHARES[1:])[:, None]
    return np.append(weight[0], kernel / kernel.sum(0) @ weight[1:])


def overall(x: Floats, joint: Floats) -> tuple[Floats, Floats]:
    """Log2 of the mean dosage of all cells of a guide, at means `x` ``(X,)`` of the acting ones, and its weights.

    `joint` ``(X, K)`` are the weights of means and shares. Each share stands for an interval, of which some points are
    taken: the dosage of all cells of a guide that leaves nothing is the share alone.
    """
    share = _within_shares()
    at = np.log2((1 - share) * np.exp2(x)[:, None, None] + share)
    weight = np.repeat(joint[:, :, None] / WITHIN, WITHIN, 2)
    return at.ravel(), weight.ravel()


def share_quantiles(weight: Floats, levels: tuple[float, ...]) -> Floats:
    """Quantiles of the share, by the weights ``(K,)`` of the shares, each an interval as in `overall`."""
    return weighted_quantiles(_within_shares().ravel(), np.repeat(weight / WITHIN, WITHIN), levels)


def _within_shares() -> Floats:
    """Points ``(K, WITHIN)`` of the interval that each share stands for; that of one part is 0."""
    edges = np.concatenate([[0.0], SHARES[1:2] / 2, 0.5 * (SHARES[1:-1] + SHARES[2:]), SHARES[-1:]])
    share = edges[:-1, None] + np.diff(edges)[:, None] * ((np.arange(WITHIN) + 0.5) / WITHIN)
    share[0] = 0.0
    return np.asarray(share)
