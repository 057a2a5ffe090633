"""The fused kernel of the trans step: nested Laplace at every (feature, shape, tau).

Rows are sorted by guide. Guide effects are integrated first (see `effects`); level, amplitudes and group effects follow
by damped Newton steps on the resulting marginal density (see `marginal`), and one more Laplace term integrates them.
Several shapes of a feature are treated at once, as lanes.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import log

import numpy as np

from dream_sc._core.compiled import Block, Cube, Matrix, Stack, Vector, entry, inline, part
from dream_sc._core.curves import chosen

from .curve_tables import fill_tables
from .layout import Anchor, Anchors, Counts, Design, Scratch, Tables, counts_of, hold, new_scratch, new_tables
from .linalg import cholesky, solve
from .marginal import LOG_2PI, evaluate

LANES, FILL = 16, 8
MOST_STEPS = 40
FIRST_RADIUS = 1.5


@inline
def _factor(matrix: Cube, lane: int, chol: Matrix, square: Matrix) -> bool:
    """Cholesky factor of one lane's matrix; False where it is not positive definite."""
    n = matrix.shape[0]
    for i in range(n):
        for j in range(i + 1):
            square[i, j] = matrix[i, j, lane]
    return cholesky(square, n, chol)


@part
def climb(
    curve: int,
    theta: Matrix,
    n_amp: int,
    counts: Counts,
    tau: Vector,
    design: Design,
    tabs: Tables,
    tol: float,
    s: Scratch,
    chol: Cube,
    value: Vector,
) -> None:
    """Damped Newton steps to the lanes' modes, in place; `value` becomes that at the mode, -inf where it failed."""
    n_open = theta.shape[1]
    for iteration in range(MOST_STEPS):
        evaluate(curve, theta, n_amp, counts, tau, design, tabs, s, s.climb[0])
        n_open = _step(iteration, tol, theta, s.climb, s.grad, s.hess, s.gauss, s.one, s.square, chol, value)
        if n_open == 0:
            break


@part
def _step(
    iteration: int,
    tol: float,
    theta: Matrix,
    state: Matrix,
    grad: Matrix,
    hess: Cube,
    gauss: Cube,
    one: Vector,
    square: Matrix,
    chol: Cube,
    value: Vector,
) -> int:
    """One Newton step of every lane that is still open; gives the number of those that are open after it.

    `state` (4, L) holds density, radius, the density before, and whether a lane is open.
    """
    n, n_lanes = theta.shape
    here, radius, previous, open_ = state[0], state[1], state[2], state[3]
    step = np.zeros(n)
    n_open = 0
    for lane in range(n_lanes):
        if iteration == 0:
            radius[lane], previous[lane], open_[lane] = FIRST_RADIUS, -np.inf, 1.0
        if open_[lane] == 0.0:
            continue
        value[lane] = here[lane]
        if here[lane] < previous[lane] - 1e-3 and iteration > 0:
            radius[lane] = max(0.5 * radius[lane], 1e-3)
        previous[lane] = here[lane]
        ok = _factor(hess, lane, chol[lane], square) or _factor(gauss, lane, chol[lane], square)
        if not ok or not np.isfinite(here[lane]):
            value[lane], open_[lane] = -np.inf, 0.0
            continue
        for i in range(n):
            one[i] = grad[i, lane]
        solve(chol[lane], n, one, step)
        decrement, size = 0.0, 0.0
        for i in range(n):
            decrement += one[i] * step[i]
            size = max(size, abs(step[i]))
        shrink = min(1.0, radius[lane] / size)
        for i in range(n):
            theta[i, lane] += shrink * step[i]
        if decrement < tol:
            # what the last step gains is known to second order
            value[lane] += 0.5 * decrement
            open_[lane] = 0.0
            continue
        n_open += 1
    return n_open


@inline
def _log_laplace(
    curve: int, theta: Matrix, low: Matrix, high: Matrix, chol: Matrix, lane: int, one: Vector, step: Vector
) -> float:
    """Log determinant, and the mean of the factor that the prior of the amplitudes left out, of one lane."""
    n = theta.shape[0]
    out = 0.5 * n * LOG_2PI
    for i in range(n):
        out -= log(chol[i, i])
    d, d1 = chosen.left_out(curve, theta, low, high, lane)
    if d1 != 0.0 or d != 1.0:
        for i in range(n):
            one[i] = 1.0 if i == 1 else 0.0
        solve(chol, n, one, step)
        out += log(d * d + d1 * d1 * step[1])
    return out


@inline
def _start(theta: Matrix, n_amp: int, start: float, mode: Matrix, lane: int) -> None:
    theta[0, lane] = mode[0, lane]
    for i in range(n_amp):
        theta[1 + i, lane] = start
    for i in range(1 + n_amp, theta.shape[0]):
        theta[i, lane] = mode[i - n_amp, lane]


@part
def _starts(
    curve: int,
    n_amp: int,
    start: float,
    mode: Matrix,
    old: Vector,
    old_consts: Vector,
    known: bool,
    theta: Matrix,
    low: Matrix,
    high: Matrix,
    consts: Matrix,
) -> None:
    """Starts of a chunk of shapes: from the best one before, moved so that the curve moves as much."""
    for lane in range(theta.shape[1]):
        same = consts[0, lane] == old_consts[0] and consts[1, lane] == old_consts[1]
        if known and same:
            chosen.match(curve, theta, old, low, high, consts, lane)
        else:
            _start(theta, n_amp, start, mode, lane)


@part
def _fill_lanes(
    curve: int, first: int, shapes: Matrix, consts: Matrix, at: Matrix, design: Design, tabs: Tables
) -> None:
    """Tables of the shapes from `first` on; a chunk that is not full repeats its last shape."""
    for lane in range(at.shape[1]):
        i = min(first + lane, shapes.shape[0] - 1)
        for d in range(shapes.shape[1]):
            at[d, lane] = shapes[i, d]
        for d in range(2):
            tabs.consts[d, lane] = consts[i, d]
    fill_tables(curve, at, design, tabs)


@part
def _remember(
    theta: Matrix, low: Matrix, high: Matrix, consts: Matrix, lane: int, old: Vector, old_consts: Vector
) -> None:
    """Keep a lane's parameters and its tables at the ends of the axis."""
    n, w = theta.shape[0], low.shape[0]
    for i in range(n):
        old[i] = theta[i, lane]
    for i in range(w):
        old[n + i], old[n + w + i] = low[i, lane], high[i, lane]
    for i in range(2):
        old_consts[i] = consts[i, lane]


@part
def _store(
    curve: int,
    theta: Matrix,
    chol: Matrix,
    lane: int,
    low: Matrix,
    high: Matrix,
    one: Vector,
    value: float,
    log_z: Matrix,
    modes: Cube,
    covs: Stack,
    i: int,
    k: int,
) -> None:
    """Write one lane's result to place ``(i, k)``."""
    n = theta.shape[0]
    step = np.zeros(n)
    log_z[i, k] = value + _log_laplace(curve, theta, low, high, chol, lane, one, step)
    if modes.size > 0:
        for j in range(n):
            modes[i, k, j] = theta[j, lane]
            for l in range(n):
                one[l] = 1.0 if l == j else 0.0
            solve(chol, n, one, step)
            for l in range(n):
                covs[i, k, j, l] = step[l]


@part
def _feature(
    curve: int,
    n_amp: int,
    start: float,
    counts: Counts,
    design: Design,
    shapes: Matrix,
    consts: Matrix,
    taus: Vector,
    tol: float,
    log_z: Matrix,
    modes: Cube,
    covs: Stack,
) -> None:
    """One feature: its shapes are the lanes, at one tau after another; of a single shape, the taus are."""
    n, n_s, together = n_amp + counts.anchor.mode.shape[1], shapes.shape[0], shapes.shape[0] == 1
    valid, n_valid = np.zeros(taus.size + FILL, dtype=np.int64), 0
    for k in range(taus.size):
        if taus[k] >= 0:
            valid[n_valid] = k
            n_valid += 1
    n_lanes = min(LANES, n_s)
    if together:  # lanes that fill a vector repeat the last tau
        n_lanes = (n_valid + FILL - 1) // FILL * FILL
        for k in range(n_valid, n_lanes):
            valid[k] = valid[n_valid - 1]
    s, tabs = new_scratch(n, n_amp, design, n_lanes), new_tables(design, n_lanes)
    theta, value, tau = np.zeros((n, n_lanes)), np.zeros(n_lanes), np.zeros(n_lanes)
    for lane in range(n_lanes):
        tau[lane] = taus[valid[lane]] if together else 0.0
    chol, at = np.zeros((n_lanes, n, n)), np.zeros((max(shapes.shape[1], 1), n_lanes))
    old, old_consts, known = np.zeros(n + 2 * tabs.low.shape[0]), np.zeros(2), False
    for lane in range(n_lanes):
        hold(counts.anchor, valid[lane] if together else valid[0], lane, s.anchor)
    for first in range(0, n_s, n_lanes):
        _fill_lanes(curve, first, shapes, consts, at, design, tabs)
        _starts(curve, n_amp, start, s.anchor.mode, old, old_consts, known, theta, tabs.low, tabs.high, tabs.consts)
        fresh, used = True, n_valid if together else min(n_lanes, n_s - first)
        for round_ in range(1 if together else n_valid):
            if not together:
                for lane in range(n_lanes):
                    tau[lane] = taus[valid[round_]]
                    hold(counts.anchor, valid[round_], lane, s.anchor)
            climb(curve, theta, n_amp, counts, tau, design, tabs, tol, s, chol, value)
            best, most = -1, -np.inf
            for lane in range(used):
                i, k = (0, valid[lane]) if together else (first + lane, valid[round_])
                if not np.isfinite(value[lane]):
                    _start(theta, n_amp, start, s.anchor.mode, lane)
                    _forget(s.u, lane)
                    continue
                _store(
                    curve, theta, chol[lane], lane, tabs.low, tabs.high, s.one, value[lane], log_z, modes, covs, i, k
                )
                if log_z[i, k] > most:
                    best, most = lane, log_z[i, k]
            if fresh and best >= 0:
                _remember(theta, tabs.low, tabs.high, tabs.consts, best, old, old_consts)
                fresh, known = False, True


@inline
def _forget(u: Cube, lane: int) -> None:
    """Set the starts of a lane's guide effects to zero."""
    for g in range(u.shape[0]):
        for m in range(u.shape[1]):
            u[g, m, lane] = 0.0


@entry
def run(
    curve: int,
    n_amp: int,
    start: float,
    counts: Matrix,
    weights: Matrix,
    overdispersion: Vector,
    offset: Matrix,
    anchor: Anchors,
    design: Design,
    shapes: Cube,
    consts: Cube,
    taus: Matrix,
    tol: float,
    log_z: Cube,
    modes: Stack,
    covs: Block,
) -> None:
    """All features of a block; `log_z` is -inf where nothing was found.

    `curve` is its place in the list, `start` the amplitudes that the mode is looked for from.
    `weights` are those of the rows (T, R), (T, 0) of a negative binomial; `offset` is what covariates add to the
    predictor (T, R), (T, 0) without them; `shapes` and `consts` are (1 or T, S, ...);
    `taus` is (T, K), a negative tau is skipped.
    """
    shared = shapes.shape[0] == 1
    for t in range(counts.shape[0]):
        wanted = False
        for k in range(taus.shape[1]):
            wanted |= taus[t, k] >= 0.0
        if not wanted:
            continue
        i = np.int64(0) if shared else np.int64(t)
        m = np.int64(t) if modes.shape[0] > 1 else np.int64(0)
        its = Anchor(anchor.value[t], anchor.mode[t], anchor.precision[t])
        one = counts_of(counts[t], weights[t], overdispersion[t], offset[t], its, design.scale2, design.likelihood)
        _feature(curve, n_amp, start, one, design, shapes[i], consts[i], taus[t], tol, log_z[t], modes[m], covs[m])
