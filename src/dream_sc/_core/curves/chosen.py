"""The curves inside the kernels: compiled functions whose first argument is a curve's place in the list.

Those of the curves that "auto" compares are compiled ahead, others when `ready` asks for them.
"""

from __future__ import annotations

from dream_sc._core.compiled import load_part, one_of

from . import CURVES, NULL

AHEAD = [c is NULL or c.min_dosages is not None for c in CURVES]

tables = one_of([c.kernels.tables for c in CURVES], ahead=AHEAD)
ends = one_of([c.kernels.ends for c in CURVES], ahead=AHEAD)
log_curves = one_of([c.kernels.log_curves for c in CURVES], ahead=AHEAD)
moves = one_of([c.kernels.moves for c in CURVES], ahead=AHEAD)
add_curvature = one_of([c.kernels.add_curvature for c in CURVES], ahead=AHEAD)
add_prior = one_of([c.kernels.add_prior for c in CURVES], ahead=AHEAD)
left_out = one_of([c.kernels.left_out for c in CURVES], ahead=AHEAD)
match = one_of([c.kernels.match for c in CURVES], ahead=AHEAD)
EVERY = (tables, ends, log_curves, moves, add_curvature, add_prior, left_out, match)
OTHERS = tuple(k.part for c, now in zip(CURVES, AHEAD, strict=True) if not now for k in c.kernels)


def ready(curve: int) -> None:
    """Compile the functions of a curve, or load them, if they are not there."""
    for each in EVERY:
        load_part(each, curve)
