"""The technical step: baseline, group effects and overdispersion of each feature from binned control cells.

For every value of the overdispersion on a grid, the level and the group effects follow by Newton steps and a
Laplace term; the grid zooms twice onto the mass of its posterior. The rate of the prior of the
overdispersion and the scale of the group effects are learned over features between the passes.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, log, log1p
from typing import TYPE_CHECKING

import numba as nb
import numpy as np

from dream_sc._core.blocks import blocks, each
from dream_sc._core.dose_response import LN2
from dream_sc._core.types import TechnicalFit

from .linalg import cholesky, solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import TechnicalPriors
    from dream_sc._core.types import TechnicalStats

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    _Pass = tuple[Floats, Floats]

N_GRID = 16
N_PASSES = 3
MOST_FEATURES = 2000  # that what is shared is learned from


@nb.njit(cache=True, error_model="numpy")
def _mode(
    y, n_cells, log_s, group, tail, tail_at, phi, log_mu0, mu_sd, scale, df, theta, grad, hess, chol, step
):
    """Newton for level and group effects at a fixed overdispersion; returns the log evidence."""
    n = theta.size
    value = -np.inf
    for _ in range(50):
        grad[:] = 0.0
        hess[:, :] = 0.0
        value = 0.0
        for b in range(y.size):
            eta = theta[0] + log_s[b]
            c = group[b]
            if c > 0:
                eta += theta[c]
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
        value += -0.5 * ((theta[0] - log_mu0) / mu_sd) ** 2
        grad[0] -= (theta[0] - log_mu0) / mu_sd**2
        hess[0, 0] += 1.0 / mu_sd**2
        for c in range(1, n):
            z = theta[c] / scale
            w = (df + 1.0) / (df + z * z) / scale**2
            value += -0.5 * (df + 1.0) * log1p(z * z / df) - log(scale)
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


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _run(
    counts, n_cells, log_s, group, tail, tail_at, mu_sd, scale, df, beta_o, n_groups, n_grid, out, effects
):
    """Fill ``out`` (T, 5: log mu, sd, o, sd, converged) and ``effects`` (T, C, 2: natural log, sd)."""
    for t in range(counts.shape[0]):
        y = counts[t]
        total, exposure = 0.5, 0.0
        for b in range(y.size):
            total += y[b]
            exposure += n_cells[b] * exp(log_s[b])
        log_mu0 = log(total / exposure)
        theta, grad, step = np.zeros(n_groups), np.zeros(n_groups), np.zeros(n_groups)
        hess, chol = np.zeros((n_groups, n_groups)), np.zeros((n_groups, n_groups))
        unit = np.zeros(n_groups)
        theta[0] = log_mu0
        low, high = log(0.02), log(10.0)
        log_post, mean, var = np.zeros(n_grid), np.zeros((n_grid, n_groups)), np.zeros((n_grid, n_groups))
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
                    for i in range(n_groups):
                        mean[j, i] = theta[i]
                        unit[:] = 0.0
                        unit[i] = 1.0
                        solve(chol, n_groups, unit, step)
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
        for i in range(n_groups):
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


def _pass(stats: TechnicalStats, some: Ints, beta_o: float, scale: float, priors: TechnicalPriors) -> _Pass:
    """Fit some features given what is shared."""
    log_s, n_cells = np.log(stats.size_factor), stats.n_cells.astype(np.float64)

    def call(s: slice) -> _Pass:
        out, effects = np.zeros((s.stop - s.start, 5)), np.zeros((s.stop - s.start, stats.n_groups, 2))
        _run(
            stats.counts[some[s]].astype(np.float64), n_cells, log_s, stats.group,
            stats.tail[some[s]].astype(np.float64), stats.tail_at.astype(np.float64), priors.log_mu_sd, scale * LN2,
            priors.effect_df, beta_o, stats.n_groups, N_GRID, out, effects,
        )  # fmt: skip
        return out, effects

    out, effects = zip(*(found for _, found in each(call, blocks(len(some)))), strict=True)
    return np.concatenate(out), np.concatenate(effects)


def technical(stats: TechnicalStats, priors: TechnicalPriors) -> TechnicalFit:
    """Fit all features of `stats`; features without a count must have been left out.

    `beta_o` is the posterior mean given the overdispersions (Gamma prior), `effect_scale` an EM update of a Student t
    scale. Both are learned from `MOST_FEATURES` features at most, evenly spaced ones.
    """
    n_t = len(stats.counts)
    beta_o, scale = priors.beta_o_shape / priors.beta_o_rate, priors.effect_scale
    some = np.unique(np.linspace(0, n_t - 1, min(n_t, MOST_FEATURES)).round().astype(np.int64))
    for _ in range(N_PASSES - 1):
        beta_o, scale = _learn(*_pass(stats, some, beta_o, scale, priors), scale, priors)
    out, effects = _pass(stats, np.arange(n_t), beta_o, scale, priors)
    beta_o, scale = _learn(out[some], effects[some], scale, priors)
    return TechnicalFit(
        mu=np.exp(out[:, 0]),
        mu_sd=out[:, 1].copy(),
        overdispersion=out[:, 2].copy(),
        overdispersion_sd=out[:, 3].copy(),
        effects=effects[:, :, 0] / LN2,
        effects_sd=effects[:, :, 1] / LN2,
        beta_o=float(beta_o),
        effect_scale=float(scale),
        converged=out[:, 4] > 0,
    )


def _learn(out: Floats, effects: Floats, scale: float, priors: TechnicalPriors) -> tuple[float, float]:
    """Rate of the prior of the overdispersion, and scale of the group effects (log2)."""
    beta_o = float((priors.beta_o_shape + len(out)) / (priors.beta_o_rate + out[:, 2].sum()))
    if effects.shape[1] > 1:
        second = (effects[:, 1:] ** 2).sum(-1) / LN2**2
        weight = (priors.effect_df + 1) / (priors.effect_df + second / scale**2)
        # ten features' worth of the start, so that a few features do not decide alone
        update = ((weight * second).sum() + 10 * priors.effect_scale**2) / (weight.size + 10)
        scale = float(np.clip(np.sqrt(update), *priors.effect_scale_bounds))
    return beta_o, scale
