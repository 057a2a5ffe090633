"""The first pass over pairs: its evidence beside the kernel's, and null draws that serve targets of other designs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dream_sc._core.curves import LN2
from dream_sc._core.response.decision import null_distribution
from dream_sc._core.response.evidence import block_evidence
from dream_sc._core.response.null_scale import strength
from dream_sc._core.response.prepare import Prepared
from dream_sc._core.response.rows import Guides
from dream_sc._core.response.settings import Settings
from dream_sc._core.screen import fit as of_target
from dream_sc._core.screen import null_draws
from dream_sc._core.screen.controls import Controls, controls
from dream_sc._core.screen.first_pass import log_factors
from dream_sc._core.types import GuideStats

N, N_NTC, EXPOSURE = 400, 16, 60.0
GUIDE_SD = 0.08


def _counts(rng: np.random.Generator, level: np.ndarray, o: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Sums ``(T, G)`` of guides with effects of their own."""
    u = rng.normal(0, GUIDE_SD, (len(level), shift.shape[1]))
    phi = EXPOSURE / o[:, None] ** 2
    mean = EXPOSURE * np.exp(level[:, None] + shift + u)
    return rng.poisson(rng.gamma(np.broadcast_to(phi, mean.shape)) * mean / phi).astype(float)


def _stats(counts: np.ndarray) -> GuideStats:
    n = counts.shape[1]
    every = np.full(n, EXPOSURE)
    return GuideStats(counts, every, every * 1.05, np.arange(n), np.zeros(n, dtype=np.int64), n, 1)


@pytest.fixture(scope="module")
def simulated() -> tuple[np.ndarray, np.ndarray, Controls]:
    rng = np.random.default_rng(0)
    level, o = rng.normal(0.0, 1.2, N), rng.uniform(0.3, 0.7, N)
    ntc = _stats(_counts(rng, level, o, np.zeros((N, N_NTC))))
    return level, o, controls(ntc, o, group_effect_sd=0.1)


def _guides(dosages: list[float]) -> Guides:
    mean = np.append(dosages, 0.0)
    mine = mean != 0
    return Guides(mean, 0.1 * mine, 0.2 * mine, np.zeros(len(mean)), ~mine, level_error=0.05)


def _prepared(known: tuple[np.ndarray, np.ndarray, Controls], guides: Guides, counts: np.ndarray) -> Prepared:
    every = of_target.joined(_stats(counts), known[2])
    dosage = of_target.dosage_of(guides, every.guide)
    axis = guides.axis(every.guide)
    return Prepared.of_sums(every, dosage, known[1], axis=axis, group_effect_sd=0.1 * LN2)


def _design(known: tuple[np.ndarray, np.ndarray, Controls], guides: Guides, counts: np.ndarray) -> of_target.Design:
    prepared, c = _prepared(known, guides, counts), known[2]
    p = of_target._problem(prepared, c)
    return of_target._design(p, c, c.prior.wide, Settings())


def test_the_prior_of_the_guide_effects_is_that_of_the_guides(
    simulated: tuple[np.ndarray, np.ndarray, Controls],
) -> None:
    assert np.exp(simulated[2].prior.tau_log_mean) == pytest.approx(GUIDE_SD, rel=0.35)


@pytest.mark.parametrize("dosages", [[-0.5, -1.0, -1.6, -2.2, -2.9], [-0.8, -2.0], [-1.5, -1.5, -1.5]])
def test_the_first_pass_says_what_the_kernel_says(
    simulated: tuple[np.ndarray, np.ndarray, Controls], dosages: list[float]
) -> None:
    """Half of the features move by up to 1.5 log2 with the dosage."""
    rng, (level, o, c) = np.random.default_rng(1), simulated
    x = np.array(dosages)
    move = rng.uniform(-1.5, 1.5, N) * (np.arange(N) % 2) * LN2
    design = _design(simulated, _guides(dosages), _counts(rng, level, o, move[:, None] * x / x.min()))
    some = np.arange(0, N, 5)
    quick = log_factors(design.problem, design.comparison.columns or {}, c.tau)[some]
    found = block_evidence(design.problem.take(some), design.comparison, whole=True)
    by_model = of_target.marginals(found.values, design.comparison.grid, c.prior)
    exact = by_model[:, 1:] - by_model[:, :1]
    near = exact.max(1) < 8
    assert np.corrcoef(quick.max(1)[near], exact.max(1)[near])[0, 1] > 0.97
    assert (np.abs(np.median((quick - exact)[near], axis=0)) < 0.5).all()
    # nothing that could be called is left after the first pass
    assert (quick.max(1)[exact.max(1) > 2.5] > of_target.NO_HOPE).all()


@pytest.mark.parametrize("dosages", [[-0.2, -0.9, -1.1, -3.4, -3.6], [-1.0, -1.1, -2.8]])
def test_p_values_by_null_draws_of_a_class_are_uniform(
    simulated: tuple[np.ndarray, np.ndarray, Controls], dosages: list[float]
) -> None:
    """Null features under other dosages than those of the class, in other exposures."""
    level, o, _ = simulated
    rows = null_draws.Rows(np.array([1.3 * EXPOSURE]), np.array([1.4 * EXPOSURE]), np.zeros(1, dtype=np.int64))
    p_values = []
    for seed in range(3):
        rng, classes = np.random.default_rng([2, seed]), null_draws.Classes(rows, seed=seed)
        c = controls(_stats(_counts(rng, level, o, np.zeros((N, N_NTC)))), o, group_effect_sd=0.1)
        counts = _counts(rng, level, o, np.zeros((N, len(dosages))))
        prepared = _prepared((level, o, c), _guides(dosages), counts)
        columns = of_target.fit(prepared, c, classes, Settings(nsamples=50))
        p_values.append(columns["pvalue"])
        assert np.nansum(columns["qvalue"] < 0.05) <= 1
        assert len(classes.found) == 1
    p = np.concatenate(p_values)
    for share, error in ((0.3, 0.06), (0.05, 0.02), (0.01, 0.01)):
        assert (p < share).mean() == pytest.approx(share, abs=error)


def test_a_class_has_dosages_like_those_of_its_targets() -> None:
    dosages = np.array([-0.1, -2.9, -1.1, 0.9])
    found = null_draws.guides_like(dosages)
    assert np.abs(found.mean[:-1] - np.sort(dosages)).max() <= null_draws.STEP / 2 + 1e-9
    assert found.mean[-1] == 0
    assert found.control.tolist() == [False] * 4 + [True]
    assert (null_draws.guides_like(dosages + 0.02).mean == found.mean).all()


def test_a_design_of_other_curves_than_its_class_has_draws_of_its_own(
    simulated: tuple[np.ndarray, np.ndarray, Controls],
) -> None:
    """Guides that are not told apart compare no curve; at the dosages of the class they would be."""
    rng, (level, o, c) = np.random.default_rng(5), simulated
    guides = replace(_guides([-0.7, -1.3]), sd=np.array([0.5, 0.5, 0.0]))
    prepared = _prepared(simulated, guides, _counts(rng, level, o, np.zeros((N, 2))))
    classes = null_draws.Classes(null_draws.Rows(np.array([60.0]), np.array([63.0]), np.zeros(1, dtype=np.int64)), 0)
    columns = of_target.fit(prepared, c, classes, Settings(nsamples=50))
    assert list(classes.found) == [(("null", "switch"), (-0.7, -1.3))]
    assert np.isfinite(columns["pvalue"]).all()


def test_features_do_not_depend_on_their_blocks(simulated: tuple[np.ndarray, np.ndarray, Controls]) -> None:
    rng, (level, o, c) = np.random.default_rng(3), simulated
    design = _design(simulated, _guides([-0.5, -1.5, -2.5]), _counts(rng, level, o, np.zeros((N, 3))))
    columns, some = design.comparison.columns or {}, np.arange(70, 100)
    whole = log_factors(design.problem, columns, c.tau)
    np.testing.assert_allclose(log_factors(design.problem.take(some), columns, c.tau[some]), whole[some], atol=2e-4)


def test_strength_of_a_likely_null_is_small(simulated: tuple[np.ndarray, np.ndarray, Controls]) -> None:
    rng, (level, o, _) = np.random.default_rng(4), simulated
    design = _design(simulated, _guides([-1.0, -2.0]), _counts(rng, level, o, np.zeros((N, 2))))
    first = design.first_evidence()
    force = strength(first.marginal[:, 1:].max(1), design.movement_sd(), design.problem.priors)
    assert null_distribution(force).p_value(np.zeros(1))[0] == 1.0
    assert replace(design.controls, n_guides=3).n_guides == 3
