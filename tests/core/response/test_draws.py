"""Posterior draws of two Hills rest on many shapes, and weights that are tempered count for enough points."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.curves import curve
from dream_sc._core.priors import TransPriors
from dream_sc._core.response.comparison import compare
from dream_sc._core.response.draws import draws
from dream_sc._core.response.evidence import block_evidence
from dream_sc._core.response.importance import MOST_K, tempered
from dream_sc._core.response.learned import Prior
from dream_sc._core.response.problem import problem
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[np.linspace(-3.0, 1.2, 13), np.zeros(6)]
AXIS = Axis(-3.0, 1.2, DOSES[:13])
GRID = np.array([0.05, 0.1, 0.2])


def test_draws_of_two_hills_rest_on_many_shapes(rng: np.random.Generator):
    """Peaks of many heights and places: the effective number of shapes, and no feature with weights of a heavy tail."""
    n, n_g = 32, len(DOSES)
    up, down = rng.uniform(-2.5, -1.0, n), rng.uniform(-0.5, 0.8, n)
    steep, height = rng.uniform(2.0, 6.0, (2, n)), rng.uniform(1.0, 2.5, n)
    rise = 1 / (1 + 2.0 ** (-steep[0, :, None] * (DOSES - up[:, None])))
    fall = 1 / (1 + 2.0 ** (steep[1, :, None] * (DOSES - down[:, None])))
    w = rng.uniform(200, 400, n_g)
    mean = np.exp(height[:, None] * rise * fall + 0.05 * rng.normal(size=(n, n_g)))
    stats = GuideStats(rng.poisson(mean * w).astype(float), w, 1.1 * w, np.arange(n_g), np.zeros(n_g, int), n_g, 1)
    dosage = RowDosage(DOSES, np.zeros(n_g), np.zeros(n_g), DOSES == 0)
    p = problem(stats, dosage, np.full(n, 0.4), group_effect_sd=0.3, axis=AXIS, priors=TransPriors())
    kind, prior = curve("additive_hill"), Prior.start(p.priors)
    c = compare(p, [curve("null"), curve("single_hill"), kind], GRID, 6)
    found, lattice = block_evidence(p, c), c.lattices[kind.name]
    tau_post = found.values[:, 2] + prior.log_tau(GRID)

    out = draws(
        p, kind, (lattice.shapes, lattice.consts), found.masses[1].astype(float), tau_post, GRID, prior, n=1000, seed=0
    )

    shapes = [np.unique(one, axis=0, return_counts=True)[1] for one in out.params[..., 3:]]
    effective = np.array([counts.sum() ** 2 / (counts**2).sum() for counts in shapes])
    assert np.quantile(effective, 0.1) > 40
    assert (out.pareto_k > MOST_K).mean() < 0.05
    assert out.improved.mean() < 0.25  # whose draws were not good enough at first


@pytest.mark.parametrize("least", [0.0, 0.1, 0.2])
def test_tempered_weights_count_for_enough_points(least: float, rng: np.random.Generator):
    weight = np.exp(4.0 * rng.normal(size=400))

    out = tempered(weight, least)

    assert out.sum() == pytest.approx(1.0)
    assert 1 / (out**2).sum() >= least * len(out)
    np.testing.assert_array_equal(np.argsort(out), np.argsort(weight))
    if least == 0.0:
        np.testing.assert_allclose(out, weight / weight.sum())
