"""The trans step by nested Laplace: evidence of each curve on a lattice of shapes, and posterior draws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm, qmc

from dream_sc._core.dose_response.additive_hill import N_TURN, turn_weight

from . import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.dose_response import Curve
    from dream_sc._core.priors import TransPriors
    from dream_sc._core.types import Axis, GuideStats, RowDosage

    Floats = NDArray[np.float64]

SCREEN_TOL = 1e-2
FINE_TOL = 1e-5
TURN_DROP = 14.0
BOX_DROP = 6.0  # a local lattice covers what is within e^-6 of the mode
# points per axis of the first and of the last local lattice, by number of shape parameters
LATTICE_SIZES: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    2: ((10, 8), (16, 10)),
    4: ((5, 4, 5, 4), (6, 4, 6, 4)),
}


@dataclass(frozen=True)
class Problem:
    """Counts and design with rows sorted by guide, ready for the kernel."""

    counts: Floats  # (T, R)
    log_w: Floats
    scale2: Floats  # W2 / W^2
    group: NDArray[np.int64]
    guide_start: NDArray[np.int64]
    dose: NDArray[np.int64]
    dose_mean: Floats
    dose_spread: Floats
    error: Floats
    overdispersion: Floats  # (T,)
    level: Floats  # (T,) log of the mean count
    alpha_sd: float
    axis: Axis
    priors: TransPriors
    turn: bool = False  # whether two Hills have to turn: see additive_hill.turn_weight

    def take(self, features: Any) -> Problem:
        """The same design for some of the features."""
        return replace(
            self,
            counts=self.counts[features],
            overdispersion=self.overdispersion[features],
            level=self.level[features],
        )


def problem(
    stats: GuideStats,
    dosage: RowDosage,
    overdispersion: Floats,
    *,
    alpha_sd: float,
    axis: Axis,
    priors: TransPriors,
) -> Problem:
    """Sort rows by guide and give rows of equal dosage one entry in the table of dosages."""
    order = np.lexsort((stats.group, dosage.mean, stats.guide))
    guide = stats.guide[order]
    present, start = np.unique(guide, return_index=True)
    pairs = np.stack([dosage.mean[order], dosage.spread[order]], 1)
    doses, dose = np.unique(pairs, axis=0, return_inverse=True)
    counts = np.ascontiguousarray(stats.counts[:, order], dtype=np.float64)
    w = stats.exposure[order]
    return Problem(
        counts=counts,
        log_w=np.log(w),
        scale2=stats.exposure2[order] / w**2,
        group=stats.group[order].astype(np.int64),
        guide_start=np.append(start, len(order)).astype(np.int64),
        dose=dose.reshape(-1).astype(np.int64),
        dose_mean=np.ascontiguousarray(doses[:, 0]),
        dose_spread=np.ascontiguousarray(doses[:, 1]),
        error=dosage.error[present].astype(np.float64),
        overdispersion=np.maximum(overdispersion, 0.01).astype(np.float64),
        level=np.log((counts.sum(1) + 0.5) / w.sum()),
        alpha_sd=alpha_sd,
        axis=axis,
        priors=priors,
    )


def evidence(
    p: Problem,
    curve: Curve,
    shapes: Floats,
    consts: Floats,
    taus: Floats,
    *,
    tol: float = SCREEN_TOL,
    modes: bool = False,
    degree: int = 6,
) -> tuple[Floats, Floats, Floats]:
    """Log evidence at every (feature, shape, tau), and on request the conditional mode and covariance.

    Parameters
    ----------
    shapes, consts
        ``(1 or T, S, ...)``: the lattice, shared or per feature.
    taus
        ``(T, K)`` sd of the guide effects; a negative value is skipped.
    """
    n_amp = degree if curve.name == "polynomial" else curve.n_amplitudes
    n_t, n_s, n_k = len(p.counts), shapes.shape[1], taus.shape[1]
    log_z = np.full((n_t, n_s, n_k), -np.inf)
    turning = p.turn and curve.name == "additive_hill"
    n_m = n_t if modes or turning else 1
    size = (n_s, n_k, 1 + n_amp) if modes or turning else (0, 0, 0)
    mode, cov = np.zeros((n_m, *size)), np.zeros((n_m, *size, size[-1]))
    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    kernel.run(
        curve.code,
        n_amp,
        p.counts,
        p.log_w,
        p.scale2,
        p.overdispersion,
        p.group,
        p.guide_start,
        p.dose,
        p.dose_mean,
        p.dose_spread,
        p.error,
        p.level,
        p.priors.level_sd,
        p.alpha_sd,
        np.ascontiguousarray(shapes),
        np.ascontiguousarray(consts),
        np.ascontiguousarray(taus),
        nodes,
        weights / weights.sum(),
        np.array([p.axis.low, p.axis.high]),
        np.array(p.priors.movement_scales),
        np.array(p.priors.movement_weights),
        p.priors.polynomial_sd,
        tol,
        log_z,
        mode,
        cov,
    )
    if turning:
        _weigh_turns(p, curve, shapes, consts, log_z, mode, cov)
    return log_z, mode, cov


def _weigh_turns(
    p: Problem, curve: Curve, shapes: Floats, consts: Floats, log_z: Floats, mode: Floats, cov: Floats
) -> None:
    """Add the log of the mean turn weight to the evidence of every point that may matter, in place.

    The mean over the amplitudes, Gaussian given the shape, is by the five points of the unscented transform.
    """
    near = log_z > log_z.max((1, 2), keepdims=True) - TURN_DROP
    t, s, k = np.nonzero(near)
    i = t if len(shapes) > 1 else np.zeros_like(t)
    centre, chol = mode[t, s, k], np.linalg.cholesky(cov[t, s, k] + 1e-12 * np.eye(3))
    x = np.linspace(p.axis.low, p.axis.high, N_TURN)
    mean = np.zeros(len(t))
    for column, sign in ((0, 0.0), (1, 1.0), (1, -1.0), (2, 1.0), (2, -1.0)):
        point = centre + sign * np.sqrt(3.0) * chol[:, :, column]
        params = np.concatenate([point, shapes[i, s]], 1)
        weight = turn_weight(x, curve.log_curve(x, params, consts[i, s]), p.priors.turn_scale)
        mean += (1 / 6 if sign else 1 / 3) * weight
    log_z[~near] = -np.inf
    log_z[t, s, k] += np.log(np.maximum(mean, 1e-12))


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
    if curve.n_shape:
        same = (consts0[None] == consts[:, None]).all(-1)
        s_post = np.where(same, s_post, -np.inf)
        for sizes in LATTICE_SIZES[curve.n_shape]:
            local = [_local_lattice(shapes[t], s_post[t], step[t], sizes) for t in range(n_t)]
            shapes = np.stack([x for x, _ in local])
            step = np.stack([x for _, x in local])
            last = sizes is LATTICE_SIZES[curve.n_shape][-1]
            c = np.repeat(consts[:, None], shapes.shape[1], 1)
            use, tol = (tau_use, FINE_TOL) if last else (tau_use[:, :1], SCREEN_TOL)
            # the draws of the last lattice are weighted one by one
            at = replace(p, turn=p.turn and not last)
            log_z, mode, cov = evidence(at, curve, shapes, c, use, modes=last, tol=tol)
            log_z = log_z + _log_shape_prior(curve, shapes, p.priors)[:, :, None]
            if last:
                log_z = log_z + log_tau_w[:, None, :]
            s_post = logsumexp(log_z, axis=2)
    else:
        log_z, mode, cov = evidence(
            p,
            curve,
            shapes,
            np.repeat(consts[:, None], 1, 1),
            tau_use,
            modes=True,
            tol=FINE_TOL,
            degree=degree,
        )
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
        if d:
            jitter = (sobol[order, 1 : 1 + d] - 0.5) * step[t]
            centre, var = points.mean(0), points.var(0)
            shrink = np.sqrt(var / (var + step[t] ** 2 / 12))
            points = centre + (points + jitter - centre) * shrink
        chol = np.linalg.cholesky(cov[t] + 1e-14 * np.eye(n_amp1))
        amp = mode[t][s, k] + np.einsum("nij,nj->ni", chol[s, k], z)
        if d:
            # the amplitudes follow the shape off its lattice point, along the ridge
            slopes = _mode_slopes(mode[t], log_z[t], step[t], LATTICE_SIZES[d][-1])
            amp += np.einsum("nij,ni->nj", slopes[s, k], points - shapes[t][s])
        out[t] = np.concatenate([amp, points], 1)
    if curve.name == "single_hill":
        out = _reweight_moment(out, p)
    if curve.name == "additive_hill" and p.turn:
        x = np.linspace(p.axis.low, p.axis.high, N_TURN)
        weight = turn_weight(x, curve.log_curve(x, out, consts[:, None]), p.priors.turn_scale)
        out = _resample(out, np.maximum(weight, 1e-12), weight)
    return out


def _mode_slopes(mode: Floats, log_z: Floats, step: Floats, sizes: tuple[int, ...]) -> Floats:
    """Derivative ``(S, K, d, A)`` of the conditional mode by the shape, by differences on the lattice."""
    grid = mode.reshape(*sizes, *mode.shape[1:])
    valid = np.isfinite(log_z).reshape(*sizes, -1)[..., None]
    grid = np.where(valid, grid, np.nan)
    parts = [np.nan_to_num(np.gradient(grid, step[i], axis=i)) for i in range(len(sizes))]
    return np.stack(parts, -2).reshape(*mode.shape[:2], len(sizes), mode.shape[-1])


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
