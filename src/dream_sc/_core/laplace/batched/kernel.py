"""The kernel of the trans step on tensors: nested Laplace at every (feature, shape, tau), on any device of torch.

The same arithmetic and the same order of shapes and taus as `laplace.kernel`, whose numbers these are: chunks of
shapes start from the best shape of the chunk before, taus from the tau before. What runs at once are the shapes of a
chunk, for as many features as fit into memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import curves, linalg, turns
from .climb import climb
from .layout import layout, points, some, take

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.device import Target
    from dream_sc._core.laplace.layout import Anchors, Design

    Floats = NDArray[np.float64]

    from .climb import Climb
    from .layout import Layout, Points, Tables, Tensor

LANES = 16
LOG_2PI = float(np.log(2.0 * np.pi))
SECOND_HILL = -0.5  # amplitudes of two Hills where nothing is known


@dataclass(frozen=True)
class Data:
    """Features and a lattice of shapes, on the host."""

    counts: Floats  # (T, R)
    weights: Floats  # (T, R) numbers of trials; (T, 0) of a negative binomial
    overdispersion: Floats  # (T,)
    offset: Floats  # (T, R) what covariates add to the predictor; (T, 0) without them
    anchor: Anchors
    design: Design
    shapes: Floats  # (1 or T, S, d)
    consts: Floats  # (1 or T, S, 2)


@dataclass(frozen=True)
class Task:
    """What to do with a batch of features, on the device."""

    code: int
    n_amp: int
    lay: Layout
    tol: float
    turn: tuple[Tensor, float] | None  # dosages at which a turn is looked for, and its scale
    shapes: Tensor  # (S, d, B or 1)
    consts: Tensor  # (S, 2, B or 1)
    taus: Tensor  # (B, K)
    pick: Tensor  # (B, K) positions of the taus that are wanted, these first
    n_valid: NDArray[np.int64]  # (B,) how many are, on the host
    anchor: tuple[Tensor, ...]  # value (B, K or 1), mode (B, K or 1, C), precision (B, K or 1, C, C)

    def held(self, at: Points, rows: Tensor, k: Tensor) -> Points:
        """The points of features `rows` ``(B',)`` with the taus `k` ``(B', L)`` and their anchors."""
        j = k if self.anchor[0].shape[1] > 1 else torch.zeros_like(k)
        value, mode, precision = (x[rows[:, None], j] for x in self.anchor)
        return replace(
            at,
            tau2=self.taus[rows[:, None], k] ** 2,
            value=value,
            mode=mode.permute(2, 0, 1),
            precision=precision.permute(2, 3, 0, 1),
        )


@dataclass(frozen=True)
class Out:
    """Results of a batch."""

    log_z: Tensor  # (B, S, K)
    log_turn: Tensor | None  # (B, S, K) log mean weight of the turn
    modes: Tensor | None  # (B, S, K, n)
    covs: Tensor | None  # (B, S, K, n, n)


def _start(code: int, n_amp: int, mode: Tensor, n_lanes: int) -> Tensor:
    """Starts ``(n, B, L)`` at the anchor's mode ``(C, B, L or 1)``."""
    mode = mode.expand(*mode.shape[:2], n_lanes)
    amplitudes = mode.new_full((n_amp, *mode.shape[1:]), SECOND_HILL if code == 2 else 0.0)
    return torch.cat([mode[:1], amplitudes, mode[1:]])


def _log_laplace(code: int, c: Climb, tabs: Tables) -> Tensor:
    """Log evidence ``(B, L)`` of each point; for the single Hill with the moment factor E[D^2]."""
    n = len(c.theta)
    out = c.value + 0.5 * n * LOG_2PI
    for i in range(n):
        out = out - c.chol[i, i].log()
    if code == 1:
        d, d1 = curves.movement(c.theta[1], tabs.low, tabs.high)
        unit = torch.zeros_like(c.theta)
        unit[1] = 1.0
        out = out + (d * d + d1 * d1 * linalg.solve(c.chol, unit)[1]).log()
    return torch.where(c.value.isfinite(), out, -torch.inf)


def _store(task: Task, out: Out, c: Climb, tabs: Tables, where: tuple[Tensor, ...], used: int) -> Tensor:
    """Write what was found at places ``(features, shapes, taus)``; returns the log evidence of the lanes in use."""
    log_z = _log_laplace(task.code, c, tabs)[:, :used]
    ok = log_z.isfinite()
    out.log_z[where] = log_z
    if out.log_turn is not None and task.turn is not None:
        cov = linalg.inverse(c.chol)
        out.log_turn[where] = turns.log_mean(c.theta, cov, tabs, *task.turn)[:, :used]
    if out.modes is not None and out.covs is not None:
        cov = linalg.inverse(c.chol).permute(2, 3, 0, 1)[:, :used]
        out.modes[where] = torch.where(ok[..., None], c.theta.permute(1, 2, 0)[:, :used], 0.0)
        out.covs[where] = torch.where(ok[..., None, None], cov, 0.0)
    return log_z


@dataclass
class Known:
    """What a feature's chunks of shapes start from: the best point so far, and the tables of its shape."""

    theta: Tensor  # (n, B, 1)
    low: Tensor  # (W, B, 1)
    high: Tensor  # (W, B, 1)
    consts: Tensor  # (2, B, 1)
    any: Tensor  # (B,)

    def starts(self, code: int, n_amp: int, tabs: Tables, mode: Tensor) -> Tensor:
        """Starts ``(n, B, L)``: the best one before, moved so that the curve moves as much; else the anchor."""
        n_lanes = tabs.consts.shape[-1]
        cold = _start(code, n_amp, mode, n_lanes)
        usable = self.any[:, None].expand(-1, n_lanes)
        if code == 2:
            usable = usable & (tabs.consts == self.consts).all(0)
        amplitudes = curves.match(code, self.theta[1 : 1 + n_amp], self.low, self.high, tabs)
        rest = self.theta.expand(-1, -1, n_lanes)
        warm = torch.cat([rest[:1], amplitudes.expand(n_amp, *rest.shape[1:]), rest[1 + n_amp :]])
        return torch.where(usable, warm, cold)

    def remember(self, features: Tensor, theta: Tensor, tabs: Tables, best: Tensor) -> None:
        """Keep the best lane ``(B',)`` of some features, in place."""
        for mine, theirs in (
            (self.theta, theta),
            (self.low, tabs.low),
            (self.high, tabs.high),
            (self.consts, tabs.consts),
        ):
            theirs = theirs.expand(-1, len(best), -1)
            column = theirs.gather(-1, best[None, :, None].expand(len(theirs), -1, 1))
            mine.index_copy_(1, features, column)
        self.any[features] = True


def _rounds(
    task: Task, out: Out, at: Points, theta: Tensor, u: Tensor, known: Known, first: int, used: int
) -> tuple[Tensor, Tensor]:
    """One chunk of shapes at one tau after another; each starts where the one before arrived."""
    fresh = torch.ones(theta.shape[1], dtype=torch.bool, device=theta.device)
    shapes = torch.arange(first, first + used, device=theta.device)
    for round_ in range(int(task.n_valid.max())):
        rows = torch.as_tensor(np.flatnonzero(task.n_valid > round_), device=theta.device)
        k = task.pick[rows, round_]
        here = task.held(some(at, rows) if len(rows) < len(fresh) else at, rows, k[:, None])
        c = climb(task.code, task.n_amp, take(theta, rows), take(u, rows), here, task.lay, task.tol)
        log_z = _store(task, out, c, here.tables, (rows[:, None], shapes, k[:, None]), used)
        best = log_z.argmax(1)
        new = (fresh[rows] & log_z.isfinite().any(1)).nonzero()[:, 0]
        if len(new):
            tabs = some(here, new).tables if len(new) < len(rows) else here.tables
            known.remember(rows[new], c.theta[:, new], tabs, best[new])
            fresh[rows[new]] = False
        lost = ~c.value.isfinite()
        again = _start(task.code, task.n_amp, here.mode, theta.shape[-1])
        theta = theta.index_copy(1, rows, torch.where(lost, again, c.theta))
        u = u.index_copy(-2, rows, torch.where(lost, 0.0, c.u))
    return theta, u


def _chunks(task: Task, out: Out, at: Points) -> None:
    """All shapes, a chunk at a time; the last one repeats its last shape where it is not full."""
    n_b, n_s = len(task.taus), len(task.shapes)
    n_lanes = min(LANES, n_s)
    n, lay = task.n_amp + task.lay.n_groups, task.lay
    rows, like = torch.arange(n_b, device=task.taus.device), task.taus
    u = like.new_zeros((len(lay.rows), len(lay.wide2), n_b, n_lanes))
    known = None
    for first in range(0, n_s, n_lanes):
        tabs = _tables(task, torch.arange(first, first + n_lanes, device=like.device).clamp(max=n_s - 1))
        if known is None:
            size = len(tabs.low), n_b, 1
            known = Known(
                like.new_zeros((n, n_b, 1)),
                like.new_zeros(size),
                like.new_zeros(size),
                like.new_zeros((2, n_b, 1)),
                torch.zeros(n_b, dtype=torch.bool, device=like.device),
            )
        last = torch.as_tensor(np.zeros(n_b, int) if first == 0 else task.n_valid - 1, device=like.device)
        here = task.held(replace(at, tables=tabs), rows, task.pick[rows, last][:, None])
        theta = known.starts(task.code, task.n_amp, tabs, here.mode)
        _, u = _rounds(task, out, here, theta, u, known, first, min(n_lanes, n_s - first))


def _tables(task: Task, index: Tensor) -> Tables:
    shapes, consts = (x[index].permute(1, 2, 0).contiguous() for x in (task.shapes, task.consts))
    return curves.tables(task.code, shapes, consts, task.lay)


def _together(task: Task, out: Out, at: Points) -> None:
    """A single shape: its taus are the lanes; a feature with fewer of them repeats its last one."""
    n_lanes = int(task.n_valid.max())
    last = torch.as_tensor(task.n_valid - 1, device=task.taus.device)[:, None]
    lanes = torch.arange(n_lanes, device=task.taus.device)
    k = task.pick.gather(1, torch.minimum(lanes, last))
    rows = torch.arange(len(k), device=k.device)
    at = task.held(replace(at, tables=_tables(task, torch.zeros_like(lanes[:1]))), rows, k)
    theta = _start(task.code, task.n_amp, at.mode, n_lanes)
    u = theta.new_zeros((len(task.lay.rows), len(task.lay.wide2), *k.shape))
    c = climb(task.code, task.n_amp, theta, u, at, task.lay, task.tol)
    _store(task, out, c, at.tables, (rows[:, None], torch.zeros_like(k), k), n_lanes)


def _batch(task: Task, at: Points, n_s: int, *, modes: bool) -> Out:
    """Everything of one batch."""
    size, like = (len(task.taus), n_s, task.taus.shape[1]), task.taus
    n = task.n_amp + task.lay.n_groups
    out = Out(
        like.new_full(size, -torch.inf),
        like.new_zeros(size) if task.turn is not None else None,
        like.new_zeros((*size, n)) if modes else None,
        like.new_zeros((*size, n, n)) if modes else None,
    )
    (_together if n_s == 1 else _chunks)(task, out, at)
    return out if out.log_turn is None else replace(out, log_z=turns.added(out.log_z, out.log_turn))


def run(
    data: Data,
    target: Target,
    code: int,
    n_amp: int,
    taus: Floats,
    tol: float,
    *,
    modes: bool = False,
    turn: tuple[Floats, float] | None = None,
) -> tuple[Floats, Floats, Floats]:
    """Log evidence ``(T, S, K)``, and on request the conditional mode ``(..., n)`` and covariance ``(..., n, n)``.

    A negative tau is skipped; the evidence is -inf where nothing was found. `turn`: dosages at which two Hills are
    looked at for a turn, and its scale.
    """
    n_s, n_k, n = data.shapes.shape[1], taus.shape[1], n_amp + 1 + int(data.design.group.max())
    n += data.design.loads.shape[1]
    log_z = np.full((len(taus), n_s, n_k), -np.inf)
    size = (len(taus), n_s, n_k) if modes else (1, 0, 0)
    mode, cov = np.zeros((*size, n)), np.zeros((*size, n, n))
    with torch.no_grad():
        lay = layout(data.design, target)
        wanted = np.flatnonzero((taus >= 0).any(1))
        most = max(1, target.free // lay.bytes_of(n_k if n_s == 1 else min(LANES, n_s)))
        while len(wanted):
            some_, wanted = wanted[:most], wanted[most:]
            try:
                found = _on_device(data, target, lay, code, n_amp, taus, tol, some_, modes=modes, turn=turn)
            except torch.cuda.OutOfMemoryError:
                if len(some_) == 1:
                    raise
                most, wanted = (len(some_) + 1) // 2, np.append(some_, wanted)
                continue
            log_z[some_] = found.log_z.cpu().numpy()
            if found.modes is not None and found.covs is not None:
                mode[some_], cov[some_] = found.modes.cpu().numpy(), found.covs.cpu().numpy()
    return log_z, mode, cov


def _on_device(
    data: Data,
    target: Target,
    lay: Layout,
    code: int,
    n_amp: int,
    taus: Floats,
    tol: float,
    rows: NDArray[np.int64],
    *,
    modes: bool,
    turn: tuple[Floats, float] | None,
) -> Out:
    """Send a batch of features to the device and treat it there."""
    t, valid = target.tensor, taus[rows] >= 0
    shapes, consts = (t(x if len(x) == 1 else x[rows]).permute(1, 2, 0) for x in (data.shapes, data.consts))
    task = Task(
        code,
        n_amp,
        lay,
        tol,
        None if turn is None else (t(turn[0]), turn[1]),
        shapes,
        consts,
        t(taus[rows]),
        t(np.argsort(~valid, axis=1, kind="stable")),
        valid.sum(1),
        tuple(t(x[rows]) for x in data.anchor),
    )
    trials = t(data.weights[rows].T) if data.weights.size else None
    offset = t(data.offset[rows].T) if data.offset.size else None
    at = points(t(data.counts[rows].T), trials, t(data.overdispersion[rows]), lay, offset)
    return _batch(task, at, data.shapes.shape[1], modes=modes)
