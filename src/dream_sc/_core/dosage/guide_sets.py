"""Cells with several guides of the cis gene: their log2 effects add up.

Each guide is looked at over all cells that carry it, with what their other guides do as known; this goes around the
guides until nothing moves. What a guide's mean owes to the others' errors is in the joint curvature; guides that hardly
occur without each other share what their cells say evenly, since no data can tell them apart.
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
    cells: CisCells,
    spreads: Floats,
    alone: tuple[Floats, Floats, Floats],
    level: float,
    priors: CisPriors,
    nodes: Floats,
    log_w: Floats,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Log evidence, mean and variance ``(G, S)`` of every guide, cells with several guides among them.

    Last comes the posterior correlation ``(G, G)`` between the guides' means.

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
    hessian = _curvature(cells, members, guides, effect, spread, level, phi, (nodes, log_w))
    moved, widened, correlation = np.zeros(len(effect)), np.ones(len(effect)), np.eye(len(effect))
    moved[guides], widened[guides], correlation[np.ix_(guides, guides)] = apart(
        effect[guides], hessian, priors.sigma_scale
    )
    return value, mean + moved[:, None], var * widened[:, None], correlation


def apart(effect: Floats, hessian: Floats, scale: float) -> tuple[Floats, Floats, Floats]:
    """What each guide's cells say of it, the others' effects integrated out instead of known.

    The joint posterior under a normal population of guides of sd `scale` is taken apart into independent guides with
    the same marginals; dividing by the population again leaves a mean and a variance for each.

    Parameters
    ----------
    effect, hessian
        ``(G,)`` joint mode, and ``(G, G)`` curvature there.

    Returns
    -------
    By how much each mean moves, the factor by which its variance exceeds that with the others known, and the posterior
    correlations.
    """
    own = np.maximum(np.diag(hessian), 1e-12)
    centre = np.average(effect, weights=1 / (1 / own + scale**2))
    cov = np.linalg.inv(hessian + np.eye(len(effect)) / scale**2)
    post = centre + cov @ (hessian @ (effect - centre))
    v = np.diag(cov)
    precision = np.maximum(1 / v - 1 / scale**2, 1e-12)
    mean = (post / v - centre / scale**2) / precision
    sd = np.sqrt(v)
    return mean - effect, own / precision, cov / np.outer(sd, sd)


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


def _curvature(
    cells: CisCells,
    members: Ints,
    guides: Ints,
    effect: Floats,
    spread: Floats,
    level: float,
    phi: float,
    quadrature: tuple[Floats, Floats],
) -> Floats:
    """Joint curvature ``(G, G)`` of the log likelihood in the effects of these guides."""
    mine = np.flatnonzero(~np.append(cells.is_control, np.zeros(len(cells.sets), dtype=bool))[cells.guide])
    sets = members[cells.guide[mine]]
    shift, extra = _others(cells, sets, -2, effect, spread)
    curvature = curvatures(
        cells.counts[mine].astype(float),
        cells.exposure[mine].astype(float),
        phi,
        level + shift,
        np.sqrt(extra),
        *quadrature,
    )
    at = np.full(len(effect) + 1, -1)
    at[guides] = np.arange(len(guides))
    hessian = np.zeros((len(guides), len(guides)))
    for i in range(sets.shape[1]):
        for j in range(sets.shape[1]):
            both = (sets[:, i] >= 0) & (sets[:, j] >= 0)
            np.add.at(hessian, (at[sets[both, i]], at[sets[both, j]]), curvature[both])
    return hessian
