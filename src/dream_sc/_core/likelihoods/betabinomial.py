"""Counts out of a total, with or without more spread between cells than chance.

The share of a cell is beta distributed around p with intra-cell correlation rho:
``Var(y) = n p (1 - p) (1 + (n - 1) rho)``. With ``theta = rho / (1 - rho)`` the log density of one cell is

    y log p + sum_{j < y} log(1 + theta j / p) + (n - y) log q + sum_{j < n - y} log(1 + theta j / q)
    - sum_{j < n} log(1 + theta j) + the binomial coefficient, q = 1 - p,

so that the numbers of cells with y, n - y and n above each j say all that their values do. The binomial is theta = 0.
"""

from __future__ import annotations

from math import exp, log1p

from dream_sc._core.compiled import Vector, inline


@inline
def slopes(
    eta: float, theta: float, y: float, r: float, tail_y: Vector, tail_r: Vector, at: Vector
) -> tuple[float, float, float]:
    """Derivative by the logit `eta` of p of cells with total counts `y` and `r`, the negative second one, and a bound.

    `tail_y` and `tail_r` are the numbers of cells above each count `at`, from 1 on. The bound is positive and no less
    than the negative second derivative up to a part that vanishes with the slope.
    """
    p, q = 1.0 / (1.0 + exp(-eta)), 1.0 / (1.0 + exp(eta))
    y1, y2, r1, r2 = y, y, r, r
    if theta > 0:
        for j in range(at.size):
            if tail_y[j] > 0:
                u = theta * at[j] / (p + theta * at[j])
                y1 -= tail_y[j] * u
                y2 -= tail_y[j] * u * (2.0 - u)
            if tail_r[j] > 0:
                u = theta * at[j] / (q + theta * at[j])
                r1 -= tail_r[j] * u
                r2 -= tail_r[j] * u * (2.0 - u)
    slope = q * y1 - p * r1
    bound = q * q * y2 + p * p * r2
    return slope, bound - (q - p) * slope, bound


@inline
def log_density(eta: float, theta: float, y: float, r: float, tail_y: Vector, tail_r: Vector, at: Vector) -> float:
    """Log density of cells without what does not depend on p (see `log_normaliser`)."""
    value = -y * log1p(exp(-eta)) - r * log1p(exp(eta))
    if theta > 0:
        over_p, over_q = theta * (1.0 + exp(-eta)), theta * (1.0 + exp(eta))
        for j in range(at.size):
            if tail_y[j] > 0:
                value += tail_y[j] * log1p(over_p * at[j])
            if tail_r[j] > 0:
                value += tail_r[j] * log1p(over_q * at[j])
    return value


@inline
def log_normaliser(theta: float, tail_n: Vector, at: Vector) -> float:
    """The part that depends on theta alone; the binomial coefficients are left out."""
    value = 0.0
    if theta > 0:
        for j in range(at.size):
            if tail_n[j] > 0:
                value -= tail_n[j] * log1p(theta * at[j])
    return value
