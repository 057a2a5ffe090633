"""Evidence of every hypothesis for every feature: the likelihood of all contexts summed over draws of their curves.

A first look along lines through the lattice is enough for features that respond in no context.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.parallel import blocks
from dream_sc._core.response.contexts import modes, proposals
from dream_sc._core.response.contexts.evidence import IN_CACHE, NO_HOPE, Evidence, Posterior, total
from dream_sc._core.response.contexts.hypotheses import Sharing
from dream_sc._core.response.contexts.pair_likelihood import Curves, log_likelihood

from .hypotheses import AMPLITUDE, BOTH, DOSAGE, EQUAL, FREE, HYPOTHESES, Trends
from .lattice_trends import LineDraws, look

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.contexts.pair_likelihood import Pair
    from dream_sc._core.response.contexts.shapes import Shapes

    Floats = NDArray[np.float64]

N_EQUAL, N_DRAWS = 512, 256  # powers of 2; all trends are compared with equal curves
SEEDS = {EQUAL: 1, AMPLITUDE: 2, DOSAGE: 3, BOTH: 4, FREE: 5}
ONE = Sharing(np.array([[0, 1, 2]]))  # the curve of one context
SECOND = 100  # added to a seed for the second of two rounds of draws
FLAT = np.zeros(3)  # a curve without an amplitude


def evidence(
    shapes: Shapes, pair: Pair, places: Floats, taus: Floats, rho: float, tables: Floats, start: Floats
) -> Evidence:
    """Log evidence of all hypotheses.

    Parameters
    ----------
    places
        ``(C,)`` of the contexts.
    taus
        ``(K,)`` sds of the guide effects, of which a share `rho` of the variance is common to the contexts.
    tables
        ``(T, C, K, N, B)`` log likelihood of each context on the lattice.
    start
        ``(T,)`` the sd about which to look for curves, one of `taus`.
    """
    null = log_likelihood(pair, Curves.flat(len(pair.mean), pair.n_targeting, len(places)), taus, rho)
    looked = look(shapes, places, tables)
    log_bf = looked.log_bf()
    values = null + log_bf[:, :, None]
    rows = np.flatnonzero(log_bf.max(1) > NO_HOPE)
    if not len(rows):
        return Evidence(values, rows, {})
    parts = [
        _posteriors(shapes, pair.take(some), places, taus, rho, start[some], tables[some])
        for some in (rows[s] for s in blocks(len(rows), IN_CACHE))
    ]
    found = {
        name: Posterior(
            np.concatenate([p[name].theta for p in parts]), np.concatenate([p[name].log_weight for p in parts])
        )
        for name in parts[0]
    }
    for i, name in enumerate(HYPOTHESES):
        if name in found:
            values[rows, i] = total(found[name])
    return Evidence(values, rows, found)


def _posteriors(
    shapes: Shapes, pair: Pair, places: Floats, taus: Floats, rho: float, start: Floats, tables: Floats
) -> dict[str, Posterior]:
    """Weighted draws under every hypothesis with a response."""
    n = len(places)
    same = Sharing(np.tile([0, 1, 2], (n, 1)))
    of_equal = proposals.draw(shapes, pair, start, tables, same, n=N_EQUAL, seed=SEEDS[EQUAL])
    drawn: dict[str, tuple[Sharing | Trends, proposals.Draws]] = {EQUAL: (same, of_equal)}
    looked = look(shapes, places, tables)
    for name, of_ec50, of_amplitude in ((AMPLITUDE, False, True), (DOSAGE, True, False), (BOTH, True, True)):
        family = Trends(shapes, places, of_ec50, of_amplitude)
        found = modes.find(shapes, pair, start, family, family.log_prior, looked.starts(family, shapes))
        cells = LineDraws.of(shapes, tables, family)
        of_trend = proposals.of_mixture(cells, found, family.log_prior, family.n_free, n=N_DRAWS, seed=SEEDS[name])
        if name == BOTH:  # its draws are what slopes are told from
            theta = np.stack([family.theta(of_trend.phi, c) for c in range(n)], 2)
            weight = _at_start(shapes, pair, theta, taus, rho, start) + of_trend.log_weight
            of_trend = proposals.adapted(of_trend, weight, cells, found, family.log_prior, seed=SEEDS[name] + SECOND)
        drawn[name] = family, of_trend
    out = {}
    for name, (hypothesis, draws) in drawn.items():
        theta = np.stack([hypothesis.theta(draws.phi, c) for c in range(n)], 2)
        out[name] = _weighed(shapes, pair, theta, draws.log_weight, taus, rho)
    return out | {FREE: _free(shapes, pair, taus, rho, start, tables)}


def _at_start(shapes: Shapes, pair: Pair, theta: Floats, taus: Floats, rho: float, start: Floats) -> Floats:
    """Log likelihood ``(T, D)`` of draws at each feature's own sd `start` of the guide effects, one of `taus`."""
    curves, out = _curves(shapes, pair, theta), np.empty(theta.shape[:2])
    k = np.abs(taus - start[:, None]).argmin(1)
    for i in np.unique(k):
        rows = k == i
        part = Curves(curves.value[rows], curves.variance[rows], curves.slope[rows])
        out[rows] = log_likelihood(pair.take(rows), part, taus[[i]], rho)[..., 0]
    return out


def _weighed(shapes: Shapes, pair: Pair, theta: Floats, log_weight: Floats, taus: Floats, rho: float) -> Posterior:
    """Draws ``(T, D, C, 3)`` with weights for their likelihood."""
    found = log_likelihood(pair, _curves(shapes, pair, theta), taus, rho) + log_weight[..., None]
    return Posterior(theta.astype(np.float32), found.astype(np.float32))


def _curves(shapes: Shapes, pair: Pair, theta: Floats) -> Curves:
    each = [shapes.with_errors(theta[:, :, c], d) for c, d in enumerate(pair.dosages)]
    return Curves(*(np.stack([e[i] for e in each], 2) for i in range(3)))


def _free(shapes: Shapes, pair: Pair, taus: Floats, rho: float, start: Floats, tables: Floats) -> Posterior:
    """Each context has a curve of its own or none: draws of the contexts alone, put together.

    The draws of a context are taken as often as they are likely by that context at the sd `start`. What guide effects
    have in common, and other sds, is in the weights of what was put together.
    """
    k, rows, n = np.abs(taus - start[:, None]).argmin(1), np.arange(len(start)), len(pair.dosages)
    at = (np.arange(N_DRAWS) + 0.5) / N_DRAWS
    thetas, curves, by, log_sum = [], [], [], np.zeros(len(start))
    for c, dosages in enumerate(pair.dosages):
        one = replace(pair, mean=pair.mean[:, [c]], variance=pair.variance[:, [c]], dosages=(dosages,))
        draws = proposals.draw(shapes, one, start, tables[:, [c]], ONE, n=N_DRAWS, seed=SEEDS[FREE] + c)
        theta = np.concatenate([draws.phi, np.broadcast_to(FLAT, (len(start), 1, 3))], 1)[:, :, None]
        curve = _curves(shapes, one, theta)
        likelihood = log_likelihood(one, curve, taus, rho)[rows, :, k]
        weight = likelihood[:, :-1] + draws.log_weight - np.log(N_DRAWS)
        total = np.concatenate([weight, likelihood[:, -1:]], 1)
        evidence_of = logsumexp(total, axis=1)
        cumulative = np.exp(total - evidence_of[:, None]).cumsum(1)
        pick = np.stack([np.searchsorted(row, at * row[-1]) for row in cumulative])
        pick = np.minimum(pick, N_DRAWS)[:, np.random.default_rng(SEEDS[FREE] + c).permutation(N_DRAWS)]
        thetas.append(theta[rows[:, None], pick])
        curves.append([part[rows[:, None], pick] for part in (curve.value, curve.variance, curve.slope)])
        by.append(likelihood[rows[:, None], pick])
        log_sum += evidence_of
    theta = np.concatenate(thetas, 2)
    joint = Curves(*(np.concatenate([each[i] for each in curves], 2) for i in range(3)))
    log_weight = log_likelihood(pair, joint, taus, rho) - np.sum(by, 0)[..., None]
    log_weight[(theta[..., 2] == 0.0).all(2)] = -np.inf  # no response at all is another hypothesis
    scale = log_sum - n * np.log(2.0) - np.log1p(-(2.0**-n))
    log_weight = np.maximum(log_weight + scale[:, None, None], -1e30)
    return Posterior(theta.astype(np.float32), log_weight.astype(np.float32))
