"""Compiled: level, group effects, coefficients of covariates and overdispersion of features from binned cells."""

from __future__ import annotations

from math import exp, log, log1p

import numpy as np

from dream_sc._core.compiled import Cube, Indices, Matrix, Vector, entry, inline, part
from dream_sc._core.compiled.vector_math import vexp, vlog
from dream_sc._core.laplace.linalg import cholesky, solve


@inline
def _expect(
    theta: Vector,
    log_s: Vector,
    group: Indices,
    z: Matrix,
    phi: float,
    eta: Vector,
    ratio: Vector,
    log_one: Vector,
) -> None:
    """Log means of the rows, the means over `phi`, and the logs of one more than these."""
    first = theta.size - z.shape[1]  # parameter of the first covariate
    for b in range(eta.size):
        eta[b] = theta[0] + log_s[b]
        if group[b] > 0:
            eta[b] += theta[group[b]]
        for j in range(z.shape[1]):
            eta[b] += z[b, j] * theta[first + j]
    # loops with nothing but these in them become vector instructions
    for b in range(eta.size):
        ratio[b] = vexp(eta[b]) / phi
    for b in range(eta.size):
        log_one[b] = vlog(1.0 + ratio[b])


@part
def _mode(
    y: Vector,
    n_cells: Vector,
    log_s: Vector,
    group: Indices,
    z: Matrix,
    tail: Vector,
    tail_at: Vector,
    phi: float,
    log_mu0: float,
    mu_sd: float,
    scale: Vector,
    df: float,
    theta: Vector,
    grad: Vector,
    hess: Matrix,
    chol: Matrix,
    step: Vector,
) -> float:
    """Newton for level, group effects and coefficients of covariates at a fixed overdispersion.

    Returns the log evidence. `scale` is that of each parameter's prior, the level's is not used.
    """
    n, n_z = theta.size, z.shape[1]
    first = n - n_z  # parameter of the first covariate
    value = -np.inf
    eta, ratio, log_one = np.zeros(y.size), np.zeros(y.size), np.zeros(y.size)
    for _ in range(50):
        for i in range(n):
            grad[i] = 0.0
            for j in range(n):
                hess[i, j] = 0.0
        _expect(theta, log_s, group, z, phi, eta, ratio, log_one)
        value = 0.0
        for b in range(y.size):
            c, q, total = group[b], ratio[b] / (1.0 + ratio[b]), y[b] + phi * n_cells[b]
            value += y[b] * eta[b] - total * log_one[b]
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
def fit_counts(
    counts: Matrix,
    n_cells: Vector,
    log_s: Vector,
    group: Indices,
    z: Matrix,
    tail: Matrix,
    tail_at: Vector,
    mu_sd: float,
    scale: Vector,
    df: float,
    beta_o: float,
    n_grid: int,
    out: Matrix,
    effects: Cube,
) -> None:
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
