"""Statistics per guide: levels under the null, detection of real trends and of odd guides."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kstest, norm

from dream_sc._core.curves import curve
from dream_sc._core.priors import TransPriors
from dream_sc._core.response import guide_contrasts, guide_support, learned, leave_one_guide_out, null_scale
from dream_sc._core.response.comparison import Lattice
from dream_sc._core.response.joint_departures import Pair
from dream_sc._core.response.problem import Problem, problem
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[np.linspace(-3, 1, 8), np.zeros(4)]
GUIDE, GROUP = np.repeat(np.arange(12), 2), np.tile(np.arange(2), 12)


def _problem(rng: np.random.Generator, slope: float, tau: float, odd: float = 0.0, n: int = 400) -> Problem:
    w = rng.uniform(80, 120, 24)
    u = rng.normal(0, tau, (n, 12))
    u[:, 2] += odd
    mean = np.exp(1.0 + slope * DOSES + u)[:, GUIDE] * np.exp(0.3 * GROUP) * w
    counts = rng.poisson(mean * rng.gamma(400, 1 / 400, mean.shape)).astype(float)
    stats = GuideStats(counts, w, w, GUIDE, GROUP, 12, 2)
    control = np.arange(12) >= 8
    dosage = RowDosage(DOSES[GUIDE], np.zeros(24), np.zeros(12), control)
    return problem(
        stats, dosage, np.full(n, 0.5), group_effect_sd=0.3, axis=Axis(-3.0, 1.0, DOSES[:8]), priors=TransPriors()
    )


def _columns(p: Problem, slope: float, tau: float) -> dict[str, np.ndarray]:
    n = len(p.counts)
    curves = np.repeat(slope * p.dose_mean[None], n, 0)
    return guide_support.columns(p, np.full(n, 1.0), curves, np.full(n, tau), -1.0)[0]


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


def test_moment_bayes_factor_equals_quadrature() -> None:
    priors, sd = TransPriors(), 0.3
    for estimate in (0.0, 0.4, 2.0):
        ratio = 0.0
        for s, w in zip(priors.movement_scales, priors.movement_weights, strict=True):
            density = lambda d, s=s: d**2 / s**2 * norm(0, s).pdf(d) * norm(d, sd).pdf(estimate)  # noqa: E731, B023
            ratio += w * quad(density, -10, 10, limit=200)[0]
        want = np.log(ratio / norm(0, sd).pdf(estimate))
        np.testing.assert_allclose(null_scale.log_moment_bf(np.array(estimate), np.array(sd), priors), want, rtol=1e-6)


def test_a_detectable_movement_is_called_four_times_in_five(rng: np.random.Generator) -> None:
    priors, log_odds = TransPriors(), -1.5
    for sd in (0.02, 0.1, 0.4):
        d = guide_support.min_detectable(np.array([sd]), priors, log_odds)
        estimates = d + sd * rng.normal(size=20_000)
        odds = null_scale.log_moment_bf(estimates, np.full(20_000, sd), priors) + log_odds
        assert abs((odds > np.log(19)).mean() - 0.8) < 0.02


def _loo(p: Problem, pairs: tuple[Pair, ...] = ()) -> np.ndarray:
    c, grid = curve("single_hill"), np.array([0.05, 0.2])
    every = Lattice(*c.lattice(p.axis, p.priors))
    lattice = leave_one_guide_out.leading_shapes(every, np.repeat(every.log_weight[None], len(p.counts), 0))
    prior = learned.Prior(np.array([0.8, 0.2]), np.log(0.06), 0.9)
    taus = np.repeat(grid[None], len(p.counts), 0), np.repeat(prior.log_tau(grid)[None], len(p.counts), 0)
    full = leave_one_guide_out._log_bf(p, c, lattice, *taus, 6)
    return leave_one_guide_out.least_log_bf(p, c, lattice, taus, full, _influence(p), pairs=pairs)


def _influence(p: Problem) -> np.ndarray:
    """Squared log ratio of each guide to NTC."""
    n = len(p.counts)
    ratio, variance, *_ = guide_contrasts.log_ratios(p, np.full(n, 1.0), np.zeros((n, len(p.dose_mean))))
    return np.asarray(ratio**2 / variance)


def test_leaving_a_guide_out_hurts_calls_of_one_guide_most(rng: np.random.Generator) -> None:
    graded = _loo(_problem(rng, 0.3, 0.02, n=20))
    single = _loo(_problem(rng, 0.0, 0.02, odd=-0.9, n=20))
    assert np.median(graded) > 5.0
    assert np.median(single) < 1.0


def test_one_guide_cannot_be_left_out(rng: np.random.Generator) -> None:
    p = _problem(rng, 0.3, 0.02, n=3)
    one = p.guides(np.arange(12) >= 7)
    assert one.targeting.sum() == 1
    pair = np.ones((3, 2))
    got = leave_one_guide_out.least_log_bf(one, curve("single_hill"), None, (pair, pair), np.ones(3), np.ones((3, 5)))
    assert np.isnan(got).all()


def test_nothing_is_left_without_a_pair_that_is_all_there_is(rng: np.random.Generator) -> None:
    """Two guides that depart together, beside controls that are summed up."""
    both = _problem(rng, 0.3, 0.02, n=5).guides((np.arange(12) >= 6) & (np.arange(12) < 8))
    assert len(both.targeting) == both.targeting.sum() == 2
    np.testing.assert_allclose(_loo(both, (Pair(0, 1, 0.1, 0.3),)), 0.0, atol=1e-9)
