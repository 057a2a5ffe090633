"""Does a call rest on one guide? The least Bayes factor over leaving one guide out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.response.problem import Problem, evidence, null_evidence

from . import guide_sets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve

    from .comparison import Lattice
    from .joint_departures import Pair
    from .learned import Prior

    Floats = NDArray[np.float64]

MOST_SHAPES = 16
MOST_GUIDES = 4  # the most influential guides of a feature, left out one by one


def leading_shapes(lattice: Lattice, mass: NDArray[np.float32]) -> Lattice:
    """The shapes of most mass ``(T, S', ...)`` of each feature, given the mass ``(T, S)`` of all."""
    top = np.argsort(-mass, axis=1, kind="stable")[:, :MOST_SHAPES]
    return lattice._replace(shapes=lattice.shapes[top], log_weight=lattice.log_weight[top], consts=lattice.consts[top])


def _log_bf(
    p: Problem, c: Curve, some: Lattice, taus: Floats, log_prior: Floats, degree: int, starts: Floats | None = None
) -> Floats:
    """Log Bayes factor of a curve on some of its shapes against the null, over the taus ``(T, K)``.

    `starts` is where each shape was found with all guides.
    """
    log_z = evidence(p, c, some.shapes, some.consts, taus, degree=degree, starts=starts)[0]
    return _over_null(p, log_z, some, taus, log_prior)


def _over_null(p: Problem, log_z: Floats, some: Lattice, taus: Floats, log_prior: Floats) -> Floats:
    alternative = logsumexp(log_z + some.log_weight[..., None] + log_prior[:, None], axis=(1, 2))
    null = null_evidence(p, taus)[0]
    return np.asarray(alternative - logsumexp(null + log_prior, axis=1))


def two_taus(log_post: Floats, log_null: Floats, grid: Floats, prior: Prior) -> tuple[Floats, Floats]:
    """The likeliest tau under the curve and under the null ``(T, 2)``, and their log prior; one of them if equal.

    `log_post` and `log_null` are the log posteriors ``(T, K)`` of tau under the two.
    """
    pick = np.stack([log_post.argmax(1), log_null.argmax(1)], 1)
    taus, log_prior = grid[pick], prior.log_tau(grid)[pick]
    same = pick[:, 0] == pick[:, 1]
    taus[same, 1], log_prior[same, 1] = -1.0, -np.inf
    return taus, log_prior


def least_log_bf(
    p: Problem,
    c: Curve,
    some: Lattice,
    taus: tuple[Floats, Floats],
    log_bf: Floats,
    influence: Floats,
    *,
    degree: int = 6,
    pairs: tuple[Pair, ...] = (),
) -> Floats:
    """Least log Bayes factor over leaving out one of the most influential targeting guides.

    Parameters
    ----------
    some
        Shapes of each feature: see `leading_shapes`.
    taus
        Two values of tau for each feature and the log of their prior: see `two_taus`. The difference that a guide
        makes is taken at these, and added to `log_bf`.
    influence
        ``(T, G)`` how much each guide speaks for the curve.
    pairs
        Guides that depart together are left out together.

    NaN with fewer than two targeting guides.
    """
    carriers = guide_sets.carriers(p)
    if len(carriers) < 2 or not len(log_bf):
        return np.full(len(log_bf), np.nan)
    speaks = influence[:, p.targeting] if p.shared is None else influence @ carriers.T
    top = np.argsort(-speaks, axis=1, kind="stable")[:, :MOST_GUIDES]
    targeting = np.flatnonzero(p.targeting)
    goes_with = {g: h for pair in pairs for g, h in ((pair.one, pair.other), (pair.other, pair.one))}
    log_z, mode, _ = evidence(p, c, some.shapes, some.consts, taus[0], modes=True, degree=degree)
    full = _over_null(p, log_z, some, *taus)
    starts = np.where(np.isfinite(log_z[:, :, 0, None]), mode[:, :, 0], np.nan)
    least = np.full(len(log_bf), np.inf)
    for u in np.unique(top):
        rows = np.flatnonzero((top == u).any(1))
        keep = ~carriers[u]
        if goes_with:
            keep[goes_with.get(int(targeting[u]), int(targeting[u]))] = False
        part = some._replace(shapes=some.shapes[rows], log_weight=some.log_weight[rows], consts=some.consts[rows])
        q = p.take(rows).guides(keep)
        without = np.zeros(len(rows))  # what no guide tells: the controls are summed up, and no other guide is left
        if len(q.in_kernel().guide):
            without = _log_bf(q, c, part, taus[0][rows], taus[1][rows], degree, starts[rows])
        least[rows] = np.minimum(least[rows], log_bf[rows] + without - full[rows])
    return least
