"""Usage of categories: what draws of sticks say of the share of each category over the dosage.

A category's log odds get a curve of their own, so that a row of the table is a category as it is a feature elsewhere.
With one Hill the shares move along a line between two points of the simplex, all by the same Hill; other curves are
approximated by a polynomial of the log odds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .chain_draws import lagged
from .dose_response import curve
from .likelihood.binomial import ec50_of_share
from .summary import N_GRID, from_ntc_to_low

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .chain_draws import StickDraws
    from .dose_response import Curve
    from .types import Axis

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LARGEST_LOGIT = 14.0
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
    # no lags: these are of one Hill
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
    log_n = drawn.shapes[..., 1]
    k = lagged(drawn.shapes[of_stick], drawn.lag)[..., 0]
    low = a + from_ntc_to_low(b, k, np.exp(log_n)[of_stick])
    at_ntc, lo, hi = (_logit(log_shares(x, chains.start, chains.length)) for x in (a, low, low + b))
    # the first stick has no lag, and its EC50 is that of its odds: that of the shares follows
    first, n = chains.start, np.exp(log_n)
    centre = ec50_of_share(drawn.shapes[..., 0], n, low[first], (low + b)[first])
    ec50 = centre[of_category] - ec50_of_share(0.0, n[of_category], lo, hi)
    return np.stack([at_ntc, hi - lo, ec50, log_n[of_category]], -1)
