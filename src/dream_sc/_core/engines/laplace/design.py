"""What the kernels take: the shared design, the tables of one shape, and room to work in, as named tuples."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from .curves import TABLE_WIDTH, table

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Design(NamedTuple):
    """Rows (R, sorted by guide), guides (G), dosages (D, each a mean over J nodes) and priors; one for all features."""

    log_w: Floats  # (R,)
    scale2: Floats  # (R,) W2 / W^2
    group: Ints  # (R,)
    guide_start: Ints  # (G + 1,)
    dose: Ints  # (R,) which of the D dosages
    mean: Floats  # (D,) log2
    nodes: Floats  # (D, J) log2
    node_weights: Floats  # (D, J)
    error: Floats  # (G,) sd of the guide's dosage
    wide_sd: Floats  # (M,) what each component of the guide effects adds to tau, 0 first
    wide_weight: Floats  # (M,)
    level_sd: float
    alpha_sd: float
    axis: Floats  # (2,)
    scales: Floats  # of the movement
    weights: Floats
    polynomial_sd: float


class Tables(NamedTuple):
    """The curve's tables of one shape."""

    dose: Floats  # (D, W)
    up: Floats  # (G, W) a guide's dosage plus its error
    down: Floats  # (G, W)
    ntc: Floats  # (W,)
    low: Floats
    high: Floats


class Scratch(NamedTuple):
    """Room for one feature: `n` parameters, `A` amplitudes, `M` components of the guide effects."""

    log_phi: Floats  # (R,)
    u: Floats  # (G, M) modes of the guide effects, kept as starts
    base: Floats  # (R,) log mean less log phi
    jac: Floats  # (R, n)
    parts: Floats  # (M, R, 3) gradient, curvature and third derivative by component
    v_dose: Floats  # (G,) variance of a guide's log curve by the error of its dosage
    log_density: Floats  # (G,) of a guide's rows, its effect integrated
    odds: Floats  # (G, M) posterior probabilities of the components
    shrink: Floats  # (G, M) v / (1 + v k), the posterior variance of the effect
    curve: Floats  # (D + 1,) log curve at each dosage, NTC last
    curve_grad: Floats  # (D + 1, A)
    curve_hess: Floats  # (D + 1, A, A)
    row_grad: Floats  # (R,)
    first: Floats  # (n,)
    second: Floats  # (n,)
    total: Floats  # (n,)
    a_grad: Floats  # (A,)
    a_hess: Floats  # (A, A)
    grad: Floats  # (n,)
    hess: Floats  # (n, n)
    gauss: Floats  # (n, n)


@nb.njit(cache=True, error_model="numpy")
def new_tables(design):
    """Empty tables."""
    w, n_dose, n_guides = TABLE_WIDTH, design.nodes.shape[0], design.error.size
    return Tables(
        np.zeros((n_dose, w)), np.zeros((n_guides, w)), np.zeros((n_guides, w)), np.zeros(w), np.zeros(w), np.zeros(w)
    )


@nb.njit(cache=True, error_model="numpy")
def new_scratch(n, n_amp, phi, design):
    """Room for one feature."""
    a, n_rows, n_dose = max(n_amp, 1), phi.size, design.nodes.shape[0] + 1
    n_guides, n_parts = design.guide_start.size - 1, design.wide_sd.size
    return Scratch(
        np.log(phi), np.zeros((n_guides, n_parts)), np.zeros(n_rows), np.zeros((n_rows, n)),
        np.zeros((n_parts, n_rows, 3)), np.zeros(n_guides), np.zeros(n_guides), np.zeros((n_guides, n_parts)),
        np.zeros((n_guides, n_parts)), np.zeros(n_dose), np.zeros((n_dose, a)), np.zeros((n_dose, a, a)),
        np.zeros(n_rows), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(a),
        np.zeros((a, a)), np.zeros(n), np.zeros((n, n)), np.zeros((n, n)),
    )  # fmt: skip


@nb.njit(cache=True, error_model="numpy")
def fill_tables(code, shape, consts, design, tabs):
    """Tables of one shape at the design's dosages."""
    point, one = np.zeros(1), np.ones(1)
    table(code, shape, consts, point, one, tabs.ntc)
    point[0] = design.axis[0]
    table(code, shape, consts, point, one, tabs.low)
    point[0] = design.axis[1]
    table(code, shape, consts, point, one, tabs.high)
    for d in range(design.nodes.shape[0]):
        table(code, shape, consts, design.nodes[d], design.node_weights[d], tabs.dose[d])
    for g in range(design.error.size):
        if design.error[g] > 0:
            mean = design.mean[design.dose[design.guide_start[g]]]
            point[0] = mean + design.error[g]
            table(code, shape, consts, point, one, tabs.up[g])
            point[0] = mean - design.error[g]
            table(code, shape, consts, point, one, tabs.down[g])
