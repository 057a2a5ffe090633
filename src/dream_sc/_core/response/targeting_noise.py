"""Targeting guides that move every feature more than NTC guides do: an sd of their effects besides, which they share.

NTC guides tell the sd of guide effects where all guides are alike. Where targeting guides disagree by more in all
features, their effects get one more sd. Curves through the guides, a switch among them, compete feature by feature, so
that what all of them do alike is no noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logsumexp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

MORE_SDS = (0.05, 0.075, 0.11, 0.15, 0.27, 0.45)  # natural log, beside those of wide effects
WEIGHT = 0.999  # of the sd besides: all effects have it
LEAST_SHARE = 0.5  # of the targeting guides that depart by themselves, to be looked at
N_ITER = 30
STRENGTH = 5.0  # features' worth of weight of the kinds of curves and the sds of effects before


class Ways(NamedTuple):
    """Of each of `T` features, `L` ways that it may be: a curve, and an sd of the guide effects."""

    log_prior: Floats  # (T, L)
    kind: Ints  # (L,) of curve
    tau: Ints  # (L,) which sd
    of_kind: Floats  # prior weights
    of_tau: Floats

    def log_likelihood(self, rows: Floats) -> float:
        """Log likelihood of the features, given the log density ``(T, L)`` of all their rows.

        The weights of the kinds of curves and of the sds of the guide effects are those that make it largest.
        """
        joint = self.log_prior + rows
        of_kind, of_tau, total = self.of_kind, self.of_tau, np.zeros(0)
        for _ in range(N_ITER):
            log_post = joint + np.log(of_kind)[self.kind] + np.log(of_tau)[self.tau]
            total = np.asarray(logsumexp(log_post, axis=1))
            post = np.exp(log_post - total[:, None]).sum(0)
            kinds = np.bincount(self.kind, post) + STRENGTH * self.of_kind
            taus = np.bincount(self.tau, post) + STRENGTH * self.of_tau
            of_kind, of_tau = kinds / kinds.sum(), taus / taus.sum()
        return float(total.sum())


def shared_sd(ways: Ways, rows: Floats, of_guides: Floats, sds: Floats) -> tuple[float, int, float]:
    """Sd that all effects of the targeting guides have besides, the nearest of `sds`, and the log likelihood with it.

    Parameters
    ----------
    rows
        ``(T, L)`` log density of the rows of the other guides.
    of_guides
        ``(T, M, L)`` of the rows of the targeting guides, with each of the `sds` ``(M,)``.
    """
    order = np.argsort(sds)
    values = np.array([ways.log_likelihood(rows + of_guides[:, m]) for m in order])
    k, x = int(values.argmax()), np.log(sds[order])
    sd = float(x[k])
    if 0 < k < len(values) - 1:  # the top of the parabola through three of them
        a, b, _ = np.polyfit(x[k - 1 : k + 2] - x[k], values[k - 1 : k + 2] - values[k], 2)
        sd = float(x[k] - b / (2 * a)) if a < 0 else sd
    return float(np.exp(sd)), int(order[k]), float(values[k])
