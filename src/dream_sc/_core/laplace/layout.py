"""What the kernels take: the shared design, the tables of shapes, and room to work in, as named tuples.

The kernels treat several points of one feature at once, `L` lanes: each a shape, a tau and parameters of its own. Lanes
are the last axis everywhere, so that the innermost loops run over them in vector instructions.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dream_sc._core.compiled import Cube, Indices, Matrix, Stack, Vector, part
from dream_sc._core.curves._compiled import TABLE_WIDTH
from dream_sc._core.likelihoods import chosen


class Design(NamedTuple):
    """Rows (R, sorted by guide), guides (G), dosages (D, each a mean over J nodes) and priors; one for all features."""

    log_w: Vector  # (R,)
    scale2: Vector  # (R,) W2 / W^2
    group: Indices  # (R,)
    loads: Matrix  # (R, D) of the errors of covariates' coefficients, D parameters more
    guide_start: Indices  # (G + 1,)
    dose: Indices  # (R,) which of the D dosages
    nodes: Matrix  # (D, J) log2
    node_weights: Matrix  # (D, J)
    own: Matrix  # (G, 2) the guide's dosage, and that of cells at the NTC level, log2
    shares: Matrix  # (G, 2) of its cells at these two
    error: Vector  # (G,) sd of the first
    wide_sd: Matrix  # (G, M) what each component of a guide's effects adds to tau, 0 first
    wide_weight: Matrix  # (G, M)
    level_sd: float
    group_effect_sd: float
    axis: Vector  # (2,)
    scales: Vector  # of the movement
    weights: Vector
    polynomial_sd: float
    likelihood: int  # its place in the list


class Anchors(NamedTuple):
    """What is known of level and group effects beside the rows: a Gaussian log density, one for each tau or for all.

    Their prior, or the prior and the NTC guides together: see `ntc`.
    """

    value: Matrix  # (T, K) at the mode
    mode: Cube  # (T, K, C) level, the effects of the groups but the first, then errors of covariates' coefficients
    precision: Stack  # (T, K, C, C)


class Anchor(NamedTuple):
    """The same of one feature, or of the lanes."""

    value: Vector  # (K,) or (L,)
    mode: Matrix  # (K, C) or (C, L)
    precision: Cube  # (K, C, C) or (C, C, L)


class Counts(NamedTuple):
    """One feature: its rows, and what is known of its level and group effects beside them.

    The likelihood says what `total` and `shift` are.
    """

    y: Vector  # (R,)
    total: Vector  # (R,)
    shift: Vector  # (R,) what is taken off the predictor: the likelihood's, less what covariates do to the exposure
    anchor: Anchor  # K is 1 or the number of taus
    likelihood: int  # its place in the list


class Tables(NamedTuple):
    """The curve's tables of the lanes' shapes: what does not depend on the amplitudes."""

    dose: Cube  # (D + 1, W, L), NTC dosage last
    up: Cube  # (G, W, L) a guide's dosage plus its error
    down: Cube  # (G, W, L)
    low: Matrix  # (W, L) the ends of the axis, Hills as logs
    high: Matrix  # (W, L)
    consts: Matrix  # (2, L)


class Scratch(NamedTuple):
    """Room for one feature: `n` parameters, `A` amplitudes, `M` components of the guide effects, `L` lanes."""

    factor: Matrix  # (A, L) exp of the amplitudes
    curve: Matrix  # (D + 1, L) log curve at each dosage, NTC last
    curve_grad: Cube  # (D + 1, A, L) its gradient by the amplitudes
    jac: Cube  # (D, A, L) the gradient less that at NTC dosage
    base: Matrix  # (R, L) predictor less the shift
    ratio: Matrix  # (R, L) its exponential
    v_dose: Matrix  # (G, L) variance of a guide's log curve by the error of its dosage
    u: Cube  # (G, M, L) modes of the guide effects, kept as starts
    parts: Stack  # (M, R, 3, L) gradient, curvature and third derivative by component
    log_density: Matrix  # (G, L) of a guide's rows, its effect integrated
    odds: Cube  # (G, M, L) posterior probabilities of the components
    shrink: Cube  # (G, M, L) v / (1 + v k), the posterior variance of the effect
    row_grad: Matrix  # (D, L) gradient by the log mean, summed over the rows of a dosage
    first: Matrix  # (n, L)
    second: Matrix  # (n, L)
    total: Matrix  # (n, L)
    grad: Matrix  # (n, L)
    hess: Cube  # (n, n, L) negative Hessian, lower triangle
    gauss: Cube  # (n, n, L) a form of it that is positive definite
    variance: Cube  # (G, M, L) prior variances of the guide effects
    climb: Matrix  # (4, L) of the Newton steps, and room for others
    buffer_a: Vector  # (L,) room within one function
    buffer_b: Vector  # (L,)
    buffer_c: Vector  # (L,)
    one: Vector  # (n,) room for one lane
    square: Matrix  # (n, n)
    anchor: Anchor  # of each lane: (L,), (C, L), (C, C, L)


@part
def new_tables(design: Design, n_lanes: int) -> Tables:
    """Empty tables."""
    w, n_dose, n_guides = TABLE_WIDTH, design.nodes.shape[0], design.error.size
    return Tables(
        np.zeros((n_dose + 1, w, n_lanes)),
        np.zeros((n_guides, w, n_lanes)),
        np.zeros((n_guides, w, n_lanes)),
        np.zeros((w, n_lanes)),
        np.zeros((w, n_lanes)),
        np.zeros((2, n_lanes)),
    )


@part
def new_scratch(n: int, n_amp: int, design: Design, n_lanes: int) -> Scratch:
    """Room for one feature; starts of the guide effects at 0."""
    a, n_rows, n_dose, lanes = max(n_amp, 1), design.log_w.size, design.nodes.shape[0], n_lanes
    n_guides, n_parts = design.guide_start.size - 1, design.wide_sd.shape[1]
    return Scratch(
        np.zeros((a, lanes)),
        np.zeros((n_dose + 1, lanes)),
        np.zeros((n_dose + 1, a, lanes)),
        np.zeros((n_dose, a, lanes)),
        np.zeros((n_rows, lanes)),
        np.zeros((n_rows, lanes)),
        np.zeros((n_guides, lanes)),
        np.zeros((n_guides, n_parts, lanes)),
        np.zeros((n_parts, n_rows, 3, lanes)),
        np.zeros((n_guides, lanes)),
        np.zeros((n_guides, n_parts, lanes)),
        np.zeros((n_guides, n_parts, lanes)),
        np.zeros((n_dose, lanes)),
        np.zeros((n, lanes)),
        np.zeros((n, lanes)),
        np.zeros((n, lanes)),
        np.zeros((n, lanes)),
        np.zeros((n, n, lanes)),
        np.zeros((n, n, lanes)),
        np.zeros((n_guides, n_parts, lanes)),
        np.zeros((4, lanes)),
        np.zeros(lanes),
        np.zeros(lanes),
        np.zeros(lanes),
        np.zeros(n),
        np.zeros((n, n)),
        Anchor(np.zeros(lanes), np.zeros((n - n_amp, lanes)), np.zeros((n - n_amp, n - n_amp, lanes))),
    )


@part
def counts_of(
    y: Vector, weights: Vector, overdispersion: float, offset: Vector, anchor: Anchor, scale2: Vector, likelihood: int
) -> Counts:
    """One feature, with its anchor.

    `weights` are those of its rows, none of a negative binomial; `offset` what its covariates add to the predictor of
    each row, none without covariates; `scale2` and `likelihood` are the design's.
    """
    shift, total = np.zeros(y.size), np.zeros(y.size)
    chosen.prepare(likelihood, y, weights, overdispersion, scale2, total, shift)
    for r in range(offset.size):
        shift[r] -= offset[r]
    return Counts(y, total, shift, anchor, likelihood)


@part
def hold(anchor: Anchor, k: int, lane: int, into: Anchor) -> None:
    """Let a lane know the anchor of tau `k`."""
    i, n = k if anchor.value.size > 1 else 0, anchor.mode.shape[1]
    into.value[lane] = anchor.value[i]
    for c in range(n):
        into.mode[c, lane] = anchor.mode[i, c]
        for d in range(n):
            into.precision[c, d, lane] = anchor.precision[i, c, d]
