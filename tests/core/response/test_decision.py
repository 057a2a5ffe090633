"""Prior odds, local FDR, q-values and p-values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import logsumexp

from dream_sc._core.priors import TransPriors
from dream_sc._core.response import decision, learned

GRID = np.array(TransPriors().tau_grid)


def _evidence(log_bf: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """Evidence with a given log Bayes factor and a likelihood of tau around a value."""
    like = -0.5 * ((np.log(GRID) - np.log(tau)[:, None]) / 0.5) ** 2
    return np.stack([like, like + log_bf[:, None]], 1)


def test_prior_weights_follow_the_share_of_responders(rng: np.random.Generator) -> None:
    bf = np.where(rng.random(2000) < 0.3, 12.0, -5.0)
    prior = learned.learn(_evidence(bf, np.full(2000, 0.1)), GRID, TransPriors())
    assert abs(prior.weights[1] - (bf > 0).mean()) < 0.02
    assert abs(np.exp(prior.tau_log_mean) - 0.1) < 0.03


def test_few_features_keep_the_start() -> None:
    prior = learned.learn(_evidence(np.full(3, 20.0), np.full(3, 0.1)), GRID, TransPriors())
    assert 0.3 < prior.weights[0] < 0.8
    empty = learned.learn(np.zeros((0, 2, len(GRID))), GRID, TransPriors())
    np.testing.assert_allclose(empty.weights, [0.8, 0.2])


def test_local_fdr_is_bayes_rule() -> None:
    prior = learned.Prior(np.array([0.7, 0.2, 0.1]), np.log(0.1), 0.5)
    evidence = np.log(np.array([[[0.5], [0.2], [0.9]]])) * np.ones((1, 3, 1))
    grid = np.array([0.1])
    marginal = decision.marginals(evidence, grid, prior)
    joint = prior.weights * np.array([0.5, 0.2, 0.9])
    lfdr = decision.local_fdr(decision.log_bayes_factor(marginal, prior), prior)
    np.testing.assert_allclose(lfdr, joint[0] / joint.sum(), rtol=1e-12)


def test_q_values_are_running_means() -> None:
    lfdr = np.array([0.5, 0.01, 0.2, 0.01, 0.9])
    np.testing.assert_allclose(decision.q_values(lfdr)[:4], [0.72 / 4, 0.01, 0.22 / 3, 0.01])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.001, 0.5))
def test_what_rather_does_not_respond_is_never_called(values: list[float], level: float) -> None:
    lfdr = np.array(values)
    q, order = decision.q_values(lfdr), np.argsort(lfdr)
    assert (np.diff(q[order]) >= -1e-12).all()
    assert (q <= lfdr + 1e-12).all()
    np.testing.assert_array_equal(q[lfdr > 0.5], lfdr[lfdr > 0.5])
    called = q < level
    assert (lfdr[called] <= 0.5).all()
    # the best of those that the running mean calls, so that their own mean is below the level as well
    running = np.array([lfdr[lfdr <= each].mean() for each in lfdr])
    np.testing.assert_array_equal(called & (np.abs(running - level) > 1e-9), (running < level - 1e-9) & (lfdr <= 0.5))
    assert not called.any() or lfdr[called].mean() < level + 1e-12


def test_clear_responses_carry_nothing_over_the_level() -> None:
    lfdr = np.append(np.zeros(100), [0.4, 0.9, 0.9])
    assert (decision.q_values(lfdr) < 0.05).sum() == 101
    nothing = np.full(3, np.nan)  # no curve was compared
    np.testing.assert_array_equal(decision.none_unlikely(nothing, nothing), nothing)


def test_p_values_are_uniform_under_their_null_and_fall_beyond_it(rng: np.random.Generator) -> None:
    null = decision.null_distribution(rng.exponential(1.0, 4000) - 4.0)
    p = null.p_value(rng.exponential(1.0, 4000) - 4.0)
    for level in (0.5, 0.05, 0.01):
        assert abs((p < level).mean() - level) < 4 * np.sqrt(level / 4000) + 0.005
    far = null.p_value(np.array([8.0, 20.0]))
    assert far[0] < 1e-4
    assert far[1] < far[0]


def test_tau_prior_weights_sum_to_one() -> None:
    prior = learned.Prior(np.array([0.8, 0.2]), np.log(0.06), 0.9)
    np.testing.assert_allclose(logsumexp(prior.log_tau(GRID)), 0.0, atol=1e-12)


@pytest.mark.parametrize(("centre", "spread"), [(-2.67, 0.1), (-2.9, 0.5), (-2.3, 0.05)])
def test_the_prior_of_tau_is_the_likeliest_one(rng: np.random.Generator, centre: float, spread: float) -> None:
    # features whose evidence is normal in log tau, also where the grid's points are far apart for the spread
    seen = rng.normal(centre, np.hypot(spread, 0.6), 3000)
    evidence = (-0.5 * ((np.log(GRID) - seen[:, None]) / 0.6) ** 2)[:, None, :]
    priors = replace(TransPriors(), tau_strength=1e-9)
    found = learned.learn(evidence, GRID, priors)

    def loss(at: np.ndarray) -> float:
        prior = learned.Prior(np.ones(1), at[0], np.exp(at[1]))
        return -float(logsumexp(evidence[:, 0] + prior.log_tau(GRID), axis=1).sum())

    starts = [(m, s) for m in (-3.2, -2.6, -2.0) for s in (-1.0, 0.0)]
    best = min((minimize(loss, s, bounds=[(-8, 2), np.log((0.3, 3.0))]) for s in starts), key=lambda r: r.fun)
    assert loss(np.array([found.tau_log_mean, np.log(found.tau_log_sd)])) - best.fun < 0.01
    assert abs(found.tau_log_mean - centre) < 0.06


def test_a_normal_density_on_few_points() -> None:
    x, prior = np.log(GRID), learned.Prior(np.ones(1), -2.4, 0.5)
    mean, sd = learned._normal_on(x, 7 * np.exp(prior.log_tau(GRID)), -1.0, 2.0)
    assert abs(mean + 2.4) < 1e-5
    assert abs(sd - 0.5) < 1e-5
    mean, sd = learned._normal_on(x, np.eye(7)[3], 0.0, 1.0)  # all at one point: the least spread around it
    assert abs(mean - x[3]) < 0.2
    assert sd == pytest.approx(0.3)
    mean, sd = learned._normal_on(x, np.array([9, 1, 0, 0, 0, 0, 0.0]), -2.8, 0.9)  # no sd below the grid's least
    assert mean == pytest.approx((x[0] + x[1]) / 2)
    assert sd < 0.4


def test_ties_share_the_q_value_of_all_of_them() -> None:
    """Whatever their order, none of them is called without the others."""
    lfdr = np.array([0.3, 0.1, 0.3, 0.2])
    np.testing.assert_allclose(decision.q_values(lfdr), [0.9 / 4, 0.1, 0.9 / 4, 0.15], rtol=1e-12)


def test_p_values_are_ranks_in_the_body_and_exponential_beyond_it() -> None:
    body = np.arange(1.0, 101.0)
    null = decision.null_distribution(np.append(body, np.nan))
    assert null.threshold == pytest.approx(95.05)  # the quantile of 95 %
    excess = np.arange(96.0, 101.0) - 95.05
    assert null.rate == pytest.approx(max((5 + 10.0) / (excess.sum() + 10.0), 0.5))
    statistic = np.array([-1.0, 50.0, 95.0, 95.05, 96.0, 99.0, 1e6])
    tail = 0.05 * np.exp(-null.rate * (statistic - 95.05))
    want = [1.0, 52 / 101, 7 / 101, 6 / 101, tail[4], tail[5], 1e-300]
    np.testing.assert_allclose(null.p_value(statistic), want, rtol=1e-12)


@pytest.mark.parametrize("size", [0.1, 1.0, 100.0])
def test_the_rate_of_the_tail_is_shrunk_to_one_by_ten_features(size: float) -> None:
    values = np.append(np.zeros(95), size * np.arange(1.0, 6.0))
    null = decision.null_distribution(values)
    assert null.threshold == pytest.approx(0.05 * size)
    assert null.rate == pytest.approx(max(15 / (15 * size - 5 * 0.05 * size + 10), 0.5))


def test_equal_null_features_are_a_tail_of_their_own() -> None:
    null = decision.null_distribution(np.zeros(100))
    assert null.threshold == np.nextafter(0.0, -np.inf)
    assert null.rate == pytest.approx(110 / 10)
    np.testing.assert_allclose(null.p_value(np.array([0.0, -1.0])), 1.0)


@pytest.mark.parametrize(("times", "best"), [(2.9, 1), (3.1, 2)])
def test_a_more_complex_curve_has_to_be_three_times_as_probable(times: float, best: int) -> None:
    prior = learned.Prior(np.array([0.5, 0.4, 0.1]), np.log(0.1), 0.5)
    marginal = np.log(np.array([[1.0, 1.0, 4.0 * times]]))  # times the ratio of the priors
    assert decision.simplest(marginal, prior)[0] == best


def test_the_bayes_factor_mixes_the_curves_by_their_prior() -> None:
    prior = learned.Prior(np.array([0.7, 0.2, 0.1]), np.log(0.1), 0.5)
    marginal = np.log(np.array([[2.0, 3.0, 12.0]]))
    assert np.exp(decision.log_bayes_factor(marginal, prior)[0]) == pytest.approx((3 * 2 / 3 + 12 / 3) / 2)
