"""What the kernels take: the shared design, the tables of shapes, and room to work in, as named tuples.

The kernels treat several points of one feature at once, `L` lanes: each a shape, a tau and parameters of its own. Lanes
are the last axis everywhere, so that the innermost loops run over them in vector instructions.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from dream_sc._core.likelihood import NEGBINOM, NORMAL

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TABLE_WIDTH = 6


class Design(NamedTuple):
    """Rows (R, sorted by guide), guides (G), dosages (D, each a mean over J nodes) and priors; one for all features."""

    log_w: Floats  # (R,)
    scale2: Floats  # (R,) W2 / W^2
    group: Ints  # (R,)
    loads: Floats  # (R, D) of the errors of covariates' coefficients, D parameters more
    guide_start: Ints  # (G + 1,)
    dose: Ints  # (R,) which of the D dosages
    nodes: Floats  # (D, J) log2
    node_weights: Floats  # (D, J)
    own: Floats  # (G, 2) the guide's dosage, and that of cells at the NTC level, log2
    shares: Floats  # (G, 2) of its cells at these two
    error: Floats  # (G,) sd of the first
    wide_sd: Floats  # (M,) what each component of the guide effects adds to tau, 0 first
    wide_weight: Floats  # (M,)
    level_sd: float
    alpha_sd: float
    axis: Floats  # (2,)
    scales: Floats  # of the movement
    weights: Floats
    polynomial_sd: float
    start: float  # amplitudes of two Hills to start from
    code: int  # of the likelihood


class Anchor(NamedTuple):
    """What is known of level and group effects beside the rows: a Gaussian log density, one for each tau or for all.

    Their prior, or the prior and the NTC guides together: see `ntc`.
    """

    value: Floats  # (..., K) at the mode
    mode: Floats  # (..., K, C) level, the effects of the groups but the first, then errors of covariates' coefficients
    precision: Floats  # (..., K, C, C)


class Counts(NamedTuple):
    """One feature: its rows, and what is known of its level and group effects beside them.

    With ``x`` the predictor, covariates left out, less `shift` the log likelihood of a row is
    ``y x - total log(1 + e^x)`` of counts, and ``-total (y - x)^2 / 2`` of scores.
    """

    y: Floats  # (R,)
    total: Floats  # (R,) y + phi of a negative binomial, the number of trials, or the precision of a score
    shift: Floats  # (R,) log phi of a negative binomial, less what covariates do to the exposure
    anchor: Anchor  # K is 1 or the number of taus
    gaussian: bool


class Tables(NamedTuple):
    """The curve's tables of the lanes' shapes: what does not depend on the amplitudes."""

    dose: Floats  # (D + 1, W, L), NTC dosage last
    up: Floats  # (G, W, L) a guide's dosage plus its error
    down: Floats  # (G, W, L)
    low: Floats  # (W, L) the ends of the axis, Hills as logs
    high: Floats  # (W, L)
    consts: Floats  # (2, L)


class Scratch(NamedTuple):
    """Room for one feature: `n` parameters, `A` amplitudes, `M` components of the guide effects, `L` lanes."""

    factor: Floats  # (A, L) exp of the amplitudes
    curve: Floats  # (D + 1, L) log curve at each dosage, NTC last
    curve_grad: Floats  # (D + 1, A, L) its gradient by the amplitudes
    jac: Floats  # (D, A, L) the gradient less that at NTC dosage
    base: Floats  # (R, L) predictor less the shift
    ratio: Floats  # (R, L) its exponential
    v_dose: Floats  # (G, L) variance of a guide's log curve by the error of its dosage
    u: Floats  # (G, M, L) modes of the guide effects, kept as starts
    parts: Floats  # (M, R, 3, L) gradient, curvature and third derivative by component
    log_density: Floats  # (G, L) of a guide's rows, its effect integrated
    odds: Floats  # (G, M, L) posterior probabilities of the components
    shrink: Floats  # (G, M, L) v / (1 + v k), the posterior variance of the effect
    row_grad: Floats  # (D, L) gradient by the log mean, summed over the rows of a dosage
    first: Floats  # (n, L)
    second: Floats  # (n, L)
    total: Floats  # (n, L)
    grad: Floats  # (n, L)
    hess: Floats  # (n, n, L) negative Hessian, lower triangle
    gauss: Floats  # (n, n, L) a form of it that is positive definite
    variance: Floats  # (G, M, L) prior variances of the guide effects
    climb: Floats  # (4, L) of the Newton steps
    buffer_a: Floats  # (L,) room within one function
    buffer_b: Floats  # (L,)
    buffer_c: Floats  # (L,)
    one: Floats  # (n,) room for one lane
    square: Floats  # (n, n)
    anchor: Anchor  # of each lane: (L,), (C, L), (C, C, L)


@nb.njit(cache=True, error_model="numpy")
def new_tables(design, n_lanes):
    """Empty tables."""
    w, n_dose, n_guides = TABLE_WIDTH, design.nodes.shape[0], design.error.size
    return Tables(
        np.zeros((n_dose + 1, w, n_lanes)), np.zeros((n_guides, w, n_lanes)), np.zeros((n_guides, w, n_lanes)),
        np.zeros((w, n_lanes)), np.zeros((w, n_lanes)), np.zeros((2, n_lanes)),
    )  # fmt: skip


@nb.njit(cache=True, error_model="numpy")
def new_scratch(n, n_amp, design, n_lanes):
    """Room for one feature; starts of the guide effects at 0."""
    a, n_rows, n_dose, lanes = max(n_amp, 1), design.log_w.size, design.nodes.shape[0], n_lanes
    n_guides, n_parts = design.guide_start.size - 1, design.wide_sd.size
    return Scratch(
        np.empty((a, lanes)), np.zeros((n_dose + 1, lanes)), np.zeros((n_dose + 1, a, lanes)),
        np.zeros((n_dose, a, lanes)), np.empty((n_rows, lanes)), np.empty((n_rows, lanes)),
        np.empty((n_guides, lanes)), np.zeros((n_guides, n_parts, lanes)), np.empty((n_parts, n_rows, 3, lanes)),
        np.empty((n_guides, lanes)), np.empty((n_guides, n_parts, lanes)), np.empty((n_guides, n_parts, lanes)),
        np.empty((n_dose, lanes)), np.empty((n, lanes)), np.empty((n, lanes)), np.empty((n, lanes)),
        np.empty((n, lanes)), np.empty((n, n, lanes)), np.empty((n, n, lanes)),
        np.empty((n_guides, n_parts, lanes)), np.empty((4, lanes)), np.empty(lanes), np.empty(lanes),
        np.empty(lanes), np.empty(n), np.empty((n, n)),
        Anchor(np.empty(lanes), np.empty((n - n_amp, lanes)), np.empty((n - n_amp, n - n_amp, lanes))),
    )  # fmt: skip


@nb.njit(cache=True, error_model="numpy")
def counts_of(y, weights, overdispersion, offset, value, mode, precision, design):
    """One feature, with the entries of its anchor.

    `weights` are those of its rows, none of a negative binomial; `offset` what its covariates add to the predictor of
    each row, none without covariates.
    """
    shift, total = np.zeros(y.size), weights
    if design.code == NEGBINOM:
        phi = 1.0 / (overdispersion**2 * design.scale2)
        shift, total = np.log(phi), y + phi
    if offset.size > 0:
        shift = shift - offset
    return Counts(y, total, shift, Anchor(value, mode, precision), design.code == NORMAL)


@nb.njit(cache=True, error_model="numpy")
def hold(counts, k, lane, s):
    """Let a lane know the anchor of tau `k`."""
    i = k if counts.anchor.value.size > 1 else 0
    s.anchor.value[lane] = counts.anchor.value[i]
    s.anchor.mode[:, lane] = counts.anchor.mode[i]
    s.anchor.precision[:, :, lane] = counts.anchor.precision[i]
