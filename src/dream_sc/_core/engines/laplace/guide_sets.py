"""Cells with several guides of the cis gene: their log2 effects add up.

Each guide is looked at over all cells that carry it, with what their other guides do as known; this goes around the
guides until nothing moves. What a guide's mean owes to the others' errors is in the joint curvature.
"""

from __future__ import annotations

from math import log, pi
from typing import TYPE_CHECKING

import numpy as np

from .cells import curvatures, guide_mode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import CisPriors
    from dream_sc._core.types import CisCells

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

MOST_ROUNDS, TOL = 30, 1e-4


def refine(
    cells: CisCells, spreads: Floats, alone: tuple[Floats, Floats, Floats], level: float, priors: CisPriors,
    nodes: Floats, log_w: Floats,
) -> tuple[Floats, Floats, Floats]:  # fmt: skip
    """Log evidence, mean and variance ``(G, S)`` of every guide, cells with several guides among them.

    Parameters
    ----------
    spreads
        ``(S,)`` grid of the spread between cells.
    alone
        The same from the cells with one guide only; rows of controls stay as they are.
    level
        Log2 level of the controls.
    """
    value, mean, var = (a.copy() for a in alone)
    phi = 1.0 / max(cells.overdispersion, 0.01) ** 2
    members, guides = cells.members, np.flatnonzero(~cells.is_control)
    log_prior = -0.5 * ((np.log(spreads) - log(priors.within_median)) / priors.within_log_sd) ** 2
    best = (value + log_prior).argmax(1)
    effect, spread = _effects(mean, best, level, cells), np.where(cells.is_control, 0.0, spreads[best])
    effect[_without_cells(cells)] = 0.0
    carry = {int(g): np.flatnonzero((members == g).any(1)[cells.guide]) for g in guides}
    for _ in range(MOST_ROUNDS):
        before = effect.copy()
        for g, mine in carry.items():
            shift, extra = _others(cells, members[cells.guide[mine]], g, effect, spread)
            y, e = cells.counts[mine].astype(float), cells.exposure[mine] * 2.0**shift
            x = level + effect[g]
            for j, s in enumerate(spreads):
                v, x, s2 = guide_mode(y, e, phi, x, float(s), extra, nodes, log_w)
                value[g, j], mean[g, j], var[g, j] = v + 0.5 * log(2 * pi * s2), x, s2
            k = int((value[g] + log_prior).argmax())
            effect[g], spread[g] = mean[g, k] - level, spreads[k]
        if np.abs(effect - before).max() < TOL:
            break
    var[guides] *= _inflation(cells, members, guides, effect, spread, level, phi, priors, (nodes, log_w))[:, None]
    return value, mean, var


def _effects(mean: Floats, best: Ints, level: float, cells: CisCells) -> Floats:
    """Log2 effects of the guides by the cells with one guide."""
    out = mean[np.arange(len(mean)), best] - level
    return np.where(cells.is_control, 0.0, out)


def _without_cells(cells: CisCells) -> NDArray[np.bool_]:
    """Guides that no cell carries alone."""
    return np.bincount(cells.guide, minlength=len(cells.is_control))[: len(cells.is_control)] == 0


def _others(cells: CisCells, sets: Ints, guide: int, effect: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Log2 effect and variance between cells of the other guides of each cell, its guides being `sets` ``(n, K)``."""
    other = (sets >= 0) & (sets != guide)
    return np.where(other, effect[sets], 0.0).sum(1), np.where(other, spread[sets] ** 2, 0.0).sum(1)


def _inflation(
    cells: CisCells, members: Ints, guides: Ints, effect: Floats, spread: Floats, level: float, phi: float,
    priors: CisPriors, quadrature: tuple[Floats, Floats],
) -> Floats:  # fmt: skip
    """By how much the variance of each guide's mean exceeds that with the other guides known."""
    mine = np.flatnonzero(~np.append(cells.is_control, np.zeros(len(cells.sets), dtype=bool))[cells.guide])
    sets = members[cells.guide[mine]]
    shift, extra = _others(cells, sets, -2, effect, spread)
    curvature = curvatures(
        cells.counts[mine].astype(float), cells.exposure[mine].astype(float), phi, level + shift, np.sqrt(extra),
        *quadrature,
    )  # fmt: skip
    at = np.full(len(effect) + 1, -1)
    at[guides] = np.arange(len(guides))
    hessian = np.eye(len(guides)) / priors.sigma_scale**2
    for i in range(sets.shape[1]):
        for j in range(sets.shape[1]):
            both = (sets[:, i] >= 0) & (sets[:, j] >= 0)
            np.add.at(hessian, (at[sets[both, i]], at[sets[both, j]]), curvature[both])
    # what a guide's cells say is the diagonal; where they say next to nothing the prior stands in
    return np.asarray(np.diag(np.linalg.inv(hessian)) * np.diag(hessian))
