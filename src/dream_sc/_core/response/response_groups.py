"""Where along the way from control cells a feature responds: early, in proportion, at a threshold, or late.

Each posterior draw of a curve is sorted by itself, by the place where half of its change is done and by how much
dosage the change takes; the shares of draws are probabilities of the groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve

    Floats = NDArray[np.float64]

GROUPS = ("early", "proportional", "threshold", "buffered")
N_POINTS = 121
THIRD = 1 / 3  # of the way in log2 dosage: half of the change before it is early, within the last third buffered
STEEP, MOST = 1.0, 0.8  # log2 of dosage within which this share of the change is done at a threshold
FLAT = 0.1  # log2, or units of the predictor over ln 2: less change than this on the whole way is none
BACK = 0.25  # of the change: a curve that comes back by more is turning
QUANTILES = (0.5, 0.025, 0.975)


@dataclass(frozen=True)
class Membership:
    """Groups of one feature."""

    probability: Floats  # (4,) of each group; what is missing to 1 is turning
    half_at: Floats  # (3,) log2 dosage at which half of the change is done: median, quantiles; NaN: rather no change


def membership(draws: Floats, c: Curve, consts: Floats, end: float, unit: float) -> Membership:
    """Sort draws ``(M, P)`` of a curve on the way from NTC dosage to `end` (log2).

    `unit` is that of the predictor.
    """
    x = np.linspace(0.0, end, N_POINTS)
    curve = c.log_curve(x, draws, consts) / (np.log(2.0) * unit)
    change = curve - curve[:, :1]
    total = change[:, -1]
    flat = np.abs(total) < FLAT
    done = change / np.where(flat, 1.0, total)[:, None]
    turning = ((done.max(1) > 1 + BACK) | (done.min(1) < -BACK)) & ~flat
    turning |= flat & (np.abs(change).max(1) >= FLAT * (1 + BACK))
    half = _first(done, 0.5)
    span = abs(end) * (_first(done, (1 + MOST) / 2) - _first(done, (1 - MOST) / 2))
    steep = (span < STEEP) & (abs(end) > STEEP)
    early, late = half < THIRD, half > 1 - THIRD
    which = np.select([early, late, steep], [0, 3, 2], default=1)
    which = np.where(flat, GROUPS.index("buffered"), which)
    share = np.array([((which == g) & ~turning).mean() for g in range(len(GROUPS))])
    some = ~flat & ~turning
    at = np.quantile(end * half[some], QUANTILES) if some.mean() >= 0.5 else np.full(3, np.nan)
    return Membership(share, at)


def _first(done: Floats, level: float) -> Floats:
    """Share of the way ``(M,)`` at which a level is first reached."""
    above = done >= level
    i = np.maximum(above.argmax(1), 1)
    rows = np.arange(len(done))
    low, high = done[rows, i - 1], done[rows, i]
    part = np.clip((level - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    found = (i - 1 + part) / (done.shape[1] - 1)
    return np.where(above.any(1), found, 1.0)
