"""Tests with guides as units, against other software and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.multitest import multipletests

from dream_sc._core.stats import meta_regression


def test_one_mean_is_the_meta_analysis_of_statsmodels(rng: np.random.Generator) -> None:
    y, v = rng.normal(0.3, 0.5, 9), rng.uniform(0.02, 0.2, 9)
    found = meta_regression.meta_regression(y[None], v[None], np.ones((9, 1)))
    other = combine_effects(y, v, method_re="dl", use_t=True)
    assert other.tau2 > 0
    wanted = other.mean_effect_re, other.sd_eff_w_re_hksj
    np.testing.assert_allclose([found.estimate[0, 0], found.se[0, 0]], wanted, rtol=1e-8)


def test_without_known_errors_it_is_least_squares(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=12), rng.normal(size=(3, 12))
    design = np.column_stack([np.ones(12), x])
    found = meta_regression.meta_regression(y, np.full((3, 12), 1e-12), design)
    for t in range(3):
        fit = sm.OLS(y[t], design).fit()
        np.testing.assert_allclose(found.estimate[t], fit.params, rtol=1e-5)
        np.testing.assert_allclose(found.pvalue[t], fit.pvalues, rtol=1e-4)


@pytest.mark.parametrize("between", [0.0, 0.3])
def test_it_holds_its_level(rng: np.random.Generator, between: float) -> None:
    n = 4000
    v = rng.uniform(0.01, 0.2, (n, 10))
    y = rng.normal(0, np.sqrt(v + between**2))
    p = meta_regression.slope_and_difference(y, v, np.r_[np.linspace(-3, 1, 6), np.zeros(4)], np.arange(10) > 5).pvalue
    rates = (p < 0.05).mean(0)
    assert (rates > 0.03).all()
    assert (rates < 0.065).all()


def test_guides_without_a_mean_take_no_part(rng: np.random.Generator) -> None:
    y, v, x = rng.normal(size=(1, 8)), np.full((1, 8), 0.1), rng.normal(size=8)
    some = meta_regression.meta_regression(y[:, :6], v[:, :6], np.column_stack([np.ones(6), x[:6]]))
    y[0, 6:] = np.nan
    every = meta_regression.meta_regression(y, v, np.column_stack([np.ones(8), x]))
    np.testing.assert_allclose(every, some)
    y[0, 2:] = np.nan
    assert np.isnan(meta_regression.meta_regression(y, v, np.column_stack([np.ones(8), x])).pvalue).all()
    with_constant = np.column_stack([np.ones(8), np.ones(8)])
    assert np.isnan(meta_regression.meta_regression(rng.normal(size=(1, 8)), v, with_constant).estimate).all()


def test_holm_is_that_of_statsmodels(rng: np.random.Generator) -> None:
    p = rng.random(9) ** 3
    given = np.insert(p, 4, np.nan)
    found = meta_regression.holm(given)
    np.testing.assert_allclose(np.delete(found, 4), multipletests(p, method="holm")[1])
    assert np.isnan(found[4])


def test_means_of_guides(rng: np.random.Generator) -> None:
    guide = np.array([0, 0, 0, 1, 1, -1, 1])
    x = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 100.0, np.nan])
    mean, variance, n = meta_regression.guide_means(x, guide, 3)
    np.testing.assert_allclose(mean[:2], [2.0, 5.0])
    np.testing.assert_allclose(variance[:2], (2.0 + 2.0) / 3 / np.array([3, 2]))
    assert n.tolist() == [3, 2, 0]
    assert np.isnan([mean[2], variance[2]]).all()


def test_relabellings_hold_the_true_labels_and_differ() -> None:
    every = [tuple(r) for r in meta_regression.relabellings(6, 2, 200, 0)]
    assert len(set(every)) == 15
    assert every[0] == (0, 1)
    some = list(meta_regression.relabellings(30, 4, 50, 0))
    assert len(some) == 50
    assert some[0].tolist() == [0, 1, 2, 3]


def test_a_trend_is_taken_off_targeting_guides_only(rng: np.random.Generator) -> None:
    x, control = np.r_[np.linspace(-2, 1, 7), 0.2, -0.2], np.arange(9) > 6
    y, v = (0.5 * x)[None] * ~control, np.full((1, 9), 0.01)
    flat, wider = meta_regression.detrended(y, v, x, control)
    np.testing.assert_allclose(flat, 0.0, atol=1e-9)
    np.testing.assert_allclose(wider, v + np.where(control, 0.0, (0.5 * x) ** 2))
    few = np.arange(9) > 1
    assert meta_regression.detrended(y, v, x, few)[0] is y
