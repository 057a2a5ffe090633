"""The population of targeting guides, and the posterior of each guide's dosage under it, on the guide's own points.

The likelihood is what it is: of a guide without counts it is flat down to the lowest dosage, and only the population
bounds it there. Guides of one population get posteriors in the order of their likelihoods.
"""

from __future__ import annotations

from math import lgamma, log, pi
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .lattice import edges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import CisPriors

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

N_ITER, TOL = 200, 1e-6


class Curves(NamedTuple):
    """Log likelihood of each guide's log2 dosage relative to NTC, at points of its own."""

    x: Floats  # (G, X) rising
    value: Floats  # (G, X) with the log of the width that a point stands for


def log_student(x: Floats, mu: float, sigma: float, df: float) -> Floats:
    """Log density of a Student t."""
    constant = lgamma((df + 1) / 2) - lgamma(df / 2) - 0.5 * log(df * pi) - log(sigma)
    return np.asarray(constant - (df + 1) / 2 * np.log1p(((x - mu) / sigma) ** 2 / df))


def normalised(log_p: Floats) -> Floats:
    """Weights ``(G, X)`` of points that add up to 1."""
    p = np.exp(log_p - log_p.max(1, keepdims=True))
    return np.asarray(p / p.sum(1, keepdims=True))


def learn(curves: Curves, priors: CisPriors) -> tuple[float, float]:
    """Centre and scale of the Student t population by EM, the scale kept wide when guides are few."""
    n, df, x = len(curves.x), priors.guide_df, curves.x
    first = normalised(curves.value + log_student(x, 0.0, priors.sigma_scale, df))
    mu, sigma = float((first * x).sum(1).mean()), priors.sigma_scale
    for _ in range(N_ITER):
        p = normalised(curves.value + log_student(x, mu, sigma, df))
        # a Student t is a normal of unknown precision: guides far out say less of centre and scale
        p *= (df + 1) / (df + ((x - mu) / sigma) ** 2)
        before, mu = (mu, sigma), float((p * x).sum() / p.sum())
        spread = (p * (x - mu) ** 2).sum()
        sigma = float(((spread + 2 * priors.sigma_scale**2) / (n + 2)) ** 0.5)
        if max(abs(mu - before[0]), abs(sigma - before[1])) < TOL:
            break
    return mu, sigma


def posterior(
    curves: Curves, of_guide: Ints, known: Floats | None, priors: CisPriors
) -> tuple[Floats, tuple[float, float]]:
    """Posterior weights ``(G, X)`` of the guides' points, and the mean centre and scale of the populations.

    Parameters
    ----------
    of_guide
        ``(G,)`` population of each guide.
    known
        ``(G, 2)`` mean and sd of what is known of a guide's dosage before, in place of the population; NaN if nothing.
    """
    log_prior, found = np.zeros_like(curves.x), []
    for one in np.unique(of_guide):
        mine = of_guide == one
        found.append(learn(Curves(curves.x[mine], curves.value[mine]), priors))
        log_prior[mine] = log_student(curves.x[mine], *found[-1], priors.guide_df)
    if known is not None:
        told = np.isfinite(known).all(1)
        log_prior[told] = -0.5 * ((curves.x[told] - known[told, :1]) / known[told, 1:]) ** 2
    mu, sigma = np.mean(found, axis=0)
    return normalised(curves.value + log_prior), (float(mu), float(sigma))


def quantiles(x: Floats, p: Floats, levels: tuple[float, ...]) -> Floats:
    """Quantiles ``(L, G)`` of a density with weights `p` ``(G, X)`` of the intervals around points `x` ``(G, X)``."""
    ends = edges(x)
    total = np.concatenate([np.zeros((len(p), 1)), np.cumsum(p, 1)], 1)
    rows, out = np.arange(len(x)), np.empty((len(levels), len(x)))
    for i, level in enumerate(levels):
        j = np.clip((total < level).sum(1), 1, x.shape[1])
        below, at = total[rows, j - 1], total[rows, j]
        share = (level - below) / np.maximum(at - below, 1e-300)
        out[i] = ends[rows, j - 1] + np.clip(share, 0, 1) * (ends[rows, j] - ends[rows, j - 1])
    return out


def weighted_quantiles(x: Floats, p: Floats, levels: tuple[float, ...]) -> Floats:
    """Quantiles of values ``(N,)`` with weights that add up to 1."""
    order = np.argsort(x, kind="stable")
    middle = np.cumsum(p[order]) - 0.5 * p[order]
    return np.asarray(np.interp(levels, middle, x[order]))
