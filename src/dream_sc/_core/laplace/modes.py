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

from .lanes import IDLE, Lanes, Points, make_tables, new_lanes, remember, start, start_anew, take_shape, take_tau
from .layout import Anchor, Anchors, Counts, Design, Scratch, Tables, counts_of, new_scratch, new_tables
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
def _step(
    lane: int,
    n_steps: int,
    tol: float,
    theta: Matrix,
    state: Matrix,
    grad: Matrix,
    hess: Cube,
    gauss: Cube,
    one: Vector,
    square: Matrix,
    chol: Matrix,
    value: Vector,
) -> bool:
    """One damped Newton step of a lane, after `n_steps`; True where it is done: `value` is that at the mode then.

    `state` (4, L) holds density, radius and the density before; the value is -inf where no mode is found.
    """
    n, step = theta.shape[0], np.zeros(theta.shape[0])
    here, radius, previous = state[0], state[1], state[2]
    if n_steps == 0:
        radius[lane], previous[lane] = FIRST_RADIUS, -np.inf
    value[lane] = here[lane]
    if here[lane] < previous[lane] - 1e-3:
        radius[lane] = max(0.5 * radius[lane], 1e-3)
    previous[lane] = here[lane]
    ok = _factor(hess, lane, chol, square) or _factor(gauss, lane, chol, square)
    if not ok or not np.isfinite(here[lane]):
        value[lane] = -np.inf
        return True
    for i in range(n):
        one[i] = grad[i, lane]
    solve(chol, n, one, step)
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
        return True
    return n_steps + 1 == MOST_STEPS


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
def _begin(
    curve: int,
    n_amp: int,
    amplitude: float,
    anchor: Anchor,
    points: Points,
    design: Design,
    ahead: Tables,
    tabs: Tables,
    lanes: Lanes,
    s: Scratch,
) -> int:
    """Give the first shapes to the lanes, or the first taus of a single shape; gives the number of lanes at work."""
    n_s, n_lanes = points.shapes.shape[0], lanes.tau.size
    together = n_s == 1
    n_jobs = points.valid.size if together else n_s
    if together:
        make_tables(curve, points, lanes.room, 0, design, tabs)
    for lane in range(n_lanes):
        # lanes that have nothing to do are at the last place
        i = min(lane, n_jobs - 1)
        if together:
            lanes.shape[lane] = 0
        else:
            take_shape(curve, i, lane, points, design, ahead, tabs, lanes)
        take_tau(i if together else 0, lane, points, anchor, lanes, s.anchor)
        start(curve, n_amp, amplitude, lane, points, s.anchor.mode, lanes, tabs, s.u)
        if lane >= n_jobs:
            lanes.shape[lane] = IDLE
    return min(n_jobs, n_lanes)


@part
def _feature(
    curve: int,
    n_amp: int,
    amplitude: float,
    counts: Counts,
    design: Design,
    points: Points,
    tol: float,
    log_z: Matrix,
    modes: Cube,
    covs: Stack,
) -> None:
    """One feature: each lane has a shape, at one tau after another; of a single shape, the taus are shared out."""
    n, n_s, n_lanes, valid = n_amp + counts.anchor.mode.shape[1], points.shapes.shape[0], LANES, points.valid
    n_jobs = valid.size if n_s == 1 else n_s
    if n_jobs < LANES:  # lanes that fill a vector
        n_lanes = (n_jobs + FILL - 1) // FILL * FILL
    stride = n_lanes if n_s == 1 else 1
    s, tabs = new_scratch(n, n_amp, design, n_lanes), new_tables(design, n_lanes)
    ahead = new_tables(design, n_lanes if n_s > 1 else 0)
    value, chol, low, high = np.zeros(n_lanes), np.zeros((n_lanes, n, n)), tabs.low, tabs.high
    lanes = new_lanes(n_lanes, points.shapes, n, 2 * low.shape[0], s.u.shape[0] * s.u.shape[1])
    theta, grad, hess, gauss, one, square, u = lanes.theta, s.grad, s.hess, s.gauss, s.one, s.square, s.u
    n_busy = _begin(curve, n_amp, amplitude, counts.anchor, points, design, ahead, tabs, lanes, s)
    taken = n_busy if n_s > 1 else 1
    while n_busy > 0:
        evaluate(curve, theta, n_amp, counts, lanes.tau, design, tabs, s, s.climb[0])
        for lane in range(n_lanes):
            i, at, n_steps, factor = lanes.shape[lane], lanes.at[lane], lanes.n_steps[lane], chol[lane]
            if i == IDLE:
                continue
            lanes.n_steps[lane] += 1
            if not _step(lane, n_steps, tol, theta, s.climb, grad, hess, gauss, one, square, factor, value):
                continue
            if np.isfinite(value[lane]):
                _store(curve, theta, factor, lane, low, high, one, value[lane], log_z, modes, covs, i, valid[at])
                if at == 0:
                    remember(lane, low, high, u, lanes)
            else:
                start_anew(n_amp, amplitude, s.anchor.mode, lane, theta, u)
            if at + stride < valid.size:
                take_tau(at + stride, lane, points, counts.anchor, lanes, s.anchor)
            elif taken < n_s:
                take_shape(curve, taken, lane, points, design, ahead, tabs, lanes)
                take_tau(0, lane, points, counts.anchor, lanes, s.anchor)
                start(curve, n_amp, amplitude, lane, points, s.anchor.mode, lanes, tabs, u)
                taken += 1
            else:
                lanes.shape[lane] = IDLE
                n_busy -= 1


@entry
def run(
    curve: int,
    n_amp: int,
    amplitude: float,
    counts: Matrix,
    weights: Matrix,
    overdispersion: Vector,
    offset: Matrix,
    anchor: Anchors,
    design: Design,
    shapes: Cube,
    consts: Cube,
    starts: Cube,
    taus: Matrix,
    tol: float,
    log_z: Cube,
    modes: Stack,
    covs: Block,
) -> None:
    """All features of a block; `log_z` is -inf where nothing was found.

    `curve` is its place in the list, `amplitude` what the mode is looked for from first.
    `weights` are those of the rows (T, R), (T, 0) of a negative binomial; `offset` is what covariates add to the
    predictor (T, R), (T, 0) without them; `shapes` and `consts` are (1 or T, S, ...);
    `starts` are parameters of each shape to start from (T, S, n), NaN where none are known, or (0, 0, n);
    `taus` is (T, K), a negative tau is skipped.
    """
    shared, valid = shapes.shape[0] == 1, np.zeros(taus.shape[1], dtype=np.int64)
    for t in range(counts.shape[0]):
        n_valid = 0
        for k in range(taus.shape[1]):
            if taus[t, k] >= 0.0:
                valid[n_valid] = k
                n_valid += 1
        if n_valid == 0:
            continue
        i = np.int64(0) if shared else np.int64(t)
        m = np.int64(t) if modes.shape[0] > 1 else np.int64(0)
        its = Anchor(anchor.value[t], anchor.mode[t], anchor.precision[t])
        one = counts_of(counts[t], weights[t], overdispersion[t], offset[t], its, design.scale2, design.likelihood)
        known = starts[t] if starts.shape[0] > 0 else starts.reshape(0, starts.shape[2])
        points = Points(shapes[i], consts[i], known, taus[t], valid[:n_valid])
        _feature(curve, n_amp, amplitude, one, design, points, tol, log_z[t], modes[m], covs[m])
