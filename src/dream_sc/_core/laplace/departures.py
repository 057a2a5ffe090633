"""Compiled: how likely each guide's rows are under each component of its effect, for curves that are given."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from dream_sc._core.compiled import Cube, Matrix, Stack, Vector, entry
from dream_sc._core.compiled.vector_math import vexp

from .curve_tables import LEAST_VARIANCE
from .guide_effects import components
from .layout import Anchor, Design, counts_of, new_scratch


@entry
def by_component(
    counts: Matrix,
    row_weights: Matrix,
    overdispersion: Vector,
    log_mean: Matrix,
    moves: Cube,
    tau: Matrix,
    design: Design,
    out: Stack,
) -> None:
    """Log density of each guide's rows, its effect integrated: (T, L, G, M) in `out`, weights of components included.

    `log_mean` (T, R) are the rows' predictors without curve, `moves` (T, L, G) how far each of L curves moves each
    guide, `tau` (T, L) the sd of the guide effects.
    """
    no_anchor = Anchor(np.zeros(1), np.zeros((1, 1)), np.zeros((1, 1, 1)))
    n_lanes, n_guides = moves.shape[1], moves.shape[2]
    s = new_scratch(1, 0, design, n_lanes)
    for g in range(n_guides):
        for lane in range(n_lanes):
            s.v_dose[g, lane] = LEAST_VARIANCE
    for t in range(counts.shape[0]):
        one = counts_of(
            counts[t], row_weights[t], overdispersion[t], np.zeros(0), no_anchor, design.scale2, design.likelihood
        )
        for g in range(n_guides):
            for r in range(design.guide_start[g], design.guide_start[g + 1]):
                for lane in range(n_lanes):
                    s.base[r, lane] = log_mean[t, r] - one.shift[r] + moves[t, lane, g]
                for lane in range(n_lanes):
                    s.ratio[r, lane] = vexp(s.base[r, lane])
            for m in range(s.u.shape[1]):
                for lane in range(n_lanes):
                    s.u[g, m, lane] = 0.0
        components(one, tau[t], design, s)
        for g in range(n_guides):
            for m in range(s.u.shape[1]):
                for lane in range(n_lanes):
                    out[t, lane, g, m] = s.odds[g, m, lane]
