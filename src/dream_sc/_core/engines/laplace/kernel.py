"""The fused kernel of the trans step: nested Laplace at every (feature, shape, tau).

Rows are sorted by guide. Guide effects are integrated first (see `effects`); level, amplitudes and group effects follow
by damped Newton steps on the resulting marginal density (see `marginal`), and one more Laplace term integrates them.
Several shapes of a feature are treated at once, as lanes.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import log

import numba as nb
import numpy as np

from .curves import fill_tables, match, movement
from .design import counts_of, hold, new_scratch, new_tables
from .linalg import cholesky, solve
from .marginal import LOG_2PI, evaluate

LANES, FILL = 16, 8
MOST_STEPS = 40
FIRST_RADIUS = 1.5


@nb.njit(cache=True, error_model="numpy")
def _factor(matrix, lane, chol, square):
    """Cholesky factor of one lane's matrix; False where it is not positive definite."""
    n = matrix.shape[0]
    for i in range(n):
        for j in range(i + 1):
            square[i, j] = matrix[i, j, lane]
    return cholesky(square, n, chol)


@nb.njit(cache=True, error_model="numpy")
def climb(code, theta, n_amp, counts, tau, design, tabs, tol, s, chol, value):
    """Damped Newton steps to the lanes' modes, in place; `value` becomes that at the mode, -inf where it failed."""
    n, n_lanes = theta.shape
    here, radius, previous, open_ = s.climb[0], s.climb[1], s.climb[2], s.climb[3]
    radius[:], previous[:], open_[:] = FIRST_RADIUS, -np.inf, 1.0
    step = np.empty(n)
    n_open = n_lanes
    for iteration in range(MOST_STEPS):
        evaluate(code, theta, n_amp, counts, tau, design, tabs, s, here)
        for lane in range(n_lanes):
            if open_[lane] == 0.0:
                continue
            value[lane] = here[lane]
            if here[lane] < previous[lane] - 1e-3 and iteration > 0:
                radius[lane] = max(0.5 * radius[lane], 1e-3)
            previous[lane] = here[lane]
            ok = _factor(s.hess, lane, chol[lane], s.square) or _factor(s.gauss, lane, chol[lane], s.square)
            if not ok or not np.isfinite(here[lane]):
                value[lane], open_[lane] = -np.inf, 0.0
                n_open -= 1
                continue
            for i in range(n):
                s.one[i] = s.grad[i, lane]
            solve(chol[lane], n, s.one, step)
            decrement, size = 0.0, 0.0
            for i in range(n):
                decrement += s.one[i] * step[i]
                size = max(size, abs(step[i]))
            shrink = min(1.0, radius[lane] / size)
            for i in range(n):
                theta[i, lane] += shrink * step[i]
            if decrement < tol:
                # what the last step gains is known to second order
                value[lane] += 0.5 * decrement
                open_[lane] = 0.0
                n_open -= 1
        if n_open == 0:
            break


@nb.njit(cache=True, error_model="numpy")
def _log_laplace(code, theta, tabs, chol, lane, s, step):
    """Log determinant and, for the single Hill, the moment factor E[D^2] of one lane."""
    n = theta.shape[0]
    out = 0.5 * n * LOG_2PI
    for i in range(n):
        out -= log(chol[i, i])
    if code == 1:
        d, d1 = movement(theta[1, lane], tabs.low, tabs.high, lane)
        s.one[:] = 0.0
        s.one[1] = 1.0
        solve(chol, n, s.one, step)
        out += log(d * d + d1 * d1 * step[1])
    return out


@nb.njit(cache=True, error_model="numpy")
def _start(code, theta, n_amp, design, s, lane):
    theta[:, lane] = 0.0
    theta[0, lane] = s.anchor.mode[0, lane]
    theta[1 + n_amp :, lane] = s.anchor.mode[1:, lane]
    if code == 2:
        theta[1 : 1 + n_amp, lane] = design.start


@nb.njit(cache=True, error_model="numpy")
def _starts(code, n_amp, design, s, old, old_consts, known, theta, tabs):
    """Starts of a chunk of shapes: from the best one before, moved so that the curve moves as much."""
    for lane in range(theta.shape[1]):
        same = code != 2 or (tabs.consts[0, lane] == old_consts[0] and tabs.consts[1, lane] == old_consts[1])
        if known and same:
            match(code, theta, old, tabs, lane)
        else:
            _start(code, theta, n_amp, design, s, lane)


@nb.njit(cache=True, error_model="numpy")
def _fill_lanes(code, first, shapes, consts, at, design, tabs):
    """Tables of the shapes from `first` on; a chunk that is not full repeats its last shape."""
    for lane in range(at.shape[1]):
        i = min(first + lane, shapes.shape[0] - 1)
        at[: shapes.shape[1], lane] = shapes[i]
        tabs.consts[:, lane] = consts[i]
    fill_tables(code, at, design, tabs)


@nb.njit(cache=True, error_model="numpy")
def _remember(theta, tabs, lane, old, old_consts):
    """Keep a lane's parameters and its tables at the ends of the axis."""
    n, w = theta.shape[0], tabs.low.shape[0]
    old[:n] = theta[:, lane]
    old[n : n + w], old[n + w :] = tabs.low[:, lane], tabs.high[:, lane]
    old_consts[:] = tabs.consts[:, lane]


@nb.njit(cache=True, error_model="numpy")
def _store(code, theta, chol, lane, tabs, s, value, log_z, modes, covs, i, k):
    """Write one lane's result to place ``(i, k)``."""
    n = theta.shape[0]
    step = np.empty(n)
    log_z[i, k] = value + _log_laplace(code, theta, tabs, chol, lane, s, step)
    if modes.size > 0:
        modes[i, k, :] = theta[:, lane]
        for j in range(n):
            s.one[:] = 0.0
            s.one[j] = 1.0
            solve(chol, n, s.one, step)
            covs[i, k, j, :] = step


@nb.njit(cache=True, error_model="numpy")
def _feature(code, n_amp, counts, design, shapes, consts, taus, tol, log_z, modes, covs):
    """One feature: its shapes are the lanes, at one tau after another; of a single shape, the taus are."""
    valid, together = np.flatnonzero(taus >= 0), shapes.shape[0] == 1
    n_valid = valid.size
    if together:  # lanes that fill a vector repeat the last tau
        valid = np.append(valid, np.full(-n_valid % FILL, valid[n_valid - 1]))
    n, n_s = 1 + n_amp + max(design.group.max(), 0) + design.loads.shape[1], shapes.shape[0]
    n_lanes = valid.size if together else min(LANES, n_s)
    s, tabs = new_scratch(n, n_amp, design, n_lanes), new_tables(design, n_lanes)
    theta, value, tau = np.zeros((n, n_lanes)), np.zeros(n_lanes), taus[valid] if together else np.zeros(n_lanes)
    chol, at = np.zeros((n_lanes, n, n)), np.zeros((max(shapes.shape[1], 1), n_lanes))
    old, old_consts, known = np.zeros(n + 2 * tabs.low.shape[0]), np.zeros(2), False
    for lane in range(n_lanes):
        hold(counts, valid[lane] if together else valid[0], lane, s)
    for first in range(0, n_s, n_lanes):
        _fill_lanes(code, first, shapes, consts, at, design, tabs)
        _starts(code, n_amp, design, s, old, old_consts, known, theta, tabs)
        fresh, used = True, n_valid if together else min(n_lanes, n_s - first)
        for round_ in range(1 if together else n_valid):
            if not together:
                tau[:] = taus[valid[round_]]
                for lane in range(n_lanes):
                    hold(counts, valid[round_], lane, s)
            climb(code, theta, n_amp, counts, tau, design, tabs, tol, s, chol, value)
            best, most = -1, -np.inf
            for lane in range(used):
                i, k = (0, valid[lane]) if together else (first + lane, valid[round_])
                if not np.isfinite(value[lane]):
                    _start(code, theta, n_amp, design, s, lane)
                    s.u[:, :, lane] = 0.0
                    continue
                _store(code, theta, chol[lane], lane, tabs, s, value[lane], log_z, modes, covs, i, k)
                if log_z[i, k] > most:
                    best, most = lane, log_z[i, k]
            if fresh and best >= 0:
                _remember(theta, tabs, best, old, old_consts)
                fresh, known = False, True


@nb.njit(cache=True, nogil=True, error_model="numpy")
def run(
    code, n_amp, counts, weights, overdispersion, offset, anchor, design, shapes, consts, taus, tol, log_z, modes, covs
):
    """All features of a block; `log_z` is -inf where nothing was found.

    `weights` are those of the rows (T, R), (T, 0) of a negative binomial; `offset` is what covariates add to the
    predictor (T, R), (T, 0) without them; `shapes` and `consts` are (1 or T, S, ...);
    `taus` is (T, K), a negative tau is skipped.
    """
    shared = shapes.shape[0] == 1
    for t in range(counts.shape[0]):
        if taus[t].max() < 0.0:
            continue
        i = np.int64(0) if shared else np.int64(t)
        m = np.int64(t) if modes.shape[0] > 1 else np.int64(0)
        one = counts_of(
            counts[t], weights[t], overdispersion[t], offset[t], anchor.value[t], anchor.mode[t], anchor.precision[t],
            design,
        )
        _feature(code, n_amp, one, design, shapes[i], consts[i], taus[t], tol, log_z[t], modes[m], covs[m])
