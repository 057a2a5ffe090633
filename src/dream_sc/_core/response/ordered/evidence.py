"""Evidence of every hypothesis for every feature: the likelihood of all contexts summed over draws of their curves.

Sums along lines through the lattice are enough for features that respond in no context.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.parallel import blocks
from dream_sc._core.response.contexts import modes, proposals
from dream_sc._core.response.contexts.evidence import NO_HOPE, Evidence, Posterior, total
from dream_sc._core.response.contexts.free_curves import IN_CACHE, at_start, put_together
from dream_sc._core.response.contexts.hypotheses import Sharing
from dream_sc._core.response.contexts.pair_likelihood import Curves, log_likelihood
from dream_sc._core.response.contexts.question import Question

from .hypotheses import AMONG, AMPLITUDE, BOTH, DOSAGE, EQUAL, FREE, HYPOTHESES, START, TREND, Trends
from .lattice_trends import LineDraws, lattice_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.contexts.measured import Levels
    from dream_sc._core.response.contexts.pair_likelihood import Pair
    from dream_sc._core.response.contexts.shapes import Shapes

    Floats = NDArray[np.float64]

N_EQUAL, N_DRAWS = 512, 256  # powers of 2; all trends are compared with equal curves
SEEDS = {EQUAL: 1, AMPLITUDE: 2, DOSAGE: 3, BOTH: 4, FREE: 5}
ONE = Sharing(np.array([[0, 1, 2]]))  # the curve of one context
SECOND = 100  # added to a seed for the second of two rounds of draws


def evidence(
    shapes: Shapes,
    pair: Pair,
    places: Floats,
    taus: Floats,
    rho: float,
    tables: Floats,
    start: Floats,
    fewer: int = 1,
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
    fewer
        A power of 2: draws are as many times fewer.
    """
    null = log_likelihood(pair, Curves.flat(len(pair.mean), pair.n_targeting, len(places)), taus, rho)
    sums = lattice_sums(shapes, places, tables)
    log_bf = sums.log_bf()
    values = null + log_bf[:, :, None]
    rows = np.flatnonzero(log_bf.max(1) > NO_HOPE)
    if not len(rows):
        return Evidence(values, rows, {})
    parts = [
        _posteriors(shapes, pair.take(some), places, taus, rho, start[some], tables[some], fewer)
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
    shapes: Shapes,
    pair: Pair,
    places: Floats,
    taus: Floats,
    rho: float,
    start: Floats,
    tables: Floats,
    fewer: int,
) -> dict[str, Posterior]:
    """Weighted draws under every hypothesis with a response."""
    n, n_draws = len(places), N_DRAWS // fewer
    same = Sharing(np.tile([0, 1, 2], (n, 1)))
    of_equal = proposals.draw(shapes, pair, start, tables, same, n=N_EQUAL // fewer, seed=SEEDS[EQUAL])
    drawn: dict[str, tuple[Sharing | Trends, proposals.Draws]] = {EQUAL: (same, of_equal)}
    sums = lattice_sums(shapes, places, tables)
    for name, of_ec50, of_amplitude in ((AMPLITUDE, False, True), (DOSAGE, True, False), (BOTH, True, True)):
        family = Trends(shapes, places, of_ec50, of_amplitude)
        found = modes.find(shapes, pair, start, family, family.log_prior, sums.starts(family, shapes))
        cells = LineDraws.of(shapes, tables, family)
        of_trend = proposals.of_mixture(cells, found, family.log_prior, family.n_free, n=n_draws, seed=SEEDS[name])
        if name == BOTH:  # its draws are what slopes are told from
            theta = np.stack([family.theta(of_trend.phi, c) for c in range(n)], 2)
            weight = at_start(pair, _curves(shapes, pair, theta), taus, rho, start) + of_trend.log_weight
            of_trend = proposals.adapted(of_trend, weight, cells, found, family.log_prior, seed=SEEDS[name] + SECOND)
        drawn[name] = family, of_trend
    out = {}
    for name, (hypothesis, draws) in drawn.items():
        theta = np.stack([hypothesis.theta(draws.phi, c) for c in range(n)], 2)
        out[name] = _weighed(shapes, pair, theta, draws.log_weight, taus, rho)
    return out | {FREE: _free(shapes, pair, taus, rho, start, tables, n_draws)}


def _weighed(shapes: Shapes, pair: Pair, theta: Floats, log_weight: Floats, taus: Floats, rho: float) -> Posterior:
    """Draws ``(T, D, C, 3)`` with weights for their likelihood."""
    found = log_likelihood(pair, _curves(shapes, pair, theta), taus, rho) + log_weight[..., None]
    return Posterior(theta.astype(np.float32), found.astype(np.float32))


def _curves(shapes: Shapes, pair: Pair, theta: Floats) -> Curves:
    each = [shapes.with_errors(theta[:, :, c], d) for c, d in enumerate(pair.dosages)]
    return Curves(*(np.stack([e[i] for e in each], 2) for i in range(3)))


def _free(
    shapes: Shapes, pair: Pair, taus: Floats, rho: float, start: Floats, tables: Floats, n_draws: int
) -> Posterior:
    """Each context has a curve of its own or none."""
    each = []
    for c, dosages in enumerate(pair.dosages):
        one = replace(pair, mean=pair.mean[:, [c]], variance=pair.variance[:, [c]], dosages=(dosages,))
        draws = proposals.draw(shapes, one, start, tables[:, [c]], ONE, n=n_draws, seed=SEEDS[FREE] + c)
        each.append((draws.phi, draws.log_weight))
    theta, log_weight = put_together(shapes, pair, taus, rho, start, each, seed=SEEDS[FREE], or_none=True)
    return Posterior(theta.astype(np.float32), log_weight.astype(np.float32))


def trend(places: Floats) -> Question:
    """The question whether EC50s or amplitudes change linearly with the places ``(C,)`` of the contexts."""

    def ask(shapes: Shapes, levels: Levels, taus: Floats, rho: float, fewer: int = 1) -> Evidence:
        return evidence(shapes, levels.pair, places, taus, rho, levels.tables, levels.start, fewer)

    weights = dict(zip(HYPOTHESES[1:], START[1:].tolist(), strict=True))
    return Question(HYPOTHESES, START, TREND, places, ask, weights, {}, AMONG, few_respond=True)
