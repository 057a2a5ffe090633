"""Posterior draws rest on many points: proposals follow the density within a cell, and adapt to enough shapes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import cumulative_trapezoid

from dream_sc._core.curves import curve
from dream_sc._core.priors import TransPriors
from dream_sc._core.response.comparison import compare
from dream_sc._core.response.draws import draws
from dream_sc._core.response.evidence import block_evidence
from dream_sc._core.response.importance import MOST_K, Draws, Lattice, in_cell, log_mass, tempered, tilts_of
from dream_sc._core.response.learned import Prior
from dream_sc._core.response.problem import Problem, problem
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[np.linspace(-3.0, 1.2, 13), np.zeros(6)]
AXIS = Axis(-3.0, 1.2, DOSES[:13])
GRID = np.array([0.05, 0.1, 0.2])


def _problem(log_mean: np.ndarray, rng: np.random.Generator) -> Problem:
    """One group, features ``(T, G)`` of these log means over that at dosage 0, 13 graded guides and 6 NTC guides."""
    n, n_g = log_mean.shape
    w = rng.uniform(200, 400, n_g)
    counts = rng.poisson(np.exp(log_mean + 0.05 * rng.normal(size=(n, n_g))) * w).astype(float)
    stats = GuideStats(counts, w, 1.1 * w, np.arange(n_g), np.zeros(n_g, int), n_g, 1)
    dosage = RowDosage(DOSES, np.zeros(n_g), np.zeros(n_g), DOSES == 0)
    return problem(stats, dosage, np.full(n, 0.4), group_effect_sd=0.3, axis=AXIS, priors=TransPriors())


def _draws(p: Problem, name: str) -> Draws:
    """1,000 draws of one of the two curves."""
    curves, prior = [curve("null"), curve("single_hill"), curve("additive_hill")], Prior.start(p.priors)
    (m,) = (i for i, each in enumerate(curves) if each.name == name)
    c = compare(p, curves, GRID, 6)
    found, lattice = block_evidence(p, c), c.lattices[name]
    coarse, masses = (lattice.shapes, lattice.consts), found.masses[m - 1].astype(float)
    return draws(p, curves[m], coarse, masses, found.values[:, m] + prior.log_tau(GRID), GRID, prior, n=1000, seed=0)


def _hill(ec50: np.ndarray, steepness: np.ndarray) -> np.ndarray:
    return 1 / (1 + 2.0 ** (-steepness[:, None] * (DOSES - ec50[:, None])))


def _effective(draws: np.ndarray) -> np.ndarray:
    """Effective number of different ones among the draws ``(T, N, P)`` of each feature."""
    counts = [np.unique(one, axis=0, return_counts=True)[1] for one in draws]
    return np.array([each.sum() ** 2 / (each**2).sum() for each in counts])


def test_half_of_the_draws_of_one_hill_count(rng: np.random.Generator):
    """Responses of all strengths that are called: proposals follow the density within a cell."""
    n = 64
    size = rng.choice([-1, 1], n) * rng.uniform(0.4, 2.0, n)
    log_mean = size[:, None] * _hill(rng.uniform(-2.5, 0.5, n), rng.uniform(1.0, 6.0, n))

    out = _draws(_problem(log_mean - log_mean[:, -1:], rng), "single_hill")

    assert np.median(_effective(out.params)) > 450
    assert out.improved.mean() < 0.1
    assert (out.pareto_k > MOST_K).sum() == 0


def test_draws_of_two_hills_rest_on_many_shapes(rng: np.random.Generator):
    """Peaks of many heights and places: the effective number of shapes, and no feature with weights of a heavy tail."""
    n = 32
    up, down = rng.uniform(-2.5, -1.0, n), rng.uniform(-0.5, 0.8, n)
    steep, height = rng.uniform(2.0, 6.0, (2, n)), rng.uniform(1.0, 2.5, n)
    log_mean = height[:, None] * _hill(up, steep[0]) * _hill(down, -steep[1])

    out = _draws(_problem(log_mean, rng), "additive_hill")

    assert np.quantile(_effective(out.params[..., 3:]), 0.1) > 40  # of shapes
    assert (out.pareto_k > MOST_K).mean() < 0.05
    assert out.improved.mean() < 0.25  # whose draws were not good enough at first


@pytest.mark.parametrize("tilt", [-8.0, -0.5, 0.0, 1e-8, 2.0, 8.0])
def test_places_in_a_cell_have_the_density_that_is_said(tilt: float):
    x = np.linspace(-0.5, 0.5, 20_001)
    density = np.exp(tilt * x - log_mass(np.array(tilt)))
    below = cumulative_trapezoid(density, x, initial=0.0)
    u = np.linspace(0.01, 0.99, 21)

    at = in_cell(np.full(21, tilt), u)

    assert below[-1] == pytest.approx(1.0, rel=1e-6)
    np.testing.assert_allclose(np.interp(at, x, below), u, atol=1e-6)


def test_tilts_are_changes_across_cells_and_none_beside_failed_points(rng: np.random.Generator):
    slopes = np.array([0.7, -30.0, 0.2])  # per step of two axes of shapes, and of tau
    at = np.indices((4, 3, 2))
    log_z = np.einsum("a,aijk->ijk", slopes, at)
    failed = log_z.copy()
    failed[0, 0, 0] = -np.inf
    both = np.stack([log_z, failed]).reshape(2, 12, 2)
    empty = np.zeros((2, 12, 2, 1))
    lattice = Lattice(
        np.zeros((2, 12, 2)), np.ones((2, 2)), np.ones((2, 2)), np.ones(2), both, both, empty, empty, (4, 3)
    )

    tilts = tilts_of(lattice).reshape(2, 3, 4, 3, 2)

    np.testing.assert_allclose(tilts[0], np.broadcast_to([[[[0.7]]], [[[-8.0]]], [[[0.2]]]], (3, 4, 3, 2)))
    assert tilts[1, 0, 0, 0, 0] == tilts[1, 0, 1, 0, 0] == 0.0
    assert np.isfinite(tilts).all()
    assert (tilts_of(lattice._replace(size=())) == 0).all()


@pytest.mark.parametrize("least", [0.0, 0.1, 0.2])
def test_tempered_weights_count_for_enough_points(least: float, rng: np.random.Generator):
    weight = np.exp(4.0 * rng.normal(size=400))

    out = tempered(weight, least)

    assert out.sum() == pytest.approx(1.0)
    assert 1 / (out**2).sum() >= least * len(out)
    np.testing.assert_array_equal(np.argsort(out), np.argsort(weight))
    if least == 0.0:
        np.testing.assert_allclose(out, weight / weight.sum())


def test_a_small_change_of_the_weights_is_a_small_change_of_the_tempered_ones(rng: np.random.Generator):
    """Rounding does not make draws that are far from those of another processor."""
    weight = np.exp(4.0 * rng.normal(size=(5, 200)))

    change = tempered(weight * (1.0 + 1e-9 * rng.normal(size=weight.shape)), 0.1) / tempered(weight, 0.1) - 1.0

    assert np.abs(change).max() < 1e-7
