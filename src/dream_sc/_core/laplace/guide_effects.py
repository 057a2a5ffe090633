"""Guide effects integrated by Laplace's method, one component of their prior at a time, in lanes.

Most effects have sd `tau`, a few a wide one; each component's variance also holds what the error of the guide's dosage
does to the curve. A guide's effect is shared by its rows.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import log

from dream_sc._core.compiled import Cube, Indices, Matrix, Stack, Vector, inline, part
from dream_sc._core.compiled.vector_math import vexp, vlog
from dream_sc._core.likelihoods import chosen

from .layout import Counts, Design, Scratch

SMALL_STEP = 4e-4  # squared, in posterior variances of the effect
MOST_STEPS = 12


@part
def _variances(tau: Vector, wide_sd: Matrix, v_dose: Matrix, variance: Cube) -> None:
    """Prior variances of the guide effects, with what the dosages' errors add."""
    for g in range(variance.shape[0]):
        for m in range(variance.shape[1]):
            wide = wide_sd[g, m] ** 2
            for lane in range(tau.size):
                variance[g, m, lane] = tau[lane] * tau[lane] + wide + v_dose[g, lane]


@part
def _modes(
    ys: Vector,
    totals: Vector,
    likelihood: int,
    guide_start: Indices,
    base: Matrix,
    ratio: Matrix,
    variance: Cube,
    u: Cube,
    grad: Vector,
    curvature: Vector,
    factor: Vector,
) -> None:
    """Modes of the effects, by Newton steps from where they are, in place.

    The last step is small enough for what is left to be negligible.
    """
    n_lanes = grad.size
    for g in range(u.shape[0]):
        for m in range(u.shape[1]):
            for _ in range(MOST_STEPS):
                for lane in range(n_lanes):
                    precision = 1.0 / variance[g, m, lane]
                    grad[lane], curvature[lane] = -u[g, m, lane] * precision, precision
                for lane in range(n_lanes):
                    factor[lane] = vexp(u[g, m, lane])
                start, stop = guide_start[g], guide_start[g + 1]
                chosen.add_slopes(likelihood, ys, totals, start, stop, base, ratio, u[g, m], factor, grad, curvature)
                moving = 0
                for lane in range(n_lanes):
                    step = min(max(grad[lane] / curvature[lane], -2.0), 2.0)
                    u[g, m, lane] += step
                    moving += 1 if step * step * curvature[lane] >= SMALL_STEP else 0
                if moving == 0:
                    break


@part
def _at_modes(
    ys: Vector,
    totals: Vector,
    likelihood: int,
    guide_start: Indices,
    wide_weight: Matrix,
    base: Matrix,
    ratio: Matrix,
    variance: Cube,
    u: Cube,
    parts: Stack,
    value: Cube,
    shrink: Cube,
    curvature: Vector,
    third: Vector,
    factor: Vector,
) -> None:
    """Laplace's method at the modes: log densities of the components, in `value`.

    `parts` gets the rows' gradients of the marginal density and their curvatures.
    """
    n_lanes = curvature.size
    for g in range(u.shape[0]):
        start, stop = guide_start[g], guide_start[g + 1]
        for m in range(u.shape[1]):
            log_weight = log(wide_weight[g, m])
            for lane in range(n_lanes):
                factor[lane], curvature[lane], third[lane] = vexp(u[g, m, lane]), 0.0, 0.0
            for lane in range(n_lanes):
                value[g, m, lane] = log_weight - 0.5 * u[g, m, lane] * u[g, m, lane] / variance[g, m, lane]
            at, out = u[g, m], value[g, m]
            chosen.add_values(
                likelihood, ys, totals, start, stop, base, ratio, at, factor, out, parts[m], curvature, third
            )
            for lane in range(n_lanes):
                w = 1.0 + variance[g, m, lane] * curvature[lane]
                shrink[g, m, lane] = variance[g, m, lane] / w
                value[g, m, lane] -= 0.5 * vlog(w)
            for r in range(start, stop):
                for lane in range(n_lanes):
                    v = shrink[g, m, lane]
                    pull = parts[m, r, 2, lane] - third[lane] * v * parts[m, r, 1, lane]
                    parts[m, r, 0, lane] -= 0.5 * v * pull


@part
def _mix(odds: Cube, log_density: Matrix, top: Vector) -> None:
    """Log of the sum of the components' densities; `odds` becomes their posterior probabilities."""
    n_guides, n_parts, n_lanes = odds.shape
    for g in range(n_guides):
        if n_parts == 1:
            for lane in range(n_lanes):
                log_density[g, lane], odds[g, 0, lane] = odds[g, 0, lane], 1.0
            continue
        for lane in range(n_lanes):
            top[lane] = odds[g, 0, lane]
            log_density[g, lane] = 0.0
        for m in range(1, n_parts):
            for lane in range(n_lanes):
                top[lane] = max(top[lane], odds[g, m, lane])
        for m in range(n_parts):
            for lane in range(n_lanes):
                odds[g, m, lane] = vexp(odds[g, m, lane] - top[lane])
                log_density[g, lane] += odds[g, m, lane]
        for m in range(n_parts):
            for lane in range(n_lanes):
                odds[g, m, lane] /= log_density[g, lane]
        for lane in range(n_lanes):
            log_density[g, lane] = top[lane] + vlog(log_density[g, lane])


@part
def components(counts: Counts, tau: Vector, design: Design, s: Scratch) -> None:
    """Log marginal density of each guide's rows by component, weights included, in `s.odds`."""
    _variances(tau, design.wide_sd, s.v_dose, s.variance)
    _modes(
        counts.y,
        counts.total,
        counts.likelihood,
        design.guide_start,
        s.base,
        s.ratio,
        s.variance,
        s.u,
        s.buffer_a,
        s.buffer_b,
        s.buffer_c,
    )
    _at_modes(
        counts.y,
        counts.total,
        counts.likelihood,
        design.guide_start,
        design.wide_weight,
        s.base,
        s.ratio,
        s.variance,
        s.u,
        s.parts,
        s.odds,
        s.shrink,
        s.buffer_a,
        s.buffer_b,
        s.buffer_c,
    )


@inline
def integrate(counts: Counts, tau: Vector, design: Design, s: Scratch) -> None:
    """Log marginal density of each guide's rows, in `s.log_density`.

    Leaves the components' row derivatives in `s.parts`, their posterior probabilities in `s.odds`, `v / (1 + v k)`
    in `s.shrink`.
    """
    components(counts, tau, design, s)
    _mix(s.odds, s.log_density, s.buffer_a)
