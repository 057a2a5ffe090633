"""The trans step by nested Laplace: posterior draws of the curves.

Shapes of one Hill lie on a lattice that zooms onto the mass; those of two Hills, in four dimensions, are drawn by
adaptive importance sampling. The sd of the guide effects has a lattice of its own. Given both, level, amplitudes and
group effects are drawn from a Student t around the Laplace approximation. Importance weights against the density with
guide effects integrated by quadrature (see `importance`) then remove what the lattice and the Gaussians left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logsumexp, ndtri

from dream_sc._core.stats.sobol import sobol_points, student_scale

from . import importance
from .importance import Draws, Lattice
from .problem import SCREEN_TOL, evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve

    from .learned import Prior
    from .problem import Problem

    Floats = NDArray[np.float64]

FINE_TOL = 0.05  # of a proposal, which weights correct
BOX_DROP = 6.0  # a local lattice covers what is within e^-6 of the mode
# points per axis of the local lattices, by number of shape parameters
LATTICE_SIZES: dict[int, tuple[tuple[int, ...], ...]] = {0: (), 2: ((8, 6), (9, 7)), 4: ()}
SMALLER_SIZES: dict[int, tuple[tuple[int, ...], ...]] = {0: (), 2: ((6, 5), (8, 6)), 4: ()}
QUICK_SIZES: dict[int, tuple[tuple[int, ...], ...]] = {0: (), 2: ((9, 6),), 4: ()}
# points of each round of importance sampling. Of 73 features of three simulated screens the last round's weights have a
# Pareto k above 0.7 in one with these; in seven with a round less, no tempering and a scale of 1.1
PROPOSALS, QUICK_PROPOSALS = (200, 200, 200, 250), (100, 150)
SHAPE_DF = 5.0  # of that proposal, a Student t
INFLATE = 1.25  # of its scale over the sd of the weighted points
LEAST_SHAPES = 0.1  # effective share of the points that the next round adapts to
TAU_POINTS, QUICK_TAU_POINTS = np.array([-1.5, 0.0, 1.5]), np.array([-1.0, 1.0])  # posterior sds of log tau


class TauGrid(NamedTuple):
    """Local grids of the sd of the guide effects."""

    tau: Floats  # (T, K)
    step: Floats  # (T,) in log tau, 0 where there is one value only
    best: Floats  # (T, 1) the likeliest value of the shared grid


def local_lattices(shapes: Floats, log_post: Floats, step: Floats, sizes: tuple[int, ...]) -> tuple[Floats, Floats]:
    """A finer lattice ``(T, S', d)`` over the box of the points near each mode; returns them with their spacings."""
    near = (log_post > log_post.max(1, keepdims=True) - BOX_DROP)[..., None]
    low = np.where(near, shapes, np.inf).min(1) - step
    high = np.where(near, shapes, -np.inf).max(1) + step
    at = np.indices(sizes).reshape(len(sizes), -1)
    axes = [np.linspace(low[:, d], high[:, d], n, axis=1)[:, at[d]] for d, n in enumerate(sizes)]
    return np.stack(axes, -1), (high - low) / (np.array(sizes) - 1)


def steps(shapes: Floats) -> Floats:
    return np.array(
        [
            np.diff(np.unique(shapes[:, d])).min() if len(np.unique(shapes[:, d])) > 1 else 0.1
            for d in range(shapes.shape[1])
        ]
    )


def tau_grid(post: Floats, grid: Floats, points: Floats) -> TauGrid:
    """A few values around the posterior of log tau on the shared grid; `post` is its log ``(T, K)``."""
    best = grid[post.argmax(1)][:, None]
    if len(grid) == 1:
        return TauGrid(best, np.zeros(len(best)), best)
    post = np.exp(post - post.max(1, keepdims=True))
    post /= post.sum(1, keepdims=True)
    log_grid = np.log(grid)
    mean = post @ log_grid
    spacing = np.diff(log_grid).mean()
    sd = np.sqrt((post * (log_grid - mean[:, None]) ** 2).sum(1) + spacing**2 / 12)
    return TauGrid(np.exp(mean[:, None] + sd[:, None] * points), sd * np.diff(points)[0], best)


def _at_shapes(
    p: Problem,
    curve: Curve,
    shapes: Floats,
    consts: Floats,
    taus: Floats,
    prior: Prior,
    *,
    fine: bool,
    degree: int = 6,
) -> tuple[Floats, Floats, Floats]:
    """Log posterior density ``(T, S, K)`` of shapes and taus; a fine run gives modes and covariances, too.

    The draws of a fine run are weighted by the factor of the prior one by one, so it leaves the factor out.
    """
    c = np.repeat(consts[:, None], shapes.shape[1], 1)
    log_z, mode, cov = evidence(
        replace(p, several=p.several and not fine),
        curve,
        shapes,
        c,
        taus,
        modes=fine,
        tol=FINE_TOL if fine else SCREEN_TOL,
        degree=degree,
    )
    log_z = log_z + importance.log_shape_prior(curve, shapes, p.priors)[:, :, None]
    return log_z + prior.log_density(taus)[:, None, :], mode, cov


def _adapt(
    p: Problem,
    curve: Curve,
    shapes: Floats,
    log_post: Floats,
    step: Floats,
    consts: Floats,
    tau: TauGrid,
    prior: Prior,
    seed: int,
    proposals: tuple[int, ...],
) -> Lattice:
    """Shapes drawn from a Student t that adapts twice.

    The same Sobol points serve every feature, so that a feature does not depend on its block.
    """
    d = shapes.shape[-1]
    weight = np.exp(log_post - log_post.max(1, keepdims=True))
    floor = step**2 / 12  # a lattice point stands for its cell
    found = log_q = np.zeros(0)
    mode = cov = found
    for i, n in enumerate(proposals):
        least = LEAST_SHAPES if i else 0.0  # of a lattice few points may hold all there is
        weight = importance.tempered(weight, least)
        mean = np.einsum("ts,tsi->ti", weight, shapes)
        diff = shapes - mean[:, None]
        spread = np.einsum("ts,tsi,tsj->tij", weight, diff, diff)
        spread[:, np.arange(d), np.arange(d)] += floor + 1e-6
        floor = 0.02 * np.einsum("tii->ti", spread)
        chol = np.linalg.cholesky(spread) * INFLATE
        sobol = sobol_points(1 + d, n, np.random.default_rng([seed, i]))
        z = ndtri(sobol[:, 1:]) * student_scale(sobol[:, :1], SHAPE_DF)
        shapes = mean[:, None] + np.einsum("tij,sj->tsi", chol, z)
        last = i == len(proposals) - 1
        taus = tau.tau if last else tau.best
        found, mode, cov = _at_shapes(p, curve, shapes, consts, taus, prior, fine=last)
        log_q = -0.5 * (SHAPE_DF + d) * np.log1p((z**2).sum(1) / SHAPE_DF)[None, :, None]
        total = logsumexp(found - log_q, axis=2)
        weight = np.exp(total - total.max(1, keepdims=True))
    return Lattice(shapes, np.zeros_like(step), tau.tau, tau.step, found, found - log_q, mode, cov, ())


def draws(
    p: Problem,
    curve: Curve,
    coarse: tuple[Floats, Floats],
    shape_post: Floats,
    tau_post: Floats,
    grid: Floats,
    prior: Prior,
    *,
    n: int,
    seed: int,
    degree: int = 6,
    quick: bool = False,
    smaller: bool = False,
) -> Draws:
    """Posterior draws of the features' curve parameters.

    Parameters
    ----------
    coarse
        Shapes ``(S, n_shape)`` and constants ``(S, 2)`` of the coarse lattice.
    shape_post, tau_post
        ``(T, S)`` log posterior of the shapes on it and ``(T, K)`` of the grid of tau, up to a constant per feature.
    grid
        ``(K,)`` sd of the guide effects on the coarse lattice.
    quick
        Coarser lattices: for features that are not called.
    smaller
        Lattices of fewer shapes and taus: for the called ones of a screen, with few draws.
    """
    shapes0, consts0 = coarse
    n_t = len(p.counts)
    few = quick or smaller
    points = QUICK_TAU_POINTS if (few and p.shared is None) or curve.n_shape > 2 else TAU_POINTS
    tau = tau_grid(tau_post, grid, points)
    s_post = shape_post
    best = s_post.argmax(1)
    consts = consts0[best] if len(consts0) > 1 else np.repeat(consts0, n_t, 0)
    shapes = np.repeat(shapes0[None], n_t, 0)
    step = np.repeat(steps(shapes0)[None], n_t, 0)
    s_post = np.where((consts0[None] == consts[:, None]).all(-1), s_post, -np.inf)
    stages = (QUICK_SIZES if quick else SMALLER_SIZES if smaller else LATTICE_SIZES)[curve.n_shape]
    on_lattice = curve.n_shape <= 2
    for i, sizes in enumerate(stages):
        shapes, step = local_lattices(shapes, s_post, step, sizes)
        if i < len(stages) - 1 or not on_lattice:
            s_post = _at_shapes(p, curve, shapes, consts, tau.best, prior, fine=False)[0][..., 0]
    if on_lattice:
        log_z, mode, cov = _at_shapes(p, curve, shapes, consts, tau.tau, prior, fine=True, degree=degree)
        size = stages[-1] if stages else ()
        lattice = Lattice(shapes, step, tau.tau, tau.step, log_z, log_z, mode, cov, size)
    else:
        proposals = QUICK_PROPOSALS if quick else PROPOSALS
        lattice = _adapt(p, curve, shapes, s_post, step, consts, tau, prior, seed, proposals)
    return importance.sample(p, curve, lattice, consts, prior, n=n, seed=seed, degree=degree)
