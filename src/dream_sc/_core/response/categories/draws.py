"""Posterior draws of features with categories: one shape for all links of a draw, and what it makes of the usage.

Shapes are drawn from a local lattice by their joint posterior, interpolated; given the shape, links move or not, each
with a Laplace approximation of its own, to which those that move add the square of the movement again. Importance
weights, those of all links together, then correct the draws.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import log_softmax, logsumexp

from dream_sc._core.response import importance
from dream_sc._core.response.problem import Problem
from dream_sc._core.stats.pareto import smooth

from .proposals import Points, movement, propose
from .shapes import HOPELESS, Local, localise, log_mass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.response.learned import Prior

    from .evidence import CategoryEvidence
    from .links import Spans

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

CANDIDATES, QUICK_CANDIDATES = 8, 4  # for a link at a shape
DRAWS_PER_SHAPE, QUICK_DRAWS = 4, 128  # of features that are called, and draws of others, one for each shape


class LinkDraws(NamedTuple):
    """Joint draws of the links of a block of features."""

    params: Floats  # (T, N, 1 + A) level and amplitudes
    shapes: Floats  # (F, N, d)
    consts: Floats  # (F, 2)
    lag: Floats  # (T,) see `lagged`
    spans: Spans
    log_bf: Floats  # (T,) of each link, over the shapes that the feature's links agree on
    tau: Floats  # (T,)
    pareto_k: Floats  # (F,)


def draw_links(e: CategoryEvidence, m: int, features: Ints, *, quick: bool) -> LinkDraws:
    """Draws of curve `m` for a block of features; with less effort for those that are not called."""
    c, settings = e.links.comparison.curves[m], e.links.settings
    which, spans = e.spans.links(features)
    p, n_amp = e.links.problem.take(which), c.n_free(settings.degree)
    x = localise(e, p, m, features, spans, e.links.values[which], quick=quick, degree=settings.degree)
    n = min(settings.nsamples, QUICK_DRAWS) if quick else settings.nsamples
    n_shapes = n if quick else max(n // DRAWS_PER_SHAPE, 1)
    mine = np.repeat(np.arange(len(features)), spans.length)
    log_bf = logsumexp(x.links.log_z, axis=2) - x.null[:, None]
    each = QUICK_CANDIDATES if quick else CANDIDATES
    points = propose(p, c, x, spans, log_bf, n_shapes, each, settings.seed)
    ratio, of_shape = _weights(p, c, x, spans, points, e.prior, n_amp)
    found = [smooth(w) for w in of_shape]
    pick = np.stack([importance.pick(w, n) for w, _ in found])
    chosen = _candidates(ratio, pick[mine], np.arange(len(mine)) - spans.start[mine], settings.seed)
    return LinkDraws(
        np.take_along_axis(points.theta[..., : 1 + n_amp], chosen[:, :, None], 1),
        np.take_along_axis(points.shapes, pick[:, :, None], 1),
        x.consts,
        x.lag,
        spans,
        logsumexp(log_bf + x.log_post[mine], axis=1),
        np.exp(points.log_tau).mean(1),
        np.array([k for _, k in found]),
    )


def _weights(
    p: Problem, c: Curve, x: Local, spans: Spans, points: Points, prior: Prior, n_amp: int
) -> tuple[Floats, Floats]:
    """Log importance weights of the links' candidates ``(T, N, M)`` at their shape, and of the shapes ``(F, N)``.

    A link that does not move for sure may still move a little: its amplitude then has the normal prior that the moment
    prior is made from, without the square of the movement.
    """
    mine = np.repeat(np.arange(len(spans.start)), spans.length)
    n_each = points.theta.shape[1] // points.shapes.shape[1]
    of_links = np.repeat(points.of_links, n_each, axis=1)
    full = importance.Points(points.theta, of_links, points.log_tau)
    log_f = importance.log_target(p, c, full, x.consts[mine], prior, n_amp)
    own = np.maximum(importance.log_shape_prior(c, points.of_links, p.priors), -HOPELESS)
    own += log_mass(p, c, points.of_links, x.consts[mine][:, None])
    ratio = log_f - np.repeat(own, n_each, axis=1) - points.log_q
    still = np.repeat(points.still, n_each, axis=1)
    if still.any():
        d = movement(points.theta[..., 1], of_links, c, p.axis)[0]
        ratio -= np.where(still, 2.0 * np.log(np.maximum(np.abs(d), 1e-150)) - points.log_square, 0.0)
    ratio = np.where(np.isfinite(ratio), ratio, -HOPELESS).reshape(len(ratio), -1, n_each)
    return ratio, spans.sum(logsumexp(ratio, axis=2) - np.log(n_each))


def _candidates(ratio: Floats, pick: Ints, place: Ints, seed: int) -> Ints:
    """One candidate for each link and draw ``(T, n)``, by weight, given the shapes of the draws ``(T, n)``."""
    n = pick.shape[1]
    u = np.stack([np.random.default_rng([seed, 2, k]).random(n) for k in range(int(place.max()) + 1)])[place]
    cdf = np.exp(log_softmax(ratio, axis=2)).cumsum(2)
    at = np.take_along_axis(cdf, pick[:, :, None], 1)
    n_each = ratio.shape[2]
    return np.asarray(pick * n_each + np.minimum((at < u[..., None]).sum(2), n_each - 1))
