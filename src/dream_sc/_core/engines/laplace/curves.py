"""The curves inside the kernel: tables per shape, log curve, derivatives and amplitude prior.

A curve's table at one dosage holds what does not depend on the amplitudes, averaged over nodes that stand for the
cells' dosages. `raw` is the log of the curve up to its level; the kernel subtracts its value at NTC
dosage.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, log, log1p, pi, sqrt

import numba as nb
import numpy as np

from dream_sc._core.dose_response import LN2

TABLE_WIDTH = 6
SQRT_2PI = sqrt(2.0 * pi)


@nb.njit(cache=True, error_model="numpy")
def _softplus(z):
    return z + log1p(exp(-z)) if z > 0 else log1p(exp(z))


@nb.njit(cache=True, error_model="numpy")
def _sigmoid(z):
    if z >= 0:
        return 1.0 / (1.0 + exp(-z))
    e = exp(z)
    return e / (1.0 + e)


@nb.njit(cache=True, error_model="numpy")
def _hill_average(rate, k, nodes, weights):
    """Log of the mean of ``sigmoid(rate (x - k))`` over the nodes, and of its complement."""
    first = nodes[0]
    if nodes[-1] == first:
        z = rate * (first - k)
        return -_softplus(-z), -_softplus(z)
    h, hc = 0.0, 0.0
    for j in range(nodes.size):
        z = rate * (nodes[j] - k)
        e = exp(-abs(z))
        p, c = 1.0 / (1.0 + e), e / (1.0 + e)
        if z < 0:
            p, c = c, p
        h += weights[j] * p
        hc += weights[j] * c
    return log(max(h, 1e-300)), log(max(hc, 1e-300))


@nb.njit(cache=True, error_model="numpy")
def table(code, shape, consts, nodes, weights, out):
    """Fill one row of the table of a shape: its mean over the nodes of a dosage."""
    if code == 1:
        lh, lc = _hill_average(LN2 * exp(shape[1]), shape[0], nodes, weights)
        out[0] = lh
        out[1] = lc
    elif code == 2:
        for i in range(2):
            rate = consts[i] * LN2 * exp(shape[2 * i + 1])
            out[2 * i] = _hill_average(rate, shape[2 * i], nodes, weights)[0]
    elif code == 3:
        for k in range(6):
            out[k] = 0.0
        for j in range(nodes.size):
            t = (nodes[j] - consts[0]) / consts[1]
            power = 1.0
            for k in range(6):
                power *= t
                out[k] += weights[j] * power


@nb.njit(cache=True, error_model="numpy")
def _add_logs(a, b):
    top = max(a, b)
    return top + log(1.0 + exp(min(a, b) - top))


@nb.njit(cache=True, error_model="numpy")
def raw_value(code, amplitudes, tab):
    """Log curve up to its level."""
    if code == 1:
        return _add_logs(amplitudes[0] + tab[0], tab[1])
    if code == 2:
        return _add_logs(0.0, _add_logs(amplitudes[0] + tab[0], amplitudes[1] + tab[2]))
    value = 0.0
    if code == 3:
        for k in range(amplitudes.size):
            value += amplitudes[k] * tab[k]
    return value


@nb.njit(cache=True, error_model="numpy")
def raw(code, amplitudes, tab, grad, hess):
    """Log curve up to its level, with gradient and Hessian by the amplitudes."""
    value = raw_value(code, amplitudes, tab)
    if code == 1:
        p = exp(amplitudes[0] + tab[0] - value)
        grad[0] = p
        hess[0, 0] = p * (1.0 - p)
    elif code == 2:
        p1, p2 = exp(amplitudes[0] + tab[0] - value), exp(amplitudes[1] + tab[2] - value)
        grad[0], grad[1] = p1, p2
        hess[0, 0], hess[1, 1] = p1 * (1.0 - p1), p2 * (1.0 - p2)
        hess[0, 1] = hess[1, 0] = -p1 * p2
    elif code == 3:
        for k in range(amplitudes.size):
            grad[k] = tab[k]
    return value


@nb.njit(cache=True, error_model="numpy")
def _normal_mixture(d, scales, weights):
    """Log of ``sum_s w_s / s^2 Normal(d; 0, s)`` and the responsibility-weighted mean of ``1 / s^2``."""
    total, r1 = 0.0, 0.0
    for i in range(scales.size):
        s2 = scales[i] ** 2
        w = weights[i] / s2 / (scales[i] * SQRT_2PI) * exp(-0.5 * d * d / s2)
        total += w
        r1 += w / s2
    if total < 1e-280:
        s2 = scales[-1] ** 2
        return log(weights[-1] / s2 / (scales[-1] * SQRT_2PI)) - 0.5 * d * d / s2, 1.0 / s2
    return log(total), r1 / total


@nb.njit(cache=True, error_model="numpy")
def prior(code, amplitudes, low, high, consts, scales, weights, sd, grad, hess):
    """Log prior of the amplitudes given the shape, its gradient and its Hessian (the last kept negative).

    For the single Hill the factor D^2 of the moment prior is left out: see `moment_factor`. `low` and `high`
    are the curve's tables at the ends of the observed axis.
    """
    if code == 1:
        b = amplitudes[0]
        zl, zh = low[0] - low[1], high[0] - high[1]
        pl, ph = _sigmoid(b + zl), _sigmoid(b + zh)
        d = _softplus(b + zh) - _softplus(zh) - _softplus(b + zl) + _softplus(zl)
        # ph - pl without cancellation
        d1 = max(ph * (1.0 - pl) * -np.expm1(zl - zh), 1e-300)
        d2 = ph * (1 - ph) - pl * (1 - pl)
        d3 = ph * (1 - ph) * (1 - 2 * ph) - pl * (1 - pl) * (1 - 2 * pl)
        lq, r1 = _normal_mixture(d, scales, weights)
        grad[0] = -d * r1 * d1 + d2 / d1
        hess[0, 0] = min(-r1 * d1 * d1 - r1 * d * d2 + d3 / d1 - (d2 / d1) ** 2, -1e-3)
        return lq + log(d1)
    if code == 2:
        value = 0.0
        for i in range(2):
            b = amplitudes[i]
            top, bottom = high[2 * i], low[2 * i]
            if consts[i] < 0:
                top, bottom = bottom, top
            d = max(_softplus(b + top) - _softplus(b + bottom), 1e-300)
            pt, pb = _sigmoid(b + top), _sigmoid(b + bottom)
            d1 = max(pt * (1.0 - pb) * -np.expm1(bottom - top), 1e-300)
            d2 = pt * (1 - pt) - pb * (1 - pb)
            d3 = pt * (1 - pt) * (1 - 2 * pt) - pb * (1 - pb) * (1 - 2 * pb)
            lq, r1 = _normal_mixture(d, scales, weights)
            value += log(2.0) + lq + 2.0 * log(d) + log(d1)
            grad[i] = (2.0 / d - d * r1) * d1 + d2 / d1
            h = (-2.0 / d**2 - r1) * d1 * d1 + (2.0 / d - d * r1) * d2 + d3 / d1 - (d2 / d1) ** 2
            hess[i, i] = min(h, -1e-3)
        return value
    value = 0.0
    for k in range(amplitudes.size):
        value += -0.5 * (amplitudes[k] / sd) ** 2 - log(sd * SQRT_2PI)
        grad[k] = -amplitudes[k] / sd**2
        hess[k, k] = -1.0 / sd**2
    return value


@nb.njit(cache=True, error_model="numpy")
def movement(code, amplitudes, low, high):
    """Movement D of the single Hill between the ends of the axis, and its derivative by the amplitude."""
    b = amplitudes[0]
    zl, zh = low[0] - low[1], high[0] - high[1]
    d = _softplus(b + zh) - _softplus(zh) - _softplus(b + zl) + _softplus(zl)
    return d, _sigmoid(b + zh) - _sigmoid(b + zl)


@nb.njit(cache=True, error_model="numpy")
def _matched(e, top, bottom, top_c, bottom_c, b):
    """Amplitude whose factor is `e` between two Hill values (their logs and those of their complements), or `b`."""
    below = exp(top) - e * exp(bottom)
    ratio = (e * exp(bottom_c) - exp(top_c)) / below if below != 0.0 else -1.0
    if not 1e-6 < ratio < 1e6:
        return b
    return log(ratio)


@nb.njit(cache=True, error_model="numpy")
def match(code, amplitudes, low, high, new_low, new_high, consts):
    """Amplitudes with which a new shape moves as much over the axis as another does with `amplitudes`, in place.

    Unchanged where the new shape cannot.
    """
    if code == 1:
        d, _d1 = movement(code, amplitudes, low, high)
        amplitudes[0] = _matched(exp(d), new_high[0], new_low[0], new_high[1], new_low[1], amplitudes[0])
    elif code == 2:
        for i in range(2):
            j = 2 * i
            b = amplitudes[i]
            if consts[i] > 0:
                e = exp(_softplus(b + high[j]) - _softplus(b + low[j]))
                amplitudes[i] = _matched(e, new_high[j], new_low[j], 0.0, 0.0, b)
            else:
                e = exp(_softplus(b + low[j]) - _softplus(b + high[j]))
                amplitudes[i] = _matched(e, new_low[j], new_high[j], 0.0, 0.0, b)
