"""The likelihoods inside the kernels: compiled functions whose first argument is a likelihood's place in the list.

Those of counts are compiled ahead, others when `ready` asks for them.
"""

from __future__ import annotations

from dream_sc._core.compiled import load_part, one_of

from . import LIKELIHOODS

AHEAD = [each.statistics == "counts" for each in LIKELIHOODS]

prepare = one_of([each.kernels.prepare for each in LIKELIHOODS], ahead=AHEAD)
add_slopes = one_of([each.kernels.add_slopes for each in LIKELIHOODS], ahead=AHEAD)
add_values = one_of([each.kernels.add_values for each in LIKELIHOODS], ahead=AHEAD)
add_change = one_of([each.kernels.add_change for each in LIKELIHOODS], ahead=AHEAD)
is_quadratic = one_of([each.kernels.is_quadratic for each in LIKELIHOODS], ahead=AHEAD)
EVERY = (prepare, add_slopes, add_values, add_change, is_quadratic)
OTHERS = tuple(k.part for each, now in zip(LIKELIHOODS, AHEAD, strict=True) if not now for k in each.kernels)


def ready(likelihood: int) -> None:
    """Compile the functions of a likelihood, or load them, if they are not there."""
    for each in EVERY:
        load_part(each, likelihood)
