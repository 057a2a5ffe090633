"""The Pareto smoothing against scipy and known tails."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import genpareto

from dream_sc._core.stats.pareto import fit_pareto, smooth


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.5, 0.9])
def test_shape_of_a_generalised_pareto(k: float) -> None:
    x = np.sort(genpareto(k, scale=2.0).rvs(20_000, random_state=0))
    found, scale = fit_pareto(x)
    assert abs(found - k) < 0.03
    assert abs(scale - 2.0) < 0.1


def test_weights_of_a_good_and_a_bad_proposal() -> None:
    """Normal target: a wide proposal has light weights, a narrow one heavy ones."""
    rng = np.random.default_rng(0)
    for sd, low, high in ((1.5, -np.inf, 0.5), (0.25, 0.7, np.inf)):
        x = rng.normal(0, sd, 4000)
        weight, k = smooth(-0.5 * x**2 + 0.5 * (x / sd) ** 2)
        assert low < k < high
        np.testing.assert_allclose(weight.sum(), 1.0)
    x = rng.normal(0, 1.5, 4000)
    weight, _ = smooth(-0.5 * (x - 0.3) ** 2 + 0.5 * (x / 1.5) ** 2)
    np.testing.assert_allclose((weight * x).sum(), 0.3, atol=0.05)


def test_equal_weights_stay_equal() -> None:
    weight, k = smooth(np.zeros(100))
    np.testing.assert_allclose(weight, 0.01)
    assert k == 0.0
