"""The wide component of the guide effects is found where it is, and stays small where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.priors import TransPriors
from dream_sc._core.response import wide_effects
from dream_sc._core.response.problem import Problem, problem
from dream_sc._core.response.wide_effects import learn_wide
from dream_sc._core.types import Axis, GuideStats, RowDosage

N_NTC, N_TARGETING = 8, 4
GRID = np.array(TransPriors().tau_grid)


def _problem(rng: np.random.Generator, share: float, sd: float, n: int = 300, n_ntc: int = N_NTC) -> Problem:
    n_g = n_ntc + N_TARGETING
    dose = np.r_[np.linspace(-2, -0.5, N_TARGETING), np.zeros(n_ntc)]
    u = rng.normal(0, 0.05, (n, n_g)) + (rng.random((n, n_g)) < share) * rng.normal(0, sd, (n, n_g))
    u[:, :N_TARGETING] += rng.normal(0, 1, (n, 1)) * dose[:N_TARGETING]  # responders everywhere
    w = np.full(n_g, 200.0)
    counts = rng.poisson(np.exp(0.5 + u) * w).astype(float)
    stats = GuideStats(counts, w, w, np.arange(n_g), np.zeros(n_g, dtype=int), n_g, 1)
    dosage = RowDosage(dose, np.zeros(n_g), np.full(n_g, 0.05), np.arange(n_g) >= N_TARGETING)
    axis = Axis(-2.0, 0.05, dose[:N_TARGETING])
    return problem(stats, dosage, np.full(n, 0.1), group_effect_sd=0.3, axis=axis, priors=TransPriors())


@pytest.mark.parametrize(("share", "sd"), [(0.1, 0.35), (0.15, 0.6)])
def test_large_effects_of_a_few_guides_are_found(share: float, sd: float, rng: np.random.Generator) -> None:
    weight, wide = learn_wide(_problem(rng, share, sd), GRID)
    assert share / 2 < weight < 2 * share
    assert sd / 2 < wide < 2 * sd


def test_without_large_effects_the_weight_is_small(rng: np.random.Generator) -> None:
    assert learn_wide(_problem(rng, 0.0, 1.0), GRID)[0] <= 0.01


def test_two_ntc_guides_cannot_tell(rng: np.random.Generator) -> None:
    assert learn_wide(_problem(rng, 0.3, 1.0, n_ntc=2), GRID) == TransPriors().wide_start


@pytest.mark.parametrize(("share", "sd"), [(0.0, 0.3), (0.05, 0.6), (0.2, 1.0), (0.1, 0.35)])
def test_uphill_is_the_best_of_all_values(share: float, sd: float) -> None:
    p = _problem(np.random.default_rng(3), share, sd)
    p = p.take(slice(0, wide_effects.LEAST_FEATURES))
    q, priors = p.guides(~p.targeting), p.priors
    every = {(w, s): wide_effects._value(q, GRID, w, s) for w in priors.wide_weights for s in priors.wide_sds}
    assert learn_wide(p, GRID) == max(every, key=every.__getitem__)
