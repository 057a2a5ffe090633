"""Evidence with effort where it matters against the same with all effort everywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dream_sc._core.curves import curve
from dream_sc._core.priors import TransPriors
from dream_sc._core.response import decision, learned
from dream_sc._core.response.comparison import compare
from dream_sc._core.response.evidence import NO_HOPE, block_evidence
from dream_sc._core.response.problem import Problem, problem
from dream_sc._core.response.wide_effects import with_wide
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[np.linspace(-3, 1.2, 8), np.zeros(4)]
AXIS = Axis(-3.0, 1.2, DOSES[:8])
CURVES = [curve(n) for n in ("null", "single_hill", "additive_hill")]
GRID = np.array(TransPriors().tau_grid)


def _problem(rng: np.random.Generator) -> Problem:
    """Nulls, Hills of all sizes, peaks."""
    n, n_g = 60, len(DOSES)
    slope = np.r_[np.zeros(20), rng.normal(0, 0.25, 25), np.zeros(15)]
    bump = np.r_[np.zeros(45), rng.uniform(0.2, 1.5, 15)]
    log_mean = rng.uniform(-2, 3, n)[:, None] + slope[:, None] * DOSES + bump[:, None] * np.exp(-((DOSES + 1.5) ** 2))
    log_mean += rng.normal(0, 0.08, (n, n_g))
    w = np.full(n_g, 150.0)
    counts = rng.poisson(np.exp(log_mean) * w).astype(float)
    stats = GuideStats(counts, w, w, np.arange(n_g), np.zeros(n_g, int), n_g, 1)
    dosage = RowDosage(DOSES, np.where(DOSES != 0, 0.2, 0.0), np.full(n_g, 0.05), DOSES == 0)
    p = problem(stats, dosage, np.full(n, 0.4), group_effect_sd=0.3, axis=AXIS, priors=TransPriors())
    return with_wide(replace(p, several=True), 0.03, 0.35)


@pytest.fixture(scope="module")
def both() -> tuple[np.ndarray, np.ndarray]:
    p = _problem(np.random.default_rng(1))
    c = compare(p, CURVES, GRID, 6)
    return block_evidence(p, c, whole=True).values, block_evidence(p, c).values


def test_calls_are_those_of_all_effort(both: tuple[np.ndarray, np.ndarray]) -> None:
    prior = [learned.learn(v, GRID, TransPriors()) for v in both]
    np.testing.assert_allclose(prior[0].weights, prior[1].weights, atol=0.02)
    log_bf = [decision.log_bayes_factor(decision.marginals(v, GRID, prior[0]), prior[0]) for v in both]
    doubt = (log_bf[0] > NO_HOPE + 1.0) & (log_bf[0] < 9)
    assert doubt.sum() > 8
    np.testing.assert_allclose(log_bf[1][doubt], log_bf[0][doubt], atol=0.2)
    np.testing.assert_allclose(log_bf[1], log_bf[0], atol=1.5)
    lfdr = [decision.local_fdr(b, prior[0]) for b in log_bf]
    np.testing.assert_allclose(lfdr[1][doubt], lfdr[0][doubt], atol=0.02)
    np.testing.assert_allclose(lfdr[1], lfdr[0], atol=0.25)
