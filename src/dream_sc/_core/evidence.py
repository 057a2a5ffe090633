"""Evidence of every feature for each curve, with effort spent where it can change a call.

All features get the null, and one Hill on a thinned lattice. Where that leaves a response possible, the whole lattice
follows at the likeliest tau, and where it also leaves it in doubt, at every tau. Two Hills are tried in the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logsumexp

from .dose_response import curve
from .dose_response.additive_hill import turn_mass
from .engines import laplace

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


def block_evidence(
    p: laplace.Problem, curves: list[Curve], lattices: dict[str, Lattice], grid: Floats, degree: int,
    *, whole: bool = False,
) -> tuple[Floats, Floats | None]:  # fmt: skip
    """Evidence ``(T, M, K)`` of one block of features, and the single Hill's on its lattice ``(T, S, K)``.

    `whole` spends all effort on all features.
    """
    values = np.full((len(p.counts), len(curves), len(grid)), -np.inf)
    values[:, 0] = null_evidence(p, grid)
    single = None
    for m, c in enumerate(curves[1:], 1):
        lattice = lattices[c.name]
        if c.name == "additive_hill" and m > 1:
            values[:, m] = two_hills(p, c, lattice, grid, values[:, :m], degree, whole=whole)
            continue
        log_z = on_lattice(p, c, lattice, grid, values[:, 0], degree, whole=whole)
        values[:, m] = logsumexp(log_z, axis=1)
        if c.name == "single_hill":
            single = log_z
    return values, single


def _run(p: laplace.Problem, c: Curve, lattice: Lattice, which: Ints, taus: Floats, degree: int) -> Floats:
    """Log evidence ``(T, S', K)`` at some shapes, shared ``(S',)`` or by feature ``(T, S')``, without their prior."""
    shapes, consts = lattice.shapes[which], lattice.consts[which]
    if which.ndim == 1:
        shapes, consts = shapes[None], consts[None]
    return laplace.evidence(p, c, shapes, consts, taus, degree=degree)[0]


def _only(grid: Floats, picks: Ints) -> Floats:
    """Taus ``(T, K)`` with all but some of each feature's masked."""
    taus = np.full((len(picks), len(grid)), -1.0)
    np.put_along_axis(taus, picks, grid[picks], 1)
    return taus


def null_evidence(p: laplace.Problem, grid: Floats) -> Floats:
    """Log evidence of the null ``(T, K)``."""
    taus = np.repeat(grid[None], len(p.counts), 0)
    return laplace.evidence(p, curve("null"), np.zeros((1, 1, 0)), np.zeros((1, 1, 2)), taus)[0][:, 0]


def _fill(log_z: Floats, leaders: Ints, at_leaders: Floats, best: Ints) -> Floats:
    """Evidence ``(T, S, K)`` from that at one tau ``(T, S)`` and that of a few shapes at all taus.

    The ratio to the evidence at the one tau is taken from the leaders, by their weight.
    """
    here = np.take_along_axis(at_leaders, best[:, None, None], 2)
    weight = here - logsumexp(here, axis=1, keepdims=True)
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
    n, n_s, n_k = len(p.counts), len(lattice.shapes), len(grid)
    every = np.repeat(grid[None], n, 0)
    if whole or n_s == 1 or n_k == 1:
        return _run(p, c, lattice, np.arange(n_s), every, degree) + lattice.log_weight[:, None]
    start = null.argmax(1)[:, None]
    coarse = _run(p, c, lattice, lattice.thin, _only(grid, start), degree)
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
    at_leaders = _run(p, c, lattice, leaders, np.repeat(grid[None], len(coarse), 0), degree)
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
    at_best = _run(p, c, lattice, np.arange(len(lattice.shapes)), _only(grid, picks), degree)
    at_best = np.take_along_axis(at_best, picks[:, None], 2)[..., 0]
    leaders = np.argsort(-(at_best + lattice.log_weight), axis=1, kind="stable")[:, :LEADERS]
    at_leaders = _run(p, c, lattice, leaders, np.repeat(grid[None], len(best), 0), degree)
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
        log_z = _run(p.take(rows), c, lattice, which, _only(grid, first[rows]), degree)
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
        log_z = _run(p.take(hopeful), c, lattice, np.arange(len(lattice.shapes)), _only(grid, picks), degree)
        found = logsumexp(log_z + lattice.log_weight[:, None], axis=1)
        rows = np.arange(len(hopeful))[:, None]
        out[hopeful[:, None], picks] = found[rows, picks]
    return np.where(np.isfinite(out), out, simpler[:, 1] + (best - one)[:, None])
