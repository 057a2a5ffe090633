"""The joint log density that the kernel approximates: at given guide effects, and with them integrated by quadrature.

The first is what the Pyro model says, for tests; the second is what importance weights compare with.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, log

import numba as nb

from .curves import movement
from .design import fill_tables, new_scratch, new_tables
from .kernel import LOG_2PI, components, curve_values, log_priors, row_means

EXACT_ODDS = 1e-3  # components of a guide's effect below these odds keep their Laplace value
LAPLACE_ERROR = 1e-3  # of the log density of a guide, below which quadrature is not worth its time


@nb.njit(cache=True, error_model="numpy")
def _log_prior(code, theta, n_amp, level, consts, design, tabs, s):
    """Prior of level, group effects and amplitudes, with the moment factor of the single Hill."""
    value = log_priors(code, theta, n_amp, level, consts, design, tabs, s)
    if code == 1:
        d, _d1 = movement(code, theta[1:2], tabs.low, tabs.high)
        value += 2.0 * log(max(abs(d), 1e-150))
    return value


@nb.njit(cache=True, error_model="numpy")
def _rows(y, phi, g, u, design, s):
    """Log density of a guide's rows at an effect `u`."""
    value = 0.0
    for r in range(design.guide_start[g], design.guide_start[g + 1]):
        eta = s.base[r] + u
        value += y[r] * eta - (y[r] + phi[r]) * log(1.0 + exp(eta))
    return value


@nb.njit(cache=True, error_model="numpy")
def log_joint(code, theta, n_amp, u, y, phi, level, tau, shape, consts, design):
    """Log density of counts, parameters and guide effects `u`, without the count-only terms and the shape's prior."""
    s, tabs = new_scratch(theta.size, n_amp, phi, design), new_tables(design)
    fill_tables(code, shape, consts, design, tabs)
    curve_values(code, theta, n_amp, tabs, s)
    row_means(code, theta, n_amp, design, tabs, s)
    value = 0.0
    for g in range(u.size):
        value += _rows(y, phi, g, u[g], design, s)
        density = 0.0
        for m in range(design.wide_sd.size):
            v = tau * tau + design.wide_sd[m] ** 2 + s.v_dose[g]
            density += design.wide_weight[m] * exp(-0.5 * u[g] ** 2 / v) / v**0.5
        value += log(density) - 0.5 * LOG_2PI
    return value + _log_prior(code, theta, n_amp, level, consts, design, tabs, s)


@nb.njit(cache=True, error_model="numpy")
def _laplace_error(g, m, design, s):
    """Bound of the next term of the Laplace expansion of a guide's density."""
    k, k3 = 0.0, 0.0
    for r in range(design.guide_start[g], design.guide_start[g + 1]):
        k += s.parts[m, r, 1]
        k3 += s.parts[m, r, 2]
    variance = s.shrink[g, m]
    return variance * variance * (5.0 / 24.0 * k3 * k3 * variance + 0.125 * k)


@nb.njit(cache=True, error_model="numpy")
def _log_ratio(y, phi, tau, g, nodes, weights, design, s):
    """Log of a guide's density by Gauss-Hermite quadrature around each component's mode, over that by Laplace."""
    ratio = 0.0
    for m in range(s.odds.shape[1]):
        odds = s.odds[g, m]
        if odds < EXACT_ODDS or _laplace_error(g, m, design, s) < LAPLACE_ERROR:
            ratio += odds
            continue
        v = tau * tau + design.wide_sd[m] ** 2 + s.v_dose[g]
        u, sd = s.u[g, m], s.shrink[g, m] ** 0.5
        at_mode = _rows(y, phi, g, u, design, s) - 0.5 * u * u / v
        for k in range(nodes.size):
            here = u + sd * nodes[k]
            value = _rows(y, phi, g, here, design, s) - 0.5 * here * here / v
            ratio += odds * weights[k] * exp(value - at_mode + 0.5 * nodes[k] ** 2)
    return log(ratio)


@nb.njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def log_marginal(code, n_amp, counts, overdispersion, level, design, theta, tau, shapes, consts, nodes, weights, out):
    """Log density of points: guide effects integrated by quadrature, nothing else; shape and tau without their priors.

    `theta` is (T, S, n), `tau` (T, S), `shapes` (T, S, d), `consts` (T, 2), `out` (T, S).
    """
    n_guides = design.guide_start.size - 1
    for t in nb.prange(counts.shape[0]):
        phi = 1.0 / (overdispersion[t] ** 2 * design.scale2)
        s, tabs = new_scratch(theta.shape[2], n_amp, phi, design), new_tables(design)
        for i in range(theta.shape[1]):
            fill_tables(code, shapes[t, i], consts[t], design, tabs)
            curve_values(code, theta[t, i], n_amp, tabs, s)
            value = _log_prior(code, theta[t, i], n_amp, level[t], consts[t], design, tabs, s)
            row_means(code, theta[t, i], n_amp, design, tabs, s)
            components(counts[t], phi, tau[t, i], design, s)
            for g in range(n_guides):
                value += s.log_density[g] + _log_ratio(counts[t], phi, tau[t, i], g, nodes, weights, design, s)
            out[t, i] = value
