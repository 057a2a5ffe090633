"""Evidence of all pairs of a target and a feature at once, by tables of single guides and products of matrices.

The log likelihood of a guide depends on one number: how far a curve moves it from where the NTC guides expect it. It is
tabulated over that number for each feature and guide, with the guide effects' sd that the NTC guides tell. A curve is a
place in each guide's table, so that the evidence of all curves is the product of the tables with one sparse matrix of
interpolation weights. What the level gains by following the curve is taken to second order.

Every second shape and every second movement of the lattice take part, with the prior mass of those between. The count
of a guide is negative binomial with the guide effect in its variance; its tails are lighter than those of the kernel,
so that a feature seems to respond more rather than less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import gammaln, logsumexp

from dream_sc._core.laplace.lookup import LEAST_GAIN, MOVES
from dream_sc._core.parallel import each_block

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.first_pass import Columns
    from dream_sc._core.response.problem import Problem

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]

LEAST_EXPECTED = 1e-8


class Curves(NamedTuple):
    """The curves of one kind that take part, `N` of them."""

    log_weight: Singles  # (N,) prior mass
    value: Singles  # (G J, N) weights of the entries of the tables of the guides
    slope: Singles  # (G J, N) the same of their slopes, by linear interpolation


class Tables(NamedTuple):
    """What the guides of a block of features say of a move, over that of no move."""

    value: Singles  # (T, G J) log likelihood
    slope: Singles  # (T, G J) its derivative by a step of the level
    bend: Singles  # (T, G J) its second derivative
    held: Floats  # (T,) precision of the level by NTC guides


def curves_of(columns: Columns, *, every: bool) -> Curves:
    """Interpolation weights of curves; all of them, or every second shape and movement."""
    keep = np.ones(len(columns.shape), dtype=bool)
    if not every:
        keep = (columns.shape % 2 == 0) | (columns.move.shape[1] > 1)
        # movements in turn, so that neither the smaller nor the larger ones are left out
        for i, move in enumerate(np.abs(columns.move).T, 1):
            place = np.unique(move.round(9), return_inverse=True)[1].reshape(-1)
            keep &= (place + columns.shape // 2**i) % 2 == 0
    weight = columns.log_weight[keep] + logsumexp(columns.log_weight) - logsumexp(columns.log_weight[keep])
    at, n_j = columns.positions[keep], len(MOVES)
    n, n_g = at.shape
    value, slope = np.zeros((2, n, n_g, n_j), dtype=np.float32)
    i = np.clip(at.astype(int), 1, n_j - 3)
    x = at - i
    cubic = (
        x * (x - 1) * (2 - x) / 6,
        (x + 1) * (x - 1) * (x - 2) / 2,
        (x + 1) * x * (2 - x) / 2,
        (x + 1) * x * (x - 1) / 6,
    )
    row, guide = np.arange(n)[:, None], np.arange(n_g)
    for k, w in enumerate(cubic):
        value[row, guide, i - 1 + k] = w
    slope[row, guide, i], slope[row, guide, i + 1] = 1 - x, x
    flat = (np.ascontiguousarray(w.reshape(n, -1).T) for w in (value, slope))
    return Curves(weight.astype(np.float32), *flat)


def log_factors(p: Problem, columns: dict[str, Columns], tau: Floats) -> Floats:
    """Log Bayes factor ``(T, M)`` of each kind of curve against no response, the NTC guides summed up.

    Parameters
    ----------
    p
        Problem with NTC guides summed up.
    columns
        The curves of the lattice of each kind; those of one shape take part with all movements.
    tau
        ``(T,)`` sd of the guide effects.
    """
    kinds = [curves_of(c, every=len(c.first) == 1) for c in columns.values()]

    def call(s: slice) -> Floats:
        tables = tables_of(p.take(s), tau[s])
        null = _following(*_at_null(tables), tables.held)
        return np.stack([_of_kind(tables, kind, null) for kind in kinds], 1)

    return np.concatenate(each_block(call, len(p.counts)))


def _at_null(t: Tables) -> tuple[Singles, Singles]:
    """Sums over guides of slope and bend where nothing moves ``(T, 1)``."""
    n_j, n = len(MOVES), len(t.held)
    slope, bend = (x.reshape(n, -1, n_j)[:, :, n_j // 2].sum(1, keepdims=True) for x in (t.slope, t.bend))
    return slope, bend


def _following(slope: NDArray[Any], bend: NDArray[Any], held: Floats) -> NDArray[Any]:
    """What the level gains ``(T, N)`` by following, less half the log of its precision over that by NTC guides."""
    mine = held.astype(bend.dtype)[:, None]
    looser = np.maximum(mine - bend, LEAST_GAIN * mine)
    return np.asarray(0.5 * slope**2 / looser - 0.5 * np.log(looser / mine))


def _of_kind(t: Tables, kind: Curves, null: NDArray[Any]) -> Floats:
    """Log Bayes factor ``(T,)`` of one kind of curves."""
    ratio = t.value @ kind.value + kind.log_weight
    ratio += _following(t.slope @ kind.slope, t.bend @ kind.slope, t.held) - null
    top = ratio.max(1, keepdims=True)
    return np.asarray(np.log(np.exp(ratio - top).sum(1)) + top[:, 0], dtype=float)


def tables_of(p: Problem, tau: Floats) -> Tables:
    """Tables of the targeting guides of a block of features."""
    anchor, q = p.anchor(tau[:, None]), p.in_kernel()
    d, mode, precision = q.design, anchor.mode[:, 0], anchor.precision[:, 0]
    group = np.eye(mode.shape[1])[d.group]
    group[:, 0] = 1.0
    expected = np.maximum(np.exp(mode @ group.T + q.log_exposure), LEAST_EXPECTED)
    start, w = d.guide_start[:-1], np.exp(d.log_w)
    share = np.add.reduceat(w[:, None] * group, start) / np.add.reduceat(w, start)[:, None]
    common = (w @ group) / w.sum()
    cov = np.linalg.inv(precision)
    way = cov @ common
    way /= (way @ common)[:, None]
    held = np.einsum("ti,tij,tj->t", way, precision, way)
    total, mean = (np.add.reduceat(x, start, axis=1) for x in (q.counts, expected))
    noise = np.add.reduceat(expected**2 * d.scale2, start, axis=1) * (q.overdispersion[:, None] / mean) ** 2
    log_z = _log_likelihood(total, mean, noise, tau[:, None] ** 2 + d.wide_sd.T[:, None] ** 2, d.wide_weight.T)
    follows = (way @ share.T)[..., None]
    log_z -= log_z[..., len(MOVES) // 2, None]
    step = p.priors.unit * (MOVES[1] - MOVES[0])
    slope, bend = np.empty_like(log_z), np.empty_like(log_z)
    slope[..., 1:-1] = (log_z[..., 2:] - log_z[..., :-2]) / (2 * step)
    bend[..., 1:-1] = (log_z[..., 2:] - 2 * log_z[..., 1:-1] + log_z[..., :-2]) / step**2
    for each in (slope, bend):
        each[..., 0], each[..., -1] = each[..., 1], each[..., -2]
    every = log_z, slope * follows, bend * follows**2
    singles = [x.reshape(len(tau), -1).astype(np.float32) for x in every]
    return Tables(singles[0], singles[1], singles[2], held)


def _log_likelihood(total: Floats, mean: Floats, noise: Floats, variance: Floats, weight: Floats) -> Floats:
    """Log likelihood ``(T, G, J)`` of counts of guides that are moved, guide effects in the variance.

    Parameters
    ----------
    total, mean, noise
        ``(T, G)`` counts, expected ones, and squared overdispersion of the sums.
    variance, weight
        ``(M, T or 1, G)`` and ``(M, G)`` of the components of the guide effects.
    """
    moves = np.exp(MOVES)
    parts = []
    for var, w in zip(variance, weight, strict=True):
        if not w.any():
            continue
        extra = np.expm1(np.minimum(var, 3.0))
        phi = 1.0 / (noise + extra + noise * extra)
        mu = (mean * np.exp(0.5 * np.minimum(var, 3.0)))[..., None] * moves
        y, phi3 = total[..., None], phi[..., None]
        out = y * np.log(mu / phi3) - (y + phi3) * np.log1p(mu / phi3)
        with np.errstate(divide="ignore"):
            out += (gammaln(total + phi) - gammaln(phi) + np.log(w))[..., None]
        parts.append(out)
    log_z: Floats = parts[0]
    for other in parts[1:]:
        log_z = np.logaddexp(log_z, other)
    return log_z
