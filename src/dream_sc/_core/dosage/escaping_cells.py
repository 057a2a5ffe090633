"""Guides that fail in a part of their cells: a two-part dosage where the counts of the cis gene ask for it.

A cell of such a guide is at the NTC level with probability `pi`, else normal around the guide's mean. Every targeting
guide is tried; its evidence for two parts, `pi` and the spread integrated over their priors, decides.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import log, pi
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit, logit, logsumexp

from dream_sc._core.curves import LN2
from dream_sc._core.parallel import each

from .cells import mixture_mode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import CisPriors
    from dream_sc._core.types import CisCells

    Floats = NDArray[np.float64]

SHARES = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
TRIED = slice(2, 12, 3)  # of the spreads, for the decision
LEAST_PROBABILITY = 0.9  # of two parts
PRIOR_WEIGHT, PRIOR_GUIDES = 0.1, 5.0  # probability of two parts, learned over guides; guides' worth of the start
LEAST_DOSAGE = 0.5  # log2: nearer to NTC the two parts cannot be told apart, nor does it matter


class TwoParts(NamedTuple):
    """Guides with two parts, on the grid of spreads: `share` integrated out."""

    share: Floats  # (G,) posterior mean of the share of cells at the NTC level, 0 for guides with one part
    share_sd: Floats  # (G,)
    value: Floats  # (G, S) log evidence
    mean: Floats  # (G, S) of the guide's mean
    var: Floats  # (G, S)


def find(
    cells: CisCells,
    spreads: Floats,
    one: tuple[Floats, Floats, Floats],
    level: float,
    priors: CisPriors,
    nodes: Floats,
    log_w: Floats,
) -> TwoParts:
    """Try two parts for every targeting guide.

    Parameters
    ----------
    spreads
        ``(S,)`` grid of the spread between cells.
    one
        Log evidence, mean and variance ``(G, S)`` of guides with one part; those of guides with two take their place.
    level
        Log2 level of the NTC guides, where the cells without effect are.
    """
    value, mean, var = (a.copy() for a in one)
    share, share_sd = np.zeros(len(value)), np.zeros(len(value))
    log_prior = -0.5 * ((np.log(spreads) - log(priors.within_median)) / priors.within_log_sd) ** 2
    # the share's prior falls linearly: few cells without effect are likelier than many
    log_share = np.log((1 - SHARES) * np.gradient(SHARES))
    log_share -= logsumexp(log_share)
    tried = np.arange(len(spreads))[TRIED]
    gain = np.full(len(value), -np.inf)
    guides = np.arange(len(value))
    away = abs(one[1][guides, (one[0] + log_prior).argmax(1)] - level) >= LEAST_DOSAGE

    def try_two(g: int) -> Floats:
        return _guide(cells, g, spreads[tried], one[1][g, tried], level, nodes, log_w)[0]

    for g, log_z in each(try_two, guides[~cells.is_control & away].tolist()):
        two = log_z + log_share[:, None]
        gain[g] = logsumexp(two + log_prior[tried]) - logsumexp(one[0][g, tried] + log_prior[tried])
    for g in np.flatnonzero(_probability(gain) > LEAST_PROBABILITY).tolist():
        v, m, s2 = _guide(cells, g, spreads, one[1][g], level, nodes, log_w)
        v = v + log_share[:, None]
        weight = np.exp(v - logsumexp(v, axis=0))
        value[g], mean[g] = logsumexp(v, axis=0), (weight * m).sum(0)
        var[g] = (weight * (s2 + m**2)).sum(0) - mean[g] ** 2
        joint = np.exp(v + log_prior - logsumexp(v + log_prior))
        share[g] = (joint.sum(1) * SHARES).sum()
        share_sd[g] = (joint.sum(1) * (SHARES - share[g]) ** 2).sum() ** 0.5
    return TwoParts(share, share_sd, value, mean, var)


def overall(mean: Floats, var: Floats, share: Floats, share_sd: Floats) -> tuple[Floats, Floats]:
    """Log2 of the mean dosage of all cells of each guide, and its sd, the cells at the NTC level among them.

    The two errors go against each other, so the sd, which takes them for independent, is at most too large.
    """
    level = 2.0**mean
    dosage = (1 - share) * level + share
    by_mean, by_share = (1 - share) * level / dosage, (1 - level) / (dosage * LN2)
    out = np.where(share > 0, np.log2(dosage), mean)
    return out, np.sqrt(by_mean**2 * var + by_share**2 * share_sd**2)


def _probability(log_bf: Floats) -> Floats:
    """Probability of two parts by the log Bayes factors ``(G,)`` of the guides, -inf where not tried; prior by EM."""
    weight, n = PRIOR_WEIGHT, np.isfinite(log_bf).sum()
    post = np.zeros(len(log_bf))
    for _ in range(50):
        post = expit(log_bf + logit(weight))
        weight = (post.sum() + PRIOR_GUIDES * PRIOR_WEIGHT) / (n + PRIOR_GUIDES)
    return np.asarray(post)


def _guide(
    cells: CisCells, g: int, spreads: Floats, start: Floats, level: float, nodes: Floats, log_w: Floats
) -> tuple[Floats, Floats, Floats]:
    """Log evidence, mean and variance ``(P, S)`` of one guide at every share and spread."""
    use = cells.guide == g
    y, e = cells.counts[use].astype(float), cells.exposure[use].astype(float)
    phi = 1.0 / max(cells.overdispersion, 0.01) ** 2
    out = np.zeros((3, len(SHARES), len(spreads)))
    for j, sd in enumerate(spreads):
        x = float(start[j])
        for k, p in enumerate(SHARES):
            v, x, s2 = mixture_mode(y, e, phi, level, x, float(sd), float(p), nodes, log_w)
            out[:, k, j] = v + 0.5 * log(2 * pi * s2), x, s2
    return out[0], out[1], out[2]
