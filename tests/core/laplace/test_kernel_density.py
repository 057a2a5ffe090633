"""The mixture of Student t kernels against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_t

from dream_sc._core.laplace.kernel_density import log_kernels


@pytest.mark.parametrize(("dim", "df"), [(1, 5.0), (6, 5.0), (9, 4.5)])
def test_the_mixture_of_kernels_is_that_of_scipy_but_for_a_constant(dim: int, df: float, rng: np.random.Generator):
    x, centres = 3.0 * rng.normal(size=(dim, 40)), rng.normal(size=(dim, 30))
    x[:, 0] = 1e3  # far from all

    of_one = multivariate_t(np.zeros(dim), np.eye(dim), df=df)
    expected = logsumexp([of_one.logpdf((x - centre[:, None]).T) for centre in centres.T], axis=0)
    expected -= of_one.logpdf(np.zeros(dim))  # whose density without the constant is one

    np.testing.assert_allclose(log_kernels(x, centres, df), expected, rtol=1e-10)
