"""The fused kernel of the trans step: nested Laplace at every (feature, shape, tau).

Rows are sorted by guide. A guide's effect `u` is shared by its rows. Its prior has components: most effects have sd
`tau`, a few a wide one; each component's variance also holds what the error of the guide's dosage does to the curve.
Every component is integrated by a Laplace approximation around its mode; level, amplitudes and group effects follow by
damped Newton steps on the resulting marginal density, and one more Laplace term integrates them.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, log, pi

import numba as nb
import numpy as np

from .curves import match, movement, prior, raw, raw_value
from .design import fill_tables, new_scratch, new_tables
from .linalg import cholesky, solve

LOG_2PI = log(2.0 * pi)
LEAST_VARIANCE = 1e-10
SMALL_STEP = 4e-4  # squared, in posterior variances of the effect
NEGLIGIBLE = 1e-7  # odds of a component of a guide's effect


@nb.njit(cache=True, error_model="numpy", inline="always")
def _mode(y, base, phi, start, stop, v, u):
    """Mode of a guide effect given the rows' log means (less log phi), by Newton steps from `u`.

    The last step is small enough for what is left to be negligible.
    """
    for _ in range(12):
        g, k = -u / v, 1.0 / v
        for r in range(start, stop):
            e = exp(base[r] + u)
            q = e / (1.0 + e)
            total = (y[r] + phi[r]) * q
            g += y[r] - total
            k += total * (1.0 - q)
        step = g / k
        step = min(max(step, -2.0), 2.0)
        u += step
        if step * step * k < SMALL_STEP:
            break
    return u


@nb.njit(cache=True, error_model="numpy")
def curve_values(code, theta, n_amp, tabs, s):
    """The log curve and its derivatives by the amplitudes at each dosage, NTC last."""
    amplitudes, n_dose = theta[1 : 1 + n_amp], tabs.dose.shape[0]
    for d in range(n_dose):
        s.curve[d] = raw(code, amplitudes, tabs.dose[d], s.curve_grad[d], s.curve_hess[d])
    s.curve[n_dose] = raw(code, amplitudes, tabs.ntc, s.curve_grad[n_dose], s.curve_hess[n_dose])


@nb.njit(cache=True, error_model="numpy")
def row_means(code, theta, n_amp, design, tabs, s):
    """Log means of the rows less log phi, without guide effects; and the variance that the dosages' errors add.

    An error moves the log curve by half the difference between one sd up and one sd down: unlike the slope,
    that stays bounded where the curve is steep.
    """
    base, log_w, log_phi, curve, dose, group = s.base, design.log_w, s.log_phi, s.curve, design.dose, design.group
    level = theta[0] - curve[-1]
    for r in range(base.size):
        base[r] = log_w[r] - log_phi[r] + level + curve[dose[r]]
        if group[r] > 0:
            base[r] += theta[n_amp + group[r]]
    amplitudes = theta[1 : 1 + n_amp]
    for g in range(s.v_dose.size):
        s.v_dose[g] = LEAST_VARIANCE
        if design.error[g] > 0 and n_amp > 0:
            move = 0.5 * (raw_value(code, amplitudes, tabs.up[g]) - raw_value(code, amplitudes, tabs.down[g]))
            s.v_dose[g] += move * move


@nb.njit(cache=True, error_model="numpy")
def log_priors(code, theta, n_amp, level, consts, design, tabs, s):
    """Log prior of level, group effects and amplitudes; fills `s.a_grad` and the diagonal of `s.a_hess`."""
    value = -0.5 * ((theta[0] - level) / design.level_sd) ** 2 - log(design.level_sd) - 0.5 * LOG_2PI
    for i in range(1 + n_amp, theta.size):
        value += -0.5 * (theta[i] / design.alpha_sd) ** 2 - log(design.alpha_sd) - 0.5 * LOG_2PI
    if n_amp > 0:
        s.a_hess[:, :] = 0.0
        value += prior(
            code, theta[1 : 1 + n_amp], tabs.low, tabs.high, consts, design.scales, design.weights,
            design.polynomial_sd, s.a_grad, s.a_hess,
        )  # fmt: skip
    return value


@nb.njit(cache=True, error_model="numpy")
def components(y, phi, tau, design, s):
    """Integrate the guide effects: log marginal density of each guide's rows, in `s.log_density`.

    Leaves the components' row derivatives in `s.parts`, their posterior odds in `s.odds`, `v / (1 + v k)` in
    `s.shrink`.
    """
    base, parts, odds, shrinks, modes = s.base, s.parts, s.odds, s.shrink, s.u
    guide_start, n_parts = design.guide_start, odds.shape[1]
    for g in range(odds.shape[0]):
        start, stop = guide_start[g], guide_start[g + 1]
        top = -np.inf
        for m in range(n_parts):
            v = tau * tau + design.wide_sd[m] ** 2 + s.v_dose[g]
            u = _mode(y, base, phi, start, stop, v, modes[g, m])
            modes[g, m] = u
            value, k_sum, k3_sum = -0.5 * u * u / v, 0.0, 0.0
            for r in range(start, stop):
                eta = base[r] + u
                e = exp(eta)
                q, n = e / (1.0 + e), y[r] + phi[r]
                kappa = n * q * (1.0 - q)
                k3 = kappa * (1.0 - 2.0 * q)
                parts[m, r, 0], parts[m, r, 1], parts[m, r, 2] = y[r] - n * q, kappa, k3
                k_sum += kappa
                k3_sum += k3
                value += y[r] * eta - n * log(1.0 + e)
            w = 1.0 + v * k_sum
            shrink = v / w
            shrinks[g, m] = shrink
            for r in range(start, stop):
                parts[m, r, 0] -= 0.5 * shrink * (parts[m, r, 2] - k3_sum * shrink * parts[m, r, 1])
            odds[g, m] = value + log(design.wide_weight[m] / w**0.5)
            top = max(top, odds[g, m])
        total = 0.0
        for m in range(n_parts):
            odds[g, m] = exp(odds[g, m] - top)
            total += odds[g, m]
        for m in range(n_parts):
            odds[g, m] /= total
        s.log_density[g] = top + log(total)


@nb.njit(cache=True, error_model="numpy")
def _add_rows(n_amp, design, s):
    """Add the rows' curvature to `s.gauss`; leaves the Jacobian in `s.jac`."""
    jac, gauss, parts, odds, curve_grad, row_grad = s.jac, s.gauss, s.parts, s.odds, s.curve_grad, s.row_grad
    dose, groups, guide_start, n_dose = design.dose, design.group, design.guide_start, s.curve.size - 1
    for g in range(odds.shape[0]):
        for r in range(guide_start[g], guide_start[g + 1]):
            d, group = dose[r], groups[r]
            for i in range(n_amp):
                jac[r, 1 + i] = curve_grad[d, i] - curve_grad[n_dose, i]
            kappa, grad = 0.0, 0.0
            for m in range(odds.shape[1]):
                grad += odds[g, m] * parts[m, r, 0]
                kappa += odds[g, m] * parts[m, r, 1]
            row_grad[r] = grad
            # the Jacobian's last columns are the groups': one of them is 1
            for i in range(1 + n_amp):
                weighted = kappa * jac[r, i]
                for j in range(i + 1):
                    gauss[i, j] += weighted * jac[r, j]
                if group > 0:
                    gauss[n_amp + group, i] += weighted
            if group > 0:
                gauss[n_amp + group, n_amp + group] += kappa


@nb.njit(cache=True, error_model="numpy")
def _add_guides(n_amp, design, s):
    """Add the guides' gradients, and the curvature that integrating their effects takes away.

    What the choice between components takes away goes into `s.hess`: without it `s.gauss` is positive definite.
    """
    jac, gauss, hess, parts, odds, shrinks = s.jac, s.gauss, s.hess, s.parts, s.odds, s.shrink
    first, second, total, guide_start, groups = s.first, s.second, s.total, design.guide_start, design.group
    n = total.size
    for g in range(odds.shape[0]):
        start, stop, mixed = guide_start[g], guide_start[g + 1], False
        for i in range(n):
            total[i] = 0.0
        for m in range(odds.shape[1]):
            p = odds[g, m]
            if p < NEGLIGIBLE:
                continue
            mixed = p < 1.0 - NEGLIGIBLE
            for i in range(n):
                first[i], second[i] = 0.0, 0.0
            for r in range(start, stop):
                grad, kappa, group = parts[m, r, 0], parts[m, r, 1], groups[r]
                for i in range(1 + n_amp):
                    first[i] += grad * jac[r, i]
                    second[i] += kappa * jac[r, i]
                if group > 0:
                    first[n_amp + group] += grad
                    second[n_amp + group] += kappa
            pull = p * shrinks[g, m]
            for i in range(n):
                total[i] += p * first[i]
                for j in range(i + 1):
                    gauss[i, j] -= pull * second[i] * second[j]
                    if mixed:
                        hess[i, j] -= p * first[i] * first[j]
        for i in range(n):
            s.grad[i] += total[i]
            if mixed:
                for j in range(i + 1):
                    hess[i, j] += total[i] * total[j]


@nb.njit(cache=True, error_model="numpy")
def _add_curvature(code, n_amp, design, s):
    """Second derivatives of the curve by its amplitudes."""
    if code == 3 or code == 0:
        return
    hess, curve_hess, row_grad, dose, n_dose = s.hess, s.curve_hess, s.row_grad, design.dose, s.curve.size - 1
    for r in range(row_grad.size):
        for i in range(n_amp):
            for j in range(i + 1):
                hess[1 + i, 1 + j] -= row_grad[r] * (curve_hess[dose[r], i, j] - curve_hess[n_dose, i, j])


@nb.njit(cache=True, error_model="numpy")
def evaluate(code, theta, n_amp, y, phi, level, tau, consts, design, tabs, s):
    """Log marginal density at `theta`; fills its gradient, negative Hessian and a Gauss-Newton form of that."""
    n = theta.size
    s.grad[:] = 0.0
    s.hess[:, :] = 0.0
    s.gauss[:, :] = 0.0
    s.jac[:, 0] = 1.0
    curve_values(code, theta, n_amp, tabs, s)
    row_means(code, theta, n_amp, design, tabs, s)
    components(y, phi, tau, design, s)
    _add_rows(n_amp, design, s)
    _add_guides(n_amp, design, s)
    _add_curvature(code, n_amp, design, s)
    value = s.log_density.sum() + log_priors(code, theta, n_amp, level, consts, design, tabs, s)
    s.grad[0] -= (theta[0] - level) / design.level_sd**2
    s.gauss[0, 0] += 1.0 / design.level_sd**2
    for i in range(1 + n_amp, n):
        s.grad[i] -= theta[i] / design.alpha_sd**2
        s.gauss[i, i] += 1.0 / design.alpha_sd**2
    for i in range(n_amp):
        s.grad[1 + i] += s.a_grad[i]
        s.gauss[1 + i, 1 + i] -= s.a_hess[i, i]
    for i in range(n):
        for j in range(i + 1):
            s.hess[i, j] += s.gauss[i, j]
    return value


@nb.njit(cache=True, error_model="numpy")
def _log_laplace(code, value, theta, n_amp, chol, tabs, step, unit):
    """Log evidence at the mode: value, determinant and, for the single Hill, the moment factor E[D^2]."""
    n = theta.size
    out = value + 0.5 * n * LOG_2PI
    for i in range(n):
        out -= log(chol[i, i])
    if code == 1:
        d, d1 = movement(code, theta[1:2], tabs.low, tabs.high)
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
def _climb(code, theta, n_amp, y, phi, level, tau, consts, design, tabs, tol, s, chol, step):
    """Damped Newton steps to the mode, in place; returns the value there."""
    n = theta.size
    value, radius, previous = -np.inf, 1.5, -np.inf
    for iteration in range(40):
        value = evaluate(code, theta, n_amp, y, phi, level, tau, consts, design, tabs, s)
        if value < previous - 1e-3 and iteration > 0:
            radius = max(0.5 * radius, 1e-3)
        previous = value
        ok = cholesky(s.hess, n, chol)
        if not ok:
            ok = cholesky(s.gauss, n, chol)
        if not ok or not np.isfinite(value):
            break
        solve(chol, n, s.grad, step)
        decrement, size = 0.0, 0.0
        for i in range(n):
            decrement += s.grad[i] * step[i]
            size = max(size, abs(step[i]))
        shrink = min(1.0, radius / size)
        for i in range(n):
            theta[i] += shrink * step[i]
        if decrement < tol:
            # what the last step gains is known to second order
            value += 0.5 * decrement
            break
    return value


@nb.njit(cache=True, error_model="numpy")
def _feature(code, n_amp, y, phi, level, design, shapes, consts, taus, tol, log_z, modes, covs):
    n = 1 + n_amp + max(design.group.max(), 0)
    s, tabs = new_scratch(n, n_amp, phi, design), new_tables(design)
    theta, best, step, unit, chol = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros((n, n))
    low, high = tabs.low.copy(), tabs.high.copy()
    _start(code, theta, n_amp, level)
    best[:] = theta
    for i in range(shapes.shape[0]):
        fill_tables(code, shapes[i], consts[i], design, tabs)
        if i > 0 and code == 2 and (consts[i] != consts[i - 1]).any():
            _start(code, best, n_amp, level)
        elif i > 0:
            match(code, best[1 : 1 + n_amp], low, high, tabs.low, tabs.high, consts[i])
        low[:], high[:] = tabs.low, tabs.high
        theta[:] = best
        first = True
        for k in range(taus.size):
            log_z[i, k] = -np.inf
            if taus[k] < 0:
                continue
            value = _climb(
                code, theta, n_amp, y, phi, level, taus[k], consts[i], design, tabs, tol, s, chol, step
            )
            if not np.isfinite(value):
                _start(code, theta, n_amp, level)
                s.u[:] = 0.0
                continue
            log_z[i, k] = _log_laplace(code, value, theta, n_amp, chol, tabs, step, unit)
            if first:
                best[:] = theta
                first = False
            if modes.size > 0:
                modes[i, k, :] = theta
                for j in range(n):
                    unit[:] = 0.0
                    unit[j] = 1.0
                    solve(chol, n, unit, step)
                    covs[i, k, j, :] = step


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def run(code, n_amp, counts, overdispersion, level, design, shapes, consts, taus, tol, log_z, modes, covs):
    """All features of a block.

    `shapes` and `consts` are (1 or T, S, ...); `taus` is (T, K), a negative tau is skipped.
    """
    shared = shapes.shape[0] == 1
    for t in nb.prange(counts.shape[0]):
        i = np.int64(0) if shared else np.int64(t)
        m = np.int64(t) if modes.shape[0] > 1 else np.int64(0)
        phi = 1.0 / (overdispersion[t] ** 2 * design.scale2)
        _feature(
            code, n_amp, counts[t], phi, level[t], design, shapes[i], consts[i], taus[t], tol, log_z[t], modes[m],
            covs[m],
        )  # fmt: skip
