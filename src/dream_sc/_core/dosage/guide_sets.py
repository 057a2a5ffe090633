"""Cells with several guides of the cis gene: their log2 effects add up.

Each guide is looked at over all cells that carry it, with what their other guides do as known; this goes around the
guides until nothing moves. What a guide's mean owes to the others' errors is in the joint curvature; guides that hardly
occur without each other share what their cells say evenly, since no data can tell them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .cells import curvatures
from .escaping_cells import Shape, shape
from .lattice import LOW, SPREADS, Guide
from .population import log_student

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import CisPriors
    from dream_sc._core.types import CisCells

    from .escaping_cells import Parts
    from .lattice import Lattice

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

MOST_ROUNDS, TOL = 30, 1e-3


def refine(
    lat: Lattice, cells: CisCells, alone: dict[int, Shape], level: float, parts: Parts, priors: CisPriors
) -> tuple[dict[int, Shape], Floats]:
    """The likelihood of every targeting guide, cells with several guides among them.

    Second comes the posterior correlation ``(G, G)`` between the guides' means.

    Parameters
    ----------
    alone
        The likelihood of the guides ``(G,)`` from cells with one guide only, with one part.
    level
        Log2 level of the controls.
    """
    guides = np.flatnonzero(~cells.is_control)
    effect, spread = np.zeros((2, len(cells.is_control)))
    for g in guides[~_without_cells(cells)[guides]]:
        effect[g], spread[g] = _summary(alone[g], parts, priors)
    carry = {int(g): np.flatnonzero((cells.members == g).any(1)[cells.guide]) for g in guides}
    before = np.full((len(effect), 2), np.nan) if cells.known is None else cells.known
    known = {int(g): (before[g, 0] + level, before[g, 1]) if np.isfinite(before[g, 0]) else None for g in guides}
    shapes: dict[int, Shape] = {}
    for _ in range(MOST_ROUNDS):
        last = effect.copy()
        for g, mine in carry.items():
            shift, extra = _others(cells, cells.members[cells.guide[mine]], g, effect, spread)
            guide = Guide(cells.counts[mine].astype(float), cells.exposure[mine] * 2.0**shift, extra, known=known[g])
            shapes[g] = shape(lat, guide, level, parts, priors, two=False)
            effect[g], spread[g] = _summary(shapes[g], parts, priors)
        if np.abs(effect - last).max() < TOL:
            break
    hessian = _curvature(cells, guides, effect, spread, level, lat.phi)
    moved, widened, of_guides = apart(effect[guides], hessian, priors.sigma_scale)
    # of guides whose cells say nothing there is nothing to take apart, and no curvature to do it with
    tells = np.diag(hessian) * priors.sigma_scale**2 > 1
    for g, by, factor in zip(guides[tells].tolist(), moved[tells], widened[tells], strict=True):
        x, value = shapes[g]
        at = effect[g] + by + factor**0.5 * (x - effect[g])
        shapes[g] = Shape(at, np.where(at[:, None, None] > LOW, value, -np.inf))
    correlation = np.eye(len(effect))
    correlation[np.ix_(guides, guides)] = of_guides
    return shapes, correlation


def _summary(found: Shape, parts: Parts, priors: CisPriors) -> tuple[float, float]:
    """Mean log2 effect of a guide under a wide population, and the likeliest spread."""
    log_x = log_student(found.x, 0.0, priors.sigma_scale, priors.guide_df)
    joint = found.value[:, :, 0] + parts.spread + log_x[:, None]
    p = np.exp(joint - joint.max())
    return float((p.sum(1) * found.x).sum() / p.sum()), float(SPREADS[p.sum(0).argmax()])


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


def _without_cells(cells: CisCells) -> NDArray[np.bool_]:
    """Guides that no cell carries alone."""
    return np.bincount(cells.guide, minlength=len(cells.is_control))[: len(cells.is_control)] == 0


def _others(cells: CisCells, sets: Ints, guide: int, effect: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Log2 effect and variance between cells of the other guides of each cell, its guides being `sets` ``(n, K)``."""
    other = (sets >= 0) & (sets != guide)
    return np.where(other, effect[sets], 0.0).sum(1), np.where(other, spread[sets] ** 2, 0.0).sum(1)


def _curvature(cells: CisCells, guides: Ints, effect: Floats, spread: Floats, level: float, phi: float) -> Floats:
    """Joint curvature ``(G, G)`` of the log likelihood in the effects of these guides."""
    mine = np.flatnonzero(~np.append(cells.is_control, np.zeros(len(cells.sets), dtype=bool))[cells.guide])
    sets = cells.members[cells.guide[mine]]
    shift, extra = _others(cells, sets, -2, effect, spread)
    counts, exposure = cells.counts[mine].astype(float), cells.exposure[mine].astype(float)
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    log_w = np.log(weights / weights.sum())
    curvature = curvatures(counts, exposure, phi, level + shift, np.sqrt(extra), nodes, log_w)
    at = np.full(len(effect) + 1, -1)
    at[guides] = np.arange(len(guides))
    hessian = np.zeros((len(guides), len(guides)))
    for i in range(sets.shape[1]):
        for j in range(sets.shape[1]):
            both = (sets[:, i] >= 0) & (sets[:, j] >= 0)
            np.add.at(hessian, (at[sets[both, i]], at[sets[both, j]]), curvature[both])
    return hessian
