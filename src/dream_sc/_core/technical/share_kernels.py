"""Compiled: level, group effects and overdispersion of counts out of totals."""

from __future__ import annotations

from math import exp, expm1, inf, log, log1p

import numpy as np

from dream_sc._core.compiled import Cube, Matrix, Vector, entry, part
from dream_sc._core.laplace.linalg import cholesky, solve
from dream_sc._core.likelihoods.betabinomial import log_density, log_normaliser, slopes

LOW, HIGH = log(1e-6), log(4.0)  # of -log(1 - rho)


@part
def _derivatives(
    y: Vector,
    r: Vector,
    tail_y: Matrix,
    tail_r: Matrix,
    at: Vector,
    over: float,
    centre: float,
    sd: float,
    scale: float,
    df: float,
    theta: Vector,
    grad: Vector,
    hess: Matrix,
    exact: bool,
) -> None:
    """Gradient and negative Hessian, or a positive bound of it unless `exact`."""
    n = theta.size
    for i in range(n):
        grad[i] = 0.0
        for j in range(n):
            hess[i, j] = 0.0
    for c in range(n):
        eta = theta[0] + (theta[c] if c > 0 else 0.0)
        slope, curvature, bound = slopes(eta, over, y[c], r[c], tail_y[c], tail_r[c], at)
        k = max(curvature, 0.0) if exact else max(curvature, bound)
        grad[0] += slope
        hess[0, 0] += k
        if c > 0:
            grad[c] += slope
            hess[c, c] += k
            hess[c, 0] += k
    grad[0] -= (theta[0] - centre) / sd**2
    hess[0, 0] += 1.0 / sd**2
    for c in range(1, n):
        w = (df + 1.0) / (df + (theta[c] / scale) ** 2) / scale**2
        grad[c] -= w * theta[c]
        hess[c, c] += w


@part
def _mode(
    y: Vector,
    r: Vector,
    tail_y: Matrix,
    tail_r: Matrix,
    tail_n: Vector,
    at: Vector,
    over: float,
    centre: float,
    sd: float,
    scale: float,
    df: float,
    theta: Vector,
    grad: Vector,
    hess: Matrix,
    chol: Matrix,
    step: Vector,
) -> float:
    """Newton for level and group effects at a fixed overdispersion; returns the log evidence."""
    n = theta.size
    settled = False
    for _ in range(100):
        _derivatives(y, r, tail_y, tail_r, at, over, centre, sd, scale, df, theta, grad, hess, False)
        if not cholesky(hess, n, chol):
            return -inf
        solve(chol, n, grad, step)
        decrement, size = 0.0, 0.0
        for i in range(n):
            decrement += grad[i] * step[i]
            size = max(size, abs(step[i]))
        if decrement < 1e-8:
            settled = True
            break
        shrink = min(1.0, 1.5 / size)
        for i in range(n):
            theta[i] += shrink * step[i]
    if not settled:
        return -inf
    _derivatives(y, r, tail_y, tail_r, at, over, centre, sd, scale, df, theta, grad, hess, True)
    if not cholesky(hess, n, chol):
        return -inf
    value = log_normaliser(over, tail_n, at) - 0.5 * ((theta[0] - centre) / sd) ** 2 - log(sd)
    for c in range(n):
        eta = theta[0] + (theta[c] if c > 0 else 0.0)
        value += log_density(eta, over, y[c], r[c], tail_y[c], tail_r[c], at) - log(chol[c, c])
        if c > 0:
            value -= 0.5 * (df + 1.0) * log1p((theta[c] / scale) ** 2 / df) + log(scale)
    return value


@part
def _log_prior(x: float, left: float, beta_o: float) -> float:
    """Log density of ``x = -log(1 - rho)`` of a stick; its feature's ``log1p(left * expm1(x))`` is exponential."""
    return log(beta_o) + log(left) + x - (beta_o + 1.0) * log1p(left * expm1(x))


@part
def _summarise(
    log_post: Vector,
    top: float,
    low: float,
    width: float,
    left: float,
    mean: Matrix,
    cov: Cube,
    out: Vector,
    effects: Matrix,
) -> None:
    """Average over the grid of the overdispersion; a grid of one point has no overdispersion."""
    n_grid, n = mean.shape
    norm = 0.0
    for j in range(n_grid):
        norm += exp(log_post[j] - top)
    m = np.zeros((n, 3))
    o1, o2, x1 = 0.0, 0.0, 0.0
    for j in range(n_grid):
        w = exp(log_post[j] - top) / norm
        x = exp(low + j * width) if n_grid > 1 else 0.0
        rho = -expm1(-x)
        o1, o2, x1 = o1 + w * rho, o2 + w * rho * rho, x1 + w * log1p(left * expm1(x))
        for i in range(n):
            m[i, 0] += w * mean[j, i]
            m[i, 1] += w * (cov[j, i, 1] + mean[j, i] ** 2)
            m[i, 2] += w * (cov[j, i, 0] + mean[j, i] * mean[j, 0])
    out[0], out[1] = m[0, 0], max(m[0, 1] - m[0, 0] ** 2, 0.0) ** 0.5
    out[2], out[3] = o1, max(o2 - o1 * o1, 0.0) ** 0.5
    out[4] = 1.0 if np.isfinite(top) else 0.0
    out[5] = x1
    for i in range(1, n):
        effects[i, 0], effects[i, 1] = m[i, 0], max(m[i, 1] - m[i, 0] ** 2, 0.0) ** 0.5
        effects[i, 2] = m[i, 2] - m[i, 0] * m[0, 0]


@entry
def fit_shares(
    y: Matrix,
    r: Matrix,
    tail_y: Cube,
    tail_r: Cube,
    tail_n: Matrix,
    at: Vector,
    left: Vector,
    sd: float,
    scale: float,
    df: float,
    beta_o: float,
    n_grid: int,
    out: Matrix,
    effects: Cube,
) -> None:
    """Fill ``out`` (S, N_OUT) and ``effects`` (S, C, 3: mean, sd, covariance with the level)."""
    n = y.shape[1]
    for s in range(y.shape[0]):
        centre = log((y[s].sum() + 0.5) / (r[s].sum() + 0.5))
        theta, grad, step, unit = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
        hess, chol = np.zeros((n, n)), np.zeros((n, n))
        theta[0] = centre
        low, high = LOW, HIGH
        log_post, mean, cov = np.zeros(n_grid), np.zeros((n_grid, n)), np.zeros((n_grid, n, 2))
        top, width = -inf, 0.0
        for zoom in range(3 if n_grid > 1 else 1):
            width = (high - low) / (n_grid - 1) if n_grid > 1 else 0.0
            top = -inf
            for j in range(n_grid):
                x = exp(low + j * width) if n_grid > 1 else 0.0
                log_post[j] = _mode(
                    y[s],
                    r[s],
                    tail_y[s],
                    tail_r[s],
                    tail_n[s],
                    at,
                    expm1(x),
                    centre,
                    sd,
                    scale,
                    df,
                    theta,
                    grad,
                    hess,
                    chol,
                    step,
                )
                if n_grid > 1:
                    log_post[j] += low + j * width + _log_prior(x, left[s], beta_o)
                top = max(top, log_post[j])
                for i in range(n):
                    mean[j, i] = theta[i]
                    for l in range(n):
                        unit[l] = 1.0 if l == i else 0.0
                    solve(chol, n, unit, step)
                    cov[j, i, 0], cov[j, i, 1] = step[0], step[i]
            if zoom < 2 and n_grid > 1:
                first, last = n_grid, 0
                for j in range(n_grid):
                    if log_post[j] > top - 8.0:
                        first, last = min(first, j), max(last, j)
                high = min(low + (last + 1) * width, HIGH)
                low = low + max(first - 1, 0) * width
        _summarise(log_post, top, low, width, left[s], mean, cov, out[s], effects[s])
