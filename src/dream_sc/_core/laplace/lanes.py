"""What each lane of a kernel is at: a shape of a feature at one sd of the guide effects after another.

A lane that is done takes the next shape, so that none waits for the slowest. It starts from the solved shape that is
nearest, moved so that the curve moves as much.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dream_sc._core.compiled import Cube, Indices, Matrix, Vector, inline, part
from dream_sc._core.curves import chosen

from .curve_tables import fill_tables
from .layout import Anchor, Design, Tables, hold

IDLE = -1


class Points(NamedTuple):
    """The points of one feature: every shape at every tau, the sd of the guide effects, that is asked for."""

    shapes: Matrix  # (S, d)
    consts: Matrix  # (S, 2)
    starts: Matrix  # (S, n) parameters to start from, NaN where none are known; (0, n) without any
    taus: Vector  # (K,)
    valid: Indices  # those that are asked for


class Lanes(NamedTuple):
    """Where each of `L` lanes is, and where the shapes that are solved were found."""

    shape: Indices  # (L,) its shape, or IDLE
    at: Indices  # (L,) which of the valid taus
    n_steps: Indices  # (L,) Newton steps since it came there
    theta: Matrix  # (n, L) parameters
    tau: Vector  # (L,)
    first: Indices  # (1,) shape of the first lane of the tables that are made ahead
    room: Matrix  # (d, L) for the shapes of these
    scale: Vector  # (d,) of the shapes, which distances are measured by
    solved: Matrix  # (S, n + 2 W) parameters, then the tables at the ends of the axis
    effects: Matrix  # (S, G M) of the guides, there
    order: Indices  # (S,) the shapes that are solved
    n_solved: Indices  # (1,)


@part
def new_lanes(n_lanes: int, shapes: Matrix, n: int, n_ends: int, n_effects: int) -> Lanes:
    """Lanes without anything to do."""
    n_s, n_d = shapes.shape
    scale = np.zeros(n_d)
    for d in range(n_d):
        low, high = shapes[0, d], shapes[0, d]
        for i in range(n_s):
            low, high = min(low, shapes[i, d]), max(high, shapes[i, d])
        scale[d] = 1.0 / (high - low) if high > low else 0.0
    return Lanes(
        np.full(n_lanes, IDLE),
        np.zeros(n_lanes, np.int64),
        np.zeros(n_lanes, np.int64),
        np.zeros((n, n_lanes)),
        np.zeros(n_lanes),
        np.full(1, -n_lanes),
        np.zeros((max(n_d, 1), n_lanes)),
        scale,
        np.zeros((n_s, n + n_ends)),
        np.zeros((n_s, n_effects)),
        np.zeros(n_s, np.int64),
        np.zeros(1, np.int64),
    )


@part
def make_tables(curve: int, points: Points, room: Matrix, first: int, design: Design, tabs: Tables) -> None:
    """Tables of the shapes from `first` on; where there are fewer than lanes, of the last one again."""
    shapes, consts = points.shapes, points.consts
    for lane in range(room.shape[1]):
        i = min(first + lane, shapes.shape[0] - 1)
        for d in range(shapes.shape[1]):
            room[d, lane] = shapes[i, d]
        for d in range(2):
            tabs.consts[d, lane] = consts[i, d]
    fill_tables(curve, room, design, tabs)


@inline
def _copy_cube(source: Cube, j: int, into: Cube, lane: int) -> None:
    for d in range(into.shape[0]):
        for w in range(into.shape[1]):
            into[d, w, lane] = source[d, w, j]


@inline
def _copy_matrix(source: Matrix, j: int, into: Matrix, lane: int) -> None:
    for w in range(into.shape[0]):
        into[w, lane] = source[w, j]


@part
def _copy_tables(ahead: Tables, j: int, tabs: Tables, lane: int) -> None:
    """The tables of one lane."""
    _copy_cube(ahead.dose, j, tabs.dose, lane)
    _copy_cube(ahead.up, j, tabs.up, lane)
    _copy_cube(ahead.down, j, tabs.down, lane)
    _copy_matrix(ahead.low, j, tabs.low, lane)
    _copy_matrix(ahead.high, j, tabs.high, lane)
    _copy_matrix(ahead.consts, j, tabs.consts, lane)


@part
def take_shape(
    curve: int, i: int, lane: int, points: Points, design: Design, ahead: Tables, tabs: Tables, lanes: Lanes
) -> None:
    """Let a lane have shape `i`, and its tables, which are made for as many shapes as there are lanes at a time."""
    first, n_lanes = lanes.first[0], lanes.room.shape[1]
    if not first <= i < first + n_lanes:
        lanes.first[0] = first = i
        make_tables(curve, points, lanes.room, first, design, ahead)
    _copy_tables(ahead, i - first, tabs, lane)
    lanes.shape[lane], lanes.at[lane], lanes.n_steps[lane] = i, 0, 0


@part
def take_tau(at: int, lane: int, points: Points, anchor: Anchor, lanes: Lanes, held: Anchor) -> None:
    """Let a lane be at one of the valid taus."""
    lanes.at[lane], lanes.n_steps[lane] = at, 0
    lanes.tau[lane] = points.taus[points.valid[at]]
    hold(anchor, points.valid[at], lane, held)


@part
def _nearest(i: int, shapes: Matrix, consts: Matrix, scale: Vector, order: Indices, n_solved: int) -> int:
    """The solved shape that is nearest to shape `i`, of the same constants; IDLE where there is none."""
    best, least = IDLE, np.inf
    for place in range(n_solved):
        o, distance = order[place], 0.0
        if consts[o, 0] != consts[i, 0] or consts[o, 1] != consts[i, 1]:
            continue
        for d in range(scale.size):
            distance += ((shapes[o, d] - shapes[i, d]) * scale[d]) ** 2
        if distance <= least:
            best, least = o, distance
    return best


@part
def start(
    curve: int,
    n_amp: int,
    amplitude: float,
    lane: int,
    points: Points,
    mode: Matrix,
    lanes: Lanes,
    tabs: Tables,
    u: Cube,
) -> None:
    """Start a lane where its shape is said to be, at the nearest solved shape, or anew."""
    i, theta = lanes.shape[lane], lanes.theta
    if points.starts.shape[0] > 0 and np.isfinite(points.starts[i, 0]):
        start_anew(n_amp, amplitude, mode, lane, theta, u)
        for j in range(theta.shape[0]):
            theta[j, lane] = points.starts[i, j]
        return
    near = _nearest(i, points.shapes, points.consts, lanes.scale, lanes.order, lanes.n_solved[0])
    if near == IDLE:
        start_anew(n_amp, amplitude, mode, lane, theta, u)
        return
    chosen.match(curve, theta, lanes.solved[near], tabs.low, tabs.high, tabs.consts, lane)
    n_parts = u.shape[1]
    for g in range(u.shape[0]):
        for m in range(n_parts):
            u[g, m, lane] = lanes.effects[near, g * n_parts + m]


@part
def start_anew(n_amp: int, amplitude: float, mode: Matrix, lane: int, theta: Matrix, u: Cube) -> None:
    """Start a lane where nothing is known: `mode` (C, L) is that of level and group effects."""
    theta[0, lane] = mode[0, lane]
    for i in range(n_amp):
        theta[1 + i, lane] = amplitude
    for i in range(1 + n_amp, theta.shape[0]):
        theta[i, lane] = mode[i - n_amp, lane]
    for g in range(u.shape[0]):
        for m in range(u.shape[1]):
            u[g, m, lane] = 0.0


@part
def remember(lane: int, low: Matrix, high: Matrix, u: Cube, lanes: Lanes) -> None:
    """Keep where a lane's shape was found, for others to start from."""
    i, n, w, n_parts = lanes.shape[lane], lanes.theta.shape[0], low.shape[0], u.shape[1]
    for j in range(n):
        lanes.solved[i, j] = lanes.theta[j, lane]
    for j in range(w):
        lanes.solved[i, n + j], lanes.solved[i, n + w + j] = low[j, lane], high[j, lane]
    for g in range(u.shape[0]):
        for m in range(n_parts):
            lanes.effects[i, g * n_parts + m] = u[g, m, lane]
    lanes.order[lanes.n_solved[0]] = i
    lanes.n_solved[0] += 1
