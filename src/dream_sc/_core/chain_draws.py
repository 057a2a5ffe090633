"""Posterior draws of features with categories: one shape for all sticks of a draw, and what it makes of the usage.

Shapes are drawn from a local lattice by their joint posterior; given the shape, sticks move or not, each with a Laplace
approximation of its own. Importance weights, those of all moving sticks together, then correct the draws.

Where the shares of categories move along a line by one Hill, the odds of each stick do by a Hill of the same steepness
whose EC50 depends on how much the sticks before it move: to the power of the Hill coefficient, it is that of the stick
before times the ratio of ``1 - q`` at the two ends, `q` being the share of the stick. These lags are taken from the
modes at the likeliest shape.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit, gammaln, log_softmax, logsumexp
from scipy.stats import chi2

from .chains import ChainEvidence, Chains, together
from .dose_response import LN2, curve
from .engines import laplace
from .engines.laplace import importance
from .engines.laplace.draws import TAU_POINTS, local_lattice, steps, tau_grid
from .engines.laplace.trans import SCREEN_TOL, n_amplitudes
from .pareto import smooth
from .summary import from_ntc_to_low

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .calls import Prior
    from .dose_response import Curve
    from .trans import Options
    from .types import Axis

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

SIZES: dict[int, tuple[tuple[int, ...], ...]] = {0: ((),), 2: ((9, 7), (10, 7)), 4: ((5, 4, 5, 4),)}
QUICK_SIZES: dict[int, tuple[tuple[int, ...], ...]] = {0: ((),), 2: ((7, 4),), 4: ((4, 3, 4, 3),)}
FINE_TOL = 1e-4  # the joint weights of sticks rest on the evidence of each
HOPELESS = 300.0  # log evidence below that of no movement where the approximation failed
LARGEST_LAG = 6.0  # log2
CANDIDATES, QUICK_CANDIDATES = 8, 2  # for a stick at a shape
DRAWS_PER_SHAPE, QUICK_DRAWS = 4, 128  # of features that are called, and draws of others, one for each shape


class _Local(NamedTuple):
    """Sticks on the local lattice of their features."""

    sticks: importance.Lattice  # `log_z` with tau's prior, without that of the shapes, amplitudes normalised
    consts: Floats  # (F, 2)
    lag: Floats  # (T,) of each stick's EC50, log2, times the Hill coefficient
    null: Floats  # (T,) log evidence of no movement
    log_post: Floats  # (F, S) joint log posterior of the shapes
    size: tuple[int, ...]


def _log_mass(p: laplace.Problem, c: Curve, shapes: Floats, consts: Floats) -> Floats:
    """Log of the mass of the amplitudes that shapes ``(..., d)`` may have."""
    mass = np.broadcast_to(c.amplitude_mass(shapes, consts, p.axis, p.priors), shapes.shape[:-1])
    return np.asarray(np.log(np.maximum(mass, 1e-300)))


def lagged(shapes: Floats, lag: Floats) -> Floats:
    """Shapes ``(T, S, d)`` of the sticks, given those of their features."""
    if not lag.any():
        return shapes
    out = shapes.copy()
    out[..., 0] += lag[:, None] * np.exp(-shapes[..., 1])
    return out


def _on_lattice(
    p: laplace.Problem, c: Curve, chains: Chains, at: tuple[Floats, Floats, Floats], tau: tuple[Floats, Floats],
    lag: Floats, prior: Prior, size: tuple[int, ...], *, fine: bool, degree: int,
) -> _Local:  # fmt: skip
    """Evidence of the sticks of some features at shapes of their own."""
    shapes, step, consts = at
    mine = np.repeat(np.arange(len(shapes)), chains.length)
    of_sticks, by_shape = lagged(shapes[mine], lag), np.repeat(consts[mine][:, None], shapes.shape[1], 1)
    log_z, mode, cov = laplace.evidence(
        p, c, of_sticks, by_shape, tau[0], modes=fine, tol=FINE_TOL if fine else SCREEN_TOL, degree=degree
    )
    log_tau = prior.log_density(tau[0])
    log_z = log_z - _log_mass(p, c, of_sticks, by_shape)[:, :, None] + log_tau[:, None]
    null = logsumexp(laplace.null_evidence(p, tau[0])[0] + log_tau, axis=1)
    log_z = np.maximum(log_z, null[:, None, None] - HOPELESS)
    log_prior = importance.log_shape_prior(c, shapes, p.priors) + _log_mass(p, c, shapes, consts[:, None])
    joint = together(logsumexp(log_z, axis=2) - null[:, None], chains) + log_prior
    sticks = importance.Lattice(of_sticks, step[mine], *tau, log_z, log_z, mode, cov, size)
    return _Local(sticks, consts, lag, null, np.asarray(log_softmax(joint, axis=1)), size)


def _lags(
    p: laplace.Problem, chains: Chains, best: Floats, lag: Floats, tau: Floats, prior: Prior
) -> Floats:
    """Lags ``(T,)`` by the modes of one Hill at the likeliest shapes ``(F, 2)``, sticks by their odds of moving."""
    c, consts = curve("single_hill"), np.zeros((len(tau), 1, 2))
    mine = np.repeat(np.arange(len(best)), chains.length)
    shapes = lagged(best[mine][:, None], lag)
    log_z, mode, _ = laplace.evidence(p, c, shapes, consts, tau, modes=True)
    log_bf = log_z[:, 0, 0] - _log_mass(p, c, shapes, consts)[:, 0] - laplace.null_evidence(p, tau)[0][:, 0]
    a, b = mode[:, 0, 0, 0], mode[:, 0, 0, 1]
    low = a + from_ntc_to_low(b, shapes[:, 0, 0], np.exp(shapes[:, 0, 1]))
    ratio = expit(log_bf) * (np.logaddexp(0.0, low + b) - np.logaddexp(0.0, low)) / LN2
    out = np.zeros(len(tau))
    for first, length in zip(chains.start, chains.length, strict=True):
        out[first + 1 : first + length] = ratio[first + 1 : first + length].cumsum()
    return np.clip(out, -LARGEST_LAG, LARGEST_LAG)


def _localise(
    e: ChainEvidence, p: laplace.Problem, m: int, features: Ints, chains: Chains, values: Floats, *, quick: bool,
    degree: int,
) -> _Local:  # fmt: skip
    """A local lattice over the shapes that a feature's sticks agree on; `values` ``(T, M, K)`` are of the sticks."""
    c, prior, grid = e.comparison.curves[m], e.prior, e.comparison.grid
    lattice = e.comparison.lattices[c.name]
    both = np.logaddexp(values[:, 0], values[:, m]) + prior.log_tau(grid)
    tau = tau_grid(both, grid, TAU_POINTS)
    log_post = e.posterior(m, features)
    consts = lattice.consts[log_post.argmax(1)]
    log_post = np.where((lattice.consts[None] == consts[:, None]).all(-1), log_post, -np.inf)
    shapes = np.repeat(lattice.shapes[None], len(features), 0)
    step = np.repeat(steps(lattice.shapes)[None], len(features), 0)
    stages, lag = (QUICK_SIZES if quick else SIZES)[c.n_shape], np.zeros(len(tau.best))
    for i, size in enumerate(stages):
        if size:
            local = [local_lattice(shapes[f], log_post[f], step[f], size) for f in range(len(features))]
            if c.name == "single_hill" and chains.length.max() > 1:
                best = shapes[np.arange(len(features)), log_post.argmax(1)]
                lag = _lags(p, chains, best, lag, tau.best, prior)
            shapes, step = np.stack([x for x, _ in local]), np.stack([x for _, x in local])
        fine = i == len(stages) - 1
        taus = (tau.tau, tau.step) if fine and not quick else (tau.best, np.zeros(len(tau.best)))
        found = _on_lattice(p, c, chains, (shapes, step, consts), taus, lag, prior, size, fine=fine, degree=degree)
        log_post = found.log_post
    return found


class _Points(NamedTuple):
    """Candidates for the draws of sticks: `M` at each of the `N` shapes of their feature."""

    theta: Floats  # (T, N M, n)
    log_tau: Floats  # (T, N M)
    log_q: Floats  # (T, N M) of these two given the shape's cell
    log_square: Floats  # (T, N M) of the movement, expected by the proposal
    cell: Ints  # (F, N) of the shape
    shapes: Floats  # (F, N, d)


def _propose(x: _Local, chains: Chains, axis: Axis, n: int, each: int, seed: int) -> _Points:
    """`n` shapes by their joint posterior, `each` candidates for the rest by each stick's approximation there.

    Random numbers depend on a stick's place in its chain only, so that a feature does not depend on its block.
    """
    lattice, first = x.sticks, chains.start
    u = (np.arange(n) + 0.5) / n
    cdf = np.exp(x.log_post).cumsum(1)
    cell = np.stack([np.minimum(np.searchsorted(row / row[-1], u), len(row) - 1) for row in cdf])
    moves = (np.random.default_rng(seed).random((n, lattice.step.shape[1])) - 0.5) * lattice.step[first][:, None]
    shapes = np.take_along_axis(lattice.shapes[first], cell[:, :, None], 1) + moves
    squares = _log_squares(lattice, axis)
    found = [
        _of_stick(lattice, first[f] + place, squares[first[f] + place], cell[f], moves[f], each, [seed, place])
        for f, length in enumerate(chains.length)
        for place in range(length)
    ]
    theta, log_tau, log_q, log_square = (np.stack(part) for part in zip(*found, strict=True))
    return _Points(theta, log_tau, log_q, log_square, cell, shapes)


def _of_stick(
    lattice: importance.Lattice, t: int, squares: Floats, cell: Ints, moves: Floats, each: int, seed: list[int]
) -> tuple[Floats, Floats, Floats, Floats]:
    """Candidates of one stick: parameters, log tau, log density of the proposal, log of the expected square."""
    rng, dim = np.random.default_rng(seed), lattice.mode.shape[-1]
    cell, moves = np.repeat(cell, each), np.repeat(moves, each, axis=0)
    n = len(cell)
    share = np.exp(log_softmax(lattice.log_z[t], axis=1))[cell]
    k = np.minimum((share.cumsum(1) < rng.random((n, 1))).sum(1), share.shape[1] - 1)
    by_tau = (rng.random(n) - 0.5) * lattice.tau_step[t]
    centre = lattice.mode[t][cell, k]
    for move, slope in zip([*moves.T, by_tau], importance.slopes_of(lattice, t), strict=True):
        centre = centre + move[:, None] * slope[cell, k]
    z = rng.normal(size=(n, dim))
    stretch = np.sqrt(importance.DF / chi2.ppf(rng.random(n), importance.DF))
    chol = np.linalg.cholesky(lattice.cov[t] + 1e-14 * np.eye(dim))[cell, k]
    theta = centre + stretch[:, None] * np.einsum("nij,nj->ni", chol, z)
    width = np.log(lattice.tau_step[t]) if lattice.tau_step[t] > 0 else 0.0
    log_det = np.log(np.einsum("nii->ni", chol)).sum(1)
    log_q = lattice.log_z[t][cell, k] - width - log_det + _log_t((z**2).sum(1) * stretch**2, dim)
    return theta, np.log(lattice.tau[t])[k] + by_tau, log_q, squares[cell, k]


def _movement(b: Floats, shapes: Floats, axis: Axis) -> tuple[Floats, Floats]:
    """Movement of one Hill between the ends of the axis, and its derivative by the amplitude."""
    rate = LN2 * np.exp(shapes[..., 1])
    low, high = (rate * (end - shapes[..., 0]) for end in (axis.low, axis.high))
    sp = partial(np.logaddexp, 0.0)
    return sp(b + high) - sp(high) - sp(b + low) + sp(low), expit(b + high) - expit(b + low)


def _log_squares(lattice: importance.Lattice, axis: Axis) -> Floats:
    """Log of the expected square of the movement of one Hill ``(T, S, K)``, which its evidence has for a factor."""
    if lattice.shapes.shape[-1] != 2:
        return np.zeros(lattice.log_z.shape)
    d, d1 = _movement(lattice.mode[..., 1], lattice.shapes[:, :, None], axis)
    return np.asarray(np.log(np.maximum(d**2 + d1**2 * lattice.cov[..., 1, 1], 1e-300)))


def _log_t(square: Floats, dim: int) -> Floats:
    """Log density of a standard Student t of the proposals at points of this squared norm."""
    df = importance.DF
    const = gammaln(0.5 * (df + dim)) - gammaln(0.5 * df) - 0.5 * dim * np.log(df * np.pi)
    return np.asarray(const - 0.5 * (df + dim) * np.log1p(square / df))


class StickDraws(NamedTuple):
    """Joint draws of the sticks of a block of features."""

    params: Floats  # (T, N, 1 + A) level and amplitudes
    shapes: Floats  # (F, N, d)
    consts: Floats  # (F, 2)
    lag: Floats  # (T,) see `lagged`
    chains: Chains
    log_bf: Floats  # (T,) of each stick, over the shapes that the feature's sticks agree on
    tau: Floats  # (T,)
    pareto_k: Floats  # (F,)


def draw_sticks(e: ChainEvidence, m: int, features: Ints, options: Options, *, quick: bool) -> StickDraws:
    """Draws of curve `m` for a block of features; with less effort for those that are not called."""
    c = e.comparison.curves[m]
    which, chains = e.chains.sticks(features)
    p, n_amp = e.problem.take(which), n_amplitudes(c, options.degree)
    x = _localise(e, p, m, features, chains, e.found.values[which], quick=quick, degree=options.degree)
    n = min(options.nsamples, QUICK_DRAWS) if quick else options.nsamples
    n_shapes = n if quick else max(n // DRAWS_PER_SHAPE, 1)
    points = _propose(x, chains, p.axis, n_shapes, QUICK_CANDIDATES if quick else CANDIDATES, options.seed)
    mine = np.repeat(np.arange(len(features)), chains.length)
    log_bf = logsumexp(x.sticks.log_z, axis=2) - x.null[:, None]
    ratio, of_shape = _weights(p, c, x, chains, points, log_bf, e.prior, n_amp, options.seed)
    found = [smooth(w) for w in of_shape]
    pick = np.stack([importance.pick(w, n) for w, _ in found])
    chosen = _candidates(ratio, pick[mine], np.arange(len(mine)) - chains.start[mine], options.seed)
    return StickDraws(
        np.take_along_axis(points.theta[..., : 1 + n_amp], chosen[:, :, None], 1),
        np.take_along_axis(points.shapes, pick[:, :, None], 1), x.consts, x.lag, chains,
        logsumexp(log_bf + x.log_post[mine], axis=1), np.exp(points.log_tau).mean(1), np.array([k for _, k in found]),
    )  # fmt: skip


def _weights(
    p: laplace.Problem, c: Curve, x: _Local, chains: Chains, points: _Points, log_bf: Floats, prior: Prior,
    n_amp: int, seed: int,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Log importance weights of the sticks' candidates ``(T, N, M)`` at their shape, and of the shapes ``(F, N)``.

    A stick that does not move for sure may still move a little: its amplitude then has the normal prior that the moment
    prior is made from, without the square of the movement.
    """
    mine = np.repeat(np.arange(len(chains.start)), chains.length)
    n_each = points.theta.shape[1] // points.cell.shape[1]
    at = np.repeat(points.shapes[mine], n_each, axis=1)
    of_sticks = lagged(at, x.lag)
    full = importance.Points(points.theta, of_sticks, points.log_tau)
    log_f = importance.log_target(p, c, full, x.consts[mine], prior, n_amp)
    here, in_cell, own = (
        np.maximum(importance.log_shape_prior(c, shapes, p.priors), -HOPELESS)
        + _log_mass(p, c, shapes, consts[:, None])
        for shapes, consts in (
            (points.shapes, x.consts), (x.sticks.shapes[chains.start], x.consts), (of_sticks, x.consts[mine])
        )
    )  # fmt: skip
    ratio = log_f - own - points.log_q
    if c.n_shape == 2:
        at_cell = np.take_along_axis(log_bf, points.cell[mine], 1)
        still = ~_which_move(np.repeat(at_cell, n_each, axis=1), chains, seed)
        d = _movement(points.theta[..., 1], of_sticks, p.axis)[0]
        ratio -= np.where(still, 2.0 * np.log(np.maximum(np.abs(d), 1e-150)) - points.log_square, 0.0)
    ratio = np.where(np.isfinite(ratio), ratio, -HOPELESS).reshape(len(ratio), -1, n_each)
    of_stick = logsumexp(ratio, axis=2) - np.log(n_each)
    return ratio, chains.sum(of_stick) + here - np.take_along_axis(in_cell, points.cell, 1)


def _which_move(log_bf: Floats, chains: Chains, seed: int) -> NDArray[np.bool_]:
    """Which sticks move ``(T, N)``, at least one of each feature, given their log Bayes factors."""
    probability, still = expit(log_bf), np.log(expit(-log_bf))
    moves, n = np.zeros(log_bf.shape, dtype=bool), log_bf.shape[1]
    u = [np.random.default_rng([seed, 1, k]).random(n) for k in range(int(chains.length.max()))]
    for first, length in zip(chains.start, chains.length, strict=True):
        none = np.ones(n, dtype=bool)
        for k in range(length):
            some = -np.expm1(still[first + k : first + length].sum(0))  # that one of those left moves
            share = np.where(none, probability[first + k] / np.maximum(some, 1e-300), probability[first + k])
            moves[first + k] = (u[k] < share) | (none & (k == length - 1))
            none &= ~moves[first + k]
    return moves


def _candidates(ratio: Floats, pick: Ints, place: Ints, seed: int) -> Ints:
    """One candidate for each stick and draw ``(T, n)``, by weight, given the shapes of the draws ``(T, n)``."""
    n = pick.shape[1]
    u = np.stack([np.random.default_rng([seed, 2, k]).random(n) for k in range(int(place.max()) + 1)])[place]
    cdf = np.exp(log_softmax(ratio, axis=2)).cumsum(2)
    at = np.take_along_axis(cdf, pick[:, :, None], 1)
    n_each = ratio.shape[2]
    return np.asarray(pick * n_each + np.minimum((at < u[..., None]).sum(2), n_each - 1))
