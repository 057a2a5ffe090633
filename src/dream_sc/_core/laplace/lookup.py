"""A first pass over every feature: the evidence of curves on a fixed set of shapes and amplitudes, by table look-up.

A guide's likelihood, its effect integrated, depends on one number: how far the curve moves it from the null's mean.
It is tabulated over that number once for each feature and guide, by component of the guide effects, which are smooth.
The likelihood of any curve is then a sum of entries, interpolated cubically in single precision; what the level and the
group effects gain by following is taken to second order. Features are the lanes.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dream_sc._core.compiled import (
    Cube,
    Indices,
    Matrix,
    SingleMatrix,
    Singles,
    Vector,
    entry,
    inline,
    part,
)
from dream_sc._core.compiled.vector_math import vexp, vlog

from .curve_tables import LEAST_VARIANCE
from .guide_effects import components
from .layout import Anchor, Design, counts_of, new_scratch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.problem import Problem

    Floats = NDArray[np.float64]

LANES = 16
WIDE = 3 * LANES  # a move's entries: value, slope and bend of each of two components
ROW = 2 * WIDE
F32 = np.float32
ZERO, HALF, ONE, INV_32, BEND = F32(0.0), F32(0.5), F32(1.0), F32(1 / 32), F32(0.193)
NEVER = -1e30  # log likelihood of a component that is not there
MOVES = np.linspace(-5.0, 5.0, 31)  # units of the priors
LARGE_GAIN, NO_MATTER = 2.0, -2.0  # of the level's following: looked at again, unless the curve is out of question
LEAST_GAIN = 0.1  # of the level's precision that a curve may leave


class Start(NamedTuple):
    """The null at one sd of the guide effects, and how level and group effects may follow the curves.

    They follow in one direction: that in which the null gives way to a common move of the targeting guides.
    """

    log_mean: Floats  # (T, R) of the rows, exposure and covariates included
    tau: Floats  # (T,)
    moves: Floats  # (T, G) how far each guide moves with a unit step, natural log
    held: Floats  # (T, 2) gradient and precision along the direction, of all but the guides


@part
def _fill(
    y: Vector,
    row_weights: Vector,
    overdispersion: float,
    log_mean: Vector,
    tau: float,
    moves: Vector,
    design: Design,
    table: Cube,
) -> None:
    """Log likelihood of one feature's guides moved by `moves`, by component: ``(G, M, J)``, less that of the null."""
    n_lanes, middle = moves.size, moves.size // 2
    no_anchor = Anchor(np.zeros(1), np.zeros((1, 1)), np.zeros((1, 1, 1)))
    counts = counts_of(y, row_weights, overdispersion, np.zeros(0), no_anchor, design.scale2, design.likelihood)
    s = new_scratch(1, 0, design, n_lanes)
    for r in range(y.size):
        for lane in range(n_lanes):
            s.base[r, lane] = log_mean[r] - counts.shift[r] + moves[lane]
        for lane in range(n_lanes):
            s.ratio[r, lane] = vexp(s.base[r, lane])
    for g in range(s.v_dose.shape[0]):
        for lane in range(n_lanes):
            s.v_dose[g, lane] = LEAST_VARIANCE
    taus = np.zeros(n_lanes)
    for lane in range(n_lanes):
        taus[lane] = tau
    components(counts, taus, design, s)
    n_parts = table.shape[1]
    for g in range(table.shape[0]):
        null = s.odds[g, 0, middle]
        if n_parts > 1:
            null = np.logaddexp(null, s.odds[g, 1, middle])
        for m in range(n_parts):
            for lane in range(n_lanes):
                table[g, m, lane] = s.odds[g, m, lane] - null


@part
def _enter(one: Cube, lane: int, step: float, pack: Singles) -> None:
    """Write a feature's table ``(G, M, J)`` and its differences along the moves into its lane."""
    n_guides, n_parts, n = one.shape
    for g in range(n_guides):
        for m in range(2):
            for j in range(n):
                at = (g * n + j) * ROW + 3 * m * LANES + lane
                if m >= n_parts:
                    pack[at], pack[at + LANES], pack[at + 2 * LANES] = NEVER, 0.0, 0.0
                    continue
                i = min(max(j, 1), n - 2)
                below, here, above = one[g, m, i - 1], one[g, m, i], one[g, m, i + 1]
                pack[at] = one[g, m, j]
                pack[at + LANES] = (above - below) / (2.0 * step)
                pack[at + 2 * LANES] = (above - 2.0 * here + below) / step**2


@inline
def _weights(position: float, n_moves: int) -> tuple[int, float, float, float, float, float]:
    """First of the four entries around a position, the position after the second, and their cubic weights."""
    i = min(max(int(position), 1), n_moves - 3)
    x = position - i
    w0, w1 = x * (x - 1.0) * (2.0 - x) * (1.0 / 6.0), (x + 1.0) * (x - 1.0) * (x - 2.0) * 0.5
    w2, w3 = (x + 1.0) * x * (2.0 - x) * 0.5, (x + 1.0) * x * (x - 1.0) * (1.0 / 6.0)
    return i - 1, x, w0, w1, w2, w3


@inline(contract=True)
def _add_guide(position: float, g: int, n_moves: int, pack: Singles, unit: Singles, sums: Singles) -> None:
    """Add a guide's log likelihood and its derivatives by a step of the level to the sums over guides.

    The value is by cubic interpolation, derivatives by linear. Of two components the larger one gives the derivatives;
    the logarithm of what the other adds is a polynomial, right to a hundredth.
    """
    i, y, v0, v1, v2, v3 = _weights(position, n_moves)
    x, w0, w1, w2, w3 = F32(y), F32(v0), F32(v1), F32(v2), F32(v3)
    at, own = (g * n_moves + i) * ROW, g * LANES
    # an index that is not seen to be positive is read lane by lane: the loop counts from the start of what it reads
    near, mine = pack[at : at + 4 * ROW], unit[own : own + LANES]
    for lane in range(LANES):
        k = lane
        a = w0 * near[k] + w1 * near[k + ROW] + w2 * near[k + 2 * ROW] + w3 * near[k + 3 * ROW]
        k += WIDE
        b = w0 * near[k] + w1 * near[k + ROW] + w2 * near[k + 2 * ROW] + w3 * near[k + 3 * ROW]
        k = ROW + LANES + lane
        a1, a2 = near[k], near[k + LANES]
        a1, a2 = a1 + x * (near[k + ROW] - a1), a2 + x * (near[k + ROW + LANES] - a2)
        k += WIDE
        b1, b2 = near[k], near[k + LANES]
        b1, b2 = b1 + x * (near[k + ROW] - b1), b2 + x * (near[k + ROW + LANES] - b2)
        # exp(-d) as (1 - d / 32)^32
        rest = max(ONE - abs(a - b) * INV_32, ZERO)
        rest = rest * rest
        rest = rest * rest
        rest = rest * rest
        rest = rest * rest
        rest = rest * rest
        move, first = mine[lane], a >= b
        sums[lane] += max(a, b) + rest * (ONE - rest * (HALF - BEND * rest))
        sums[LANES + lane] += move * (a1 if first else b1)
        sums[2 * LANES + lane] += move * move * (a2 if first else b2)


@part
def _add_guides(positions: Vector, which: Indices, n_moves: int, pack: Singles, unit: Singles, sums: Singles) -> None:
    """Add some guides to the sums, each at its position."""
    for i in range(which.size):
        _add_guide(positions[i], which[i], n_moves, pack, unit, sums)


@inline
def _moved(position: float, g: int, lane: int, n_moves: int, pack: Singles) -> float:
    """One lane's log likelihood of a guide at a position, by cubic interpolation."""
    i, _, w0, w1, w2, w3 = _weights(position, n_moves)
    at = (g * n_moves + i) * ROW + lane
    a = w0 * pack[at] + w1 * pack[at + ROW] + w2 * pack[at + 2 * ROW] + w3 * pack[at + 3 * ROW]
    at += WIDE
    b = w0 * pack[at] + w1 * pack[at + ROW] + w2 * pack[at + 2 * ROW] + w3 * pack[at + 3 * ROW]
    return max(a, b) + np.log1p(np.exp(-min(abs(a - b), 700.0)))


@part
def _followed(
    positions: Vector, shift: float, unit: Singles, held: Vector, step: float, lane: int, n_moves: int, pack: Singles
) -> float:
    """One lane's log likelihood where level and group effects have followed by `shift`, without a Gaussian's help."""
    total = held[lane] * shift - 0.5 * held[LANES + lane] * shift * shift
    for g in range(positions.size):
        at = positions[g] + shift * unit[g * LANES + lane] / step
        total += _moved(min(max(at, 0.0), n_moves - 1.0), g, lane, n_moves, pack)
    return total


@part
def _columns(
    positions: Matrix,
    which: Indices,
    pack: Singles,
    n_moves: int,
    unit: Singles,
    step: float,
    held: Vector,
    out: Matrix,
    shifts: Matrix,
) -> None:
    """Log likelihood ratio of every curve ``(N, G')`` for some features ``(N, L)``, and how far the level follows.

    `which` are the guides that the curves move, `unit` is how far each follows a step of the level.
    """
    middle, n_guides = n_moves // 2, unit.size // LANES
    null, fixed, sums = np.zeros(3 * LANES, F32), np.zeros(3 * LANES, F32), np.zeros(3 * LANES, F32)
    half, at, every = np.zeros(LANES), np.zeros(n_guides), np.zeros(n_guides, dtype=np.int64)
    still, n_still = np.zeros(n_guides, dtype=np.int64), 0
    for g in range(n_guides):
        at[g], every[g] = float(middle), g
        moves = False
        for i in range(which.size):
            moves |= which[i] == g
        if not moves:
            still[n_still] = g
            n_still += 1
    _add_guides(at, still[:n_still], n_moves, pack, unit, fixed)
    _add_guides(at, every, n_moves, pack, unit, null)
    for lane in range(LANES):
        fixed[lane] = ZERO
        fixed[LANES + lane] += held[lane]
        fixed[2 * LANES + lane] -= held[LANES + lane]
    for c in range(positions.shape[0]):
        for k in range(3 * LANES):
            sums[k] = fixed[k]
        _add_guides(positions[c], which, n_moves, pack, unit, sums)
        for lane in range(LANES):
            precise = held[LANES + lane] - float(null[2 * LANES + lane])
            looser = max(-float(sums[2 * LANES + lane]), LEAST_GAIN * precise)
            shifts[c, lane] = sums[LANES + lane] / looser
            gain = 0.5 * sums[LANES + lane] * shifts[c, lane]
            half[lane] = 0.5 * vlog(looser / precise)
            out[c, lane] = sums[lane] + gain - half[lane]
        for lane in range(LANES):
            if 0.5 * sums[LANES + lane] * shifts[c, lane] > LARGE_GAIN and out[c, lane] > NO_MATTER:
                for i in range(which.size):
                    at[which[i]] = positions[c, i]
                out[c, lane] = _followed(at, shifts[c, lane], unit, held, step, lane, n_moves, pack) - half[lane]


@entry
def run(
    counts: Matrix,
    row_weights: Matrix,
    overdispersion: Vector,
    log_mean: Matrix,
    tau: Vector,
    unit: Matrix,
    held: Matrix,
    moves: Vector,
    design: Design,
    which: Indices,
    positions: Matrix,
    out: SingleMatrix,
    shifts: SingleMatrix,
) -> None:
    """Every feature of a block against every curve: `out` and `shifts` are (T, N)."""
    n_t, n_guides, n_moves, n_parts = counts.shape[0], design.error.size, moves.size, design.wide_sd.shape[1]
    step, pack = moves[1] - moves[0], np.zeros(n_guides * n_moves * ROW, F32)
    one, units, holds = np.zeros((n_guides, n_parts, n_moves)), np.zeros(n_guides * LANES, F32), np.zeros(2 * LANES)
    for k in range(n_guides * LANES):
        units[k] = ONE
    for k in range(2 * LANES):
        holds[k] = 1.0
    found, shift = np.zeros((positions.shape[0], LANES)), np.zeros((positions.shape[0], LANES))
    for first in range(0, n_t, LANES):
        n = min(LANES, n_t - first)
        for lane in range(n):
            t = first + lane
            _fill(counts[t], row_weights[t], overdispersion[t], log_mean[t], tau[t], moves, design, one)
            _enter(one, lane, step, pack)
            holds[lane], holds[LANES + lane] = held[t, 0], held[t, 1]
            for g in range(n_guides):
                units[g * LANES + lane] = unit[t, g]
        _columns(positions, which, pack, n_moves, units, step, holds, found, shift)
        for lane in range(n):
            for c in range(found.shape[0]):
                out[first + lane, c], shifts[first + lane, c] = found[c, lane], shift[c, lane]


def log_ratios(
    p: Problem, at: Start, positions: Floats, *, finer: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Log likelihood ratio to the null ``(T, N)`` of curves, and how far ``(T, N)`` level and group effects follow.

    Parameters
    ----------
    p
        Problem as the kernel sees it.
    positions
        ``(N, G')`` where each curve moves each targeting guide to, in steps of `MOVES`.
    finer
        Into how many each step of `MOVES` is cut. The level follows differences of neighbouring moves: where it is
        wanted itself they have to be right.
    """
    size = (len(p.counts), len(positions))
    out, shifts = np.empty(size, dtype=np.float32), np.empty(size, dtype=np.float32)
    moves = MOVES if finer == 1 else np.linspace(MOVES[0], MOVES[-1], finer * (len(MOVES) - 1) + 1)
    run(
        p.counts,
        p.weights,
        p.overdispersion,
        at.log_mean,
        at.tau,
        at.moves,
        at.held,
        p.priors.unit * moves,
        p.design,
        np.flatnonzero(p.targeting),
        finer * positions,
        out,
        shifts,
    )
    return out, shifts
