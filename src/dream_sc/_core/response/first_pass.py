"""Curves on a fixed set of shapes and amplitudes, and the evidence of every feature for them: a first pass.

Features with little evidence after this pass are not refined: what it says of them is what is reported. The
amplitudes are those of given movements between the ends of the axis, which their prior is about.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.curves._base import moment_mass
from dream_sc._core.laplace.lookup import MOVES, Start, log_ratios
from dream_sc._core.response.problem import null_evidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.response.problem import Problem

    from .comparison import Lattice

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

FLAT = 0.5  # log likelihood of the null between two taus, below which tau does not matter
LOWER_TAU = 2  # points of the grid of tau between the two that are looked at


class Columns(NamedTuple):
    """Curves: each a shape of the lattice with amplitudes."""

    shape: Ints  # (N,) sorted
    amplitudes: Floats  # (N, A)
    log_weight: Floats  # (N,) prior mass
    positions: Floats  # (N, G) where each targeting guide is moved to, in steps of `lookup.MOVES`
    first: Ints  # (S,) first column of each shape
    move: Floats  # (N, A) movements, signed


def columns_of(p: Problem, c: Curve, lattice: Lattice) -> Columns:
    """The curves to look at; `p` has the rows of targeting guides."""
    edges = p.priors.unit * c.moves
    mass = np.diff(moment_mass(edges, p.priors.movement_scales, p.priors.movement_weights))
    middle = np.sqrt(edges[1:] * edges[:-1])
    # the prior of a movement of known sign has its whole mass on that side
    signed = [(sign * d, 2 * m / len(c.signs)) for sign in c.signs for d, m in zip(middle, mass, strict=True)]
    ones = np.ones((len(lattice.shapes), c.n_amplitudes))
    amplitudes = [c.amplitudes(p.axis, lattice.shapes, lattice.consts, d * ones) for d, _ in signed]
    table, out = c.tables(lattice.shapes, lattice.consts, *at_guides(p)), []
    for chosen in product(range(len(signed)), repeat=c.n_amplitudes):
        every = np.stack([amplitudes[i][:, a] for a, i in enumerate(chosen)], 1)
        s = np.flatnonzero(np.isfinite(every).all(1))
        f = c.log_mean(every[s], table[s])
        weight = lattice.log_weight[s] + np.log(np.prod([signed[i][1] for i in chosen]))
        if p.several and c.factor is not None:
            params = np.concatenate([np.zeros((len(s), 1)), every[s], lattice.shapes[s]], 1)
            weight += c.factor.log_weight(params, lattice.consts[s], p.axis, p.priors)
        move = np.tile([signed[i][0] for i in chosen], (len(s), 1))
        out.append((s, every[s], weight, f[:, :-1] - f[:, -1:], move))
    shape, amplitude, log_weight, curves, move = (np.concatenate(part) for part in zip(*out, strict=True))
    order = np.argsort(shape, kind="stable")
    shape = shape[order]
    moves = p.priors.unit * MOVES
    positions = np.clip((curves[order] - moves[0]) / (moves[1] - moves[0]), 0.0, len(moves) - 1.0)
    first = np.searchsorted(shape, np.arange(len(lattice.shapes)))
    return Columns(shape, amplitude[order], log_weight[order], np.ascontiguousarray(positions), first, move[order])


def at_guides(p: Problem) -> tuple[Floats, Floats]:
    """Nodes ``(G + 1, J)`` of the cells' dosages of each guide and of NTC dosage, and their weights."""
    d = p.design
    at = d.dose[d.guide_start[:-1]]
    nodes = np.vstack([d.nodes[at], np.zeros((1, d.nodes.shape[1]))])
    return nodes, np.vstack([d.node_weights[at], np.eye(1, d.nodes.shape[1])])


class Null(NamedTuple):
    """The null of each feature at every tau."""

    log_z: Floats  # (T, K) log evidence
    mode: Floats  # (T, K, C) of level and group effects
    cov: Floats  # (T, K, C, C)


def null_of(p: Problem, taus: Floats) -> Null:
    """The null at taus ``(T, K)``; a negative one is skipped."""
    return Null(*null_evidence(p, taus, modes=True))


def start_at(p: Problem, null: Null, taus: Floats, at: Ints) -> tuple[Start, Floats]:
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
    which = p.targeting[p.guide] | ~p.targeting.any()  # all rows of a problem of NTC guides only
    common = w[:, which] @ group[which]
    common /= common[:, :1]
    way = np.einsum("tcd,td->tc", cov, np.broadcast_to(common, mode.shape))
    way = way / (way * common).sum(1, keepdims=True)
    anchor = p.anchor(tau[:, None])
    pull = np.einsum("tcd,tc->td", anchor.precision[:, 0], anchor.mode[:, 0] - mode)
    held = np.stack([(pull * way).sum(1), np.einsum("ti,tij,tj->t", way, anchor.precision[:, 0], way)], 1)
    moves = np.einsum("tc,tgc->tg", way, np.broadcast_to(share, (len(way), *share.shape[1:])))
    return Start(np.ascontiguousarray(mode @ group.T + log_exposure), tau, np.ascontiguousarray(moves), held), way


def by_movements(
    p: Problem, columns: dict[str, Columns], null: Null, taus: Floats, ntc: Floats | None
) -> tuple[Floats, dict[str, Floats]]:
    """What `from_two_taus` finds by the table of movements."""
    q = p.in_kernel()

    def masses(some: Ints, at: Ints, names: list[str]) -> list[Floats]:
        return _masses_at(q, some, null, taus, at, [columns[name] for name in names])

    return from_two_taus({name: c.amplitudes.shape[1] for name, c in columns.items()}, masses, null, taus, ntc)


def from_two_taus(
    amplitudes: dict[str, int],
    masses_at: Callable[[Ints, Ints, list[str]], list[Floats]],
    null: Null,
    taus: Floats,
    ntc: Floats | None,
) -> tuple[Floats, dict[str, Floats]]:
    """Log Bayes factors ``(T, M, K)`` against the null at the same tau, and the masses of the shapes ``(T, S)``.

    From the tau that is likeliest under the null, and where the guides tell tau also from the likeliest by the NTC
    guides alone (their evidence `ntc` ``(T, K)``) or a lower one. Between the two the log Bayes factor of a curve of
    one amplitude, or of the only curve, is linear in log tau, beyond them constant. That of a curve of several keeps
    its ratio to the last one of these, which is taken where that one is likelier.
    """
    rows, valid = np.arange(len(taus)), taus > 0
    at = _two_taus(null.log_z, valid, ntc)
    plain = [name for name, n in amplitudes.items() if n == 1] or [*amplitudes][:1]
    masses: dict[str, Floats] = {}
    factors = np.zeros((len(plain), len(taus), 2))
    fall = np.abs(null.log_z[rows, at[:, 0]] - null.log_z[rows, at[:, 1]])
    for i, some in enumerate((rows, np.flatnonzero(fall > FLAT))):
        found = masses_at(some, at[some, i], plain)
        for m, (name, mass) in enumerate(zip(plain, found, strict=True)):
            masses[name] = mass if i == 0 else _added(masses[name], some, mass)
            factors[m, some, i] = logsumexp(mass, axis=1)
        if i == 0:
            factors[..., 1] = factors[..., 0]
    log_tau = np.log(np.where(valid, taus, 1.0))
    x0, x1 = log_tau[rows, at[:, 0]][:, None], log_tau[rows, at[:, 1]][:, None]
    share = np.clip((log_tau - x0) / np.where(x1 == x0, 1.0, x1 - x0), 0.0, 1.0)
    out = {name: (1 - share) * f[:, :1] + share * f[:, 1:] for name, f in zip(plain, factors, strict=True)}
    last, name_of_last = factors[-1], plain[-1]
    here = (last + null.log_z[rows[:, None], at]).argmax(1)
    for name in amplitudes.keys() - set(plain):
        (masses[name],) = masses_at(rows, at[rows, here], [name])
        out[name] = out[name_of_last] + (logsumexp(masses[name], axis=1) - last[rows, here])[:, None]
    return np.stack([out[name] for name in amplitudes], 1), masses


def from_one_tau(
    p: Problem, columns: dict[str, Columns], null: Null, taus: Floats, at: Ints
) -> tuple[Floats, dict[str, Floats]]:
    """As `by_movements`, all from one tau of each feature, `at` ``(T,)`` among the `taus`."""
    found = _masses_at(p.in_kernel(), np.arange(len(taus)), null, taus, at, list(columns.values()))
    factors = np.stack([logsumexp(mass, axis=1) for mass in found], 1)
    return np.repeat(factors[:, :, None], taus.shape[1], 2), dict(zip(columns, found, strict=True))


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


def _masses_at(q: Problem, some: Ints, null: Null, taus: Floats, at: Ints, columns: list[Columns]) -> list[Floats]:
    """Log masses ``(T, S)`` of the shapes of each curve for some features, each from a tau of its own."""
    part = q.take(some)
    start, _ = start_at(part, Null(*(values[some] for values in null)), taus[some], at)
    ratio = log_ratios(part, start, np.concatenate([c.positions for c in columns]))[0]
    parts = np.split(ratio, np.cumsum([len(c.shape) for c in columns])[:-1], axis=1)
    return [sum_by_shape(each, c) for each, c in zip(parts, columns, strict=True)]


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
