"""The tables of the lanes' shapes, and what the errors of the guides' dosages do to the log curve."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from dream_sc._core.compiled import Cube, Matrix, Vector, inline, part
from dream_sc._core.compiled.vector_math import vexp
from dream_sc._core.curves import chosen

from .layout import Design, Tables

LEAST_VARIANCE = 1e-10


@part
def _shifted(curve: int, shapes: Matrix, consts: Matrix, design: Design, sign: float, out: Cube) -> None:
    """Tables at the guides' dosages moved by their errors; cells at the NTC level stay there."""
    at = np.zeros((design.own.shape[0], 2))
    for g in range(at.shape[0]):
        at[g, 0] = design.own[g, 0] + sign * design.error[g]
        at[g, 1] = design.own[g, 1]
    chosen.tables(curve, shapes, consts, at, design.shares, out)


@inline
def is_uncertain(error: Vector) -> bool:
    """Whether any guide's dosage has an error."""
    out = False
    for g in range(error.size):
        out |= error[g] > 0
    return out


@part
def fill_tables(curve: int, shapes: Matrix, design: Design, tabs: Tables) -> None:
    """Tables of the lanes' shapes ``(d, L)`` at the design's dosages; `tabs.consts` has to be filled before."""
    consts, n_dose = tabs.consts, design.nodes.shape[0]
    chosen.tables(curve, shapes, consts, design.nodes, design.node_weights, tabs.dose[:n_dose])
    ntc, whole = np.zeros((1, 1)), np.zeros((1, 1))
    whole[0, 0] = 1.0
    chosen.tables(curve, shapes, consts, ntc, whole, tabs.dose[n_dose:])
    chosen.ends(curve, shapes, consts, design.axis[0], tabs.low)
    chosen.ends(curve, shapes, consts, design.axis[1], tabs.high)
    if is_uncertain(design.error):
        _shifted(curve, shapes, consts, design, 1.0, tabs.up)
        _shifted(curve, shapes, consts, design, -1.0, tabs.down)


@part
def dose_variances(
    curve: int, theta: Matrix, n_amp: int, error: Vector, up: Cube, down: Cube, factor: Matrix, out: Matrix
) -> None:
    """Variance of each guide's log curve by the error of its dosage.

    An error moves the log curve by half the difference between one sd up and one sd down: unlike the slope,
    that stays bounded where the curve is steep.
    """
    moves = n_amp > 0 and is_uncertain(error)
    if moves:
        chosen.moves(curve, theta, n_amp, up, down, factor, out)
    for g in range(out.shape[0]):
        known = not moves or error[g] <= 0
        for lane in range(out.shape[1]):
            out[g, lane] = LEAST_VARIANCE if known else out[g, lane] * out[g, lane] + LEAST_VARIANCE


@inline
def fill_factors(theta: Matrix, n_amp: int, factor: Matrix) -> None:
    """Exponentials of the amplitudes."""
    for i in range(n_amp):
        for lane in range(factor.shape[1]):
            factor[i, lane] = vexp(theta[1 + i, lane])
