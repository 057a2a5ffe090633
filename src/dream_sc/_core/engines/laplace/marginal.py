"""Log density of level, amplitudes and group effects, guide effects integrated, with its derivatives, in lanes."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import log, pi

import numba as nb

from . import loadings
from .curves import add_prior, dose_variances, fill_factors, log_curves
from .effects import integrate
from .vector import vexp

LOG_2PI = log(2.0 * pi)


@nb.njit(cache=True, error_model="numpy")
def row_means(code, theta, n_amp, counts, design, tabs, s):
    """Predictors of the rows, without guide effects; and the variance that the dosages' errors add."""
    n_lanes, n_dose = theta.shape[1], design.nodes.shape[0]
    fill_factors(theta, n_amp, s.factor)
    log_curves(code, theta, n_amp, tabs, s)
    dose_variances(code, theta, n_amp, design.error, tabs, s)
    base, ratio, curve, dose, groups, level = s.base, s.ratio, s.curve, design.dose, design.group, s.buffer_a
    for lane in range(n_lanes):
        level[lane] = theta[0, lane] - curve[n_dose, lane]
    for r in range(base.shape[0]):
        known, d, k = design.log_w[r] - counts.shift[r], dose[r], n_amp + groups[r]
        for lane in range(n_lanes):
            base[r, lane] = known + level[lane] + curve[d, lane]
        if groups[r] > 0:
            for lane in range(n_lanes):
                base[r, lane] += theta[k, lane]
        for lane in range(n_lanes):
            ratio[r, lane] = vexp(base[r, lane])
    if design.loads.shape[1] > 0:
        loadings.add_means(theta, design.loads, base, ratio)


@nb.njit(cache=True, error_model="numpy")
def add_priors(code, theta, n_amp, design, tabs, s, value):
    """Add what the anchor says of level and group effects, and the prior of the amplitudes, and their derivatives."""
    at, mode, precision = s.anchor.value, s.anchor.mode, s.anchor.precision
    for lane in range(value.size):
        value[lane] += at[lane]
    for c in range(mode.shape[0]):
        i = 0 if c == 0 else n_amp + c
        for d in range(mode.shape[0]):
            j = 0 if d == 0 else n_amp + d
            for lane in range(value.size):
                pull = precision[c, d, lane] * (theta[j, lane] - mode[d, lane])
                value[lane] -= 0.5 * (theta[i, lane] - mode[c, lane]) * pull
                s.grad[i, lane] -= pull
                s.gauss[i, j, lane] += precision[c, d, lane]
    if n_amp > 0:
        add_prior(code, n_amp, theta, tabs, design, s, value)


@nb.njit(cache=True, error_model="numpy")
def _add_rows(n_amp, design, s):
    """Add the rows' curvature to `s.gauss`, and their gradients, summed by dosage, to `s.row_grad`.

    Rows of one guide and one dosage follow each other and share a Jacobian but for their group.
    """
    gauss, jac, odds, parts, row_grad = s.gauss, s.jac, s.odds, s.parts, s.row_grad
    kappa, total, guide_start, dose, groups = s.buffer_a, s.buffer_b, design.guide_start, design.dose, design.group
    n_guides, n_parts, n_lanes = odds.shape
    for g in range(n_guides):
        stop = guide_start[g + 1]
        for lane in range(n_lanes):
            total[lane] = 0.0
        for r in range(guide_start[g], stop):
            d, k = dose[r], n_amp + groups[r]
            for lane in range(n_lanes):
                kappa[lane] = 0.0
            for m in range(n_parts):
                for lane in range(n_lanes):
                    kappa[lane] += odds[g, m, lane] * parts[m, r, 1, lane]
                    row_grad[d, lane] += odds[g, m, lane] * parts[m, r, 0, lane]
            for lane in range(n_lanes):
                total[lane] += kappa[lane]
            if groups[r] > 0:
                for lane in range(n_lanes):
                    gauss[k, 0, lane] += kappa[lane]
                    gauss[k, k, lane] += kappa[lane]
                for i in range(n_amp):
                    for lane in range(n_lanes):
                        gauss[k, 1 + i, lane] += kappa[lane] * jac[d, i, lane]
            if r + 1 < stop and dose[r + 1] == d:
                continue
            for lane in range(n_lanes):
                gauss[0, 0, lane] += total[lane]
            for i in range(n_amp):
                for lane in range(n_lanes):
                    gauss[1 + i, 0, lane] += total[lane] * jac[d, i, lane]
                for j in range(i + 1):
                    for lane in range(n_lanes):
                        gauss[1 + i, 1 + j, lane] += total[lane] * jac[d, i, lane] * jac[d, j, lane]
            for lane in range(n_lanes):
                total[lane] = 0.0
    if design.loads.shape[1] > 0:
        loadings.add_rows(n_amp, design, s)


@nb.njit(cache=True, error_model="numpy")
def _sums(g, m, n_amp, guide_start, dose, groups, loads, jac, parts, first, second, run1, run2):
    """Gradient and curvature times the Jacobian, summed over the rows of a guide, in `first` and `second`."""
    n, n_lanes = first.shape
    for i in range(n):
        for lane in range(n_lanes):
            first[i, lane], second[i, lane] = 0.0, 0.0
    for lane in range(n_lanes):
        run1[lane], run2[lane] = 0.0, 0.0
    stop = guide_start[g + 1]
    for r in range(guide_start[g], stop):
        d, k = dose[r], n_amp + groups[r]
        for lane in range(n_lanes):
            run1[lane] += parts[m, r, 0, lane]
            run2[lane] += parts[m, r, 1, lane]
        if groups[r] > 0:
            for lane in range(n_lanes):
                first[k, lane] += parts[m, r, 0, lane]
                second[k, lane] += parts[m, r, 1, lane]
        if r + 1 < stop and dose[r + 1] == d:
            continue
        for lane in range(n_lanes):
            first[0, lane] += run1[lane]
            second[0, lane] += run2[lane]
        for i in range(n_amp):
            for lane in range(n_lanes):
                first[1 + i, lane] += run1[lane] * jac[d, i, lane]
                second[1 + i, lane] += run2[lane] * jac[d, i, lane]
        for lane in range(n_lanes):
            run1[lane], run2[lane] = 0.0, 0.0
    if loads.shape[1] > 0:
        loadings.add_sums(g, m, guide_start, loads, parts, first, second)


@nb.njit(cache=True, error_model="numpy")
def _add_guides(n_amp, design, s):
    """Add the guides' gradients, and the curvature that integrating their effects takes away.

    What the choice between components takes away goes into `s.hess`: without it `s.gauss` is positive definite.
    """
    gauss, hess, first, second, total, grad = s.gauss, s.hess, s.first, s.second, s.total, s.grad
    odds, shrink, jac, parts, pull = s.odds, s.shrink, s.jac, s.parts, s.buffer_a
    guide_start, dose, groups = design.guide_start, design.dose, design.group
    n, n_lanes, n_parts = total.shape[0], total.shape[1], odds.shape[1]
    for g in range(odds.shape[0]):
        for i in range(n):
            for lane in range(n_lanes):
                total[i, lane] = 0.0
        for m in range(n_parts):
            _sums(
                g, m, n_amp, guide_start, dose, groups, design.loads, jac, parts, first, second, s.buffer_b, s.buffer_c
            )
            for lane in range(n_lanes):
                pull[lane] = odds[g, m, lane] * shrink[g, m, lane]
            for i in range(n):
                for lane in range(n_lanes):
                    total[i, lane] += odds[g, m, lane] * first[i, lane]
                for j in range(i + 1):
                    for lane in range(n_lanes):
                        gauss[i, j, lane] -= pull[lane] * second[i, lane] * second[j, lane]
                    if n_parts > 1:
                        for lane in range(n_lanes):
                            hess[i, j, lane] -= odds[g, m, lane] * first[i, lane] * first[j, lane]
        for i in range(n):
            for lane in range(n_lanes):
                grad[i, lane] += total[i, lane]
            if n_parts > 1:
                for j in range(i + 1):
                    for lane in range(n_lanes):
                        hess[i, j, lane] += total[i, lane] * total[j, lane]


@nb.njit(cache=True, error_model="numpy")
def _add_curvature(code, n_amp, s):
    """Second derivatives of the curve by its amplitudes: those of a log of a sum of exponentials."""
    if code == 3 or code == 0:
        return
    hess, p, row_grad, n_dose = s.hess, s.curve_grad, s.row_grad, s.row_grad.shape[0]
    for d in range(n_dose):
        for i in range(n_amp):
            for j in range(i + 1):
                same = 1.0 if i == j else 0.0
                for lane in range(hess.shape[2]):
                    here = p[d, i, lane] * (same - p[d, j, lane])
                    ntc = p[n_dose, i, lane] * (same - p[n_dose, j, lane])
                    hess[1 + i, 1 + j, lane] -= row_grad[d, lane] * (here - ntc)


@nb.njit(cache=True, error_model="numpy")
def evaluate(code, theta, n_amp, counts, tau, design, tabs, s, value):
    """Log marginal density at the lanes' `theta` ``(n, L)`` and `tau`; fills its gradient and negative Hessian."""
    n, n_lanes = theta.shape
    s.grad[:, :] = 0.0
    s.hess[:, :, :] = 0.0
    s.gauss[:, :, :] = 0.0
    s.row_grad[:, :] = 0.0
    row_means(code, theta, n_amp, counts, design, tabs, s)
    jac, curve_grad, log_density, hess, gauss = s.jac, s.curve_grad, s.log_density, s.hess, s.gauss
    n_dose = jac.shape[0]
    for d in range(n_dose):
        for i in range(n_amp):
            for lane in range(n_lanes):
                jac[d, i, lane] = curve_grad[d, i, lane] - curve_grad[n_dose, i, lane]
    integrate(counts, tau, design, s)
    _add_rows(n_amp, design, s)
    _add_guides(n_amp, design, s)
    _add_curvature(code, n_amp, s)
    value[:] = 0.0
    for g in range(log_density.shape[0]):
        for lane in range(n_lanes):
            value[lane] += log_density[g, lane]
    add_priors(code, theta, n_amp, design, tabs, s, value)
    for i in range(n):
        for j in range(i + 1):
            for lane in range(n_lanes):
                hess[i, j, lane] += gauss[i, j, lane]
