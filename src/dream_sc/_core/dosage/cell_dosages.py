"""Posterior of each cell's dosage, given what is known of its guide, or of its guides."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.parallel import in_runs

from .cells import each_cell

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.types import CisCells

    Floats = NDArray[np.float64]

N_X = 161
ESCAPER_SD = 0.06  # log2: a grid point stands for the NTC level


class TwoParts(NamedTuple):
    """What is known of a guide whose cells may be of two parts: if they are of one, and of those that act if of two."""

    probability: Floats  # (3,) of a cell: of a guide with one part, acting or at the NTC level under one with two
    mean: Floats  # (2,) of the dosage
    var: Floats  # (2,) of the mean
    weights: Floats  # (2, S) of the spreads


class GuideDosages(NamedTuple):
    """Posterior of the guides' dosages (log2, relative to NTC) and of how their cells lie around them."""

    mean: Floats  # (G,)
    var: Floats  # (G,)
    spreads: Floats  # (S,)
    weights: Floats  # (G, S) of the spreads; 0 of controls, which have none
    escape: Floats  # (G,) share of the cells at the NTC level
    correlation: Floats | None  # (G, G) of the means, where cells have several guides
    two: dict[int, TwoParts]  # of guides whose cells may be of two parts


def cell_dosages(cells: CisCells, level: float, phi: float, guides: GuideDosages) -> Floats:
    """Median, sd and ends of the 95 % interval ``(N, 4)`` of the cells' log2 dosages."""
    x, log_prior = _priors(cells.is_control, guides)
    if guides.correlation is not None:
        of_sets = _set_priors(cells.sets, guides, guides.correlation)
        x, log_prior = (np.concatenate(pair) for pair in zip((x, log_prior), of_sets, strict=True))
    out = np.zeros((len(cells.counts), 4))
    counts, guide = cells.counts.astype(float), cells.guide.astype(np.int64)
    exposure, load = cells.exposure * 2.0**level, len(counts) * x.shape[1]
    in_runs(each_cell, len(counts), counts, exposure, cells.floors, phi, guide, x, log_prior, out, load=load)
    return out


def two_parts(x: Floats, of_one: Floats, of_two: Floats, at_ntc: float, extra: float) -> TwoParts:
    """Means and spreads of a guide with one part and with two.

    `of_one` and `of_two` ``(X, S)`` are probabilities of its means `x` and spreads, `at_ntc` that of a cell at the NTC
    level, `extra` a variance of the means.
    """
    total = np.array([of_one.sum(), of_two.sum()])
    mean, var, weights = np.zeros(2), np.zeros(2), np.zeros((2, of_one.shape[1]))
    for i, joint in enumerate((of_one, of_two)):
        own = joint if total[i] > 0 else of_one + of_two
        own = own / own.sum()
        at = own.sum(1)
        mean[i], weights[i] = at @ x, own.sum(0)
        var[i] = at @ (x - mean[i]) ** 2 + extra
    probability = np.array([total[0], max(total[1] - at_ntc, 0.0), at_ntc])
    return TwoParts(probability / probability.sum(), mean, var, weights)


def _priors(control: NDArray[np.bool_], guides: GuideDosages) -> tuple[Floats, Floats]:
    """Each guide's density of a cell's log2 dosage on a grid, its spread integrated.

    Where cells of a guide may be of two parts, its density is the mean of both cases: what the guide is given
    (`escape`) would be all or nothing, while most such guides are undecided.
    """
    spread = np.where(control[:, None], 0.0, guides.spreads)
    w = guides.weights.copy()
    w[control, 0] = 1.0
    low, high = _reach(guides.mean, guides.var, spread, w)
    for g, (_, mean, var, weights) in guides.two.items():
        ends = _reach(mean, var, spread[g], weights)
        low[g], high[g] = min(ends[0].min(), -4 * ESCAPER_SD), max(ends[1].max(), 4 * ESCAPER_SD)
    x = low[:, None] + np.linspace(0, 1, N_X) * (high - low)[:, None]
    log_prior = _log_normal(x, guides.mean, guides.var, spread, w)
    for g, (probability, mean, var, weights) in guides.two.items():
        parts = np.stack([*_log_normal(x[g], mean, var, spread[g], weights), -0.5 * (x[g] / ESCAPER_SD) ** 2])
        parts[2] -= np.log(ESCAPER_SD)
        log_prior[g] = logsumexp(parts, axis=0, b=probability[:, None])
    return x, log_prior


def _reach(mean: Floats, var: Floats, spread: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Ends ``(K,)`` of the grid for normal densities with these means and their variances, spreads ``(K, S)``."""
    of_cells = (w * spread**2).sum(1)
    half = 5.0 * np.sqrt(of_cells + var + 1e-6) + 2.5 * np.sqrt(of_cells)
    return mean - half, mean + half


def _log_normal(x: Floats, mean: Floats, var: Floats, spread: Floats, w: Floats) -> Floats:
    """Log densities ``(K, X)`` at `x`, without the constant, the spreads ``(K, S)`` integrated."""
    sd = np.sqrt(spread**2 + var[:, None] + 1e-6)
    d = (x - mean[:, None])[:, :, None] / sd[:, None]
    return np.asarray(logsumexp(-0.5 * d**2 - np.log(sd)[:, None], b=w[:, None], axis=2))


def _set_priors(sets: NDArray[np.int64], guides: GuideDosages, correlation: Floats) -> tuple[Floats, Floats]:
    """The same for cells with several guides: a normal density, effects, their errors and spreads added up."""
    there, within2 = sets >= 0, guides.weights @ guides.spreads**2
    mean = np.where(there, guides.mean[sets], 0.0).sum(1)
    error = np.where(there, np.sqrt(guides.var)[sets], 0.0)
    shared = correlation[sets[:, :, None], sets[:, None, :]]
    var = np.einsum("ni,nij,nj->n", error, shared, error) + np.where(there, within2[sets], 0.0).sum(1)
    sd = np.sqrt(np.maximum(var, 0.0) + 1e-6)
    z = np.linspace(-7.5, 7.5, N_X)
    return mean[:, None] + sd[:, None] * z, np.repeat(-0.5 * z[None] ** 2, len(sets), 0)
