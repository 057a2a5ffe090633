"""Curves on a fixed set of shapes and amplitudes, and the evidence of every feature for them: a first look.

Features for which it leaves no hope of a response go no further; what it says of them is what is reported. The
amplitudes are those of given movements between the ends of the axis, which their prior is about.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import expit, log_expit, logsumexp

from dream_sc._core.curves import LN2
from dream_sc._core.curves.additive_hill import turn_weight
from dream_sc._core.curves.single_hill import moment_mass
from dream_sc._core.laplace.lookup import MOVES, Look, look
from dream_sc._core.response.problem import null_evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.response.problem import Problem

    from .comparison import Lattice

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# edges of the movements, in the unit of the priors
EDGES = {1: np.geomspace(0.03, 6.0, 18), 2: np.geomspace(0.1, 5.0, 7)}
LEAST_RATIO = 1e-8
FLAT = 0.5  # log likelihood of the null between two taus, below which tau does not matter
LOWER_TAU = 2  # points of the grid of tau between the two that are looked at


class Columns(NamedTuple):
    """Curves: each a shape of the lattice with amplitudes."""

    shape: Ints  # (N,) sorted
    amplitudes: Floats  # (N, A)
    log_weight: Floats  # (N,) prior mass
    positions: Floats  # (N, G) where each targeting guide is moved to, in steps of `screen.MOVES`
    first: Ints  # (S,) first column of each shape
    move: Floats  # (N, A) movements, signed


def _ends(p: Problem, shapes: Floats, signs: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Logs of Hill values at both ends of the axis, and of their complements; `shapes` are ``(..., 2)``."""
    rate = signs * LN2 * np.exp(shapes[..., 1])
    low, high = (rate * (end - shapes[..., 0]) for end in (p.axis.low, p.axis.high))
    return log_expit(low), log_expit(high), log_expit(-low), log_expit(-high)


def _means(p: Problem, shapes: Floats, signs: Floats) -> tuple[Floats, Floats]:
    """Hill values ``(S, G + 1)`` at the guides' dosages and at NTC dosage, averaged over cells; and complements."""
    d = p.design
    at = d.dose[d.guide_start[:-1]]
    nodes = np.vstack([d.nodes[at], np.zeros((1, d.nodes.shape[1]))])
    weights = np.vstack([d.node_weights[at], np.eye(1, d.nodes.shape[1])])
    z = (signs * LN2 * np.exp(shapes[:, 1]))[:, None, None] * (nodes - shapes[:, 0, None, None])
    return (weights * expit(z)).sum(-1), (weights * expit(-z)).sum(-1)


def _ratio(top: Floats, bottom: Floats, top_c: Floats, bottom_c: Floats, move: Any) -> Floats:
    """Factor ``F`` with which ``F h + c`` moves by `move` (natural log) from bottom to top; NaN where it cannot."""
    e = np.exp(move)
    ratio = (e * np.exp(bottom_c) - np.exp(top_c)) / (np.exp(top) - e * np.exp(bottom))
    return np.where((ratio > LEAST_RATIO) & (ratio < 1 / LEAST_RATIO), ratio, np.nan)


def movements(p: Problem, shapes: Floats, signs: Floats, move: Floats) -> Floats:
    """Amplitudes ``(..., A)`` with which Hills of these shapes ``(..., 2 A)`` move by `move`; NaN where they cannot."""
    out, one = [], move.shape[-1] == 1
    for i in range(move.shape[-1]):
        low, high, low_c, high_c = _ends(p, shapes[..., 2 * i : 2 * i + 2], signs[..., i])
        top, bottom = np.maximum(low, high), np.minimum(low, high)
        zero = np.zeros_like(low)
        top, bottom, top_c, bottom_c = (high, low, high_c, low_c) if one else (top, bottom, zero, zero)
        with np.errstate(invalid="ignore"):
            out.append(np.log(_ratio(top, bottom, top_c, bottom_c, move[..., i])))
    return np.stack(out, -1)


def columns_of(p: Problem, c: Curve, lattice: Lattice) -> Columns:
    """The curves to look at; `p` has the rows of targeting guides."""
    n_hills = c.n_amplitudes
    edges = p.priors.unit * EDGES[n_hills]
    mass = np.diff(moment_mass(edges, p.priors.movement_scales, p.priors.movement_weights))
    middle = np.sqrt(edges[1:] * edges[:-1])
    if n_hills == 1:
        out = _single(p, lattice, middle, mass)
    else:
        out = _two(p, c, lattice, middle, mass)
    shape, amplitude, log_weight, curves, move = (np.concatenate(part) for part in zip(*out, strict=True))
    order = np.argsort(shape, kind="stable")
    shape = shape[order]
    moves = p.priors.unit * MOVES
    positions = np.clip((curves[order] - moves[0]) / (moves[1] - moves[0]), 0.0, len(moves) - 1.0)
    first = np.searchsorted(shape, np.arange(len(lattice.shapes)))
    return Columns(shape, amplitude[order], log_weight[order], np.ascontiguousarray(positions), first, move[order])


def _single(p: Problem, lattice: Lattice, middle: Floats, mass: Floats) -> list[tuple[Any, ...]]:
    ones = np.ones((len(lattice.shapes), 1))
    h, hc = _means(p, lattice.shapes, ones[:, 0])
    out = []
    for sign, (d, m) in product((1.0, -1.0), zip(middle, mass, strict=True)):
        b = movements(p, lattice.shapes, ones, sign * d * ones)
        s = np.flatnonzero(np.isfinite(b[:, 0]))
        f = np.log(np.exp(b[s]) * h[s] + hc[s])
        weight = lattice.log_weight[s] + np.log(m)
        out.append((s, b[s], weight, f[:, :-1] - f[:, -1:], sign * d * ones[s]))
    return out


def _two(p: Problem, c: Curve, lattice: Lattice, middle: Floats, mass: Floats) -> list[tuple[Any, ...]]:
    pairs = np.ones((len(lattice.shapes), 2))
    b = [movements(p, lattice.shapes, lattice.consts, d * pairs) for d in middle]
    h = [_means(p, lattice.shapes[:, 2 * i : 2 * i + 2], lattice.consts[:, i])[0] for i in range(2)]
    x, out = p.turn_points, []
    for i, j in product(range(len(middle)), repeat=2):
        both = np.stack([b[i][:, 0], b[j][:, 1]], 1)
        s = np.flatnonzero(np.isfinite(both).all(1))
        amplitudes = both[s]
        f = np.log(1.0 + np.exp(amplitudes[:, :1]) * h[0][s] + np.exp(amplitudes[:, 1:]) * h[1][s])
        weight = lattice.log_weight[s] + np.log(4 * mass[i] * mass[j])
        if p.turn:
            params = np.concatenate([np.zeros((len(s), 1)), amplitudes, lattice.shapes[s]], 1)
            curves = c.log_curve(x, params, lattice.consts[s])
            weight += np.log(np.maximum(turn_weight(x, curves, p.priors.turn_scale), 1e-12))
        move = np.tile([middle[i], middle[j]], (len(s), 1))
        out.append((s, amplitudes, weight, f[:, :-1] - f[:, -1:], move))
    return out


class Null(NamedTuple):
    """The null of each feature at every tau."""

    log_z: Floats  # (T, K) log evidence
    mode: Floats  # (T, K, C) of level and group effects
    cov: Floats  # (T, K, C, C)


def null_of(p: Problem, taus: Floats) -> Null:
    """The null at taus ``(T, K)``; a negative one is skipped."""
    return Null(*null_evidence(p, taus, modes=True))


def look_from(p: Problem, null: Null, taus: Floats, at: Ints) -> tuple[Look, Floats]:
    """The null at one tau of each feature, and the direction ``(T, C)`` in which level and group effects give way.

    `p` is the problem as the kernel sees it, `at` the tau ``(T,)`` among the `taus` ``(T, K)``.
    """
    rows, d = np.arange(len(at)), p.design
    tau = np.ascontiguousarray(taus[rows, at])
    mode, cov = null.mode[rows, at], null.cov[rows, at]
    group = np.concatenate([np.eye(mode.shape[1] - d.loads.shape[1])[d.group], d.loads], 1)
    group[:, 0] = 1.0
    log_exposure = np.atleast_2d(p.log_exposure)  # (1 or T, R)
    w = np.exp(log_exposure)
    start = d.guide_start[:-1]
    share = np.add.reduceat(w[:, :, None] * group, start, axis=1) / np.add.reduceat(w, start, axis=1)[:, :, None]
    targeting = p.targeting[p.guide]
    common = w[:, targeting] @ group[targeting]
    common /= common[:, :1]
    way = np.einsum("tcd,td->tc", cov, np.broadcast_to(common, mode.shape))
    way = way / (way * common).sum(1, keepdims=True)
    anchor = p.anchor(tau[:, None])
    pull = np.einsum("tcd,tc->td", anchor.precision[:, 0], anchor.mode[:, 0] - mode)
    held = np.stack([(pull * way).sum(1), np.einsum("ti,tij,tj->t", way, anchor.precision[:, 0], way)], 1)
    moves = np.einsum("tc,tgc->tg", way, np.broadcast_to(share, (len(way), *share.shape[1:])))
    return Look(np.ascontiguousarray(mode @ group.T + log_exposure), tau, np.ascontiguousarray(moves), held), way


def first_look(
    p: Problem, columns: dict[str, Columns], null: Null, taus: Floats, ntc: Floats | None
) -> tuple[Floats, dict[str, Floats]]:
    """Log Bayes factors ``(T, M, K)`` against the null at the same tau, and the masses of the shapes ``(T, S)``.

    From the tau that is likeliest under the null, and where the guides tell tau also from the likeliest by the NTC
    guides alone (their evidence `ntc` ``(T, K)``) or a lower one. Between the two the log Bayes factor of the first
    curve is linear in log tau, beyond them constant. That of the second curve keeps its ratio to the first one's, which
    is taken where the first curve is likelier.
    """
    q, rows, valid = p.in_kernel(), np.arange(len(taus)), taus > 0
    at = _two_taus(null.log_z, valid, ntc)
    (first, single), *more = columns.items()
    masses: dict[str, Floats] = {}
    factors = np.zeros((len(taus), 2))
    fall = np.abs(null.log_z[rows, at[:, 0]] - null.log_z[rows, at[:, 1]])
    for i, some in enumerate((rows, np.flatnonzero(fall > FLAT))):
        mass = _look_at(q, some, null, taus, at[some, i], single)
        masses[first] = mass if i == 0 else _added(masses[first], some, mass)
        factors[some, i] = logsumexp(mass, axis=1)
        if i == 0:
            factors[:, 1] = factors[:, 0]
    here = (factors + null.log_z[rows[:, None], at]).argmax(1)
    log_tau = np.log(np.where(valid, taus, 1.0))
    x0, x1 = log_tau[rows, at[:, 0]][:, None], log_tau[rows, at[:, 1]][:, None]
    share = np.clip((log_tau - x0) / np.where(x1 == x0, 1.0, x1 - x0), 0.0, 1.0)
    out = [(1 - share) * factors[:, :1] + share * factors[:, 1:]]
    for name, each in more:
        masses[name] = _look_at(q, rows, null, taus, at[rows, here], each)
        out.append(out[0] + (logsumexp(masses[name], axis=1) - factors[rows, here])[:, None])
    return np.stack(out, 1), masses


def _two_taus(log_z: Floats, valid: NDArray[np.bool_], ntc: Floats | None) -> Ints:
    """The two taus ``(T, 2)`` to look from."""
    n_k = log_z.shape[1]
    first = np.where(valid, log_z, -np.inf).argmax(1)
    below = np.sort(np.where(valid & (np.arange(n_k) < first[:, None]), np.arange(n_k), -1), axis=1)
    if ntc is None:
        second = below[:, -min(LOWER_TAU, n_k)]
    else:
        second = np.where(valid, ntc, -np.inf).argmax(1)
        second = np.where(second == first, below[:, -1], second)
    return np.stack([first, np.where(second < 0, first, second)], 1)


def _look_at(q: Problem, some: Ints, null: Null, taus: Floats, at: Ints, columns: Columns) -> Floats:
    """Log masses ``(T, S)`` of the shapes for some features, each from a tau of its own."""
    part = q.take(some)
    start, _ = look_from(part, Null(*(values[some] for values in null)), taus[some], at)
    return sum_by_shape(look(part, start, columns.positions)[0], columns)


def _added(masses: Floats, some: Ints, more: Floats) -> Floats:
    out = masses.copy()
    out[some] = np.logaddexp(out[some], more)
    return out


def sum_by_shape(log_ratio: NDArray[np.float32], columns: Columns) -> Floats:
    """Log mass ``(T, S)`` of each shape from ratios ``(T, N)``; next to nothing of a shape without a curve."""
    joint = log_ratio + columns.log_weight
    top = joint.max(1, keepdims=True)
    cumulative = np.cumsum(np.exp(joint - top), axis=1)
    ends = np.append(columns.first[1:], joint.shape[1])
    padded = np.concatenate([np.zeros((len(joint), 1)), cumulative], 1)
    total = padded[:, ends] - padded[:, columns.first]
    return np.asarray(np.log(np.maximum(total, 1e-300)) + top)
