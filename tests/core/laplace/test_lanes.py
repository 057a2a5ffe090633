"""Lanes that take one shape after another: none depends on which others there are, or on where it starts."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.curves import curve
from dream_sc._core.priors import TransPriors
from dream_sc._core.response.problem import Problem, evidence, problem
from dream_sc._core.response.wide_effects import with_wide
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[np.linspace(-3, 1.2, 6), np.zeros(3)]
AXIS = Axis(-3.0, 1.2, DOSES[:6])
EXACT, ATOL = 1e-10, 1e-3  # of the Newton steps, and of log evidence


@pytest.fixture
def wide_problem(rng: np.random.Generator) -> Problem:
    """Three features that follow the dosage, in two groups, with wide effects."""
    n_g = len(DOSES)
    guide, group = np.repeat(np.arange(n_g), 2), np.tile(np.arange(2), n_g)
    w = rng.uniform(80, 120, len(guide))
    mean = w * np.exp(1.5 + 0.5 / (1 + 2.0 ** (-2.0 * (DOSES[guide] + 0.7))))
    counts = rng.poisson(mean * np.exp(rng.normal(0, 0.05, (3, n_g)))[:, guide]).astype(float)
    stats = GuideStats(counts, w, w * 1.1, guide, group, n_g, 2)
    dosage = RowDosage(DOSES[guide], np.where(DOSES[guide] != 0, 0.2, 0.0), np.full(n_g, 0.05))
    p = problem(stats, dosage, np.full(3, 0.5), group_effect_sd=0.3, axis=AXIS, priors=TransPriors())
    return with_wide(p, 0.05, 0.5)


@pytest.mark.parametrize("n_shapes", [2, 7, 16, 41])
def test_a_shape_does_not_depend_on_the_others(n_shapes: int, wide_problem: Problem) -> None:
    """Fewer shapes than lanes, as many, and more; in another order; and each of them alone."""
    p, c = wide_problem, curve("single_hill")
    every, _, consts = c.lattice(AXIS, p.priors)
    at = np.linspace(0, len(every) - 1, n_shapes).round().astype(int)
    taus = np.repeat(np.array([[0.1, -1.0, 0.2, 0.6]]), 3, 0)

    def run(which: np.ndarray) -> np.ndarray:
        return evidence(p, c, every[None, which], consts[None, which], taus, tol=EXACT)[0]

    log_z = run(at)
    assert log_z.shape == (3, n_shapes, 4)
    assert np.isneginf(log_z[:, :, 1]).all()
    assert np.isfinite(log_z[:, :, [0, 2, 3]]).all()
    np.testing.assert_allclose(run(at[::-1])[:, ::-1], log_z, rtol=0, atol=ATOL)
    np.testing.assert_allclose(run(at[-1:])[:, 0], log_z[:, -1], rtol=0, atol=ATOL)


def test_more_taus_of_one_shape_than_lanes(wide_problem: Problem) -> None:
    p, c = wide_problem, curve("null")
    taus, shape = np.repeat(np.geomspace(0.01, 1.0, 25)[None], 3, 0), (np.zeros((1, 1, 0)), np.zeros((1, 1, 2)))
    whole = evidence(p, c, *shape, taus, tol=EXACT)[0][:, 0]
    single = [evidence(p, c, *shape, taus[:, [k]], tol=EXACT)[0][:, 0, 0] for k in range(25)]
    np.testing.assert_allclose(whole, np.stack(single, 1), rtol=0, atol=ATOL)


def test_starts_lead_to_the_same_modes(wide_problem: Problem) -> None:
    """Modes that are known are found again, from themselves and from nearby; one that is not known is NaN."""
    p, c = wide_problem, curve("additive_hill")
    shapes, _, consts = c.lattice(AXIS, p.priors)
    some, taus = np.arange(0, len(shapes), 7), np.full((3, 1), 0.1)
    of = (p, c, shapes[None, some], consts[None, some], taus)
    log_z, mode, cov = evidence(*of, tol=EXACT, modes=True)
    assert np.isfinite(log_z).all()
    starts = mode[:, :, 0] + 0.01
    starts[:, 0] = np.nan
    again, found, spread = evidence(*of, tol=EXACT, modes=True, starts=starts)
    np.testing.assert_allclose(again, log_z, rtol=0, atol=ATOL)
    np.testing.assert_allclose(found, mode, rtol=0, atol=1e-2)
    np.testing.assert_allclose(spread, cov, rtol=0.02, atol=1e-4)
