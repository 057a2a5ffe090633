"""The joint log density that the kernel integrates, at a point: for tests and importance weights."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import log, pi

import numba as nb
import numpy as np

from dream_sc._core.likelihood.negbinom import log_density

from .curves import movement, prior, raw

LOG_2PI = log(2.0 * pi)


@nb.njit(cache=True, error_model="numpy")
def log_joint(
    code,
    theta,
    n_amp,
    u,
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
):
    """Joint log density of counts, parameters and guide effects `u`, without the count-only terms."""
    a_grad, a_hess = np.zeros(max(n_amp, 1)), np.zeros((max(n_amp, 1), max(n_amp, 1)))
    amplitudes = theta[1 : 1 + n_amp]
    raw0, _ = raw(code, amplitudes, tab0, a_grad, a_hess)
    value = 0.0
    for g in range(guide_start.size - 1):
        slope = 0.0
        for r in range(guide_start[g], guide_start[g + 1]):
            value_r, slope = raw(code, amplitudes, tabs[dose[r]], a_grad, a_hess)
            eta = log_w[r] + theta[0] + value_r - raw0 + u[g]
            if group[r] > 0:
                eta += theta[n_amp + group[r]]
            value += log_density(y[r], eta, phi[r])
        v = tau * tau + (slope * error[g]) ** 2 + 1e-10
        value += -0.5 * u[g] ** 2 / v - 0.5 * log(v) - 0.5 * LOG_2PI
    value += -0.5 * ((theta[0] - level) / level_sd) ** 2 - log(level_sd) - 0.5 * LOG_2PI
    for i in range(1 + n_amp, theta.size):
        value += -0.5 * (theta[i] / alpha_sd) ** 2 - log(alpha_sd) - 0.5 * LOG_2PI
    if n_amp > 0:
        value += prior(code, amplitudes, low, high, consts, scales, weights, poly_sd, a_grad, a_hess)
        if code == 1:
            d, _d1 = movement(code, amplitudes, low, high)
            value += 2.0 * log(abs(d))
    return value
