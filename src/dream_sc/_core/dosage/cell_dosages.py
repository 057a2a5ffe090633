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


class GuideDosages(NamedTuple):
    """Posterior of the guides' dosages (log2, relative to NTC) and of how their cells lie around them."""

    mean: Floats  # (G,)
    var: Floats  # (G,)
    spreads: Floats  # (S,)
    weights: Floats  # (G, S) of the spreads; 0 of controls, which have none
    escape: Floats  # (G,) share of the cells at the NTC level
    correlation: Floats | None  # (G, G) of the means, where cells have several guides


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


def _priors(control: NDArray[np.bool_], guides: GuideDosages) -> tuple[Floats, Floats]:
    """Each guide's density of a cell's log2 dosage on a grid, its spread integrated; a part may be at 0."""
    spread = np.where(control[:, None], 0.0, guides.spreads)
    w = guides.weights.copy()
    w[control, 0] = 1.0
    sd = np.sqrt(spread**2 + guides.var[:, None] + 1e-6)
    half = 5.0 * np.sqrt((w * sd**2).sum(1)) + 2.5 * np.sqrt((w * spread**2).sum(1))
    low, high = guides.mean - half, guides.mean + half
    two = guides.escape > 0
    low[two], high[two] = np.minimum(low[two], -4 * ESCAPER_SD), np.maximum(high[two], 4 * ESCAPER_SD)
    x = low[:, None] + np.linspace(0, 1, N_X) * (high - low)[:, None]
    d = (x - guides.mean[:, None])[:, :, None] / sd[:, None]
    log_prior = logsumexp(-0.5 * d**2 - np.log(sd)[:, None], b=w[:, None], axis=2)
    at_ntc = -0.5 * (x[two] / ESCAPER_SD) ** 2 - np.log(ESCAPER_SD)
    share = guides.escape[two][:, None]
    log_prior[two] = np.logaddexp(np.log1p(-share) + log_prior[two], np.log(share) + at_ntc)
    return x, log_prior


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
