"""Draws from the nested Laplace approximation, weighted to the density that it approximates.

A draw's weight is its density, guide effects integrated by quadrature, over that of the proposal: a cell of the
lattice of shapes and taus by its Laplace evidence, tilted within the cell, then a Student t for the rest. Smoothed
weights give `pareto_k`; where it is above 0.7 the proposal is replaced by kernels around the draws, until it is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logsumexp, ndtri

from dream_sc._core.curves import chosen, place
from dream_sc._core.curves._base import shape_log_weight
from dream_sc._core.laplace import quadrature
from dream_sc._core.laplace.kernel_density import log_kernels
from dream_sc._core.stats.pareto import smooth
from dream_sc._core.stats.sobol import sobol_points, student_scale

from . import guide_sets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.priors import TransPriors

    from .learned import Prior
    from .problem import Problem

    Floats = NDArray[np.float64]

DF, DF_OF_DRAWN = 8.0, 4.0  # of the Student t given the shape, on a lattice or drawn
# most change of the log density across a cell. Of 441 called features of three simulated screens 17 % have weights with
# a Pareto k above 0.7 without tilts, 8 % with them
MOST_TILT = 8.0
MOST_K = 0.7
ROUNDS, CENTRES, KERNEL_DF = 8, 200, 5.0
FLAT = 1e-6  # tilt of a cell, below which it has none
HALVINGS = 30  # of the powers between which one is looked for
# one draw of so many is from cells without a tilt: the density is not as smooth as the tilts where guides at one dosage
# leave the shape open
EVERY = 4
LEAST_COUNT = 0.2  # effective share of the draws that kernels are put around
NODES = np.polynomial.hermite_e.hermegauss(9)


class Lattice(NamedTuple):
    """Laplace approximation at shapes and taus of each feature."""

    shapes: Floats  # (T, S, d)
    step: Floats  # (T, d) spacing, 0 for points that are not on a lattice
    tau: Floats  # (T, K)
    tau_step: Floats  # (T,) of log tau
    log_z: Floats  # (T, S, K) log posterior density
    log_weight: Floats  # (T, S, K) log mass: the same on a lattice
    mode: Floats  # (T, S, K, n)
    cov: Floats  # (T, S, K, n, n)
    size: tuple[int, ...]  # points per axis of the lattice of shapes

    def one(self, t: int) -> Lattice:
        """That of one feature."""
        shapes, step, tau, tau_step, log_z, log_weight, mode, cov = (values[t : t + 1] for values in self[:-1])
        return Lattice(shapes, step, tau, tau_step, log_z, log_weight, mode, cov, self.size)


class Draws(NamedTuple):
    """Posterior draws of a block of features."""

    params: Floats  # (T, N, P)
    consts: Floats  # (T, 2)
    tau: Floats  # (T,) posterior mean
    pareto_k: Floats  # (T,)
    improved: NDArray[np.bool_]  # (T,) whether the proposal had to be replaced


class Weighted(NamedTuple):
    """Draws of one feature with their weights."""

    x: Floats  # (N, D)
    weight: Floats  # (N,)
    pareto_k: float


class Points(NamedTuple):
    """Points of one block in the space of the full density."""

    theta: Floats  # (T, N, n)
    shapes: Floats  # (T, N, d)
    log_tau: Floats  # (T, N)


def log_shape_prior(curve: Curve, shapes: Floats, priors: TransPriors) -> Floats:
    """Log prior density of shapes, up to a constant."""
    out = shape_log_weight(shapes, priors)
    if curve.n_shape == 4:
        out = np.where(shapes[..., 0] < shapes[..., 2], out, -np.inf)
    return out


def log_target(p: Problem, curve: Curve, points: Points, consts: Floats, prior: Prior, n_amp: int) -> Floats:
    """Log density ``(T, N)`` of points, up to a constant per feature."""
    if p.shared is not None and len(p.counts) > 1:  # whose anchors are large
        every = (Points(*(x[t : t + 1] for x in points)) for t in range(len(p.counts)))
        parts = [log_target(p.take([t]), curve, x, consts[t : t + 1], prior, n_amp) for t, x in enumerate(every)]
        return np.concatenate(parts)
    tau = np.exp(points.log_tau)
    out = np.zeros(tau.shape)
    anchor, p = p.anchor(tau), p.in_kernel().seen_by(curve)
    chosen.ready(place(curve))
    quadrature.log_marginal(
        place(curve),
        n_amp,
        p.counts,
        p.weights,
        p.overdispersion,
        p.offset,
        anchor,
        p.design,
        np.ascontiguousarray(points.theta),
        guide_sets.of_kernel(p, tau),
        np.ascontiguousarray(points.shapes),
        np.ascontiguousarray(consts),
        NODES[0],
        NODES[1] / NODES[1].sum(),
        out,
    )
    out += log_shape_prior(curve, points.shapes, p.priors) + prior.log_density(tau)
    if curve.factor is not None and p.several:
        at = (np.ascontiguousarray(values) for values in (points.theta, points.shapes, consts))
        curve.factor.add_each(out, *at, p.axis, p.priors)
    return np.where(np.isfinite(out), out, -np.inf)


def slopes_of(lattice: Lattice) -> list[Floats]:
    """Derivatives ``(T, S, K, n)`` of the modes along each axis of the lattice, tau last; 0 next to failed points."""
    n_t, n_s, n_k, n = lattice.mode.shape
    grid = lattice.mode.reshape(n_t, *lattice.size, n_k, n)
    failed = np.where(np.isfinite(lattice.log_z), 0.0, 1.0).reshape(n_t, *lattice.size, n_k)
    out: list[Floats] = []
    for axis, step in enumerate([*lattice.step.T, lattice.tau_step], 1):
        if grid.shape[axis] < 2:
            out.append(np.zeros(lattice.mode.shape))
            continue
        near = (failed > 0) | (np.gradient(failed, axis=axis) != 0) if failed.any() else failed > 0
        wide = np.where(step == 0, np.inf, step).reshape(-1, *(1,) * (grid.ndim - 1))
        slope: Floats = np.gradient(grid, axis=axis) / wide
        slope[near] = 0.0
        out.append(slope.reshape(n_t, n_s, n_k, n))
    return out


def tilts_of(lattice: Lattice) -> Floats:
    """Changes ``(T, A, S K)`` of the log density across each cell, along the axes of the lattice, tau last.

    0 next to failed points, and where shapes are not on a lattice.
    """
    n_t, n_s, n_k = lattice.log_z.shape
    d = lattice.shapes.shape[-1]
    out = np.zeros((n_t, d + 1, n_s * n_k))
    if d and not lattice.size:
        return out
    log_z = lattice.log_z.reshape(n_t, *lattice.size, n_k)
    for axis in range(d + 1):
        if log_z.shape[1 + axis] > 1:
            with np.errstate(invalid="ignore"):
                change = np.gradient(log_z, axis=1 + axis)
            change[~np.isfinite(change)] = 0.0
            out[:, axis] = np.clip(change, -MOST_TILT, MOST_TILT).reshape(n_t, -1)
    return out


def in_cell(tilt: Floats, u: Floats) -> Floats:
    """Places from -0.5 to 0.5 with a log density that changes by `tilt` from end to end, for uniform numbers `u`."""
    flat = np.abs(tilt) < FLAT
    some = np.where(flat, 1.0, tilt)
    return np.where(flat, u - 0.5, np.log1p(u * np.expm1(some)) / some - 0.5)


def log_mass(tilt: Floats) -> Floats:
    """Log of the mean density of a cell over that in its middle, where its log changes by `tilt` from end to end."""
    some = np.maximum(np.abs(tilt), FLAT)
    return np.asarray(np.log(2.0 * np.sinh(0.5 * some) / some))


def _in_cells(log_weight: Floats, tilt: Floats, u: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Cells ``(N,)``, places in them ``(A, N)``, and log density of the places within a cell, up to a constant.

    A part of the draws keeps to cells without a tilt, so that no weight is far above what it is without one.
    """
    n, tilted_weight = u.shape[1], log_weight + log_mass(tilt).sum(0)
    plain = np.arange(n) % EVERY == 0
    index = np.zeros(n, dtype=np.int64)
    for some, weight in ((plain, log_weight), (~plain, tilted_weight)):
        index[some] = pick(np.exp(weight - weight.max()), int(some.sum()))
    own = tilt[:, index]
    at = in_cell(np.where(plain, 0.0, own), u)
    shares = np.array([plain.mean(), 1.0 - plain.mean()])
    parts = np.stack([np.zeros(n) - logsumexp(log_weight), (own * at).sum(0) - logsumexp(tilted_weight)])
    return index, at, np.asarray(logsumexp(parts, axis=0, b=shares[:, None]))


def _propose(lattice: Lattice, n: int, seed: int, n_shared: int) -> tuple[Points, Floats]:
    """Points of every feature and the log density of the proposal.

    The last `n_shared` coordinates are effects of guides with an sd of tau, so that where and how wide they are goes
    with it.
    """
    n_t, _, n_k = lattice.log_z.shape
    dim, d = lattice.mode.shape[-1], lattice.shapes.shape[-1]
    sobol = sobol_points(3 + d + dim, n, seed)
    sobol = sobol[np.argsort(sobol[:, 0], kind="stable")]
    df = DF if lattice.size or d == 0 else DF_OF_DRAWN
    stretch = student_scale(sobol[:, 1], df)
    z = ndtri(sobol[:, 3 + d :])
    u = sobol[:, [*range(3, 3 + d), 2]].T  # of the cell's axes
    theta, shapes = np.zeros((n_t, n, dim)), np.zeros((n_t, n, d))
    log_tau, log_q = np.zeros((n_t, n)), np.zeros((n_t, n))
    slopes, tilts = slopes_of(lattice) if lattice.size or d == 0 else [], tilts_of(lattice)
    for t in range(n_t):
        index, at, log_place = _in_cells(lattice.log_weight[t].ravel(), tilts[t], u)
        s, k = index // n_k, index % n_k
        moves = [*(at[i] * lattice.step[t, i] for i in range(d)), at[d] * lattice.tau_step[t]]
        centre = lattice.mode[t][s, k]
        for move, slope in zip(moves[: d if n_shared else None], slopes, strict=False):
            centre = centre + move[:, None] * slope[t, s, k]
        if n_shared:
            centre, cov = _at_other_tau(centre, lattice.cov[t][s, k], lattice.tau[t][k], moves[-1], n_shared)
            chol = np.linalg.cholesky(cov + 1e-14 * np.eye(dim))
        else:
            chol = np.linalg.cholesky(lattice.cov[t] + 1e-14 * np.eye(dim))[s, k]
        theta[t] = centre + stretch[:, None] * np.einsum("nij,nj->ni", chol, z)
        shapes[t] = lattice.shapes[t][s] + np.stack(moves[:-1], 1) if d else 0.0
        log_tau[t] = np.log(lattice.tau[t])[k] + moves[-1]
        log_det = np.log(np.einsum("nii->ni", chol)).sum(1)
        square = (z**2).sum(1) * stretch**2
        log_q[t] = lattice.log_z[t][s, k] + log_place - log_det
        log_q[t] -= 0.5 * (df + dim) * np.log1p(square / df)
    return Points(theta, shapes, log_tau), log_q


def _at_other_tau(mode: Floats, cov: Floats, tau: Floats, move: Floats, n: int) -> tuple[Floats, Floats]:
    """Modes ``(N, D)`` and covariances of normal densities, the last `n` of whose priors get sds moved in log."""
    more = np.zeros(mode.shape)
    more[:, -n:] = ((np.exp(-2.0 * move) - 1.0) * tau**-2.0)[:, None]
    # of cov^-1 + diag(more), without an inverse of cov
    inverse = np.linalg.inv(np.eye(mode.shape[1]) + cov * more[:, None, :])
    moved = np.einsum("nij,nj->ni", inverse, mode)
    out = np.einsum("nij,njk->nik", inverse, cov)
    return moved, 0.5 * (out + np.swapaxes(out, 1, 2))


def sample(
    p: Problem, curve: Curve, lattice: Lattice, consts: Floats, prior: Prior, *, n: int, seed: int, degree: int
) -> Draws:
    """`n` draws of equal weight for each feature."""
    n_amp = curve.n_free(degree)
    points, log_q = _propose(lattice, n, seed, 0 if p.shared is None else p.shared.shape[1])
    log_w = log_target(p, curve, points, consts, prior, n_amp) - log_q
    found = [smooth(w) for w in log_w]
    weight, k = np.stack([w for w, _ in found]), np.array([k for _, k in found])
    if not lattice.size and curve.n_shape:
        # shapes that are drawn, not on a lattice, have weights of their own
        mass = logsumexp(lattice.log_weight, axis=2)
        k = np.maximum(k, [smooth(m)[1] for m in mass])
    improved = k > MOST_K
    every = np.concatenate([points.theta[..., : 1 + n_amp], points.shapes, points.log_tau[..., None]], -1)
    every = resample(every, weight)
    for t in np.flatnonzero(improved):
        full = np.concatenate([points.theta[t], points.shapes[t], points.log_tau[t][:, None]], 1)
        first = Weighted(full, weight[t], k[t])
        better, k[t] = _improve(p.take([t]), curve, first, consts[t : t + 1], prior, n_amp, seed)
        keep = [*range(1 + n_amp), *range(points.theta.shape[2], better.shape[1])]
        every[t] = better[:, keep]
    return Draws(every[..., :-1], consts, np.exp(every[..., -1]).mean(1), k, improved)


def _improve(
    p: Problem, curve: Curve, first: Weighted, consts: Floats, prior: Prior, n_amp: int, seed: int
) -> tuple[Floats, float]:
    """Population Monte Carlo :cite:p:`Cappe2004`: kernels around the weighted draws of one feature as the proposal.

    Returns draws ``(N, D)`` of equal weight, and their Pareto k, of the best round: the first draws where no round does
    better, as with many parameters.
    """
    x, weight, best_k = first
    n, dim = x.shape
    d = curve.n_shape
    best = x[pick(weight, n)]
    for i in range(ROUNDS):
        rng = np.random.default_rng([seed, i])
        more = 1 if i < ROUNDS // 2 else 3  # points and kernels where the first rounds did not do
        n_new, n_c = n * more, CENTRES * more
        guide = tempered(weight, LEAST_COUNT)
        mean = guide @ x
        cov = np.einsum("n,ni,nj->ij", guide, x - mean, x - mean) + 1e-8 * np.eye(dim)
        h = (4.0 / (n_c * (dim + 2))) ** (1.0 / (dim + 4))
        chol = np.linalg.cholesky(cov) * h
        centres = x[pick(guide, n_c)]
        z = rng.normal(size=(n_new, dim)) * np.sqrt(KERNEL_DF / rng.chisquare(KERNEL_DF, n_new))[:, None]
        x = centres[np.arange(n_new) % n_c] + z @ chol.T
        log_q = log_kernels(*(np.ascontiguousarray(np.linalg.solve(chol, a.T)) for a in (x, centres)), KERNEL_DF)
        points = Points(x[None, :, : dim - d - 1], x[None, :, dim - d - 1 : -1], x[None, :, -1])
        log_w = log_target(p, curve, points, consts, prior, n_amp)[0] - log_q
        weight, k = smooth(log_w)
        if k < best_k:
            best, best_k = x[pick(weight, n)], k
        if k <= MOST_K:
            break
    return best, best_k


def tempered(weight: Floats, least: float) -> Floats:
    """Weights ``(..., N)`` raised to the power, at most 1, at which an effective share of `least` of them counts.

    Few large ones would make a proposal collapse. The power follows the weights without jumps.
    """
    log_weight = np.log(np.maximum(weight, 1e-300))
    log_weight -= log_weight.max(-1, keepdims=True)

    def raised(power: Floats) -> Floats:
        out = np.exp(power * log_weight)
        return np.asarray(out / out.sum(-1, keepdims=True))

    def enough(power: Floats) -> NDArray[np.bool_]:
        return np.asarray(1.0 / (raised(power) ** 2).sum(-1, keepdims=True) >= least * weight.shape[-1])

    low, high = np.zeros((*weight.shape[:-1], 1)), np.ones((*weight.shape[:-1], 1))
    low = np.where(enough(high), high, low)
    for _ in range(HALVINGS):
        if (low == high).all():
            break
        middle = 0.5 * (low + high)
        keeps = enough(middle)
        low, high = np.where(keeps, middle, low), np.where(keeps, high, middle)
    return raised(low)


def pick(weight: Floats, n: int) -> NDArray[np.int64]:
    """Indices of `n` draws of equal weight, systematically."""
    cdf = np.cumsum(weight)
    return np.minimum(np.searchsorted(cdf / cdf[-1], (np.arange(n) + 0.5) / n), len(weight) - 1)


def resample(every: Floats, weight: Floats) -> Floats:
    """Draws ``(T, N, D)`` taken again by weight."""
    which = np.stack([pick(w, weight.shape[1]) for w in weight])
    return np.take_along_axis(every, which[:, :, None], 1)
