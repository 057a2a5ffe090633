"""The design for tensors: rows in a grid of guides, their dosages and rows of a dosage, so that sums are over axes.

Where a guide has fewer dosages or a dosage fewer rows than another, rows without counts that weigh nothing fill the
grid. Axes: G guides, Q dosages of a guide, P rows of a dosage, M components of the guide effects, C level and groups,
B features, L points of a feature (lanes) with a shape, a tau and parameters of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from dream_sc._core.device import Target
    from dream_sc._core.laplace.layout import Design

    Tensor = torch.Tensor

LIVE = 20  # arrays of the size of all rows, components and lanes that exist at a time, at most


@dataclass(frozen=True)
class Layout:
    """A design on a device; one for all features."""

    rows: Tensor  # (G, Q, P) which of the rows, any where there is none
    real: Tensor  # (G, Q, P) 1 where there is a row, else 0
    log_w: Tensor  # (G, Q, P)
    scale2: Tensor  # (G, Q, P)
    group: Tensor  # (G, Q, P)
    member: Tensor  # (G Q, C, P) 1 for a row of that group, of the first entry, the level, for all rows; then loadings
    loads: Tensor  # (G, Q, P, D) loadings, 0 where there is no row
    nodes: Tensor  # (G Q + 1, J) of each dosage, NTC last
    node_weights: Tensor  # (G Q + 1, J)
    up: Tensor  # (G, 2) the guides' own dosages plus their errors
    down: Tensor  # (G, 2)
    shares: Tensor  # (G, 2)
    known: Tensor  # (G,) whether a dosage is known without error
    exact: bool  # whether all are
    wide2: Tensor  # (M, 1, 1) what each component adds to tau^2
    log_weight: Tensor  # (M, 1, 1)
    scales: Tensor
    weights: Tensor
    axis: tuple[float, float]
    polynomial_sd: float
    dtype: torch.dtype  # of the search for modes

    @property
    def n_groups(self) -> int:
        """Number of entries of level, group effects and errors of coefficients."""
        return int(self.member.shape[1])

    def bytes_of(self, n_lanes: int) -> int:
        """Memory that a feature takes, about."""
        return LIVE * 8 * n_lanes * (self.rows.numel() * len(self.wide2) + self.nodes.shape[0] * 6)


def _grid(d: Design) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows ``(G, Q, P)``, where they are real, and the dosage ``(G, Q)`` of each place."""
    guide = np.repeat(np.arange(len(d.guide_start) - 1), np.diff(d.guide_start))
    pairs, of = np.unique(np.stack([guide, d.dose], 1), axis=0, return_inverse=True)
    of = of.reshape(-1)
    q = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0])
    order = np.argsort(of, kind="stable")
    p = np.empty(len(of), dtype=np.int64)
    p[order] = np.arange(len(of)) - np.searchsorted(of[order], of[order])
    shape = int(guide[-1]) + 1, int(q.max()) + 1, int(p.max()) + 1
    rows, real, dose = np.zeros(shape, dtype=np.int64), np.zeros(shape), np.zeros(shape[:2], dtype=np.int64)
    at = guide, q[of], p
    rows[at], real[at] = np.arange(len(of)), 1.0
    dose[pairs[:, 0], q] = pairs[:, 1]
    return rows, real, dose


def layout(d: Design, target: Target) -> Layout:
    """A design in padded form on a device."""
    t = target.tensor
    rows, real, dose = _grid(d)
    member = (d.group[rows][..., None] == np.arange(int(d.group.max()) + 1)) * real[..., None]
    member[..., 0] = real
    loads = d.loads[rows] * real[..., None]
    member = np.concatenate([member, loads], -1)
    own = [d.own.copy(), d.own.copy()]
    own[0][:, 0] += d.error
    own[1][:, 0] -= d.error
    n_j = d.nodes.shape[1]
    return Layout(
        rows=t(rows),
        real=t(real),
        log_w=t(d.log_w[rows]),
        scale2=t(d.scale2[rows]),
        group=t(d.group[rows] * real.astype(np.int64)),
        member=t(member.reshape(-1, *member.shape[2:]).transpose(0, 2, 1)),
        loads=t(loads),
        nodes=t(np.concatenate([d.nodes[dose.ravel()], np.zeros((1, n_j))])),
        node_weights=t(np.concatenate([d.node_weights[dose.ravel()], np.eye(1, n_j)])),
        up=t(own[0]),
        down=t(own[1]),
        shares=t(d.shares),
        known=t(d.error <= 0),
        exact=bool((d.error <= 0).all()),
        wide2=t(d.wide_sd**2)[:, None, None],
        log_weight=t(np.log(d.wide_weight))[:, None, None],
        scales=t(d.scales),
        weights=t(d.weights),
        axis=(float(d.axis[0]), float(d.axis[1])),
        polynomial_sd=d.polynomial_sd,
        dtype=target.dtype,
    )


@dataclass(frozen=True)
class Tables:
    """The curve's tables of the lanes' shapes, with a feature axis of 1 where the shapes are shared."""

    dose: Tensor  # (G Q + 1, W, B, L), NTC dosage last
    up: Tensor  # (G, W, B, L) a guide's dosage plus its error
    down: Tensor  # (G, W, B, L)
    low: Tensor  # (W, B, L) the ends of the axis, Hills as logs
    high: Tensor  # (W, B, L)
    consts: Tensor  # (2, B, L)
    shapes: Tensor  # (d, B, L)


@dataclass(frozen=True)
class Points:
    """The points that climb together: features and their lanes."""

    y: Tensor  # (G, Q, P, 1, B, 1)
    n: Tensor  # (G, Q, P, 1, B, 1) y + phi, or the number of trials
    offset: Tensor  # (G, Q, P, 1, B, 1) log exposure, covariates in it, less log phi, or 0
    tau2: Tensor  # (B, L)
    value: Tensor  # (B, L) the anchor, see `laplace.design.Anchors`
    mode: Tensor  # (C, B, L)
    precision: Tensor  # (C, C, B, L)
    tables: Tables


def take(x: Tensor, features: Tensor) -> Tensor:
    """Some features of a tensor ``(..., B, L)``; what they share stays."""
    return x if x.shape[-2] == 1 else x.index_select(-2, features)


def some(x: Points, features: Tensor) -> Points:
    """Some of the features."""
    parts = {f.name: getattr(x, f.name) for f in fields(x) if f.name != "tables"}
    tables = {f.name: take(getattr(x.tables, f.name), features) for f in fields(x.tables)}
    return replace(x, **{k: take(v, features) for k, v in parts.items()}, tables=Tables(**tables))


def points(
    y: Tensor, trials: Tensor | None, overdispersion: Tensor, lay: Layout, covariates: Tensor | None = None
) -> Points:
    """Features with counts ``(R, B)``, out of `trials` or not; taus, anchors and tables are to be filled in.

    `covariates` ``(R, B)`` is what they add to the predictor, None without them.
    """
    phi = 1.0 / (overdispersion**2 * lay.scale2[..., None])  # (G, Q, P, B)
    y = y[lay.rows] * lay.real[..., None]
    n = (y + phi if trials is None else trials[lay.rows]) * lay.real[..., None]
    offset = lay.log_w[..., None] - (phi.log() if trials is None else torch.zeros_like(phi))
    if covariates is not None:
        offset = offset + covariates[lay.rows]
    y, n, offset = (x[:, :, :, None, :, None].contiguous() for x in (y, n, offset))
    none = y.new_zeros((0, 1, 1))
    return Points(y, n, offset, none, none, none, none, Tables(*(none,) * 7))
