"""Usage of categories: what draws of links say of the share of each category over the dosage.

A category's log odds get a curve of their own, so that a row of the table is a category as it is a feature elsewhere:
a Hill, since with one Hill and its lags the shares move along a line between two points of the simplex, or, where the
draws do not keep to that line and a Hill would be off, a polynomial of the log odds. A switch of the feature is one of
each of its categories.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit

from dream_sc._core.curves.polynomial import CURVE as POLYNOMIAL
from dream_sc._core.curves.single_hill import CURVE as HILL
from dream_sc._core.curves.single_hill import from_ntc_to_low
from dream_sc._core.curves.switch import CURVE as SWITCH
from dream_sc._core.likelihoods.binomial import ec50_of_share
from dream_sc._core.response.summary import N_GRID

from .shapes import lagged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.types import Axis

    from .draws import LinkDraws

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LARGEST_LOGIT = 14.0
TOLERANCE = 0.01  # of a share, in the mean over draws of the largest error along the axis


class Usage(NamedTuple):
    """Draws of the curve of every category's log odds; `C` categories of `F` features, in the order of their links."""

    hill: Floats  # (C, N, 4) level, log odds ratio, EC50 and log steepness; (0, ...) of other curves
    polynomial: Floats  # (C, N, 7)
    consts: Floats  # (C, 2) of the polynomial
    as_hill: NDArray[np.bool_]  # (C,) which of the two it is
    feature: Ints  # (C,)
    switch: Floats | None = None  # (C, N, 2) level and log odds ratio where the feature's curve is a switch

    def parts(self) -> Iterator[tuple[NDArray[np.bool_], Curve, Floats, Floats]]:
        """Categories with the same curve: which, the curve, its draws and its constants."""
        if self.switch is not None:
            yield np.ones(len(self.feature), dtype=bool), SWITCH, self.switch, np.zeros_like(self.consts)
            return
        for curve_, params, which in ((HILL, self.hill, self.as_hill), (POLYNOMIAL, self.polynomial, ~self.as_hill)):
            if which.any():
                yield which, curve_, params[which], self.consts[which] * (curve_ is POLYNOMIAL)


def log_shares(log_odds: Floats, start: Ints, length: Ints) -> Floats:
    """Log share ``(C, ...)`` of each category, given the log odds ``(T, ...)`` of each link."""
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


def usage(drawn: LinkDraws, c: Curve, axis: Axis) -> Usage:
    """Curves of the categories' log odds."""
    spans = drawn.spans
    of_category = np.repeat(np.arange(len(spans.start)), spans.length + 1)
    of_link = np.repeat(np.arange(len(spans.start)), spans.length)
    if c.by_acting:
        return _of_acting(drawn, c, of_link, of_category)
    x = np.append(axis.points(N_GRID), 0.0)
    params = np.concatenate([drawn.params, lagged(drawn.shapes[of_link], drawn.lag)], 2)
    log_odds = c.log_curve(x, params, drawn.consts[of_link][:, None])
    shares = _logit(log_shares(log_odds, spans.start, spans.length))
    consts = np.repeat(POLYNOMIAL.lattice(axis, None)[2], len(of_category), 0)
    polynomial = _polynomial(shares, x, consts[0])
    if c is not HILL:
        n_c, n, _ = shares.shape
        return Usage(np.zeros((n_c, n, 4)), polynomial, consts, np.zeros(n_c, dtype=bool), of_category)
    hill = _one_hill(drawn, of_category)
    off, other = (
        np.abs(expit(k.log_curve(x, draws, consts[:, None])) - expit(shares)).max(2).mean(1)
        for k, draws in ((HILL, hill), (POLYNOMIAL, polynomial))
    )
    # powers of the log dose do not reach to dose 0
    by_hill = (off < TOLERANCE) | (off <= other) | axis.from_zero
    return Usage(hill, polynomial, consts, by_hill, of_category)


def _of_acting(drawn: LinkDraws, c: Curve, of_link: Ints, of_category: Ints) -> Usage:
    """Categories where cells act and where they do not."""
    spans = drawn.spans
    log_odds = c.log_curve(np.array([0.0, 1.0]), drawn.params, drawn.consts[of_link][:, None])
    at = _logit(log_shares(log_odds, spans.start, spans.length))
    n_c, n, _ = at.shape
    none = np.zeros((n_c, 2))
    switch = np.stack([at[..., 0], at[..., 1] - at[..., 0]], -1)
    return Usage(np.zeros((n_c, n, 4)), np.zeros((n_c, n, 7)), none, none[:, 0] > 0, of_category, switch)


def _polynomial(values: Floats, x: Floats, consts: Floats) -> Floats:
    """Least squares of curves ``(C, N, X)``, exact at the last of the dosages `x`, which is that of NTC."""
    t = (x - consts[0]) / consts[1]
    powers = np.arange(1, len(POLYNOMIAL.params))
    basis = t[:-1, None] ** powers - t[-1] ** powers
    solve = np.linalg.pinv(basis)
    level = values[..., -1:]
    return np.concatenate([level, (values[..., :-1] - level) @ solve.T], -1)


def _one_hill(drawn: LinkDraws, of_category: Ints) -> Floats:
    """Level, log odds ratio, EC50 and steepness ``(C, N, 4)`` of every category."""
    spans = drawn.spans
    of_link = np.repeat(np.arange(len(spans.start)), spans.length)
    a, b = drawn.params[..., 0], drawn.params[..., 1]
    log_n = drawn.shapes[..., 1]
    k = lagged(drawn.shapes[of_link], drawn.lag)[..., 0]
    low = a + from_ntc_to_low(b, k, np.exp(log_n)[of_link])
    at_ntc, lo, hi = (_logit(log_shares(x, spans.start, spans.length)) for x in (a, low, low + b))
    # the first link has no lag, and its EC50 is that of its odds: that of the shares follows
    first, n = spans.start, np.exp(log_n)
    centre = ec50_of_share(drawn.shapes[..., 0], n, low[first], (low + b)[first])
    ec50 = centre[of_category] - ec50_of_share(0.0, n[of_category], lo, hi)
    return np.stack([at_ntc, hi - lo, ec50, log_n[of_category]], -1)
