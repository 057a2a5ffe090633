"""Log density of level, amplitudes and group effects, guide effects integrated, with its derivatives, in lanes."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import log, pi

from dream_sc._core.compiled import Cube, Indices, Matrix, Stack, Vector, inline, part
from dream_sc._core.compiled.vector_math import vexp
from dream_sc._core.curves import chosen

from . import covariate_errors
from .curve_tables import dose_variances, fill_factors
from .guide_effects import integrate
from .layout import Counts, Design, Scratch, Tables

LOG_2PI = log(2.0 * pi)


@part
def row_means(curve: int, theta: Matrix, n_amp: int, shift: Vector, design: Design, tabs: Tables, s: Scratch) -> None:
    """Predictors of the rows, without guide effects; and the variance that the dosages' errors add."""
    n_lanes, n_dose = theta.shape[1], design.nodes.shape[0]
    fill_factors(theta, n_amp, s.factor)
    chosen.log_curves(curve, theta, n_amp, tabs.dose, s.factor, s.curve, s.curve_grad)
    dose_variances(curve, theta, n_amp, design.error, tabs.up, tabs.down, s.factor, s.v_dose)
    base, ratio, values, dose, groups, level = s.base, s.ratio, s.curve, design.dose, design.group, s.buffer_a
    for lane in range(n_lanes):
        level[lane] = theta[0, lane] - values[n_dose, lane]
    for r in range(base.shape[0]):
        known, d, k = design.log_w[r] - shift[r], dose[r], n_amp + groups[r]
        for lane in range(n_lanes):
            base[r, lane] = known + level[lane] + values[d, lane]
        if groups[r] > 0:
            for lane in range(n_lanes):
                base[r, lane] += theta[k, lane]
        for lane in range(n_lanes):
            ratio[r, lane] = vexp(base[r, lane])
    if design.loads.shape[1] > 0:
        covariate_errors.add_means(theta, design.loads, base, ratio)


@inline
def add_priors(curve: int, theta: Matrix, n_amp: int, design: Design, tabs: Tables, s: Scratch, value: Vector) -> None:
    """Add what the anchor says of level and group effects, and the prior of the amplitudes, and their derivatives."""
    _add_anchor(theta, n_amp, s.anchor.value, s.anchor.mode, s.anchor.precision, s.grad, s.gauss, value)
    if n_amp > 0:
        chosen.add_prior(
            curve,
            n_amp,
            theta,
            tabs.low,
            tabs.high,
            tabs.consts,
            design.scales,
            design.weights,
            design.polynomial_sd,
            s.grad,
            s.gauss,
            value,
        )


@part
def _add_anchor(
    theta: Matrix, n_amp: int, at: Vector, mode: Matrix, precision: Cube, grad: Matrix, gauss: Cube, value: Vector
) -> None:
    """Add what the anchor says."""
    for lane in range(value.size):
        value[lane] += at[lane]
    for c in range(mode.shape[0]):
        i = 0 if c == 0 else n_amp + c
        for d in range(mode.shape[0]):
            j = 0 if d == 0 else n_amp + d
            for lane in range(value.size):
                pull = precision[c, d, lane] * (theta[j, lane] - mode[d, lane])
                value[lane] -= 0.5 * (theta[i, lane] - mode[c, lane]) * pull
                grad[i, lane] -= pull
                gauss[i, j, lane] += precision[c, d, lane]


@part
def _add_rows(
    n_amp: int,
    guide_start: Indices,
    dose: Indices,
    groups: Indices,
    odds: Cube,
    parts: Stack,
    jac: Cube,
    row_grad: Matrix,
    gauss: Cube,
    kappa: Vector,
    total: Vector,
) -> None:
    """Add the rows' curvature to `gauss`, and their gradients, summed by dosage, to `row_grad`.

    Rows of one guide and one dosage follow each other and share a Jacobian but for their group.
    """
    n_guides, n_parts, n_lanes = odds.shape
    for g in range(n_guides):
        stop = guide_start[g + 1]
        for lane in range(n_lanes):
            total[lane] = 0.0
        for r in range(guide_start[g], stop):
            d, k = dose[r], n_amp + groups[r]
            for lane in range(n_lanes):
                kappa[lane] = 0.0
            for m in range(n_parts):
                for lane in range(n_lanes):
                    kappa[lane] += odds[g, m, lane] * parts[m, r, 1, lane]
                    row_grad[d, lane] += odds[g, m, lane] * parts[m, r, 0, lane]
            for lane in range(n_lanes):
                total[lane] += kappa[lane]
            if groups[r] > 0:
                for lane in range(n_lanes):
                    gauss[k, 0, lane] += kappa[lane]
                    gauss[k, k, lane] += kappa[lane]
                for i in range(n_amp):
                    for lane in range(n_lanes):
                        gauss[k, 1 + i, lane] += kappa[lane] * jac[d, i, lane]
            if r + 1 < stop and dose[r + 1] == d:
                continue
            for lane in range(n_lanes):
                gauss[0, 0, lane] += total[lane]
            for i in range(n_amp):
                for lane in range(n_lanes):
                    gauss[1 + i, 0, lane] += total[lane] * jac[d, i, lane]
                for j in range(i + 1):
                    for lane in range(n_lanes):
                        gauss[1 + i, 1 + j, lane] += total[lane] * jac[d, i, lane] * jac[d, j, lane]
            for lane in range(n_lanes):
                total[lane] = 0.0


@part
def _sums(
    g: int,
    m: int,
    n_amp: int,
    guide_start: Indices,
    dose: Indices,
    groups: Indices,
    loads: Matrix,
    jac: Cube,
    parts: Stack,
    first: Matrix,
    second: Matrix,
    run1: Vector,
    run2: Vector,
) -> None:
    """Gradient and curvature times the Jacobian, summed over the rows of a guide, in `first` and `second`."""
    n, n_lanes = first.shape
    start, stop, whole = guide_start[g], guide_start[g + 1], True
    for i in range(1 + n_amp, n):
        for lane in range(n_lanes):
            first[i, lane], second[i, lane] = 0.0, 0.0
    for r in range(start, stop):
        d, k = dose[r], n_amp + groups[r]
        if r > start and dose[r - 1] == d:
            for lane in range(n_lanes):
                run1[lane] += parts[m, r, 0, lane]
                run2[lane] += parts[m, r, 1, lane]
        else:
            for lane in range(n_lanes):
                run1[lane], run2[lane] = parts[m, r, 0, lane], parts[m, r, 1, lane]
        if groups[r] > 0:
            for lane in range(n_lanes):
                first[k, lane] += parts[m, r, 0, lane]
                second[k, lane] += parts[m, r, 1, lane]
        if r + 1 < stop and dose[r + 1] == d:
            continue
        if whole:  # most guides have one dosage
            for lane in range(n_lanes):
                first[0, lane], second[0, lane] = run1[lane], run2[lane]
            for i in range(n_amp):
                for lane in range(n_lanes):
                    first[1 + i, lane], second[1 + i, lane] = run1[lane] * jac[d, i, lane], run2[lane] * jac[d, i, lane]
            whole = False
            continue
        for lane in range(n_lanes):
            first[0, lane] += run1[lane]
            second[0, lane] += run2[lane]
        for i in range(n_amp):
            for lane in range(n_lanes):
                first[1 + i, lane] += run1[lane] * jac[d, i, lane]
                second[1 + i, lane] += run2[lane] * jac[d, i, lane]
    if loads.shape[1] > 0:
        covariate_errors.add_sums(g, m, guide_start, loads, parts, first, second)


@part
def _add_guides(
    n_amp: int,
    guide_start: Indices,
    dose: Indices,
    groups: Indices,
    loads: Matrix,
    odds: Cube,
    shrink: Cube,
    parts: Stack,
    jac: Cube,
    gauss: Cube,
    hess: Cube,
    grad: Matrix,
    first: Matrix,
    second: Matrix,
    total: Matrix,
    joined: Vector,
    pull: Vector,
    run1: Vector,
    run2: Vector,
) -> None:
    """Add the guides' gradients, and the curvature that integrating their effects takes away.

    What the choice between components takes away goes into `hess`: without it `gauss` is positive definite. Components
    join one after another: `total` is the mean gradient of those so far, whose odds are `joined`.
    """
    n, n_lanes, n_parts = total.shape[0], total.shape[1], odds.shape[1]
    for g in range(odds.shape[0]):
        _sums(g, 0, n_amp, guide_start, dose, groups, loads, jac, parts, total, second, run1, run2)
        for lane in range(n_lanes):
            joined[lane], pull[lane] = odds[g, 0, lane], odds[g, 0, lane] * shrink[g, 0, lane]
        for i in range(n):
            for j in range(i + 1):
                for lane in range(n_lanes):
                    gauss[i, j, lane] -= pull[lane] * second[i, lane] * second[j, lane]
        for m in range(1, n_parts):
            _sums(g, m, n_amp, guide_start, dose, groups, loads, jac, parts, first, second, run1, run2)
            share, between = run1, run2
            for lane in range(n_lanes):
                both = joined[lane] + odds[g, m, lane]
                share[lane] = odds[g, m, lane] / both if both > 0.0 else 0.0
                between[lane], joined[lane] = joined[lane] * share[lane], both
                pull[lane] = odds[g, m, lane] * shrink[g, m, lane]
            for i in range(n):
                for lane in range(n_lanes):
                    first[i, lane] -= total[i, lane]
                    total[i, lane] += share[lane] * first[i, lane]
                for j in range(i + 1):
                    for lane in range(n_lanes):
                        gauss[i, j, lane] -= pull[lane] * second[i, lane] * second[j, lane]
                        hess[i, j, lane] -= between[lane] * first[i, lane] * first[j, lane]
        for i in range(n):
            for lane in range(n_lanes):
                grad[i, lane] += total[i, lane]


@part
def _clear(grad: Matrix, hess: Cube, gauss: Cube, row_grad: Matrix) -> None:
    """Set sums to zero."""
    n, n_lanes = grad.shape
    for i in range(n):
        for lane in range(n_lanes):
            grad[i, lane] = 0.0
        for j in range(n):
            for lane in range(n_lanes):
                hess[i, j, lane], gauss[i, j, lane] = 0.0, 0.0
    for d in range(row_grad.shape[0]):
        for lane in range(n_lanes):
            row_grad[d, lane] = 0.0


@part
def evaluate(
    curve: int,
    theta: Matrix,
    n_amp: int,
    counts: Counts,
    tau: Vector,
    design: Design,
    tabs: Tables,
    s: Scratch,
    value: Vector,
) -> None:
    """Log marginal density at the lanes' `theta` ``(n, L)`` and `tau`; fills its gradient and negative Hessian."""
    n, n_lanes = theta.shape
    _clear(s.grad, s.hess, s.gauss, s.row_grad)
    row_means(curve, theta, n_amp, counts.shift, design, tabs, s)
    jac, curve_grad, log_density, hess, gauss = s.jac, s.curve_grad, s.log_density, s.hess, s.gauss
    n_dose = jac.shape[0]
    for d in range(n_dose):
        for i in range(n_amp):
            for lane in range(n_lanes):
                jac[d, i, lane] = curve_grad[d, i, lane] - curve_grad[n_dose, i, lane]
    integrate(counts, tau, design, s)
    start, dose, groups, loads = design.guide_start, design.dose, design.group, design.loads
    _add_rows(n_amp, start, dose, groups, s.odds, s.parts, jac, s.row_grad, gauss, s.buffer_a, s.buffer_b)
    if loads.shape[1] > 0:
        covariate_errors.add_rows(n_amp, start, dose, groups, loads, s.odds, s.parts, jac, gauss, s.buffer_a)
    _add_guides(
        n_amp,
        start,
        dose,
        groups,
        loads,
        s.odds,
        s.shrink,
        s.parts,
        jac,
        gauss,
        hess,
        s.grad,
        s.first,
        s.second,
        s.total,
        s.climb[3],
        s.buffer_a,
        s.buffer_b,
        s.buffer_c,
    )
    chosen.add_curvature(curve, n_amp, curve_grad, s.row_grad, hess)
    for lane in range(n_lanes):
        value[lane] = 0.0
    for g in range(log_density.shape[0]):
        for lane in range(n_lanes):
            value[lane] += log_density[g, lane]
    add_priors(curve, theta, n_amp, design, tabs, s, value)
    for i in range(n):
        for j in range(i + 1):
            for lane in range(n_lanes):
                hess[i, j, lane] += gauss[i, j, lane]
