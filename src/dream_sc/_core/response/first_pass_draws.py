"""Posterior draws of curves of one step for features that are not called, out of the table of curves of the first pass.

The table has each curve at a few places within its cell of the grid of shapes and movements. They are the same for all
features, so what the curves say of fold changes, slopes and classes is worked out once and looked up. Draws are taken
systematically by posterior mass, along an order in which neighbours are alike, and have no importance weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from dream_sc._core.curves._base import moment_mass
from dream_sc._core.laplace.lookup import log_ratios
from dream_sc._core.stats.sobol import sobol_points

from . import importance, summary
from .first_pass import Null, start_at
from .problem import null_evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.response.problem import Problem
    from dream_sc._core.types import Axis

    from .first_pass import Columns

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

N_DRAWS = 256
PLACES = 16  # in the cell of each curve
MODE_TOL = 1e-4  # of the null, from whose mode level and group effects are drawn
FINER = 3  # steps of the tables of the guides in each of a first pass's
FINE = 64  # steps of the prior mass within a cell


class Table(NamedTuple):
    """The curves of the first pass, at several places within the cell of each."""

    order: Ints  # (N,) columns of the look, so that neighbours are alike
    params: Floats  # (N, PLACES, 3) amplitude, log2 EC50 and log n; (N, PLACES, 1) of a switch
    error: Floats  # (PLACES,) shift of the EC50 by the error of the NTC level, which `params` leave out


class QuickDraws(NamedTuple):
    """Draws of a block of features, and where in the table each is."""

    draws: importance.Draws
    column: Ints  # (T, N_DRAWS)
    place: Ints  # (N_DRAWS,)


def table_of(p: Problem, c: Curve, shapes: Floats, columns: Columns, seed: int) -> Table:
    """Places in the cells of the columns, `shapes` ``(S, 2)`` of the lattice: evenly over the prior mass there."""
    base, wanted, priors = shapes[columns.shape][:, None], columns.move[:, None], p.priors
    u = sobol_points(4, PLACES, seed)
    at = _at_shapes(p, shapes, base, u) if shapes.shape[1] else np.repeat(base, PLACES, 1)
    edges = priors.unit * c.moves
    cell = np.searchsorted(edges, np.abs(wanted[:, 0, 0])) - 1
    move = np.sign(wanted) * _within(edges, u[:, 2], priors.movement_scales, priors.movement_weights)[cell][..., None]
    b = c.amplitudes(p.axis, at, np.zeros((*at.shape[:2], 2)), move)
    ok = np.isfinite(b)
    b = np.where(ok, b, columns.amplitudes[:, None])
    params = np.concatenate([b, np.where(ok, at, base)], 2)
    error = p.level_error * ndtri((np.argsort(np.argsort(u[:, 3])) + 0.5) / PLACES)
    return Table(_alike(shapes, columns), params, error)


def _at_shapes(p: Problem, shapes: Floats, base: Floats, u: Floats) -> Floats:
    """Shapes ``(N, PLACES, 2)`` in the cells around `base`."""
    steps, priors = np.array([np.diff(np.unique(axis)).min() for axis in shapes.T]), p.priors
    mean, sd = np.array([priors.ec50_mean, priors.n_log_mean]), np.array([priors.ec50_sd, priors.n_log_sd])
    low, high = (ndtr((base + half * steps - mean) / sd) for half in (-0.5, 0.5))
    at = mean + sd * ndtri(low + u[:, :2] * (high - low))
    return np.asarray(np.clip(at, base - 0.5 * steps, base + 0.5 * steps))


def _within(edges: Floats, u: Floats, scales: tuple[float, ...], weights: tuple[float, ...]) -> Floats:
    """Movements ``(E, U)`` at the shares `u` of the prior mass between neighbouring edges."""
    fine = np.linspace(edges[:-1], edges[1:], FINE + 1, axis=1)
    mass = moment_mass(fine, scales, weights)
    mass = (mass - mass[:, :1]) / (mass[:, -1:] - mass[:, :1])
    return np.stack([np.interp(u, one, at) for one, at in zip(mass, fine, strict=True)])


def _alike(shapes: Floats, columns: Columns) -> Ints:
    """Columns by movement, then to and fro over the EC50, and within it over the steepness."""
    if not shapes.shape[1]:
        return np.argsort(columns.move[:, 0], kind="stable")
    k, n = (np.unique(axis, return_inverse=True)[1].reshape(-1)[columns.shape] for axis in shapes.T)
    move = np.unique(columns.move[:, 0], return_inverse=True)[1].reshape(-1)
    k = np.where(move % 2 == 0, k, k.max() - k)
    return np.lexsort((np.where(k % 2 == 0, n, n.max() - n), k, move))


def quick_draws(p: Problem, columns: Columns, table: Table, log_tau: tuple[Floats, Floats], seed: int) -> QuickDraws:
    """Draws of a curve of one amplitude for a block of features, the error of the NTC level left out.

    `log_tau` are its grid ``(K,)`` and the log posterior on it ``(T, K)``. All draws of a feature are at its mean.
    """
    n_t = len(p.counts)
    post = np.exp(log_tau[1] - log_tau[1].max(1, keepdims=True))
    tau = np.exp((post * log_tau[0]).sum(1) / post.sum(1))
    null = Null(*null_evidence(p, tau[:, None], tol=MODE_TOL, modes=True))
    start, way = start_at(p.in_kernel(), null, tau[:, None], np.zeros(n_t, dtype=np.int64))
    ratio, shift = log_ratios(p.in_kernel(), start, columns.positions, finer=FINER)
    log_mass = (ratio + columns.log_weight)[:, table.order]
    cdf = np.cumsum(np.exp(log_mass - log_mass.max(1, keepdims=True)), axis=1)
    wanted = (np.arange(N_DRAWS) + 0.5) / N_DRAWS
    found = np.stack([np.searchsorted(row, wanted * row[-1]) for row in cdf])
    column = table.order[np.minimum(found, len(table.order) - 1)]
    place, z = _scattered(seed)
    level = null.mode[:, 0, 0, None] + np.take_along_axis(shift, column, 1) * way[:, :1]
    level += np.sqrt(null.cov[:, 0, 0, 0])[:, None] * z
    params = np.concatenate([level[..., None], table.params[column, place]], 2)
    none = np.full(n_t, np.nan)
    return QuickDraws(importance.Draws(params, np.zeros((n_t, 2)), tau, none, none > 0), column, place)


def _scattered(seed: int) -> tuple[Ints, Floats]:
    """The place of each draw in its cell, every place once in `PLACES` draws, and a standard normal number."""
    rng = np.random.default_rng([seed, 2])
    place = np.concatenate([rng.permutation(PLACES) for _ in range(N_DRAWS // PLACES)])
    return place, ndtri((rng.permutation(N_DRAWS) + 0.5) / N_DRAWS)


def shifted(table: Table) -> Table:
    """The table with the error of the NTC level in its EC50s."""
    params = table.params.copy()
    if params.shape[-1] > 1:
        params[..., 1] += table.error
    return table._replace(params=params, error=np.zeros_like(table.error))


def what_is_said(table: Table, c: Curve, axis: Axis, unit: float) -> summary.Said:
    """What the table's Hills say; their slopes and classes are those of the first place in each cell."""
    params = np.concatenate([np.zeros((*table.params.shape[:2], 1)), table.params], 2)
    return summary.said_of(params, c, axis, unit)
