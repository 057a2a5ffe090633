"""Statistics per guide: levels under the null, detection of real trends and of odd guides."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from dream_sc._core import support
from dream_sc._core.engines import laplace
from dream_sc._core.priors import TransPriors
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[np.linspace(-3, 1, 8), np.zeros(4)]
GUIDE, GROUP = np.repeat(np.arange(12), 2), np.tile(np.arange(2), 12)


def _problem(rng: np.random.Generator, slope: float, tau: float, odd: float = 0.0, n: int = 400) -> laplace.Problem:
    w = rng.uniform(80, 120, 24)
    u = rng.normal(0, tau, (n, 12))
    u[:, 2] += odd
    mean = np.exp(1.0 + slope * DOSES + u)[:, GUIDE] * np.exp(0.3 * GROUP) * w
    counts = rng.poisson(mean * rng.gamma(400, 1 / 400, mean.shape)).astype(float)
    stats = GuideStats(counts, w, w, GUIDE, GROUP, 12, 2)
    control = np.arange(12) >= 8
    dosage = RowDosage(DOSES[GUIDE], np.zeros(24), np.zeros(12), control)
    return laplace.problem(
        stats, dosage, np.full(n, 0.5), alpha_sd=0.3, axis=Axis(-3.0, 1.0, DOSES[:8]), priors=TransPriors()
    )


def _columns(p: laplace.Problem, slope: float, tau: float) -> dict[str, np.ndarray]:
    n = len(p.counts)
    curves = np.repeat(slope * p.dose_mean[None], n, 0)
    return support.columns(p, np.full(n, 1.0), curves, np.full(n, tau))


@pytest.mark.parametrize("tau", [0.0, 0.1])
def test_p_values_are_uniform_without_a_response(rng: np.random.Generator, tau: float) -> None:
    p = _problem(rng, 0.0, tau)
    found = _columns(p, 0.0, tau)
    assert kstest(found["p_trend_within_targeting"], "uniform").pvalue > 1e-3
    if tau == 0.0:
        # two parameters are counted as fitted, here none is
        assert kstest(found["heterogeneity_p"], "uniform").statistic < 0.2
    else:
        assert np.median(found["heterogeneity_p"]) < 0.05


def test_a_trend_is_borne_out_by_its_guides(rng: np.random.Generator) -> None:
    found = _columns(_problem(rng, 0.4, 0.05), 0.4, 0.05)
    assert np.median(found["p_trend_within_targeting"]) < 1e-6
    # the guide near NTC level says nothing
    assert 6 <= np.median(found["n_guides_support"]) <= 8


def test_one_odd_guide_is_heterogeneity_and_no_support(rng: np.random.Generator) -> None:
    found = _columns(_problem(rng, 0.0, 0.0, odd=0.6), -0.1, 0.02)
    assert np.median(found["heterogeneity_p"]) < 1e-4
    assert np.median(found["n_guides_support"]) <= 2
