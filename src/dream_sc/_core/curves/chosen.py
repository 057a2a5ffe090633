"""The curves inside the kernels: compiled functions whose first argument is a curve's place in the list."""

from __future__ import annotations

from dream_sc._core.compiled import one_of

from . import CURVES

tables = one_of([c.kernels.tables for c in CURVES])
ends = one_of([c.kernels.ends for c in CURVES])
log_curves = one_of([c.kernels.log_curves for c in CURVES])
moves = one_of([c.kernels.moves for c in CURVES])
add_curvature = one_of([c.kernels.add_curvature for c in CURVES])
add_prior = one_of([c.kernels.add_prior for c in CURVES])
left_out = one_of([c.kernels.left_out for c in CURVES])
match = one_of([c.kernels.match for c in CURVES])
