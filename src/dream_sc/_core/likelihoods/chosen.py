"""The likelihoods inside the kernels: compiled functions whose first argument is a likelihood's place in the list."""

from __future__ import annotations

from dream_sc._core.compiled import one_of

from . import LIKELIHOODS

prepare = one_of([each.kernels.prepare for each in LIKELIHOODS])
add_slopes = one_of([each.kernels.add_slopes for each in LIKELIHOODS])
add_values = one_of([each.kernels.add_values for each in LIKELIHOODS])
add_change = one_of([each.kernels.add_change for each in LIKELIHOODS])
is_quadratic = one_of([each.kernels.is_quadratic for each in LIKELIHOODS])
