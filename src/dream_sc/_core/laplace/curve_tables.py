"""The curves inside the kernel: tables per shape, log curve, derivatives and amplitude prior.

A curve's table at one dosage holds what does not depend on the amplitudes, averaged over nodes that stand for the
cells' dosages: Hill values and their complements, or powers. The log curve is up to its level: the kernel subtracts
its value at NTC dosage.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, log, log1p, pi, sqrt

import numpy as np

from dream_sc._core.compiled import Cube, Matrix, Vector, inline, part
from dream_sc._core.curves import LN2

from .layout import Design, Tables
from .vector_math import vexp, vlog

SQRT_2PI = sqrt(2.0 * pi)
LEAST = 1e-300
LEAST_VARIANCE = 1e-10


# ---- tables ----------------------------------------------------------------------------------------------------------


@part
def _hills(rates: Matrix, shapes: Matrix, i: int, nodes: Matrix, weights: Matrix, out: Cube) -> None:
    """Means of ``sigmoid(rate (x - k))`` of Hill `i`, and of its complement, over nodes ``(D, J)``; `out` (D, W, L)."""
    h, hc, n_lanes = 2 * i, 2 * i + 1, rates.shape[1]
    for d in range(nodes.shape[0]):
        for lane in range(n_lanes):
            out[d, h, lane], out[d, hc, lane] = LEAST, LEAST
        for j in range(nodes.shape[1]):
            x, w = nodes[d, j], weights[d, j]
            if w == 0.0:
                continue
            for lane in range(n_lanes):
                z = rates[i, lane] * (x - shapes[h, lane])
                e = vexp(-abs(z))
                p = w / (1.0 + e)
                c = e * p
                out[d, h, lane] += p if z >= 0 else c
                out[d, hc, lane] += c if z >= 0 else p


@part
def _powers(consts: Matrix, nodes: Matrix, weights: Matrix, out: Cube) -> None:
    """Means of the powers of a dosage in its unit, over nodes ``(D, J)``; `out` (D, W, L)."""
    for d in range(nodes.shape[0]):
        for lane in range(out.shape[2]):
            for k in range(out.shape[1]):
                out[d, k, lane] = 0.0
            for j in range(nodes.shape[1]):
                t = (nodes[d, j] - consts[0, lane]) / consts[1, lane]
                power = 1.0
                for k in range(out.shape[1]):
                    power *= t
                    out[d, k, lane] += weights[d, j] * power


@part
def _tables(
    code: int, shapes: Matrix, rates: Matrix, consts: Matrix, nodes: Matrix, weights: Matrix, out: Cube
) -> None:
    """Fill the tables ``(D, W, L)`` at dosages that are means over nodes ``(D, J)``."""
    if code == 1 or code == 2:
        for i in range(code):
            _hills(rates, shapes, i, nodes, weights, out)
    elif code == 3:
        _powers(consts, nodes, weights, out)


@part
def _end(code: int, shapes: Matrix, rates: Matrix, consts: Matrix, x: float, out: Matrix) -> None:
    """Tables at an end of the axis: logs of Hill values and of their complements, without underflow."""
    if code == 1 or code == 2:
        for i in range(code):
            for lane in range(out.shape[1]):
                z = rates[i, lane] * (x - shapes[2 * i, lane])
                out[2 * i, lane], out[2 * i + 1, lane] = -softplus(-z), -softplus(z)
    elif code == 3:
        for lane in range(out.shape[1]):
            power = 1.0
            for k in range(out.shape[0]):
                power *= (x - consts[0, lane]) / consts[1, lane]
                out[k, lane] = power


@part
def _shifted(code: int, shapes: Matrix, rates: Matrix, consts: Matrix, design: Design, sign: float, out: Cube) -> None:
    """Tables at the guides' dosages moved by their errors; cells at the NTC level stay there."""
    at = np.zeros((design.own.shape[0], 2))
    for g in range(at.shape[0]):
        at[g, 0] = design.own[g, 0] + sign * design.error[g]
        at[g, 1] = design.own[g, 1]
    _tables(code, shapes, rates, consts, at, design.shares, out)


@part
def fill_tables(code: int, shapes: Matrix, design: Design, tabs: Tables) -> None:
    """Tables of the lanes' shapes ``(d, L)`` at the design's dosages; `tabs.consts` has to be filled before."""
    consts, n_lanes = tabs.consts, tabs.consts.shape[1]
    rates = np.zeros((2, n_lanes))
    for lane in range(n_lanes):
        if code == 1:
            rates[0, lane] = LN2 * exp(shapes[1, lane])
        elif code == 2:
            rates[0, lane] = consts[0, lane] * LN2 * exp(shapes[1, lane])
            rates[1, lane] = consts[1, lane] * LN2 * exp(shapes[3, lane])
    if code == 0:
        return
    n_dose = design.nodes.shape[0]
    _tables(code, shapes, rates, consts, design.nodes, design.node_weights, tabs.dose[:n_dose])
    ntc, whole = np.zeros((1, 1)), np.zeros((1, 1))
    whole[0, 0] = 1.0
    _tables(code, shapes, rates, consts, ntc, whole, tabs.dose[n_dose:])
    _end(code, shapes, rates, consts, design.axis[0], tabs.low)
    _end(code, shapes, rates, consts, design.axis[1], tabs.high)
    uncertain = False
    for g in range(design.error.size):
        uncertain |= design.error[g] > 0
    if uncertain:
        _shifted(code, shapes, rates, consts, design, 1.0, tabs.up)
        _shifted(code, shapes, rates, consts, design, -1.0, tabs.down)


# ---- log curve -------------------------------------------------------------------------------------------------------


@part
def log_curves(code: int, theta: Matrix, n_amp: int, table: Cube, factor: Matrix, out: Matrix, grad: Cube) -> None:
    """Log curve up to its level at every dosage, with its gradient by the amplitudes."""
    n_dose, n_lanes = out.shape
    for d in range(n_dose):
        if code == 1:
            for lane in range(n_lanes):
                a = factor[0, lane] * table[d, 0, lane]
                f = a + table[d, 1, lane]
                out[d, lane] = vlog(f)
                grad[d, 0, lane] = a / f
        elif code == 2:
            for lane in range(n_lanes):
                a, b = factor[0, lane] * table[d, 0, lane], factor[1, lane] * table[d, 2, lane]
                f = 1.0 + a + b
                out[d, lane] = vlog(f)
                grad[d, 0, lane], grad[d, 1, lane] = a / f, b / f
        elif code == 3:
            for lane in range(n_lanes):
                out[d, lane] = 0.0
            for k in range(n_amp):
                for lane in range(n_lanes):
                    out[d, lane] += theta[1 + k, lane] * table[d, k, lane]
                    grad[d, k, lane] = table[d, k, lane]


@part
def dose_variances(
    code: int, theta: Matrix, n_amp: int, error: Vector, up: Cube, down: Cube, factor: Matrix, out: Matrix
) -> None:
    """Variance of each guide's log curve by the error of its dosage.

    An error moves the log curve by half the difference between one sd up and one sd down: unlike the slope,
    that stays bounded where the curve is steep.
    """
    n_guides, n_lanes = out.shape
    for g in range(n_guides):
        if error[g] <= 0 or n_amp == 0:
            for lane in range(n_lanes):
                out[g, lane] = LEAST_VARIANCE
        elif code == 1:
            for lane in range(n_lanes):
                top = factor[0, lane] * up[g, 0, lane] + up[g, 1, lane]
                bottom = factor[0, lane] * down[g, 0, lane] + down[g, 1, lane]
                move = 0.5 * vlog(top / bottom)
                out[g, lane] = move * move + LEAST_VARIANCE
        elif code == 2:
            for lane in range(n_lanes):
                top = 1.0 + factor[0, lane] * up[g, 0, lane] + factor[1, lane] * up[g, 2, lane]
                bottom = 1.0 + factor[0, lane] * down[g, 0, lane] + factor[1, lane] * down[g, 2, lane]
                move = 0.5 * vlog(top / bottom)
                out[g, lane] = move * move + LEAST_VARIANCE
        else:
            for lane in range(n_lanes):
                move = 0.0
                for k in range(n_amp):
                    move += 0.5 * theta[1 + k, lane] * (up[g, k, lane] - down[g, k, lane])
                out[g, lane] = move * move + LEAST_VARIANCE


@inline
def fill_factors(theta: Matrix, n_amp: int, factor: Matrix) -> None:
    """Exponentials of the amplitudes."""
    for i in range(n_amp):
        for lane in range(factor.shape[1]):
            factor[i, lane] = vexp(theta[1 + i, lane])


# ---- amplitudes of one lane ------------------------------------------------------------------------------------------


@inline
def softplus(z: float) -> float:
    """``log(1 + exp(z))`` without overflow."""
    return z + log1p(exp(-z)) if z > 0 else log1p(exp(z))


@inline
def _sigmoid(z: float) -> float:
    if z >= 0:
        return 1.0 / (1.0 + exp(-z))
    e = exp(z)
    return e / (1.0 + e)


@part
def _normal_mixture(d: float, scales: Vector, weights: Vector) -> tuple[float, float]:
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


@part
def _prior_two(b: float, bottom: float, top: float, scales: Vector, weights: Vector) -> tuple[float, float, float]:
    """Log moment prior of the movement of one of two Hills, with first and second derivative by its amplitude."""
    d = max(softplus(b + top) - softplus(b + bottom), LEAST)
    pt, pb = _sigmoid(b + top), _sigmoid(b + bottom)
    d1 = max(pt * (1.0 - pb) * -np.expm1(bottom - top), LEAST)
    d2 = pt * (1 - pt) - pb * (1 - pb)
    d3 = pt * (1 - pt) * (1 - 2 * pt) - pb * (1 - pb) * (1 - 2 * pb)
    lq, r1 = _normal_mixture(d, scales, weights)
    grad = (2.0 / d - d * r1) * d1 + d2 / d1
    hess = (-2.0 / d**2 - r1) * d1 * d1 + (2.0 / d - d * r1) * d2 + d3 / d1 - (d2 / d1) ** 2
    return log(2.0) + lq + 2.0 * log(d) + log(d1), grad, min(hess, -1e-3)


@part
def add_prior(
    code: int,
    n_amp: int,
    theta: Matrix,
    low: Matrix,
    high: Matrix,
    consts: Matrix,
    scales: Vector,
    weights: Vector,
    sd: float,
    grad: Matrix,
    gauss: Cube,
    value: Vector,
) -> None:
    """Add the log prior of the amplitudes given the shape, its gradient and its Hessian (the last kept negative).

    For the single Hill the factor D^2 of the moment prior is left out: its expectation is taken at the end.
    """
    for lane in range(value.size):
        if code == 1:
            b, zl, zh = theta[1, lane], low[0, lane] - low[1, lane], high[0, lane] - high[1, lane]
            pl, ph = _sigmoid(b + zl), _sigmoid(b + zh)
            d = softplus(b + zh) - softplus(zh) - softplus(b + zl) + softplus(zl)
            # ph - pl without cancellation
            d1 = max(ph * (1.0 - pl) * -np.expm1(zl - zh), LEAST)
            d2 = ph * (1 - ph) - pl * (1 - pl)
            d3 = ph * (1 - ph) * (1 - 2 * ph) - pl * (1 - pl) * (1 - 2 * pl)
            lq, r1 = _normal_mixture(d, scales, weights)
            value[lane] += lq + log(d1)
            grad[1, lane] += -d * r1 * d1 + d2 / d1
            gauss[1, 1, lane] -= min(-r1 * d1 * d1 - r1 * d * d2 + d3 / d1 - (d2 / d1) ** 2, -1e-3)
        elif code == 2:
            for i in range(2):
                top, bottom = high[2 * i, lane], low[2 * i, lane]
                if consts[i, lane] < 0:
                    top, bottom = bottom, top
                v, slope, hess = _prior_two(theta[1 + i, lane], bottom, top, scales, weights)
                value[lane] += v
                grad[1 + i, lane] += slope
                gauss[1 + i, 1 + i, lane] -= hess
        else:
            for k in range(n_amp):
                value[lane] += -0.5 * (theta[1 + k, lane] / sd) ** 2 - log(sd * SQRT_2PI)
                grad[1 + k, lane] -= theta[1 + k, lane] / sd**2
                gauss[1 + k, 1 + k, lane] += 1.0 / sd**2


@inline
def movement(b: float, low: Matrix, high: Matrix, lane: int) -> tuple[float, float]:
    """Movement D of the single Hill between the ends of the axis, and its derivative by the amplitude."""
    zl, zh = low[0, lane] - low[1, lane], high[0, lane] - high[1, lane]
    d = softplus(b + zh) - softplus(zh) - softplus(b + zl) + softplus(zl)
    return d, _sigmoid(b + zh) - _sigmoid(b + zl)


@inline
def _matched(e: float, top: float, bottom: float, top_c: float, bottom_c: float, b: float) -> float:
    """Amplitude whose factor is `e` between two Hill values (their logs and those of their complements), or `b`."""
    below = exp(top) - e * exp(bottom)
    ratio = (e * exp(bottom_c) - exp(top_c)) / below if below != 0.0 else -1.0
    if not 1e-6 < ratio < 1e6:
        return b
    return log(ratio)


@part
def match(code: int, theta: Matrix, old: Vector, new_low: Matrix, new_high: Matrix, consts: Matrix, lane: int) -> None:
    """Amplitudes with which a lane's shape moves as much over the axis as `old` does with its own, in place.

    `old` is a column ``(n,)`` of parameters followed by its tables at the ends. Unchanged where the shape cannot.
    """
    n, w = theta.shape[0], new_low.shape[0]
    low, high = old[n : n + w], old[n + w :]
    for i in range(n):
        theta[i, lane] = old[i]
    if code == 1:
        b = old[1]
        zl, zh = low[0] - low[1], high[0] - high[1]
        e = exp(softplus(b + zh) - softplus(zh) - softplus(b + zl) + softplus(zl))
        theta[1, lane] = _matched(e, new_high[0, lane], new_low[0, lane], new_high[1, lane], new_low[1, lane], b)
    elif code == 2:
        for i in range(2):
            j, b = 2 * i, old[1 + i]
            if consts[i, lane] > 0:
                e = exp(softplus(b + high[j]) - softplus(b + low[j]))
                theta[1 + i, lane] = _matched(e, new_high[j, lane], new_low[j, lane], 0.0, 0.0, b)
            else:
                e = exp(softplus(b + low[j]) - softplus(b + high[j]))
                theta[1 + i, lane] = _matched(e, new_low[j, lane], new_high[j, lane], 0.0, 0.0, b)
