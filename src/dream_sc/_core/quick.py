"""Posterior draws of one Hill for features that are not called, from the curves of the first look.

A curve is drawn by its posterior mass, then moved within its cell of the grid of shapes and movements; level and group
effects follow from the null. Importance weights then correct the draws, as those of the fast engine are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit
from scipy.stats import norm, qmc

from .dose_response import LN2
from .engines.laplace import importance
from .engines.laplace.screen import look
from .pareto import smooth
from .screening import EDGES, look_from, movements, null_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .calls import Prior
    from .dose_response import Curve
    from .engines.laplace import Problem
    from .screening import Columns

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

N_DRAWS = 192


def quick_draws(
    p: Problem, c: Curve, shapes: Floats, columns: Columns, log_tau: tuple[Floats, Floats], prior: Prior, seed: int
) -> importance.Draws:
    """Draws of one Hill for a block of features.

    Parameters
    ----------
    shapes
        ``(S, 2)`` of the lattice.
    log_tau
        Grid of log tau ``(K,)`` and its log posterior ``(T, K)``. All draws of a feature are at its mean.
    """
    n_t = len(p.counts)
    post = np.exp(log_tau[1] - log_tau[1].max(1, keepdims=True))
    tau = np.exp(post @ log_tau[0] / post.sum(1))
    null, q = null_of(p, tau[:, None]), p.in_kernel()
    start, way = look_from(q, null, tau[:, None], np.zeros(n_t, dtype=np.int64))
    ratio, shift = look(q, start, columns.positions)
    sobol = qmc.Sobol(3 + null.mode.shape[2], seed=seed).random(256)[:N_DRAWS]
    log_mass = ratio + columns.log_weight
    mass = np.exp(log_mass - log_mass.max(1, keepdims=True))
    pick = np.stack([importance.pick(row, N_DRAWS) for row in mass])
    at, b, log_cell = _within_cells(p, shapes, columns, pick, sobol[:, :3])
    z = norm.ppf(np.clip(sobol[:, 3:], 1e-9, 1 - 1e-9))
    follow = np.take_along_axis(shift, pick, 1).astype(float)
    rest, log_rest = _followers(null.mode[:, 0], null.cov[:, 0], way, follow, z)
    theta = np.concatenate([rest[..., :1], b[..., None], rest[..., 1:]], 2)
    consts = np.zeros((n_t, 2))
    points = importance.Points(theta, at, np.repeat(np.log(tau)[:, None], N_DRAWS, 1))
    log_q = np.take_along_axis(log_mass, pick, 1) + log_cell + log_rest
    found = [smooth(w) for w in importance.log_target(p, c, points, consts, prior, 1) - log_q]
    weight, k = np.stack([w for w, _ in found]), np.array([k for _, k in found])
    every = importance.resample(np.concatenate([theta[..., :2], at], -1), weight)
    return importance.Draws(every, consts, tau, k, np.zeros(n_t, dtype=bool))


def _within_cells(
    p: Problem, shapes: Floats, columns: Columns, pick: Ints, u: Floats
) -> tuple[Floats, Floats, Floats]:
    """Shapes ``(T, N, 2)`` and amplitudes ``(T, N)`` anywhere in the cells of their columns.

    With the log density ``(T, N)`` within a cell.
    """
    steps = np.array([np.diff(np.unique(axis)).min() for axis in shapes.T])
    base, wanted, ones = shapes[columns.shape[pick]], columns.move[pick], np.ones((*pick.shape, 1))
    at = base + (u[:, 1:] - 0.5) * steps
    move = wanted * np.exp((u[:, :1] - 0.5) * np.log(EDGES[1][1] / EDGES[1][0]))  # a ratio, whatever the unit
    b = movements(p, at, ones, move)
    ok = np.isfinite(b)
    at, move = np.where(ok, at, base), np.where(ok, move, wanted)
    b = np.where(ok, b, columns.amplitudes[pick])[..., 0]
    ends = []
    for end in (p.axis.low, p.axis.high):
        z = LN2 * np.exp(at[..., 1]) * (end - at[..., 0])
        ends.append(expit(b + z))
    slope = np.maximum(np.abs(ends[1] - ends[0]), 1e-300)
    return at, b, np.log(slope) - np.log(np.abs(move[..., 0]))


def _followers(mode: Floats, cov: Floats, way: Floats, shift: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Level and group effects ``(T, N, C)`` that follow each curve, and their log density."""
    chol = np.linalg.cholesky(cov + 1e-14 * np.eye(cov.shape[-1]))
    out = mode[:, None] + shift[..., None] * way[:, None] + np.einsum("tij,nj->tni", chol, z)
    log_det = np.log(np.einsum("tii->ti", chol)).sum(1)
    return out, -0.5 * (z**2).sum(1) - log_det[:, None]
