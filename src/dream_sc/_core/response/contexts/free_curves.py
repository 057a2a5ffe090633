"""Curves of which each context has its own: draws of the contexts alone, put together.

The draws of a context are taken as often as they are likely by that context, at the sd of guide effects about which
curves were looked for. What guide effects and errors of dosages have in common, and other sds, are in the weights of
what was put together.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.parallel import blocks

from .pair_likelihood import Curves, log_likelihood

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .pair_likelihood import Pair
    from .shapes import Shapes

    Floats = NDArray[np.float64]

IN_CACHE = 8  # features
LEAST = -1e30  # log weight of what cannot be


def at_start(pair: Pair, curves: Curves, taus: Floats, rho: float, start: Floats) -> Floats:
    """Log likelihood ``(T, D)`` of curves at each feature's own sd `start` of the guide effects, one of `taus`."""
    out = np.empty(curves.value.shape[:2])
    k = np.abs(taus - start[:, None]).argmin(1)
    for i in np.unique(k):
        rows = k == i
        part = Curves(curves.value[rows], curves.variance[rows], curves.slope[rows])
        out[rows] = log_likelihood(pair.take(rows), part, taus[[i]], rho)[..., 0]
    return out


def put_together(
    shapes: Shapes,
    pair: Pair,
    taus: Floats,
    rho: float,
    start: Floats,
    draws: Sequence[tuple[Floats, Floats]],
    *,
    seed: int,
    or_none: bool = False,
) -> tuple[Floats, Floats]:
    """Curves ``(T, D, C, 3)`` of all contexts, and the log weights ``(T, D, K)`` of their likelihoods.

    Parameters
    ----------
    draws
        Of each context: curves ``(T, D, 3)``, and the log ``(T, D)`` of prior over the density of the draw.
    or_none
        A context has a curve or none with even odds, but for none in all of them, which is another hypothesis; what is
        none has the amplitude 0.
    """
    found = [
        _of_some(shapes, pair.take(s), taus, rho, start[s], [(a[s], b[s]) for a, b in draws], seed, or_none)
        for s in blocks(len(start), IN_CACHE)
    ]
    return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def _of_some(
    shapes: Shapes,
    pair: Pair,
    taus: Floats,
    rho: float,
    start: Floats,
    draws: list[tuple[Floats, Floats]],
    seed: int,
    or_none: bool,
) -> tuple[Floats, Floats]:
    n_contexts, rows, n = len(draws), np.arange(len(start))[:, None], draws[0][1].shape[1]
    at = (np.arange(n) + 0.5) / n
    thetas, curves, by, log_sum = [], [], np.zeros((len(start), n)), np.zeros((len(start), 1))
    for c, (theta, log_weight) in enumerate(draws):
        if or_none:
            theta = np.concatenate([theta, np.zeros((len(theta), 1, 3))], 1)
            log_weight = np.concatenate([log_weight - np.log(n), np.zeros((len(theta), 1))], 1)
        else:
            log_weight = log_weight - np.log(n)
        one, curve = _alone(pair, c), shapes.with_errors(theta, pair.dosages[c])
        likelihood = at_start(one, Curves(*(part[:, :, None] for part in curve)), taus, rho, start)
        total = likelihood + log_weight
        evidence = logsumexp(total, axis=1, keepdims=True)
        cumulative = np.exp(total - evidence).cumsum(1)
        pick = np.stack([np.searchsorted(row, at * row[-1]) for row in cumulative])
        pick = np.minimum(pick, total.shape[1] - 1)[:, np.random.default_rng(seed + c).permutation(n)]
        thetas.append(theta[rows, pick])
        curves.append([part[rows, pick] for part in curve])
        by += likelihood[rows, pick]
        log_sum += evidence
    theta = np.stack(thetas, 2)
    joint = Curves(*(np.stack([each[i] for each in curves], 2) for i in range(3)))
    log_weight = log_likelihood(pair, joint, taus, rho) - by[..., None]
    if or_none:
        log_weight[(theta[..., 2] == 0.0).all(2)] = -np.inf
        log_sum = log_sum - n_contexts * np.log(2.0) - np.log1p(-(2.0**-n_contexts))
    return theta, np.maximum(log_weight + log_sum[..., None], LEAST)


def _alone(pair: Pair, c: int) -> Pair:
    """What was measured in one context."""
    loadings = None if pair.loadings is None else pair.loadings[:, [c]]
    return replace(
        pair,
        mean=pair.mean[:, [c]],
        variance=pair.variance[:, [c]],
        dosages=(pair.dosages[c],),
        loadings=loadings,
    )
