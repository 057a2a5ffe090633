"""The scale on which null features are compared, and the choice of the curve to describe a response by."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.priors import TransPriors
from dream_sc._core.response import decision, learned
from dream_sc._core.response.null_scale import log_moment_bf, strength

PRIORS = TransPriors()


@pytest.mark.parametrize("sd", [0.01, 0.1, 1.0, 5.0])
def test_strength_is_the_inverse_of_the_bayes_factor(sd: float) -> None:
    z = np.linspace(0.3, 12, 25)
    log_bf = log_moment_bf(z * sd, np.full(25, sd), PRIORS)
    np.testing.assert_allclose(strength(log_bf, np.full(25, sd), PRIORS), 0.5 * z**2, rtol=1e-6)
    least = log_moment_bf(np.zeros(1), np.array([sd]), PRIORS)
    assert strength(least - 1.0, np.array([sd]), PRIORS)[0] < 1e-12


def test_strength_grows_with_the_bayes_factor() -> None:
    values = strength(np.array([-5.0, 0.0, 5.0, 500.0]), np.full(4, 0.1), PRIORS)
    assert (np.diff(values) > 0).all()
    assert np.isfinite(values).all()


def test_p_values_of_nulls_are_uniform_at_every_precision(rng: np.random.Generator) -> None:
    """On Bayes factors themselves they are not: imprecise features come out small."""
    sd = np.repeat([0.03, 0.1, 0.5], 4000)
    log_bf = log_moment_bf(sd * rng.normal(size=len(sd)), sd, PRIORS)
    p = decision.null_distribution(strength(log_bf, sd, PRIORS)).p_value(strength(log_bf, sd, PRIORS))
    rate = (p < 0.05).reshape(3, -1).mean(1)
    np.testing.assert_allclose(rate, 0.05, atol=0.012)
    naive = decision.null_distribution(log_bf).p_value(log_bf)
    assert (naive < 0.05).reshape(3, -1).mean(1)[2] > 0.1


def test_a_more_complex_curve_has_to_be_three_times_as_probable() -> None:
    prior = learned.Prior(np.array([0.8, 0.1, 0.1]), -3.0, 0.5)
    gap = np.log(3.0)
    marginal = np.array([[0.0, 2.0, 2.0 + gap - 0.01], [0.0, 2.0, 2.0 + gap + 0.01], [9.0, 2.0, 1.0]])
    np.testing.assert_array_equal(decision.simplest(marginal, prior), [1, 2, 1])
