"""Candidates for the draws of links: shapes of their feature, then level, amplitude and tau of each link."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit, gammaln, log_softmax, ndtr

from dream_sc._core.curves import LN2
from dream_sc._core.response import importance

from .evidence import together
from .shapes import HOPELESS, lagged, log_mass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.response.problem import Problem
    from dream_sc._core.types import Axis

    from .links import Spans
    from .shapes import Local

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

INFLATE = 1.15  # scale of an amplitude's proposal
DEFENCE, WIDE, WIDE_DF = 0.25, 2.0, 4.0  # share of it that is wider, its scale and degrees of freedom
BISECTIONS, FAR = 30, 1e6
TRIED, DEEPEST = 8, 12.0  # places within cells for each shape; log evidence below a link's best that they go to


class Points(NamedTuple):
    """Candidates for the draws of links: `M` at each of the `N` shapes of their feature."""

    theta: Floats  # (T, N M, n)
    log_tau: Floats  # (T, N M)
    log_q: Floats  # (T, N M) of these two given the shape
    log_square: Floats  # (T, N M) of the movement, expected by the approximation
    still: Bools  # (T, N) links that do not move
    shapes: Floats  # (F, N, d)
    of_links: Floats  # (T, N, d) with their lags


def between(values: Floats, size: tuple[int, ...], at: Floats) -> Floats:
    """Values ``(T, S)`` on a lattice of this size, interpolated at places ``(T, M, d)``, in steps."""
    out = np.zeros(at.shape[:2])
    low = np.stack([np.clip(np.floor(at[..., i]), 0, n - 2) for i, n in enumerate(size)], -1) if size else at
    part = np.clip(at - low, 0.0, 1.0)
    for corner in np.ndindex(*[2] * len(size)):
        index, weight = np.zeros(at.shape[:2], dtype=np.int64), np.ones(at.shape[:2])
        for i, (n, step) in enumerate(zip(size, corner, strict=True)):
            index = index * n + low[..., i].astype(np.int64) + step
            weight = weight * (part[..., i] if step else 1.0 - part[..., i])
        out += weight * np.take_along_axis(values, index, 1)
    return out


def _shapes(
    p: Problem, c: Curve, x: Local, spans: Spans, log_bf: Floats, n: int, seed: int
) -> tuple[Floats, Ints, Floats, Floats]:
    """`n` shapes by their joint posterior, interpolated: they, their cells, moves within these, and links' evidence.

    They are taken by weight from several times as many within the cells of the lattice.
    """
    lattice, first = x.links, spans.start
    mine, d = np.repeat(np.arange(len(first)), spans.length), lattice.step.shape[1]
    m = n * TRIED if x.size else n
    cdf = np.exp(x.log_post).cumsum(1)
    u = (np.arange(m) + 0.5) / m
    cell = np.stack([np.minimum(np.searchsorted(row / row[-1], u), len(row) - 1) for row in cdf])
    inside = np.random.default_rng(seed).random((m, d)) - 0.5
    here = np.take_along_axis(lattice.shapes[first], cell[:, :, None], 1) + inside * lattice.step[first][:, None]
    if not x.size:
        return here, cell, inside, np.take_along_axis(log_bf, cell[mine], 1)
    place = np.stack(np.unravel_index(cell, x.size), -1) + inside
    at = between(np.maximum(log_bf, log_bf.max(1, keepdims=True) - DEEPEST), x.size, place[mine])
    log_prior = importance.log_shape_prior(c, here, p.priors) + log_mass(p, c, here, x.consts[:, None])
    better = together(at, spans) + np.maximum(log_prior, -HOPELESS) - np.take_along_axis(x.log_post, cell, 1)
    pick = np.stack([importance.pick(np.exp(row - row.max()), n) for row in better])
    take = partial(np.take_along_axis, indices=pick, axis=1)
    return (
        np.take_along_axis(here, pick[:, :, None], 1),
        take(cell),
        inside[pick],
        np.take_along_axis(at, pick[mine], 1),
    )


def propose(p: Problem, c: Curve, x: Local, spans: Spans, log_bf: Floats, n: int, each: int, seed: int) -> Points:
    """`n` shapes by their joint posterior, `each` candidates for the rest by each link's approximation there.

    `log_bf` ``(T, S)`` says how probably links move. Random numbers depend on a link's place in its feature only, so
    that a feature does not depend on its block.
    """
    lattice, first = x.links, spans.start
    mine = np.repeat(np.arange(len(first)), spans.length)
    shapes, cell, inside, at = _shapes(p, c, x, spans, log_bf, n, seed)
    squares = _log_squares(lattice, c, p.axis)
    still = ~_which_move(at, spans, seed) & c.one_step
    of_links = lagged(shapes[mine], x.lag)
    found = []
    for t, f in enumerate(mine):
        moves = inside[f] if inside.ndim == 3 else inside
        approximation = _approximation(
            lattice, t, cell[f], moves * lattice.step[t], at[t] + x.null[t], each, [seed, t - int(first[f])]
        )
        bend = np.repeat(~still[t] & c.one_step, each)
        candidates = _of_link(approximation, np.repeat(of_links[t], each, axis=0), bend, c, p.axis)
        found.append((*candidates, squares[t][approximation.cell, approximation.k]))
    theta, log_tau, log_q, log_square = (np.stack(part) for part in zip(*found, strict=True))
    return Points(theta, log_tau, log_q, log_square, still, shapes, of_links)


class _Approximation(NamedTuple):
    """Where the candidates of a link are drawn around, and with which random numbers; all ``(N M, ...)``."""

    centre: Floats  # (..., n)
    cov: Floats  # (..., n, n)
    log_tau: Floats
    log_mass: Floats  # log density of tau's place and of the rest, before its standardised density
    cell: Ints
    k: Ints  # of tau
    rng: np.random.Generator


def _approximation(
    lattice: importance.Lattice, t: int, cell: Ints, moves: Floats, log_z: Floats, each: int, seed: list[int]
) -> _Approximation:
    """Around the modes of link `t` in these cells, with moves within them; `log_z` ``(N,)`` is its evidence there."""
    rng = np.random.default_rng(seed)
    cell, moves = np.repeat(cell, each), np.repeat(moves, each, axis=0)
    n = len(cell)
    log_share = log_softmax(lattice.log_z[t], axis=1)[cell]
    share = np.exp(log_share)
    k = np.minimum((share.cumsum(1) < rng.random((n, 1))).sum(1), share.shape[1] - 1)
    by_tau = (rng.random(n) - 0.5) * lattice.tau_step[t]
    centre = lattice.mode[t][cell, k]
    for move, slope in zip([*moves.T, by_tau], importance.slopes_of(lattice.one(t)), strict=True):
        centre = centre + move[:, None] * slope[0, cell, k]
    width = np.log(lattice.tau_step[t]) if lattice.tau_step[t] > 0 else 0.0
    log_mass = np.repeat(log_z, each) + log_share[np.arange(n), k] - width
    return _Approximation(centre, lattice.cov[t][cell, k], np.log(lattice.tau[t])[k] + by_tau, log_mass, cell, k, rng)


def _of_link(a: _Approximation, shapes: Floats, bend: Bools, c: Curve, axis: Axis) -> tuple[Floats, Floats, Floats]:
    """Candidates of one link: parameters, log tau, log density of the proposal.

    The approximation is that of the density without the square of the movement; to `bend` it is to put that back.
    """
    n, dim = a.centre.shape
    order = [1, 0, *range(2, dim)] if dim > 1 else [0]  # the amplitude first
    back = np.argsort(order)
    chol = np.linalg.cholesky(a.cov[:, order][:, :, order] + 1e-14 * np.eye(dim))
    far = np.zeros(n)
    if bend.any():
        d, d1 = movement(a.centre[:, 1], shapes, c, axis)
        far = np.clip(d / np.maximum(d1 * chol[:, 0, 0], 1e-150), -FAR, FAR)
    first, log_first = _first(far, bend, a.rng)
    rest = a.rng.normal(size=(n, dim - 1))
    stretch = np.sqrt(importance.DF / a.rng.chisquare(importance.DF, n))
    z = np.concatenate([first[:, None], stretch[:, None] * rest], 1)
    theta = a.centre + np.einsum("nij,nj->ni", chol, z)[:, back]
    log_det = np.log(np.einsum("nii->ni", chol)).sum(1)
    return theta, a.log_tau, a.log_mass - log_det + log_first + _log_t((z[:, 1:] ** 2).sum(1), dim - 1)


def _first(far: Floats, bend: Bools, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Standardised amplitudes, and their log density: Student t, by `bend` a normal times ``(far + z)^2``.

    The latter has the distribution function ``Phi(y) - (2 c + y) phi(y) / (c^2 + 1)`` in units of its scale. A share of
    each is wider, since amplitudes of shallow shapes have long tails.
    """
    n = len(far)
    u, c = rng.random(n), far / INFLATE
    normal, wide = rng.normal(size=n), rng.random(n) < DEFENCE
    df = np.where(wide, WIDE_DF, importance.DF)
    plain = normal * np.sqrt(df / rng.chisquare(df)) * np.where(wide, WIDE, 1.0)
    low, high = np.full(n, -9.0), np.full(n, 9.0)
    for _ in range(BISECTIONS):
        y = 0.5 * (low + high)
        below = ndtr(y) - (2 * c + y) * np.exp(-0.5 * y**2) / np.sqrt(2 * np.pi) / (c**2 + 1) < u
        low, high = np.where(below, y, low), np.where(below, high, y)
    z = np.where(bend & ~wide, INFLATE * 0.5 * (low + high), plain)
    y = z / INFLATE
    with np.errstate(divide="ignore"):
        bent = 2 * np.log(np.abs(c + y)) - np.log(c**2 + 1) - 0.5 * y**2 - 0.5 * np.log(2 * np.pi) - np.log(INFLATE)
    core, tail = np.where(bend, bent, _log_t(z**2, 1)), _log_t((z / WIDE) ** 2, 1, WIDE_DF) - np.log(WIDE)
    return z, np.logaddexp(np.log1p(-DEFENCE) + core, np.log(DEFENCE) + tail)


def movement(b: Floats, shapes: Floats, c: Curve, axis: Axis) -> tuple[Floats, Floats]:
    """Movement of a curve of one step between the ends of the axis, and its derivative by the amplitude."""
    if c.by_acting:
        return b, np.ones_like(b)
    rate = LN2 * np.exp(shapes[..., 1])
    low, high = (rate * (end - shapes[..., 0]) for end in (axis.low, axis.high))
    sp = partial(np.logaddexp, 0.0)
    return sp(b + high) - sp(high) - sp(b + low) + sp(low), expit(b + high) - expit(b + low)


def _log_squares(lattice: importance.Lattice, c: Curve, axis: Axis) -> Floats:
    """Log of the expected square of the movement of one step ``(T, S, K)``, which its evidence has for a factor."""
    if not c.one_step:
        return np.zeros(lattice.log_z.shape)
    d, d1 = movement(lattice.mode[..., 1], lattice.shapes[:, :, None], c, axis)
    return np.asarray(np.log(np.maximum(d**2 + d1**2 * lattice.cov[..., 1, 1], 1e-300)))


def _log_t(square: Floats, dim: int, df: float = importance.DF) -> Floats:
    """Log density of a standard Student t of the proposals at points of this squared norm."""
    const = gammaln(0.5 * (df + dim)) - gammaln(0.5 * df) - 0.5 * dim * np.log(df * np.pi)
    return np.asarray(const - 0.5 * (df + dim) * np.log1p(square / df))


def _which_move(log_bf: Floats, spans: Spans, seed: int) -> Bools:
    """Which links move ``(T, N)``, at least one of each feature, given their log Bayes factors."""
    probability, still = expit(log_bf), np.log(expit(-log_bf))
    moves, n = np.zeros(log_bf.shape, dtype=bool), log_bf.shape[1]
    u = [np.random.default_rng([seed, 1, k]).random(n) for k in range(int(spans.length.max()))]
    for first, length in zip(spans.start, spans.length, strict=True):
        none = np.ones(n, dtype=bool)
        for k in range(length):
            some = -np.expm1(still[first + k : first + length].sum(0))  # that one of those left moves
            share = np.where(none, probability[first + k] / np.maximum(some, 1e-300), probability[first + k])
            moves[first + k] = (u[k] < share) | (none & (k == length - 1))
            none &= ~moves[first + k]
    return moves
