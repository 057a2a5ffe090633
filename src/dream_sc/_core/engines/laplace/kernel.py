"""The fused kernel of the trans step: nested Laplace at every (feature, shape, tau).

Rows are sorted by guide. For a guide the effect `u` is shared by all its rows and integrated by a Laplace
approximation around its mode; level, amplitudes and group effects follow by damped Newton steps on the
resulting marginal density, and one more Laplace term integrates them. `u` has variance ``tau^2 + (d log f /
dx error)^2``: the guide's own effect and the error of its dosage.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import log, pi

import numba as nb
import numpy as np

from dream_sc._core.likelihood.negbinom import derivatives, log_density

from .curves import TABLE_WIDTH, movement, prior, raw, table
from .linalg import cholesky, solve

LOG_2PI = log(2.0 * pi)


@nb.njit(cache=True, error_model="numpy")
def guide_mode(y, base, phi, start, stop, v, u):
    """Mode of the guide effect given the rows' log means, by Newton steps from `u`."""
    for _ in range(12):
        g, k = -u / v, 1.0 / v
        for r in range(start, stop):
            d1, kappa, _k3 = derivatives(y[r], base[r] + u, phi[r])
            g += d1
            k += kappa
        step = g / k
        step = min(max(step, -2.0), 2.0)
        u += step
        if abs(step) < 1e-5 * (1.0 + v**0.5):
            break
    return u


@nb.njit(cache=True, error_model="numpy")
def evaluate(
    code,
    theta,
    n_amp,
    y,
    log_w,
    phi,
    group,
    guide_start,
    dose,
    error,
    tau,
    level,
    level_sd,
    alpha_sd,
    tabs,
    tab0,
    low,
    high,
    consts,
    scales,
    weights,
    poly_sd,
    u,
    base,
    rows,
    curve_hess,
    grad,
    hess,
    gauss,
):
    """Log marginal density at `theta`, its gradient, negative Hessian and a Gauss-Newton form of that.

    `rows` (R, P + 5) is scratch: the Jacobian of each row's log mean, then its derivatives.
    """
    n = theta.size
    a_grad = np.zeros(max(n_amp, 1))
    a_hess = np.zeros((max(n_amp, 1), max(n_amp, 1)))
    grad[:] = 0.0
    hess[:, :] = 0.0
    curve_hess[:, :] = 0.0
    amplitudes = theta[1 : 1 + n_amp]
    raw0, _ = raw(code, amplitudes, tab0, a_grad, a_hess)
    grad0, hess0 = a_grad.copy(), a_hess.copy()
    value = 0.0
    total_g = 0.0
    for g in range(guide_start.size - 1):
        start, stop = guide_start[g], guide_start[g + 1]
        slope = 0.0
        last = -1
        value_r = 0.0
        for r in range(start, stop):
            if dose[r] != last:
                value_r, slope = raw(code, amplitudes, tabs[dose[r]], a_grad, a_hess)
                last = dose[r]
            for i in range(n):
                rows[r, i] = 0.0
            rows[r, 0] = 1.0
            for i in range(n_amp):
                rows[r, 1 + i] = a_grad[i] - grad0[i]
            base[r] = log_w[r] + theta[0] + value_r - raw0
            if group[r] > 0:
                rows[r, n_amp + group[r]] = 1.0
                base[r] += theta[n_amp + group[r]]
        v = tau * tau + (slope * error[g]) ** 2 + 1e-10
        u[g] = guide_mode(y, base, phi, start, stop, v, u[g])
        k_sum, k3_sum = 0.0, 0.0
        for r in range(start, stop):
            d1, kappa, k3 = derivatives(y[r], base[r] + u[g], phi[r])
            rows[r, n], rows[r, n + 1], rows[r, n + 2] = d1, kappa, k3
            k_sum += kappa
            k3_sum += k3
            value += log_density(y[r], base[r] + u[g], phi[r])
        w = 1.0 + v * k_sum
        value += -0.5 * u[g] ** 2 / v - 0.5 * log(w)
        last = -1
        for r in range(start, stop):
            kappa = rows[r, n + 1]
            g_r = rows[r, n] - 0.5 * v / w * (rows[r, n + 2] - k3_sum * v * kappa / w)
            rows[r, n + 3] = g_r
            total_g += g_r
            if n_amp > 0 and code != 3:
                if dose[r] != last:
                    raw(code, amplitudes, tabs[dose[r]], a_grad, a_hess)
                    last = dose[r]
                for i in range(n_amp):
                    for j in range(n_amp):
                        curve_hess[i, j] += g_r * a_hess[i, j]
            for i in range(n):
                grad[i] += g_r * rows[r, i]
                for j in range(i + 1):
                    hess[i, j] += kappa * rows[r, i] * rows[r, j]
        for i in range(n):
            s_i = 0.0
            for r in range(start, stop):
                s_i += rows[r, n + 1] * rows[r, i]
            gauss[i, 0] = s_i
        for i in range(n):
            for j in range(i + 1):
                hess[i, j] -= v / w * gauss[i, 0] * gauss[j, 0]
    value += -0.5 * ((theta[0] - level) / level_sd) ** 2 - log(level_sd) - 0.5 * LOG_2PI
    grad[0] -= (theta[0] - level) / level_sd**2
    hess[0, 0] += 1.0 / level_sd**2
    for i in range(1 + n_amp, n):
        value += -0.5 * (theta[i] / alpha_sd) ** 2 - log(alpha_sd) - 0.5 * LOG_2PI
        grad[i] -= theta[i] / alpha_sd**2
        hess[i, i] += 1.0 / alpha_sd**2
    if n_amp > 0:
        a_hess[:, :] = 0.0
        value += prior(code, amplitudes, low, high, consts, scales, weights, poly_sd, a_grad, a_hess)
        for i in range(n_amp):
            grad[1 + i] += a_grad[i]
            hess[1 + i, 1 + i] -= a_hess[i, i]
    for i in range(n):
        for j in range(i + 1):
            gauss[i, j] = hess[i, j]
    if n_amp > 0 and code != 3:
        for i in range(n_amp):
            for j in range(i + 1):
                hess[1 + i, 1 + j] -= curve_hess[i, j] - total_g * hess0[i, j]
    return value


@nb.njit(cache=True, error_model="numpy")
def _log_laplace(code, value, theta, n_amp, chol, low, high, step, unit):
    """Log evidence at the mode: value, determinant and, for the single Hill, the moment factor E[D^2]."""
    n = theta.size
    out = value + 0.5 * n * LOG_2PI
    for i in range(n):
        out -= log(chol[i, i])
    if code == 1:
        d, d1 = movement(code, theta[1:2], low, high)
        unit[:] = 0.0
        unit[1] = 1.0
        solve(chol, n, unit, step)
        out += log(d * d + d1 * d1 * step[1])
    return out


@nb.njit(cache=True, error_model="numpy")
def _start(code, theta, n_amp, level):
    theta[:] = 0.0
    theta[0] = level
    if code == 2:
        theta[1 : 1 + n_amp] = -0.5


@nb.njit(cache=True, error_model="numpy")
def _feature(
    code,
    n_amp,
    y,
    log_w,
    phi,
    group,
    guide_start,
    dose,
    dose_mean,
    dose_spread,
    error,
    level,
    level_sd,
    alpha_sd,
    shapes,
    consts,
    taus,
    nodes,
    weights_gh,
    axis,
    scales,
    weights,
    poly_sd,
    tol,
    log_z,
    modes,
    covs,
):
    n = 1 + n_amp + max(group.max(), 0)
    n_rows, n_dose = y.size, dose_mean.size
    theta, best, step, unit = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    grad, hess, gauss, chol = np.zeros(n), np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
    tabs, tab0 = np.zeros((n_dose, TABLE_WIDTH)), np.zeros(TABLE_WIDTH)
    low, high = np.zeros(TABLE_WIDTH), np.zeros(TABLE_WIDTH)
    u, base, rows = np.zeros(guide_start.size - 1), np.zeros(n_rows), np.zeros((n_rows, n + 5))
    curve_hess = np.zeros((max(n_amp, 1), max(n_amp, 1)))
    point = np.zeros(1)
    point_w = np.ones(1)
    _start(code, theta, n_amp, level)
    best[:] = theta
    for s in range(shapes.shape[0]):
        for d in range(n_dose):
            table(code, shapes[s], consts[s], dose_mean[d], dose_spread[d], nodes, weights_gh, tabs[d])
        table(code, shapes[s], consts[s], 0.0, 0.0, point, point_w, tab0)
        table(code, shapes[s], consts[s], axis[0], 0.0, point, point_w, low)
        table(code, shapes[s], consts[s], axis[1], 0.0, point, point_w, high)
        theta[:] = best
        first = True
        for k in range(taus.size):
            if taus[k] < 0:
                log_z[s, k] = -np.inf
                continue
            value = -np.inf
            radius = 1.5
            previous = -np.inf
            for iteration in range(40):
                value = evaluate(
                    code,
                    theta,
                    n_amp,
                    y,
                    log_w,
                    phi,
                    group,
                    guide_start,
                    dose,
                    error,
                    taus[k],
                    level,
                    level_sd,
                    alpha_sd,
                    tabs,
                    tab0,
                    low,
                    high,
                    consts[s],
                    scales,
                    weights,
                    poly_sd,
                    u,
                    base,
                    rows,
                    curve_hess,
                    grad,
                    hess,
                    gauss,
                )
                if value < previous - 1e-3 and iteration > 0:
                    radius = max(0.5 * radius, 1e-3)
                previous = value
                ok = cholesky(hess, n, chol)
                if not ok:
                    ok = cholesky(gauss, n, chol)
                if not ok or not np.isfinite(value):
                    break
                solve(chol, n, grad, step)
                decrement, size = 0.0, 0.0
                for i in range(n):
                    decrement += grad[i] * step[i]
                    size = max(size, abs(step[i]))
                if decrement < tol:
                    break
                shrink = min(1.0, radius / size)
                for i in range(n):
                    theta[i] += shrink * step[i]
            if not np.isfinite(value):
                log_z[s, k] = -np.inf
                _start(code, theta, n_amp, level)
                u[:] = 0.0
                continue
            log_z[s, k] = _log_laplace(code, value, theta, n_amp, chol, low, high, step, unit)
            if first:
                best[:] = theta
                first = False
            if modes.size > 0:
                modes[s, k, :] = theta[: 1 + n_amp]
                for i in range(1 + n_amp):
                    unit[:] = 0.0
                    unit[i] = 1.0
                    solve(chol, n, unit, step)
                    covs[s, k, i, :] = step[: 1 + n_amp]


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def run(
    code,
    n_amp,
    counts,
    log_w,
    scale2,
    overdispersion,
    group,
    guide_start,
    dose,
    dose_mean,
    dose_spread,
    error,
    level,
    level_sd,
    alpha_sd,
    shapes,
    consts,
    taus,
    nodes,
    weights_gh,
    axis,
    scales,
    weights,
    poly_sd,
    tol,
    log_z,
    modes,
    covs,
):
    """All features of a block.

    `shapes` and `consts` are (1 or T, S, ...); `taus` is (T, K), a negative tau is skipped.
    """
    shared = shapes.shape[0] == 1
    for t in nb.prange(counts.shape[0]):
        i = np.int64(0) if shared else np.int64(t)
        m = np.int64(t) if modes.shape[0] > 1 else np.int64(0)
        phi = 1.0 / (overdispersion[t] ** 2 * scale2)
        _feature(
            code,
            n_amp,
            counts[t],
            log_w,
            phi,
            group,
            guide_start,
            dose,
            dose_mean,
            dose_spread,
            error,
            level[t],
            level_sd,
            alpha_sd,
            shapes[i],
            consts[i],
            taus[t],
            nodes,
            weights_gh,
            axis,
            scales,
            weights,
            poly_sd,
            tol,
            log_z[t],
            modes[m],
            covs[m],
        )
