"""One cell's count of the cis gene, its dosage normal around that of its guide."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, log

import numba as nb
import numpy as np

from dream_sc._core.dose_response import LN2
from dream_sc._core.likelihood.negbinom import log_density


@nb.njit(cache=True, error_model="numpy")
def log_count(y, e, phi, x):
    """Log density of a count at the log2 dosage `x`, `e` expected at NTC dosage."""
    return log_density(y, log(e) + LN2 * x, phi)


@nb.njit(cache=True, error_model="numpy")
def integrate(y, e, phi, mean, sd, nodes, log_w):
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
