"""The trans step by nested Laplace: posterior draws of the curves.

Shapes of one Hill lie on lattices that zoom onto the mass; those of two Hills, in four dimensions, are drawn by
adaptive importance sampling. Given the shape, level and amplitudes are Gaussian.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm, qmc

from dream_sc._core.dose_response.additive_hill import N_TURN, turn_weight

from .trans import SCREEN_TOL, evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.dose_response import Curve
    from dream_sc._core.priors import TransPriors

    from .trans import Problem

    Floats = NDArray[np.float64]

FINE_TOL = 1e-5
BOX_DROP = 6.0  # a local lattice covers what is within e^-6 of the mode
# points per axis of the local lattices, by number of shape parameters
LATTICE_SIZES: dict[int, tuple[tuple[int, ...], ...]] = {2: ((10, 8), (16, 10)), 4: ((5, 4, 5, 4),)}
PROPOSALS = (400, 400, 1000)  # points of each round of importance sampling
FOLLOW_STEPS, EPS = 3, 1e-4  # Gauss-Newton steps and differences of amplitudes that follow a shape
INFLATE = 1.3  # of the proposal's sd over the weighted points'


def _local_lattice(
    shapes: Floats, log_post: Floats, step: Floats, sizes: tuple[int, ...]
) -> tuple[Floats, Floats]:
    """A finer lattice over the box of the points near the mode; returns it with its spacing."""
    near = shapes[log_post > log_post.max() - BOX_DROP]
    low, high = near.min(0) - step, near.max(0) + step
    axes = [np.linspace(low[d], high[d], sizes[d]) for d in range(len(sizes))]
    new_step = np.array([(high[d] - low[d]) / (sizes[d] - 1) for d in range(len(sizes))])
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(sizes)), new_step


def _log_shape_prior(curve: Curve, shapes: Floats, priors: TransPriors) -> Floats:
    out = np.zeros(shapes.shape[:-1])
    for d in range(0, curve.n_shape, 2):
        out -= 0.5 * (shapes[..., d] / priors.ec50_sd) ** 2
        out -= 0.5 * ((shapes[..., d + 1] - priors.n_log_mean) / priors.n_log_sd) ** 2
    if curve.n_shape == 4:
        out = np.where(shapes[..., 0] < shapes[..., 2], out, -np.inf)
    return out


def _steps(shapes: Floats) -> Floats:
    return np.array(
        [
            np.diff(np.unique(shapes[:, d])).min() if len(np.unique(shapes[:, d])) > 1 else 0.1
            for d in range(shapes.shape[1])
        ]
    )


def _at_shapes(
    p: Problem, curve: Curve, shapes: Floats, consts: Floats, tau: tuple[Floats, Floats], *, fine: bool
) -> tuple[Floats, Floats, Floats]:
    """Log posterior of shapes ``(T, S, d)`` by tau; a fine run takes all taus and gives modes, too.

    The draws of a fine run are weighted by their turn one by one, so it leaves the turn out.
    """
    c = np.repeat(consts[:, None], shapes.shape[1], 1)
    use, tol = (tau[0], FINE_TOL) if fine else (tau[0][:, :1], SCREEN_TOL)
    log_z, mode, cov = evidence(
        replace(p, turn=p.turn and not fine), curve, shapes, c, use, modes=fine, tol=tol
    )
    log_z = log_z + _log_shape_prior(curve, shapes, p.priors)[:, :, None]
    return (log_z + tau[1][:, None, :] if fine else log_z), mode, cov


def _importance(
    p: Problem, curve: Curve, shapes: Floats, log_post: Floats, step: Floats, consts: Floats,
    tau: tuple[Floats, Floats], seed: int,
) -> tuple[Floats, Floats, Floats, Floats]:  # fmt: skip
    """Shapes drawn from a normal proposal that adapts twice; their log weights take the place of the evidence.

    The same Sobol points serve every feature, so that a feature does not depend on its block.
    """
    d = shapes.shape[-1]
    weight = np.exp(log_post - log_post.max(1, keepdims=True))
    floor = step**2 / 12  # a lattice point stands for its cell
    log_z = mode = cov = np.zeros(0)
    for i, n in enumerate(PROPOSALS):
        weight = weight / weight.sum(1, keepdims=True)
        mean = np.einsum("ts,tsi->ti", weight, shapes)
        diff = shapes - mean[:, None]
        spread = np.einsum("ts,tsi,tsj->tij", weight, diff, diff)
        spread[:, np.arange(d), np.arange(d)] += floor + 1e-6
        floor = 0.02 * np.einsum("tii->ti", spread)
        chol = np.linalg.cholesky(spread) * INFLATE
        sobol = qmc.Sobol(d, seed=np.random.default_rng([seed, i])).random(1 << int(np.ceil(np.log2(n))))[:n]
        z = norm.ppf(np.clip(sobol, 1e-9, 1 - 1e-9))
        shapes = mean[:, None] + np.einsum("tij,sj->tsi", chol, z)
        last = i == len(PROPOSALS) - 1
        log_z, mode, cov = _at_shapes(p, curve, shapes, consts, tau, fine=last)
        log_z = log_z + 0.5 * (z**2).sum(1)[None, :, None]
        total = logsumexp(log_z, axis=2)
        weight = np.exp(total - total.max(1, keepdims=True))
    return shapes, log_z, mode, cov


def draws(
    p: Problem,
    curve: Curve,
    coarse: tuple[Floats, Floats],
    log_post: Floats,
    tau: tuple[Floats, Floats],
    *,
    n: int,
    seed: int,
    degree: int = 6,
) -> tuple[Floats, Floats, Floats]:
    """Posterior draws of the features' curve parameters on local lattices.

    Parameters
    ----------
    coarse
        Shapes ``(S, n_shape)`` and constants ``(S, 2)`` of the coarse lattice.
    log_post
        ``(T, S, K)`` log posterior on it, up to a constant per feature.
    tau
        Grid of the guide sd ``(K,)`` and the log of its prior weights ``(K,)``.

    Returns
    -------
    draws ``(T, n, P)``, constants ``(T, 2)``, posterior mean of tau ``(T,)``
    """
    shapes0, consts0 = coarse
    n_t = len(p.counts)
    tau_post = logsumexp(log_post, axis=1)
    tau_post = np.exp(tau_post - tau_post.max(1, keepdims=True))
    tau_post /= tau_post.sum(1, keepdims=True)
    few = np.argsort(-tau_post, axis=1, kind="stable")[:, :3]
    kept = np.take_along_axis(tau_post, few, 1)
    tau_use = np.where(kept > 5e-3, tau[0][few], -1.0)
    s_post = logsumexp(log_post, axis=2)
    best = s_post.argmax(1)
    consts = consts0[best] if len(consts0) > 1 else np.repeat(consts0, n_t, 0)
    shapes = np.repeat(shapes0[None], n_t, 0)
    step = np.repeat(_steps(shapes0)[None], n_t, 0)
    log_tau_w = tau[1][few]
    lattice = curve.n_shape <= 2
    if curve.n_shape:
        same = (consts0[None] == consts[:, None]).all(-1)
        s_post = np.where(same, s_post, -np.inf)
        stages = LATTICE_SIZES[curve.n_shape]
        for stage, sizes in enumerate(stages):
            local = [_local_lattice(shapes[t], s_post[t], step[t], sizes) for t in range(n_t)]
            shapes = np.stack([x for x, _ in local])
            step = np.stack([x for _, x in local])
            last = lattice and stage == len(stages) - 1
            log_z, mode, cov = _at_shapes(p, curve, shapes, consts, (tau_use, log_tau_w), fine=last)
            s_post = logsumexp(log_z, axis=2)
        if not lattice:
            shapes, log_z, mode, cov = _importance(
                p, curve, shapes, s_post, step, consts, (tau_use, log_tau_w), seed
            )
            step = np.zeros_like(step)
    else:
        c = np.repeat(consts[:, None], 1, 1)
        log_z, mode, cov = evidence(p, curve, shapes, c, tau_use, modes=True, tol=FINE_TOL, degree=degree)
        log_z = log_z + log_tau_w[:, None, :]
    tau_mean = (tau_post * tau[0]).sum(1)
    return _sample(curve, shapes, step, log_z, mode, cov, p, consts, n, seed), consts, tau_mean


def _sample(
    curve: Curve,
    shapes: Floats,
    step: Floats,
    log_z: Floats,
    mode: Floats,
    cov: Floats,
    p: Problem,
    consts: Floats,
    n: int,
    seed: int,
) -> Floats:
    """Stratified draws: lattice points by systematic resampling, amplitudes Gaussian given the point."""
    n_t, n_s, n_k = log_z.shape
    n_amp1, d = mode.shape[-1], shapes.shape[-1]
    sobol = qmc.Sobol(1 + d + n_amp1, seed=seed).random(1 << int(np.ceil(np.log2(n))))[:n]
    flat = log_z.reshape(n_t, -1)
    w = np.exp(flat - flat.max(1, keepdims=True))
    cdf = np.cumsum(w, 1)
    cdf /= cdf[:, -1:]
    order = np.argsort(sobol[:, 0], kind="stable")
    u0 = (np.arange(n) + 0.5) / n
    out = np.zeros((n_t, n, n_amp1 + d))
    z = norm.ppf(np.clip(sobol[order, 1 + d :], 1e-9, 1 - 1e-9))
    for t in range(n_t):
        index = np.minimum(np.searchsorted(cdf[t], u0), n_s * n_k - 1)
        s, k = index // n_k, index % n_k
        points = shapes[t][s]
        chol = np.linalg.cholesky(cov[t] + 1e-14 * np.eye(n_amp1))
        amp = mode[t][s, k] + np.einsum("nij,nj->ni", chol[s, k], z)
        if d and step[t].any():
            jitter = (sobol[order, 1 : 1 + d] - 0.5) * step[t]
            centre, var = points.mean(0), points.var(0)
            shrink = np.sqrt(var / (var + step[t] ** 2 / 12))
            move = (1 - shrink) * (centre - points) + shrink * jitter
            amp, points = _off_lattice(curve, consts[t], np.append(p.axis.guides, 0.0), amp, points, move)
        out[t] = np.concatenate([amp, points], 1)
    if curve.name == "single_hill":
        out = _reweight_moment(out, p)
    if curve.name == "additive_hill" and p.turn:
        x = np.linspace(p.axis.low, p.axis.high, N_TURN)
        weight = turn_weight(x, curve.log_curve(x, out, consts[:, None]), p.priors.turn_scale)
        out = _resample(out, np.maximum(weight, 1e-12), weight)
    return out


def _off_lattice(
    curve: Curve, const: Floats, x: Floats, amp: Floats, points: Floats, move: Floats
) -> tuple[Floats, Floats]:
    """Move the shapes of draws off their lattice points while the amplitudes keep the curve at the dosages `x`.

    The amplitudes follow by least squares. A draw moves as far as its curve stays within one posterior sd: beyond the
    guides amplitude and EC50 lie on a ridge, off which the curve explodes.
    """

    def at(a: Floats, shape: Floats) -> Floats:
        return curve.log_curve(x, np.concatenate([a, shape], 1)[None], const[None, None])[0]

    here = at(amp, points)
    sd = here.std(0) + 1e-6
    new_amp, new_points, unit = amp.copy(), points.copy(), np.eye(amp.shape[1])
    left = np.arange(len(amp))
    for fraction in (1.0, 0.5, 0.25):
        a, shape = amp[left].copy(), points[left] + fraction * move[left]
        for _ in range(FOLLOW_STEPS):
            base = at(a, shape)
            # the level adds to the log curve
            slopes = [np.ones_like(base), *((at(a + EPS * u, shape) - base) / EPS for u in unit[1:])]
            jac = np.stack(slopes, -1) / sd[:, None]
            gram = np.einsum("sxi,sxj->sij", jac, jac) + 1e-3 * unit
            gap = np.einsum("sxi,sx->si", jac, (here[left] - base) / sd)
            a = a + np.clip(np.linalg.solve(gram, gap[..., None])[..., 0], -2, 2)
        ok = (np.abs(at(a, shape) - here[left]) <= sd).all(1)
        new_amp[left[ok]], new_points[left[ok]] = a[ok], shape[ok]
        left = left[~ok]
        if not len(left):
            break
    return new_amp, new_points


def _reweight_moment(out: Floats, p: Problem) -> Floats:
    """Resample each feature's draws in proportion to D^2, the factor that the Gaussian part leaves out."""
    from dream_sc._core.dose_response import curve as get

    ends = get("single_hill").log_curve(np.array([p.axis.low, p.axis.high]), out, None)
    movement = ends[..., 1] - ends[..., 0]
    return _resample(out, movement**2, movement)


def _resample(out: Floats, weight: Floats, key: Floats) -> Floats:
    """Draws ``(T, S, P)`` taken again by weight, systematically in the order of `key`."""
    n = out.shape[1]
    order = np.argsort(key, axis=1, kind="stable")
    cdf = np.cumsum(np.take_along_axis(weight, order, 1), 1)
    cdf /= cdf[:, -1:]
    u0 = (np.arange(n) + 0.5) / n
    pick = np.stack([np.minimum(np.searchsorted(c, u0), n - 1) for c in cdf])
    pick = np.take_along_axis(order, pick, 1)
    return np.take_along_axis(out, pick[:, :, None], 1)
