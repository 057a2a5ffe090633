r"""Features with several categories: binomials ("links") that share the shape of their dose-response.

Each link moves or does not, with even odds; of a feature that responds at least one does. Given the shape `s`, links
are independent, so that the evidence of a feature is

.. math::

    B = \frac{\sum_s \pi(s) \prod_k (1 + B_k(s)) / 2 - 2^{-K}}{1 - 2^{-K}}

over the Bayes factors :math:`B_k(s)` of its `K` links. With one link it is the evidence of a binomial.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax, logsumexp

from dream_sc._core.response.learned import Prior, learn

from .links import Spans

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.response.comparison import Lattice
    from dream_sc._core.response.evidence import Evidence
    from dream_sc._core.response.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LOG_2 = float(np.log(2.0))
NO_PRIOR = -30.0  # log prior of a shape that cannot move anything


def shape_prior(c: Curve, lattice: Lattice, p: Problem) -> Floats:
    """Log prior probability of each shape of the lattice, its amplitudes integrated."""
    mass = np.broadcast_to(c.amplitude_mass(lattice.shapes, lattice.consts, p.axis, p.priors), len(lattice.shapes))
    return np.asarray(log_softmax(lattice.log_weight + np.log(np.maximum(mass, 1e-300))))


def together(log_bf: Floats, spans: Spans) -> Floats:
    """Log Bayes factor ``(F, ...)`` of whole features, given those ``(S, ...)`` of their links at the same shapes."""
    total = spans.sum(np.logaddexp(0.0, log_bf) - LOG_2)
    none = -LOG_2 * spans.length.reshape(-1, *[1] * (log_bf.ndim - 1))
    return np.asarray(total + np.log(-np.expm1(np.minimum(none - total, -1e-12))) - np.log(-np.expm1(none)))


@dataclass(frozen=True)
class CategoryEvidence:
    """What the evidence of the links says of features."""

    links: Evidence
    spans: Spans
    prior: Prior  # of tau, learned on links; its weights are of the curves of whole features
    by_shape: tuple[Floats, ...]  # (T, n shapes) log Bayes factor of each link, for each curve
    marginal: Floats  # (F, M) log evidence of each curve relative to the null's

    def posterior(self, m: int, features: Ints) -> Floats:
        """Log posterior ``(F', n shapes)`` of the shapes of curve `m` for some features, given that they respond."""
        links, part = self.spans.links(features)
        curve = self.links.comparison.curves[m]
        log_prior = shape_prior(curve, self.links.comparison.lattices[curve.name], self.links.problem)
        return np.asarray(log_softmax(log_prior + together(self.by_shape[m - 1][links], part), axis=1))


def joined_evidence(e: Evidence, spans: Spans, prior: Prior) -> CategoryEvidence:
    """Put the evidence of links together; the weights of `prior` are learned where they are of the null alone."""
    p, c = e.problem, e.comparison
    log_tau = prior.log_tau(c.grid)
    null = logsumexp(e.values[:, 0] + log_tau, axis=1)
    marginal, by_shape = [np.zeros(len(spans.start))], []
    for m, curve in enumerate(c.curves[1:], 1):
        log_prior = shape_prior(curve, c.lattices[curve.name], p)
        total = logsumexp(e.values[:, m] + log_tau, axis=1) - null
        share = log_softmax(e.masses[m - 1].astype(float), axis=1)
        by_shape.append(np.where(log_prior > NO_PRIOR, total[:, None] + share - log_prior, 0.0))
        marginal.append(logsumexp(log_prior + together(by_shape[-1], spans), axis=1))
    every = np.stack(marginal, 1)
    if len(prior.weights) == 1:
        prior = replace(prior, weights=learn(every[:, :, None], np.ones(1), p.priors).weights)
    return CategoryEvidence(e, spans, prior, tuple(by_shape), every)
