"""The joint log density that the kernel approximates: at given guide effects, and with them integrated by quadrature.

The first is what the Pyro model says, for tests; the second is what importance weights compare with.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, log

import numpy as np

from dream_sc._core.compiled import Cube, Matrix, Vector, entry, inline, part
from dream_sc._core.compiled.vector_math import vexp, vlog
from dream_sc._core.curves import chosen
from dream_sc._core.likelihoods import chosen as likelihoods

from .curve_tables import fill_tables
from .guide_effects import integrate
from .layout import Anchor, Anchors, Counts, Design, Scratch, Tables, counts_of, hold, new_scratch, new_tables
from .marginal import LOG_2PI, add_priors, row_means
from .modes import LANES

EXACT_ODDS = 1e-3  # components of a guide's effect below these odds keep their Laplace value
LAPLACE_ERROR = 1e-3  # of the log density of a guide, below which quadrature is not worth its time
# of Laplace's method, below which five nodes are right to 2e-4: at most that over 1,400 guides of 0 to 2,000 counts
FEW_ENOUGH = 0.02


@inline
def _add_priors(curve: int, theta: Matrix, n_amp: int, design: Design, tabs: Tables, s: Scratch, value: Vector) -> None:
    """Priors of level, group effects and amplitudes, whole."""
    add_priors(curve, theta, n_amp, design, tabs, s, value)
    for lane in range(value.size):
        d, _d1 = chosen.left_out(curve, theta, tabs.low, tabs.high, lane)
        value[lane] += 2.0 * log(max(abs(d), 1e-150))


@entry
def log_joint(
    curve: int,
    theta: Vector,
    n_amp: int,
    u: Vector,
    y: Vector,
    row_weights: Vector,
    overdispersion: float,
    offset: Vector,
    anchor: Anchor,
    tau: float,
    shape: Vector,
    consts: Vector,
    design: Design,
) -> float:
    """Log density of counts, parameters and guide effects `u`, without the count-only terms and the shape's prior.

    `anchor` and `offset` are those of one feature.
    """
    counts = counts_of(y, row_weights, overdispersion, offset, anchor, design.scale2, design.likelihood)
    s, tabs = new_scratch(theta.size, n_amp, design, 1), new_tables(design, 1)
    hold(counts.anchor, 0, 0, s.anchor)
    tabs.consts[0, 0], tabs.consts[1, 0] = consts
    fill_tables(curve, shape.reshape(-1, 1), design, tabs)
    at = theta.reshape(-1, 1)
    row_means(curve, at, n_amp, counts.shift, design, tabs, s)
    value = np.zeros(1)
    _add_priors(curve, at, n_amp, design, tabs, s, value)
    effect, factor, spare, total = np.zeros(1), np.zeros(1), np.zeros(1), counts.total
    for g in range(u.size):
        start, stop = design.guide_start[g], design.guide_start[g + 1]
        effect[0], factor[0] = u[g], exp(u[g])
        likelihoods.add_values(
            design.likelihood, y, total, start, stop, s.base, s.ratio, effect, factor, value, s.parts[0], spare, spare
        )
        density = 0.0
        for m in range(design.wide_sd.shape[1]):
            v = tau * tau + design.wide_sd[g, m] ** 2 + s.v_dose[g, 0]
            density += design.wide_weight[g, m] * exp(-0.5 * u[g] ** 2 / v) / v**0.5
        value[0] += log(density) - 0.5 * LOG_2PI
    return value[0]


@part
def _error(g: int, m: int, counts: Counts, design: Design, s: Scratch) -> float:
    """Error of Laplace's method for a component, the largest of all lanes, by the next term of its expansion."""
    largest = 0.0
    if likelihoods.is_quadratic(counts.likelihood):
        return largest
    for lane in range(s.odds.shape[2]):
        if s.odds[g, m, lane] < EXACT_ODDS:
            continue
        k, k3 = 0.0, 0.0
        for r in range(design.guide_start[g], design.guide_start[g + 1]):
            k += s.parts[m, r, 1, lane]
            k3 += s.parts[m, r, 2, lane]
        variance = s.shrink[g, m, lane]
        largest = max(largest, variance * variance * (5.0 / 24.0 * k3 * k3 * variance + 0.125 * k))
    return largest


@part
def _few_nodes(nodes: Vector, weights: Vector) -> None:
    """The five nodes of Gauss and Hermite for a standard normal variable, and their weights."""
    root = 10.0**0.5
    for i in range(2):
        sign = 2.0 * i - 1.0
        nodes[i], weights[i] = sign * (5.0 - root) ** 0.5, (7.0 + 2.0 * root) / 60.0
        nodes[2 + i], weights[2 + i] = sign * (5.0 + root) ** 0.5, (7.0 - 2.0 * root) / 60.0
    nodes[4], weights[4] = 0.0, 8.0 / 15.0


@part
def _add_ratio(
    counts: Counts, g: int, m: int, nodes: Vector, weights: Vector, design: Design, s: Scratch, ratio: Vector
) -> None:
    """Add a component's density by Gauss-Hermite quadrature around its mode, over that by Laplace, by its odds."""
    u, shrink, odds, variance = s.u, s.shrink, s.odds, s.variance
    at_mode, value, total, move, factor = s.buffer_a, s.buffer_b, s.buffer_c, s.climb[0], s.climb[1]
    for lane in range(ratio.size):
        at_mode[lane], total[lane] = vexp(u[g, m, lane]), 0.0
    for k in range(nodes.size):
        node = nodes[k]
        for lane in range(ratio.size):
            move[lane] = shrink[g, m, lane] ** 0.5 * node
            factor[lane] = vexp(move[lane])
        for lane in range(ratio.size):
            value[lane] = 0.5 * node * node - move[lane] * (u[g, m, lane] + 0.5 * move[lane]) / variance[g, m, lane]
        likelihoods.add_change(
            counts.likelihood,
            counts.y,
            counts.total,
            design.guide_start[g],
            design.guide_start[g + 1],
            s.base,
            s.ratio,
            u[g, m],
            at_mode,
            move,
            factor,
            value,
        )
        for lane in range(ratio.size):
            total[lane] += weights[k] * vexp(value[lane])
    for lane in range(ratio.size):
        ratio[lane] += odds[g, m, lane] * total[lane]


@part
def _chunk(
    curve: int,
    n_amp: int,
    counts: Counts,
    design: Design,
    theta: Matrix,
    tau: Vector,
    tabs: Tables,
    nodes: Vector,
    weights: Vector,
    s: Scratch,
    value: Vector,
) -> None:
    """Log density of the lanes' points."""
    for lane in range(value.size):
        value[lane] = 0.0
    _add_priors(curve, theta, n_amp, design, tabs, s, value)
    row_means(curve, theta, n_amp, counts.shift, design, tabs, s)
    integrate(counts, tau, design, s)
    ratio, few, of_few = s.climb[3], np.zeros(5), np.zeros(5)
    _few_nodes(few, of_few)
    for g in range(s.odds.shape[0]):
        for lane in range(ratio.size):
            ratio[lane] = 0.0
        for m in range(s.odds.shape[1]):
            error = _error(g, m, counts, design, s)
            if error > FEW_ENOUGH:
                _add_ratio(counts, g, m, nodes, weights, design, s, ratio)
            elif error > LAPLACE_ERROR:
                _add_ratio(counts, g, m, few, of_few, design, s, ratio)
            else:
                for lane in range(ratio.size):
                    ratio[lane] += s.odds[g, m, lane]
        for lane in range(ratio.size):
            value[lane] += s.log_density[g, lane] + vlog(ratio[lane])


@part
def _feature(
    curve: int,
    n_amp: int,
    counts: Counts,
    design: Design,
    theta: Matrix,
    tau: Vector,
    shapes: Matrix,
    consts: Vector,
    nodes: Vector,
    weights: Vector,
    out: Vector,
) -> None:
    """All points of one feature, a chunk of lanes at a time; a chunk that is not full repeats its last point."""
    n_points, n = theta.shape
    n_lanes, d = min(LANES, n_points), shapes.shape[1]
    s, tabs = new_scratch(n, n_amp, design, n_lanes), new_tables(design, n_lanes)
    at, shape, taus = np.zeros((n, n_lanes)), np.zeros((max(d, 1), n_lanes)), np.zeros(n_lanes)
    value = np.zeros(n_lanes)
    for first in range(0, n_points, n_lanes):
        for lane in range(n_lanes):
            i = min(first + lane, n_points - 1)
            taus[lane] = tau[i]
            for j in range(n):
                at[j, lane] = theta[i, j]
            for j in range(d):
                shape[j, lane] = shapes[i, j]
            for j in range(2):
                tabs.consts[j, lane] = consts[j]
            hold(counts.anchor, i, lane, s.anchor)
        fill_tables(curve, shape, design, tabs)
        _chunk(curve, n_amp, counts, design, at, taus, tabs, nodes, weights, s, value)
        for lane in range(min(n_lanes, n_points - first)):
            out[first + lane] = value[lane]


@entry
def log_marginal(
    curve: int,
    n_amp: int,
    counts: Matrix,
    row_weights: Matrix,
    overdispersion: Vector,
    offset: Matrix,
    anchor: Anchors,
    design: Design,
    theta: Cube,
    tau: Matrix,
    shapes: Cube,
    consts: Matrix,
    nodes: Vector,
    weights: Vector,
    out: Matrix,
) -> None:
    """Log density of points: guide effects integrated by quadrature, nothing else; shape and tau without their priors.

    `row_weights` are (T, R), (T, 0) of a negative binomial, `offset` (T, R), (T, 0) without covariates; `theta` is
    (T, S, n), `tau` (T, S), `shapes` (T, S, d), `consts` (T, 2), `out` (T, S);
    the `anchor` is that of each point, or one for all of a feature's.
    """
    for t in range(counts.shape[0]):
        its = Anchor(anchor.value[t], anchor.mode[t], anchor.precision[t])
        one = counts_of(counts[t], row_weights[t], overdispersion[t], offset[t], its, design.scale2, design.likelihood)
        _feature(curve, n_amp, one, design, theta[t], tau[t], shapes[t], consts[t], nodes, weights, out[t])
