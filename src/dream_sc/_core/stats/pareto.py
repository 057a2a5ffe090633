"""Pareto-smoothed importance sampling :cite:p:`Vehtari2024`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_TAIL = 5
PRIOR_K, PRIOR_WEIGHT = 0.5, 10.0


def fit_pareto(excess: Floats) -> tuple[float, float]:
    """Shape `k` and scale of a generalised Pareto distribution, by :cite:t:`Zhang2009`, `k` shrunk a little to 0.5.

    Parameters
    ----------
    excess
        Sorted positive excesses over the threshold.
    """
    n = len(excess)
    m = 30 + int(np.sqrt(n))
    quartile = excess[int(n / 4 + 0.5) - 1]
    b = 1 / excess[-1] + (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * quartile)
    k = np.log1p(-b[:, None] * excess).mean(1)
    profile = n * (np.log(-b / k) - k - 1)
    weight = np.exp(profile - profile.max())
    best = (b * weight).sum() / weight.sum()
    shape = float(np.log1p(-best * excess).mean())
    scale = -shape / best
    return (n * shape + PRIOR_WEIGHT * PRIOR_K) / (n + PRIOR_WEIGHT), float(scale)


def smooth(log_weight: Floats) -> tuple[Floats, float]:
    """Normalised weights with their largest ones smoothed, and the Pareto `k` of the tail.

    Above 0.7 the weights, and whatever rests on them, are not to be trusted.
    """
    log_weight = log_weight - log_weight.max()
    n = len(log_weight)
    n_tail = int(np.ceil(min(0.2 * n, 3 * np.sqrt(n))))
    order = np.argsort(log_weight, kind="stable")
    tail = order[-n_tail:]
    cut = max(log_weight[order[-n_tail - 1]], -700.0)
    excess = np.exp(log_weight[tail]) - np.exp(cut)
    if n_tail < LEAST_TAIL or excess[0] <= 0 or excess[-1] - excess[0] < 1e-12:
        k = 0.0 if excess[-1] < 1e-6 else np.inf
    else:
        k, scale = fit_pareto(excess)
        p = (np.arange(n_tail) + 0.5) / n_tail
        quantile = scale * np.expm1(-k * np.log1p(-p)) / k if abs(k) > 1e-9 else -scale * np.log1p(-p)
        log_weight = log_weight.copy()
        log_weight[tail] = np.minimum(np.log(quantile + np.exp(cut)), 0.0)
    weight = np.exp(log_weight - log_weight.max())
    return weight / weight.sum(), float(k)
