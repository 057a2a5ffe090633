"""Shares of guides freed of technical groups, and their intervals, against others' computations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit, softmax
from statsmodels.stats.proportion import proportion_confint

from dream_sc._core.response import observed


def test_one_group_changes_nothing() -> None:
    y, n = np.array([[3.0], [0.0], [5.0], [0.0]]), np.array([[10.0], [4.0], [5.0], [0.0]])
    np.testing.assert_allclose(observed.share_in_reference(y, n, np.zeros(1)), [0.3, 0.0, 1.0, np.nan])


def test_shares_solve_the_score_equation() -> None:
    rng = np.random.default_rng(0)
    effects = np.array([0.0, 0.8, -1.3])
    n = rng.poisson(20, (6, 3)).astype(float)
    y = rng.binomial(n.astype(int), 0.4).astype(float)
    found = observed.share_in_reference(y, n, effects)
    for g in range(6):
        root = brentq(lambda eta, g=g: (n[g] * expit(eta + effects)).sum() - y[g].sum(), -20, 20)
        assert found[g] == pytest.approx(expit(root))


def test_usage_is_that_of_the_reference() -> None:
    """Counts as expected from usage in the reference and effects on its logarithm."""
    rng = np.random.default_rng(1)
    level, effects = rng.normal(size=(5, 4)), np.stack([np.zeros(4), rng.normal(size=4)])
    reads = rng.uniform(50, 100, (5, 2))
    counts = reads[..., None] * softmax(level[:, None] + effects, axis=-1)
    rest = counts[..., ::-1].cumsum(-1)[..., ::-1]
    y, n = counts[..., :-1].transpose(2, 0, 1), rest[..., :-1].transpose(2, 0, 1)
    of_sticks = np.array(effects)
    # the log odds of a stick hang on the usage, so that each guide has effects of its own
    for g in range(5):
        p = softmax(level[g] + of_sticks, axis=-1)
        shift = logit(p[:, :-1] / p[:, ::-1].cumsum(1)[:, ::-1][:, :-1])
        found = observed.usage_in_reference(y[:, [g]], n[:, [g]], (shift - shift[0]).T)
        np.testing.assert_allclose(found[0], softmax(level[g]), rtol=1e-6)


def test_groups_without_a_category_say_nothing_of_it() -> None:
    y = np.array([[[5.0, 0.0], [4.0, 0.0]]])
    n = np.full((1, 2, 2), 10.0)
    np.testing.assert_allclose(observed.usage_in_reference(y, n, np.zeros((1, 2)))[:, 0], [0.5, 0.4])
    nowhere = observed.usage_in_reference(0 * y, n, np.zeros((1, 2)))
    np.testing.assert_allclose(nowhere, [[0.0, 1.0], [0.0, 1.0]])


def test_wilson() -> None:
    y, n = np.array([0.0, 3.0, 10.0, 7.0]), np.array([8.0, 10.0, 10.0, 200.0])
    found = observed.wilson(y / n, n)
    np.testing.assert_allclose(found, proportion_confint(y, n, method="wilson"), atol=1e-12)
    assert np.isnan(observed.wilson(np.array([np.nan]), np.zeros(1))).all()


def test_correlated_trials_are_worth_less() -> None:
    # cells of five reads that all agree are worth one
    np.testing.assert_allclose(observed.effective_trials(np.array([50.0]), np.array([10 * 5 * 4.0]), 1.0), 10.0)
