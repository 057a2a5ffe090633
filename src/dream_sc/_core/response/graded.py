"""Does a response follow the dosage? Curves against the better of null and switch, and which of them is described.

A call says that a feature responds, whatever the model. It is *graded* where a curve is needed: where acting guides of
different dosage differ as a curve says, so that one level for all of them does not do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve

    from .learned import Prior

    Floats = NDArray[np.float64]

FOLLOWS = 0.05  # q-value below which a response is described by a curve


@dataclass(frozen=True)
class Graded:
    """Evidence of `T` features that they follow the dosage; NaN where no curve was compared."""

    log_bf: Floats  # (T,) log Bayes factor of the curves against the better of null and switch
    lfdr: Floats  # (T,) probability of null or switch


def graded_of(marginal: Floats, prior: Prior, curves: Sequence[Curve]) -> Graded:
    """From the log evidence ``(T, M)`` of each model, the null first."""
    flat = np.array([i == 0 or c.by_acting for i, c in enumerate(curves)])
    if flat.all():
        nothing = np.full(len(marginal), np.nan)
        return Graded(nothing, nothing.copy())
    joint = marginal + np.log(prior.weights)
    better = np.flatnonzero(flat)[joint[:, flat].argmax(1)]
    of_curves = logsumexp(joint[:, ~flat], axis=1)
    log_bf = of_curves - np.log(prior.weights[~flat].sum()) - marginal[np.arange(len(marginal)), better]
    lfdr = np.exp(logsumexp(joint[:, flat], axis=1) - logsumexp(joint, axis=1))
    return Graded(log_bf, np.asarray(np.minimum(lfdr, 1.0)))


def described_by(
    best: NDArray[np.int64],
    of_curves: NDArray[np.int64],
    curves: Sequence[Curve],
    called: NDArray[np.bool_],
    follows: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Model ``(T,)`` that describes each feature: of a call the switch, unless it `follows` the dosage; else the best.

    Parameters
    ----------
    best
        ``(T,)`` the best model that is not the null.
    of_curves
        ``(T,)`` the best one that is not the switch, either.
    """
    switch = [i for i, c in enumerate(curves) if c.by_acting]
    if not switch or len(curves) < 3:
        return best
    return np.where(called, np.where(follows, of_curves, switch[0]), best)
