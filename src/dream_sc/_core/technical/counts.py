"""The technical step: baseline, group effects, covariates and overdispersion of each feature from binned control cells.

For every value of the overdispersion on a grid, the level, the group effects and the coefficients of the covariates
follow by Newton steps and a Laplace term; the grid zooms twice onto the mass of its posterior. The rate of the prior of
the overdispersion and the scales of group effects and coefficients are learned over features between the passes.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, log, log1p
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._core.blocks import blocks, each
from dream_sc._core.compiled import Cube, Indices, Matrix, Vector, entry, part
from dream_sc._core.curves import LN2
from dream_sc._core.laplace.linalg import cholesky, solve
from dream_sc._core.types import TechnicalFit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.priors import TechnicalPriors
    from dream_sc._core.types import TechnicalStats

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    _Pass = tuple[Floats, Floats]

N_GRID = 16
N_PASSES = 3
MOST_FEATURES = 2000  # that what is shared is learned from


@part
def _mode(
    y: Vector, n_cells: Vector, log_s: Vector, group: Indices, z: Matrix, tail: Vector, tail_at: Vector, phi: float,
    log_mu0: float, mu_sd: float, scale: Vector, df: float, theta: Vector, grad: Vector, hess: Matrix, chol: Matrix,
    step: Vector,
) -> float:  # fmt: skip
    """Newton for level, group effects and coefficients of covariates at a fixed overdispersion.

    Returns the log evidence. `scale` is that of each parameter's prior, the level's is not used.
    """
    n, n_z = theta.size, z.shape[1]
    first = n - n_z  # parameter of the first covariate
    value = -np.inf
    for _ in range(50):
        for i in range(n):
            grad[i] = 0.0
            for j in range(n):
                hess[i, j] = 0.0
        value = 0.0
        for b in range(y.size):
            eta = theta[0] + log_s[b]
            c = group[b]
            if c > 0:
                eta += theta[c]
            for j in range(n_z):
                eta += z[b, j] * theta[first + j]
            m = exp(eta)
            q = m / (m + phi)
            total = y[b] + phi * n_cells[b]
            value += y[b] * eta - total * log1p(m / phi)
            d1, k = y[b] - total * q, total * q * (1.0 - q)
            grad[0] += d1
            hess[0, 0] += k
            if c > 0:
                grad[c] += d1
                hess[c, c] += k
                hess[c, 0] += k
            for j in range(n_z):
                i, pull = first + j, k * z[b, j]
                grad[i] += d1 * z[b, j]
                hess[i, 0] += pull
                if c > 0:
                    hess[i, c] += pull
                for l in range(j + 1):
                    hess[i, first + l] += pull * z[b, l]
        value += -0.5 * ((theta[0] - log_mu0) / mu_sd) ** 2
        grad[0] -= (theta[0] - log_mu0) / mu_sd**2
        hess[0, 0] += 1.0 / mu_sd**2
        for c in range(1, n):
            x = theta[c] / scale[c]
            w = (df + 1.0) / (df + x * x) / scale[c] ** 2
            value += -0.5 * (df + 1.0) * log1p(x * x / df) - log(scale[c])
            grad[c] -= w * theta[c]
            hess[c, c] += w
        if not cholesky(hess, n, chol):
            return -np.inf
        solve(chol, n, grad, step)
        decrement, size = 0.0, 0.0
        for i in range(n):
            decrement += grad[i] * step[i]
            size = max(size, abs(step[i]))
        if decrement < 1e-8:
            break
        shrink = min(1.0, 1.5 / size)
        for i in range(n):
            theta[i] += shrink * step[i]
    for j in range(tail.size):
        if tail[j] > 0:
            value += tail[j] * log1p(tail_at[j] / phi)
    for i in range(n):
        value -= log(chol[i, i])
    return value


@entry
def _run(
    counts: Matrix, n_cells: Vector, log_s: Vector, group: Indices, z: Matrix, tail: Matrix, tail_at: Vector,
    mu_sd: float, scale: Vector, df: float, beta_o: float, n_grid: int, out: Matrix, effects: Cube,
) -> None:  # fmt: skip
    """Fill ``out`` (T, 5: log mu, sd, o, sd, converged) and ``effects`` (T, C + Q, 2: natural log, sd).

    The first of the `C` group effects stays 0, the effects of the `Q` covariates follow them.
    """
    n_par = effects.shape[1]
    for t in range(counts.shape[0]):
        y = counts[t]
        total, exposure = 0.5, 0.0
        for b in range(y.size):
            total += y[b]
            exposure += n_cells[b] * exp(log_s[b])
        log_mu0 = log(total / exposure)
        theta, grad, step = np.zeros(n_par), np.zeros(n_par), np.zeros(n_par)
        hess, chol = np.zeros((n_par, n_par)), np.zeros((n_par, n_par))
        unit = np.zeros(n_par)
        theta[0] = log_mu0
        low, high = log(0.02), log(10.0)
        log_post, mean, var = np.zeros(n_grid), np.zeros((n_grid, n_par)), np.zeros((n_grid, n_par))
        top = -np.inf
        for zoom in range(3):
            width = (high - low) / (n_grid - 1)
            top = -np.inf
            for j in range(n_grid):
                o = exp(low + j * width)
                log_post[j] = _mode(
                    y,
                    n_cells,
                    log_s,
                    group,
                    z,
                    tail[t],
                    tail_at,
                    1.0 / o**2,
                    log_mu0,
                    mu_sd,
                    scale,
                    df,
                    theta,
                    grad,
                    hess,
                    chol,
                    step,
                )
                log_post[j] += low + j * width - beta_o * o
                top = max(top, log_post[j])
                if zoom == 2:
                    for i in range(n_par):
                        mean[j, i] = theta[i]
                        for l in range(n_par):
                            unit[l] = 1.0 if l == i else 0.0
                        solve(chol, n_par, unit, step)
                        var[j, i] = step[i]
            if zoom < 2:
                first, last = n_grid, 0
                for j in range(n_grid):
                    if log_post[j] > top - 8.0:
                        first, last = min(first, j), max(last, j)
                high = min(low + (last + 1) * width, log(10.0))
                low = low + max(first - 1, 0) * width
        norm, o1, o2 = 0.0, 0.0, 0.0
        width = (high - low) / (n_grid - 1)
        for j in range(n_grid):
            w = exp(log_post[j] - top)
            o = exp(low + j * width)
            norm += w
            o1 += w * o
            o2 += w * o * o
        out[t, 2] = o1 / norm
        out[t, 3] = max(o2 / norm - (o1 / norm) ** 2, 0.0) ** 0.5
        out[t, 4] = 1.0 if np.isfinite(top) else 0.0
        for i in range(n_par):
            m1, m2 = 0.0, 0.0
            for j in range(n_grid):
                w = exp(log_post[j] - top) / norm
                m1 += w * mean[j, i]
                m2 += w * (var[j, i] + mean[j, i] ** 2)
            sd = max(m2 - m1 * m1, 0.0) ** 0.5
            if i == 0:
                out[t, 0], out[t, 1] = m1, sd
            else:
                effects[t, i, 0], effects[t, i, 1] = m1, sd


def _pass(
    stats: TechnicalStats, some: Ints, beta_o: float, scale: Floats, priors: TechnicalPriors,
    progress: Callable[[Any], Any] = lambda x: x,
) -> _Pass:  # fmt: skip
    """Fit some features given what is shared."""
    log_s, n_cells, z = np.log(stats.size_factor), stats.n_cells.astype(np.float64), np.ascontiguousarray(stats.z)

    def call(s: slice) -> _Pass:
        out, effects = np.zeros((s.stop - s.start, 5)), np.zeros((s.stop - s.start, len(scale), 2))
        _run(
            stats.counts[some[s]].astype(np.float64), n_cells, log_s, stats.group, z,
            stats.tail[some[s]].astype(np.float64), stats.tail_at.astype(np.float64), priors.log_mu_sd, scale * LN2,
            priors.effect_df, beta_o, N_GRID, out, effects,
        )  # fmt: skip
        return out, effects

    out, effects = zip(*(found for _, found in each(call, blocks(len(some)), progress)), strict=True)
    return np.concatenate(out), np.concatenate(effects)


def technical(
    stats: TechnicalStats, priors: TechnicalPriors, *, progress: Callable[[Any], Any] = lambda x: x
) -> TechnicalFit:
    """Fit all features of `stats`; features without a count must have been left out.

    `beta_o` is the posterior mean given the overdispersions (Gamma prior), `effect_scale` an EM update of a Student t
    scale, as is that of each covariate's coefficients. They are learned from `MOST_FEATURES` features at most, evenly
    spaced ones. `progress` wraps the blocks of the last pass, over all features.
    """
    n_t, n_c, n_z = len(stats.counts), stats.n_groups, stats.z.shape[1]
    beta_o = priors.beta_o_shape / priors.beta_o_rate
    scale = np.append(np.full(n_c, priors.effect_scale), np.full(n_z, priors.covariate_scale))
    some = np.unique(np.linspace(0, n_t - 1, min(n_t, MOST_FEATURES)).round().astype(np.int64))
    for _ in range(N_PASSES - 1):
        beta_o, scale = _learn(*_pass(stats, some, beta_o, scale, priors), scale, n_c, priors)
    out, effects = _pass(stats, np.arange(n_t), beta_o, scale, priors, progress)
    beta_o, scale = _learn(out[some], effects[some], scale, n_c, priors)
    return TechnicalFit(
        mu=np.exp(out[:, 0]),
        mu_sd=out[:, 1].copy(),
        overdispersion=out[:, 2].copy(),
        overdispersion_sd=out[:, 3].copy(),
        effects=effects[:, :n_c, 0] / LN2,
        effects_sd=effects[:, :n_c, 1] / LN2,
        beta_o=float(beta_o),
        effect_scale=float(scale[0]),
        converged=out[:, 4] > 0,
        coefficients=effects[:, n_c:, 0] / LN2,
        coefficients_sd=effects[:, n_c:, 1] / LN2,
        coefficient_scale=scale[n_c:],
    )


def _learn(
    out: Floats, effects: Floats, scale: Floats, n_groups: int, priors: TechnicalPriors
) -> tuple[float, Floats]:
    """Rate of the prior of the overdispersion, and scales ``(C + Q,)`` of group effects and coefficients (log2)."""
    beta_o = float((priors.beta_o_shape + len(out)) / (priors.beta_o_rate + out[:, 2].sum()))
    second, new = (effects**2).sum(-1) / LN2**2, scale.copy()
    if n_groups > 1:
        new[:n_groups] = _scale(second[:, 1:n_groups], scale[0], priors.effect_scale, priors)
        new[:n_groups] = np.clip(new[:n_groups], *priors.effect_scale_bounds)
    for i in range(n_groups, len(scale)):
        new[i] = np.clip(
            _scale(second[:, i], scale[i], priors.covariate_scale, priors), *priors.covariate_scale_bounds
        )
    return beta_o, new


def _scale(second: Floats, scale: float, start: float, priors: TechnicalPriors) -> float:
    """EM update of the scale of a Student t prior from second moments."""
    weight = (priors.effect_df + 1) / (priors.effect_df + second / scale**2)
    # ten features' worth of the start, so that a few features do not decide alone
    return float(np.sqrt(((weight * second).sum() + 10 * start**2) / (weight.size + 10)))
