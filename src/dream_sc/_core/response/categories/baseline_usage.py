"""From links to usage: the share of each category of a feature, and how groups move its logarithm."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Usage(NamedTuple):
    """Of the `K` categories of a feature, in the order of its links."""

    level: Floats  # (K,) log usage in the reference group
    level_sd: Floats  # (K,)
    effects: Floats  # (K, C) shift of the log usage, centred over the categories that occur; NaN for others
    effects_sd: Floats  # (K, C)


def log_usage(
    level: Floats, level_sd: Floats, effects: Floats, effects_sd: Floats, effects_cov: Floats, occurs: NDArray[np.bool_]
) -> Usage:
    """Usage from ``K - 1`` links, with errors by the delta method.

    Parameters
    ----------
    level, level_sd
        ``(K - 1,)`` logit of each link in the reference group.
    effects, effects_sd, effects_cov
        ``(K - 1, C)`` shifts of the logit, column 0 the reference, and their covariance with the level.
    occurs
        ``(K, C)`` whether a category has a count in a group: one that has none, there or in the reference, is used at 0
        there and has no logarithm to shift.
    """
    eta = level[:, None] + effects
    log_p, log_q = -np.logaddexp(0, -eta), -np.logaddexp(0, eta)
    passed = np.vstack([np.zeros((1, eta.shape[1])), np.cumsum(log_q, 0)])
    value = passed + np.vstack([log_p, np.zeros((1, eta.shape[1]))])
    slope = _slopes(np.exp(log_p), np.exp(log_q))
    both = occurs & occurs[:, :1]
    weight = both / np.maximum(both.sum(0), 1)
    shift = value - value[:, :1]
    shift = shift - (weight * shift).sum(0)
    # effects of the reference are 0, so its column holds the level's own variance
    variance = level_sd[:, None] ** 2 + effects_sd**2 + 2 * effects_cov
    with_level = level_sd[:, None] ** 2 + effects_cov
    here = slope - np.einsum("kc,kjc->jc", weight, slope)
    there = slope[:, :, :1] - np.einsum("kc,kj->jc", weight, slope[:, :, 0])
    var = here**2 * variance + there**2 * level_sd[:, None] ** 2 - 2 * here * there * with_level
    sd = np.sqrt(np.maximum(var.sum(1), 0))
    shift[:, 0], sd[:, 0] = 0.0, 0.0
    both[:, 0] = True
    level_var = (slope[:, :, 0] ** 2 * level_sd**2).sum(1)
    return Usage(value[:, 0], np.sqrt(level_var), np.where(both, shift, np.nan), np.where(both, sd, np.nan))


def _slopes(p: Floats, q: Floats) -> Floats:
    """Derivative ``(K, K - 1, C)`` of each log usage by the logit of each link."""
    n, n_groups = p.shape
    out = np.zeros((n + 1, n, n_groups))
    for j in range(n):
        out[j, j] = q[j]
        out[j + 1 :, j] = -p[j]
    return out
