"""Evidence of every feature for each curve, with effort spent where it can change a call.

All features get the null, and one Hill on a thinned lattice. Where that leaves a response possible, the whole lattice
follows at the likeliest tau, and where it also leaves it in doubt, at every tau. Two Hills are tried in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logsumexp

from .calls import Prior
from .dose_response.additive_hill import turn_mass
from .engines import laplace
from .screening import Columns, columns_of, first_look, null_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .dose_response import Curve
    from .priors import TransPriors
    from .types import Axis

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# log Bayes factors against the null, or of two Hills against one
LEFT_AT_ONCE = -4.0  # below it, taus by the likeliest shape of the thinned lattice: left there
HOPELESS = -2.5  # below it on the thinned lattice: left there
CLEAR = 11.0  # above it on the lattice at the likeliest tau: left there
MATTERS = 5.0  # taus whose evidence is this far below the best keep what the leaders say
HOPELESS_SECOND = -3.5
NO_HOPE = 1.0  # after a first look, of one Hill and of two
NO_SECOND = -5.0  # of two Hills against one, after a first look
TAU_TRIES = 3  # of the two-Hill lattice
LEADERS = 8  # points of the lattice that stand for all at the other taus


class Lattice(NamedTuple):
    """Shapes of a curve with their prior, and a thinned form of it."""

    shapes: Floats  # (S, d)
    log_weight: Floats  # (S,)
    consts: Floats  # (S, 2)
    thin: Ints  # (S',) indices
    thin_log_weight: Floats  # (S',) each with the weight of the shapes nearest to it


def thinned(shapes: Floats, log_weight: Floats, consts: Floats) -> Lattice:
    """A lattice with a thinned form: every second EC50 and every other steepness."""
    n_s, d = shapes.shape
    codes = np.stack([np.unique(column, return_inverse=True)[1] for column in shapes.T], 1) if d else np.zeros((n_s, 0))
    if d == 2:
        keep = (codes[:, 0] % 2 == 0) & (codes[:, 1] % 2 == 1)
    elif d == 4:
        flat = (codes[:, 0] + codes[:, 2]) % 2
        keep = (codes[:, 1] == flat) & (codes[:, 3] == flat)
    else:
        keep = np.ones(n_s, dtype=bool)
    thin = np.flatnonzero(keep)
    scale = codes.max(0) + 1.0 if d else 1.0
    distance = (((codes[:, None] - codes[None, thin]) / scale) ** 2).sum(-1)
    other = (consts[:, None] != consts[None, thin]).any(-1)
    nearest = np.where(other, np.inf, distance).argmin(1)
    weight = np.array([logsumexp(log_weight[nearest == j]) for j in range(len(thin))])
    return Lattice(shapes, log_weight, consts, thin, weight)


def lattices_of(curves: list[Curve], axis: Axis, priors: TransPriors) -> dict[str, Lattice]:
    """The lattice of each curve; where two Hills compete with one, their prior makes them turn."""
    out = {c.name: thinned(*c.lattice(axis, priors)) for c in curves}
    if len(curves) > 2:
        less, two = np.log(turn_mass(axis, priors)), out["additive_hill"]
        out["additive_hill"] = two._replace(
            log_weight=two.log_weight - less, thin_log_weight=two.thin_log_weight - less
        )
    return out


@dataclass(frozen=True)
class Comparison:
    """The curves that compete on one design, and where they are evaluated."""

    curves: list[Curve]  # the null first
    lattices: dict[str, Lattice]
    grid: Floats  # (K,) of tau
    columns: dict[str, Columns] | None  # of the first look, where there is one
    degree: int = 6


class Found(NamedTuple):
    """Log evidence of features."""

    values: Floats  # (T, M, K) of each curve at each tau
    shapes: NDArray[np.float32]  # (T, S) log mass of one Hill on its lattice, up to a constant per feature


def compare(p: laplace.Problem, curves: list[Curve], grid: Floats, degree: int) -> Comparison:
    """Set up the comparison of curves on the design of a problem."""
    lattices = lattices_of(curves, p.axis, p.priors)
    names = [c.name for c in curves[1:]]
    columns = None
    if p.one_dose_each and "polynomial" not in names:
        q = p.take(slice(0, 0)).guides(p.targeting)  # whose positions are wanted
        columns = {c.name: columns_of(q, c, lattices[c.name]) for c in curves[1:]}
    return Comparison(curves, lattices, grid, columns, degree)


def block_evidence(p: laplace.Problem, c: Comparison, *, whole: bool = False) -> Found:
    """Evidence of one block of features; `whole` spends all effort on all of them."""
    n_t, grid, taus = len(p.counts), c.grid, p.taus(c.grid)
    values = np.full((n_t, len(c.curves), len(grid)), -np.inf)
    null = null_of(p, taus)
    values[:, 0] = null.log_z
    n_shapes = len(c.lattices["single_hill"].shapes) if "single_hill" in c.lattices else 0
    shapes = np.zeros((n_t, n_shapes), dtype=np.float32)
    weight = np.zeros((n_t, len(grid))) if p.tau_weight is None else p.tau_weight
    rows, second = np.arange(n_t), np.ones(n_t, dtype=bool)
    if c.columns is not None and not whole:
        ntc = None if p.background is None else p.background.evidence(taus)
        factors, masses = first_look(p, c.columns, null, taus, ntc)
        values[:, 1:] = null.log_z[:, None] + factors
        base = logsumexp(null.log_z, axis=1)
        by_curve = logsumexp(values[:, 1:], axis=2) - base[:, None]
        rows = np.flatnonzero(by_curve.max(1) > NO_HOPE)
        second = by_curve[rows, -1] > by_curve[rows, 0] + NO_SECOND
        if n_shapes:
            shapes[:] = masses["single_hill"] - masses["single_hill"].max(1, keepdims=True)
    if len(rows):
        values[rows, 1:], found = _closely(p.take(rows), c, values[rows], second, whole=whole)
        if found is not None:
            start = Prior(np.ones(1), p.priors.tau_log_mean, p.priors.tau_log_sd).log_tau(grid)
            mass = logsumexp(found + (start + weight[rows])[:, None], axis=2)
            shapes[rows] = mass - mass.max(1, keepdims=True)
    return Found(values + weight[:, None], shapes)


def _closely(
    p: laplace.Problem, c: Comparison, before: Floats, second: NDArray[np.bool_], *, whole: bool
) -> tuple[Floats, Floats | None]:
    """Evidence ``(T, M - 1, K)`` by the kernel, and that of one Hill on its lattice ``(T, S, K)``.

    Two Hills keep their ratio to one where `second` says that a first look leaves them no hope.
    """
    values, single = before.copy(), None
    for m, each in enumerate(c.curves[1:], 1):
        lattice = c.lattices[each.name]
        if each.name == "additive_hill" and m > 1:
            rows = np.flatnonzero(second)
            known = np.isfinite(before[:, m])
            ratio = np.where(known, before[:, m], 0.0) - np.where(known, before[:, 1], 0.0)
            values[:, m] = values[:, 1] + ratio
            if len(rows):
                values[rows, m] = two_hills(
                    p.take(rows), each, lattice, c.grid, values[rows, :m], c.degree, whole=whole
                )
            continue
        log_z = on_lattice(p, each, lattice, c.grid, values[:, 0], c.degree, whole=whole)
        values[:, m] = logsumexp(log_z, axis=1)
        if each.name == "single_hill":
            single = log_z
    return values[:, 1:], single


def _run(p: laplace.Problem, c: Curve, lattice: Lattice, which: Ints, taus: Floats, degree: int) -> Floats:
    """Log evidence ``(T, S', K)`` at some shapes, shared ``(S',)`` or by feature ``(T, S')``, without their prior."""
    shapes, consts = lattice.shapes[which], lattice.consts[which]
    if which.ndim == 1:
        shapes, consts = shapes[None], consts[None]
    return laplace.evidence(p, c, shapes, consts, taus, degree=degree)[0]


def _only(p: laplace.Problem, grid: Floats, picks: Ints) -> Floats:
    """Taus ``(T, K)`` with all but some of each feature's masked."""
    taus = np.full((len(picks), len(grid)), -1.0)
    np.put_along_axis(taus, picks, grid[picks], 1)
    return np.where(p.taus(grid) > 0, taus, -1.0)


def _fill(log_z: Floats, leaders: Ints, at_leaders: Floats, best: Ints) -> Floats:
    """Evidence ``(T, S, K)`` from that at one tau ``(T, S)`` and that of a few shapes at all taus.

    The ratio to the evidence at the one tau is taken from the leaders, by their weight.
    """
    here = np.take_along_axis(at_leaders, best[:, None, None], 2)
    weight = here - logsumexp(here, axis=1, keepdims=True)  # what a feature does without stays at -inf
    ratio = logsumexp(at_leaders - here + weight, axis=1)
    out = log_z[:, :, None] + ratio[:, None]
    rows = np.arange(len(out))[:, None]
    out[rows, leaders] = at_leaders
    return out


def on_lattice(
    p: laplace.Problem, c: Curve, lattice: Lattice, grid: Floats, null: Floats, degree: int, *, whole: bool = False
) -> Floats:
    """Log evidence ``(T, S, K)`` of a curve on its lattice, the shapes' prior included.

    `whole` spends all effort on all features.
    """
    n_s, n_k = len(lattice.shapes), len(grid)
    every = p.taus(grid)
    if whole or n_s == 1 or n_k == 1:
        return _run(p, c, lattice, np.arange(n_s), every, degree) + lattice.log_weight[:, None]
    start = null.argmax(1)[:, None]
    coarse = _run(p, c, lattice, lattice.thin, _only(p, grid, start), degree)
    coarse = np.take_along_axis(coarse, start[:, None], 2)[..., 0]
    # what tau does is first taken from the likeliest shape alone
    first = lattice.thin[(coarse + lattice.thin_log_weight).argmax(1)][:, None]
    at_first = _run(p, c, lattice, first, every, degree)
    out = _fill(coarse[:, _nearest(lattice)], first, at_first, start[:, 0])
    base = logsumexp(null, axis=1)
    log_bf = logsumexp(out + lattice.log_weight[:, None], axis=(1, 2)) - base
    some = np.flatnonzero(log_bf > LEFT_AT_ONCE)
    if len(some):
        out[some], best, leaders = _all_taus(p.take(some), c, lattice, grid, coarse[some], start[some, 0], degree)
        log_bf[some] = logsumexp(out[some] + lattice.log_weight[:, None], axis=(1, 2)) - base[some]
        hopeful = log_bf[some] > HOPELESS
        rows = some[hopeful]
        if len(rows):
            out[rows] = _closer(p.take(rows), c, lattice, grid, best[hopeful], leaders[hopeful], degree)
            log_bf[rows] = logsumexp(out[rows] + lattice.log_weight[:, None], axis=(1, 2)) - base[rows]
    doubt = np.flatnonzero((log_bf > HOPELESS) & (log_bf < CLEAR))
    if len(doubt):
        by_tau = logsumexp(out[doubt] + lattice.log_weight[:, None], axis=1)
        taus = np.where(by_tau > by_tau.max(1, keepdims=True) - MATTERS, grid, -1.0)
        exact = _run(p.take(doubt), c, lattice, np.arange(n_s), taus, degree)
        out[doubt] = np.where(taus[:, None] > 0, exact, out[doubt])
    return out + lattice.log_weight[:, None]


def _all_taus(
    p: laplace.Problem, c: Curve, lattice: Lattice, grid: Floats, coarse: Floats, start: Ints, degree: int
) -> tuple[Floats, Ints, Ints]:
    """Evidence ``(T, S, K)`` from the thinned lattice at one tau and its leaders at all; likeliest tau and leaders."""
    lead = np.argsort(-(coarse + lattice.thin_log_weight), axis=1, kind="stable")[:, :LEADERS]
    leaders = lattice.thin[lead]
    at_leaders = _run(p, c, lattice, leaders, p.taus(grid), degree)
    best = logsumexp(at_leaders + lattice.thin_log_weight[lead][..., None], axis=1).argmax(1)
    return _fill(coarse[:, _nearest(lattice)], leaders, at_leaders, start), best, leaders


def _nearest(lattice: Lattice) -> Ints:
    """Position in the thinned lattice of the shape nearest to each shape."""
    scale = np.ptp(lattice.shapes, axis=0) + 1e-12
    distance = (((lattice.shapes[:, None] - lattice.shapes[None, lattice.thin]) / scale) ** 2).sum(-1)
    return np.asarray(distance.argmin(1))


def _closer(
    p: laplace.Problem, c: Curve, lattice: Lattice, grid: Floats, best: Ints, before: Ints, degree: int
) -> Floats:
    """The whole lattice at the likeliest tau, its leaders at all taus."""
    picks = best[:, None]
    at_best = _run(p, c, lattice, np.arange(len(lattice.shapes)), _only(p, grid, picks), degree)
    at_best = np.take_along_axis(at_best, picks[:, None], 2)[..., 0]
    leaders = np.argsort(-(at_best + lattice.log_weight), axis=1, kind="stable")[:, :LEADERS]
    at_leaders = _run(p, c, lattice, leaders, p.taus(grid), degree)
    return _fill(at_best, leaders, at_leaders, best)


def two_hills(
    p: laplace.Problem, c: Curve, lattice: Lattice, grid: Floats, simpler: Floats, degree: int, *, whole: bool = False
) -> Floats:
    """Log evidence ``(T, K)`` of two Hills that compete with simpler curves ``(T, M, K)``.

    At the likeliest tau of one Hill; at more of them where two Hills may win. Elsewhere the evidence keeps its
    ratio to the single Hill's.
    """
    n = len(p.counts)
    order = np.argsort(-simpler[:, 1], axis=1, kind="stable")
    first = order[:, :1]
    one = np.take_along_axis(simpler[:, 1], first, 1)[:, 0]
    strongest = np.take_along_axis(simpler.max(1), first, 1)[:, 0]

    def at_first(rows: Ints, which: Ints, log_weight: Floats) -> Floats:
        q = p.take(rows)
        log_z = _run(q, c, lattice, which, _only(q, grid, first[rows]), degree)
        log_z = np.take_along_axis(log_z, first[rows][:, None], 2)[..., 0]
        return np.asarray(logsumexp(log_z + log_weight, axis=1))

    every = np.arange(n)
    best = one + HOPELESS_SECOND
    near = every
    if not whole:
        best = at_first(every, lattice.thin, lattice.thin_log_weight)
        near = np.flatnonzero(best > strongest + HOPELESS_SECOND)
    if len(near):
        best[near] = at_first(near, np.arange(len(lattice.shapes)), lattice.log_weight)
    out = np.full((n, len(grid)), -np.inf)
    np.put_along_axis(out, first, best[:, None], 1)
    hopeful = np.flatnonzero(best > simpler.max(axis=(1, 2)) + HOPELESS) if not whole else every
    if len(hopeful) and len(grid) > 1:
        picks = order[hopeful, 1:TAU_TRIES]
        q = p.take(hopeful)
        log_z = _run(q, c, lattice, np.arange(len(lattice.shapes)), _only(q, grid, picks), degree)
        found = logsumexp(log_z + lattice.log_weight[:, None], axis=1)
        rows = np.arange(len(hopeful))[:, None]
        out[hopeful[:, None], picks] = found[rows, picks]
    return np.where(np.isfinite(out), out, simpler[:, 1] + (best - one)[:, None])
