"""What was observed in guides, freed of technical groups: shares, usage of categories, and their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit

from dream_sc._core.stats.intervals import Z95
from dream_sc._core.sums.pair_sums import structural_zeros

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

HALVINGS = 60


def share_in_reference(y: Floats, n: Floats, effects: Floats) -> Floats:
    """Share ``(G,)`` that guides would have in the reference group, NaN without trials.

    The log odds `eta` that solve ``sum_c n_c expit(eta + effect_c) = sum_c y_c``: with one group it is ``y / n``.

    Parameters
    ----------
    y, n
        ``(G, C)`` counts, and what they are out of, in each group.
    effects
        ``(C,)`` shifts of the log odds; 0 of the reference.
    """
    total = n.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = y.sum(1) / total
        centre = logit(share)
    inside = np.isfinite(centre)
    at, weight = centre[inside], n[inside] / total[inside, None]
    low, high = at - effects.max(), at - effects.min()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = (weight * expit(middle[:, None] + effects)).sum(1) > share[inside]
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    share[inside] = expit((low + high) / 2)
    return np.asarray(share)


def usage_in_reference(y: Floats, n: Floats, effects: Floats) -> Floats:
    """Usage ``(G, K)`` of the categories of one feature, in the order of its chain of ``K - 1`` sticks.

    Parameters
    ----------
    y, n
        ``(S, G, C)`` counts of the sticks.
    effects
        ``(S, C)`` shifts of their log odds.
    """
    used = n.sum((0, 1)) > 0
    if used.sum() > 1:
        known = ~structural_zeros(y.sum(1), n.sum(1))
        y, n = y * known[:, None], n * known[:, None]
    left = np.ones(y.shape[1])
    out = []
    for stick_y, stick_n, shift in zip(y, n, effects, strict=True):
        share = np.where(left > 0, share_in_reference(stick_y, stick_n, shift), 0.0)
        out.append(left * share)
        left = left * (1.0 - share)
    return np.stack([*out, left], 1)


def wilson(share: Floats, n: Floats) -> tuple[Floats, Floats]:
    """95 % interval of shares out of `n` trials, by the score test; NaN without trials."""
    n = np.where(n > 0, n, np.nan)
    factor = Z95**2 / n
    centre = (share + factor / 2) / (1 + factor)
    half = np.sqrt(np.maximum(share * (1 - share) * factor + factor**2 / 4, 0)) / (1 + factor)
    # by rounding, shares of 0 and 1 would lie outside
    return np.clip(centre - half, 0.0, share), np.clip(centre + half, share, 1.0)


def effective_trials(n: Floats, pairs: Floats, rho: float) -> Floats:
    """Independent trials worth `n` with correlation `rho` within cells; `pairs` are sums of n (n - 1)."""
    return np.asarray(n / (1.0 + rho * pairs / np.maximum(n, 1.0)))
