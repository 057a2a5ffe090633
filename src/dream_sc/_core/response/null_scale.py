"""Evidence on a scale that means the same whatever the data can tell, so that null features can be compared.

Without a response, the log Bayes factor of a feature with many counts is far below 0, that of one with few is near 0.
One null distribution of it would therefore give small p-values to features that say little. The *strength* comes from
the z at which a movement along the dosage axis, known as well as the feature's is, has the same Bayes factor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from dream_sc._core.parallel import blocks

from . import guide_sets
from .guide_contrasts import log_ratios, slope_over

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import TransPriors
    from dream_sc._core.response.problem import Problem

    from .learned import Prior

    Floats = NDArray[np.float64]

N_BISECTIONS = 60


def log_moment_bf(estimate: Floats, sd: Floats, priors: TransPriors) -> Floats:
    """Log Bayes factor of a movement under the moment prior against none, given a normal estimate of it."""
    shape = (-1, *(1,) * max(np.ndim(estimate), np.ndim(sd)))
    s2, weight = np.reshape(priors.movement_scales, shape) ** 2, np.reshape(priors.movement_weights, shape)
    v = 1.0 / (1.0 / s2 + 1.0 / sd**2)
    m2 = (v * estimate / sd**2) ** 2
    terms = np.log(weight * np.sqrt(v / s2) * (m2 + v) / s2) + 0.5 * m2 / v
    top = terms.max(0)
    return np.asarray(top + np.log(np.exp(terms - top).sum(0)))


def strength(log_bf: Floats, sd: Floats, priors: TransPriors) -> Floats:
    """Half the square of the equivalent z, on which null features are about exponential in the tail.

    Parameters
    ----------
    log_bf
        Log Bayes factors, any shape.
    sd
        How well each feature's movement is known, natural log: see `movement_sd`.
    """
    most = np.sqrt(2 * np.maximum(log_bf, 0.0) * (1 + (sd / max(priors.movement_scales)) ** 2))
    low, high = np.zeros(np.shape(log_bf)), 12.0 + 2.0 * most
    for _ in range(N_BISECTIONS):
        middle = 0.5 * (low + high)
        short = log_moment_bf(middle * sd, sd, priors) < log_bf
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.asarray(0.5 * low**2)


def movement_sd(p: Problem, values: Floats, grid: Floats, prior: Prior) -> Floats:
    """How well counts and guide effects tell the movement ``(T,)`` over the observed dosages, natural log.

    For a response that is linear in log2 dosage. `values` ``(T, M, K)`` is the log evidence of each curve at each tau.
    """
    joint = values + np.log(prior.weights)[:, None] + prior.log_tau(grid)
    tau = np.exp(softmax(joint, axis=(1, 2)).sum(1) @ np.log(grid))
    information = np.zeros(len(tau))
    for s in blocks(len(tau)):
        ratio, variance, dosage, _ = log_ratios(p.take(s), p.level[s], np.zeros((len(tau[s]), len(p.dose_mean))))
        information[s] = slope_over(dosage, ratio, variance + tau[s, None] ** 2 * guide_sets.repeats(p))[1]
    return np.asarray((p.axis.high - p.axis.low) / np.sqrt(information))
