"""Usage of categories: what draws of sticks say of the share of each category over the dosage.

A category's log odds get a curve of their own, so that a row of the table is a category as it is a feature elsewhere.
With one Hill the shares move along a line between two points of the simplex, all by the same Hill; other curves are
approximated by a polynomial of the log odds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .dose_response import LN2, curve
from .summary import N_GRID, from_ntc_to_low

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .chain_draws import StickDraws
    from .dose_response import Curve
    from .types import Axis

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LARGEST_LOGIT = 14.0
N_BISECTIONS = 30
POLYNOMIAL = curve("polynomial")


class Usage(NamedTuple):
    """Draws of the curve of every category's log odds; `C` categories of `F` features, in the order of their sticks."""

    params: Floats  # (C, N, P)
    consts: Floats  # (C, 2)
    curve: Curve
    feature: Ints  # (C,)


def log_shares(log_odds: Floats, start: Ints, length: Ints) -> Floats:
    """Log share ``(C, ...)`` of each category, given the log odds ``(T, ...)`` of each stick."""
    out = np.zeros((len(log_odds) + len(start), *log_odds.shape[1:]))
    log_q, log_rest = -np.logaddexp(0.0, -log_odds), -np.logaddexp(0.0, log_odds)
    for f, (first, n) in enumerate(zip(start, length, strict=True)):
        left = np.zeros(log_odds.shape[1:])
        for k in range(n):
            out[first + f + k] = left + log_q[first + k]
            left = left + log_rest[first + k]
        out[first + f + n] = left
    return out


def _logit(log_p: Floats) -> Floats:
    """Log odds of a share, within bounds."""
    rest = np.log(-np.expm1(np.minimum(log_p, -1e-300)))
    return np.asarray(np.clip(log_p - rest, -LARGEST_LOGIT, LARGEST_LOGIT))


def usage(drawn: StickDraws, c: Curve, axis: Axis) -> Usage:
    """Curves of the categories' log odds."""
    chains = drawn.chains
    of_category = np.repeat(np.arange(len(chains.start)), chains.length + 1)
    if c.name == "single_hill":
        return Usage(_one_hill(drawn, of_category), np.zeros((len(of_category), 2)), c, of_category)
    of_stick = np.repeat(np.arange(len(chains.start)), chains.length)
    x = np.append(np.linspace(axis.low, axis.high, N_GRID), 0.0)
    params = np.concatenate([drawn.params, drawn.shapes[of_stick]], 2)
    log_odds = c.log_curve(x, params, drawn.consts[of_stick][:, None])
    shares = _logit(log_shares(log_odds, chains.start, chains.length))
    consts = np.repeat(POLYNOMIAL.lattice(axis, None)[2], len(of_category), 0)
    return Usage(_polynomial(shares, x, consts[0]), consts, POLYNOMIAL, of_category)


def _polynomial(values: Floats, x: Floats, consts: Floats) -> Floats:
    """Least squares of curves ``(C, N, X)``, exact at the last of the dosages `x`, which is that of NTC."""
    t = (x - consts[0]) / consts[1]
    powers = np.arange(1, len(POLYNOMIAL.params))
    basis = t[:-1, None] ** powers - t[-1] ** powers
    solve = np.linalg.pinv(basis)
    level = values[..., -1:]
    return np.concatenate([level, (values[..., :-1] - level) @ solve.T], -1)


def _one_hill(drawn: StickDraws, of_category: Ints) -> Floats:
    """Level, log odds ratio, EC50 and steepness ``(C, N, 4)`` of every category."""
    chains = drawn.chains
    of_stick = np.repeat(np.arange(len(chains.start)), chains.length)
    a, b = drawn.params[..., 0], drawn.params[..., 1]
    k, log_n = drawn.shapes[..., 0], drawn.shapes[..., 1]
    low = a + from_ntc_to_low(b, k[of_stick], np.exp(log_n)[of_stick])

    def shares(log_odds: Floats) -> Floats:
        return log_shares(log_odds, chains.start, chains.length)

    at_ntc, bottom, top = _logit(shares(a)), shares(low), shares(low + b)
    h = _half_way(lambda at: shares(low + np.log1p(np.expm1(b) * at[of_stick])), bottom, top, of_category, k.shape)
    centre = k + np.log2(h / (1.0 - h)) / np.exp(log_n)
    lo, hi = _logit(bottom), _logit(top)
    n = np.exp(log_n)[of_category]
    ec50 = centre[of_category] - (np.logaddexp(0.0, lo) - np.logaddexp(0.0, hi)) / (n * LN2)
    return np.stack([at_ntc, hi - lo, ec50, log_n[of_category]], -1)


def _half_way(path: Any, bottom: Floats, top: Floats, of_category: Ints, shape: tuple[int, ...]) -> Floats:
    """Value of the Hill ``(F, N)`` at which the shares are half way from `bottom` to `top` (logs), by bisection."""
    start = np.flatnonzero(np.diff(of_category, prepend=-1))
    line = np.exp(top) - np.exp(bottom)
    whole = np.maximum(np.add.reduceat(line**2, start, axis=0), 1e-300)
    low, high = np.full(shape, 1e-9), np.full(shape, 1.0 - 1e-9)
    for _ in range(N_BISECTIONS):
        middle = 0.5 * (low + high)
        done = np.add.reduceat((np.exp(path(middle)) - np.exp(bottom)) * line, start, axis=0) / whole
        low, high = np.where(done < 0.5, middle, low), np.where(done < 0.5, high, middle)
    return 0.5 * (low + high)
