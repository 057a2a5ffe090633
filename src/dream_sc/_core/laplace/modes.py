"""The fused kernel of the trans step: nested Laplace at every (feature, shape, tau).

Rows are sorted by guide. Guide effects are integrated first (see `effects`); level, amplitudes and group effects follow
by damped Newton steps on the resulting marginal density (see `marginal`), and one more Laplace term integrates them.
Several shapes of a feature are treated at once, as lanes.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import log

import numpy as np

from dream_sc._core.compiled import Block, Cube, Indices, Matrix, Stack, Vector, entry, inline, part
from dream_sc._core.curves import chosen

from .lanes import IDLE, Lanes, new_lanes, remember, start, start_anew, take_shape
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


@inline
def _hold_tau(k: int, lane: int, taus: Vector, anchor: Anchor, tau: Vector, held: Anchor) -> None:
    """Let a lane be at tau `k`."""
    tau[lane] = taus[k]
    hold(anchor, k, lane, held)


@part
def _begin(
    curve: int,
    n_amp: int,
    amplitude: float,
    anchor: Anchor,
    design: Design,
    shapes: Matrix,
    consts: Matrix,
    taus: Vector,
    valid: Indices,
    room: Matrix,
    ahead: Tables,
    tabs: Tables,
    lanes: Lanes,
    theta: Matrix,
    tau: Vector,
    s: Scratch,
) -> int:
    """Give the first shapes to the lanes, or the first taus of a single shape; gives the number of lanes at work."""
    n_s, n_lanes, together = shapes.shape[0], room.shape[1], shapes.shape[0] == 1
    n_jobs = valid.size if together else n_s
    for lane in range(n_lanes):
        # lanes that have nothing to do are at the last place
        i = min(lane, n_jobs - 1)
        take_shape(curve, 0 if together else i, lane, shapes, consts, design, room, ahead, tabs, lanes)
        lanes.at[lane] = i if together else 0
        _hold_tau(valid[lanes.at[lane]], lane, taus, anchor, tau, s.anchor)
        start_anew(n_amp, amplitude, s.anchor.mode, lane, theta, s.u)
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
    shapes: Matrix,
    consts: Matrix,
    taus: Vector,
    valid: Indices,
    tol: float,
    log_z: Matrix,
    modes: Cube,
    covs: Stack,
) -> None:
    """One feature: each lane has a shape, at one tau after another; of a single shape, the taus are shared out."""
    n, n_s, n_lanes = n_amp + counts.anchor.mode.shape[1], shapes.shape[0], LANES
    n_jobs = valid.size if n_s == 1 else n_s
    if n_jobs < LANES:  # lanes that fill a vector
        n_lanes = (n_jobs + FILL - 1) // FILL * FILL
    stride = n_lanes if n_s == 1 else 1
    s, tabs, ahead = new_scratch(n, n_amp, design, n_lanes), new_tables(design, n_lanes), new_tables(design, n_lanes)
    theta, value, tau = np.zeros((n, n_lanes)), np.zeros(n_lanes), np.zeros(n_lanes)
    chol, room = np.zeros((n_lanes, n, n)), np.zeros((max(shapes.shape[1], 1), n_lanes))
    lanes, mode = new_lanes(n_lanes, shapes, n + 2 * tabs.low.shape[0], s.u.shape[0] * s.u.shape[1]), s.anchor.mode
    low, high, grad, hess, gauss, one, square, u = tabs.low, tabs.high, s.grad, s.hess, s.gauss, s.one, s.square, s.u
    n_busy = _begin(
        curve,
        n_amp,
        amplitude,
        counts.anchor,
        design,
        shapes,
        consts,
        taus,
        valid,
        room,
        ahead,
        tabs,
        lanes,
        theta,
        tau,
        s,
    )
    taken = n_busy if n_s > 1 else 1
    while n_busy > 0:
        evaluate(curve, theta, n_amp, counts, tau, design, tabs, s, s.climb[0])
        for lane in range(n_lanes):
            i, at = lanes.shape[lane], lanes.at[lane]
            if i == IDLE:
                continue
            done = _step(
                lane, lanes.n_steps[lane], tol, theta, s.climb, grad, hess, gauss, one, square, chol[lane], value
            )
            lanes.n_steps[lane] += 1
            if not done:
                continue
            if np.isfinite(value[lane]):
                k = valid[at]
                _store(curve, theta, chol[lane], lane, low, high, one, value[lane], log_z, modes, covs, i, k)
                if at == 0:
                    remember(lane, theta, low, high, u, lanes)
            else:
                start_anew(n_amp, amplitude, mode, lane, theta, u)
            if at + stride < valid.size:
                lanes.at[lane], lanes.n_steps[lane] = at + stride, 0
                _hold_tau(valid[at + stride], lane, taus, counts.anchor, tau, s.anchor)
            elif taken < n_s:
                take_shape(curve, taken, lane, shapes, consts, design, room, ahead, tabs, lanes)
                _hold_tau(valid[0], lane, taus, counts.anchor, tau, s.anchor)
                start(curve, n_amp, amplitude, lane, shapes, consts, mode, lanes, tabs, theta, u)
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
        at, given = valid[:n_valid], consts[i]
        _feature(curve, n_amp, amplitude, one, design, shapes[i], given, taus[t], at, tol, log_z[t], modes[m], covs[m])
