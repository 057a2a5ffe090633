"""Compiled: one cell's count of the cis gene, its dosage normal around that of its guide."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, log

import numpy as np

from dream_sc._core.compiled import Indices, Matrix, Vector, entry, inline, part
from dream_sc._core.curves import LN2
from dream_sc._core.likelihoods.negbinom import log_density


@inline
def log_count(y: float, e: float, phi: float, x: float) -> float:
    """Log density of a count at the log2 dosage `x`, `e` expected at NTC dosage."""
    return log_density(y, log(e) + LN2 * x, phi)


@inline
def log_count_above(y: float, e: float, floor: float, phi: float, x: float) -> float:
    """The same with ambient counts `floor` beside those of the cell itself."""
    if floor > 0.0:
        return log_density(y, log(e * exp(LN2 * x) + floor), phi)
    return log_count(y, e, phi, x)


@part
def integrate(
    y: float, e: float, phi: float, mean: float, sd: float, nodes: Vector, log_w: Vector
) -> tuple[float, float, float]:
    """Log marginal density of a count, and mean and variance of its cell's log2 dosage."""
    x = mean
    h = 1.0
    for _ in range(20):
        m = e * exp(LN2 * x)
        q = m / (m + phi)
        g = LN2 * (y - (y + phi) * q) - (x - mean) / sd**2
        h = LN2**2 * (y + phi) * q * (1.0 - q) + 1.0 / sd**2
        step = min(max(g / h, -2.0), 2.0)
        x += step
        if abs(step) < 1e-6:
            break
    width = h**-0.5
    top, total, first, second = -np.inf, 0.0, 0.0, 0.0
    for j in range(nodes.size):
        z = x + width * nodes[j]
        value = log_count(y, e, phi, z) - 0.5 * ((z - mean) / sd) ** 2 + log_w[j] + 0.5 * nodes[j] ** 2
        if value > top:
            scale = exp(top - value) if top > -np.inf else 0.0
            total, first, second, top = total * scale, first * scale, second * scale, value
        p = exp(value - top)
        total += p
        first += p * z
        second += p * z * z
    m1 = first / total
    return top + log(total) + log(width / sd), m1, max(second / total - m1 * m1, 1e-12)


@entry
def curvatures(
    counts: Vector, exposure: Vector, phi: float, mean: Vector, sd: Vector, nodes: Vector, log_w: Vector
) -> Vector:
    """Curvature of each count's log marginal density by its cell's mean."""
    out = np.zeros(counts.size)
    for i in range(counts.size):
        _, _, v = integrate(counts[i], exposure[i], phi, mean[i], sd[i], nodes, log_w)
        out[i] = 1.0 / sd[i] ** 2 - v / sd[i] ** 4
    return out


@entry
def each_cell(
    first: int,
    last: int,
    counts: Vector,
    exposure: Vector,
    floor: Vector,
    phi: float,
    guide: Indices,
    x: Matrix,
    log_prior: Matrix,
    out: Matrix,
) -> None:
    """Posterior of each cell's log2 dosage on its guide's grid: ``out`` (N, 4: median, sd, 2.5 %, 97.5 %)."""
    n = x.shape[1]
    p = np.zeros(n)
    for i in range(first, last):
        g = guide[i]
        top = -np.inf
        for j in range(n):
            p[j] = log_prior[g, j] + log_count_above(counts[i], exposure[i], floor[i], phi, x[g, j])
            top = max(top, p[j])
        total, m1, m2 = 0.0, 0.0, 0.0
        for j in range(n):
            p[j] = exp(p[j] - top)
            total += p[j]
            m1 += p[j] * x[g, j]
            m2 += p[j] * x[g, j] ** 2
        out[i, 1] = max(m2 / total - (m1 / total) ** 2, 0.0) ** 0.5
        targets = (0.5, 0.025, 0.975)
        for k in range(3):
            goal, cumulative = targets[k] * total, 0.0
            column = 0 if k == 0 else k + 1
            for j in range(n):
                if cumulative + p[j] >= goal:
                    # each grid point stands for a cell of the grid around it
                    step = x[g, 1] - x[g, 0]
                    out[i, column] = x[g, j] + ((goal - cumulative) / p[j] - 0.5) * step
                    break
                cumulative += p[j]
