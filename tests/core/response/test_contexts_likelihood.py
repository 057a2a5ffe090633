"""The likelihood of curves in two contexts and in several, by the covariance of all levels of all guides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from dream_sc._core.response.contexts import joint_likelihood, pair_likelihood
from dream_sc._core.response.contexts.pair_likelihood import Curves, Pair, log_likelihood
from dream_sc._core.response.contexts.shapes import Dosages

G, N = 8, 3  # targeting and NTC guides
X = np.linspace(-3.0, 1.0, G)
LEVEL_ERROR, TAU, RHO = 0.05, 0.2, 0.4


def some_pair(contexts: int, level_error: float = LEVEL_ERROR) -> tuple[Pair, Curves]:
    """Three features, three curves of each."""
    rng = np.random.default_rng(contexts)
    dosages = Dosages.of(X, np.full(G, 0.2), np.zeros(G), np.full(G, 0.1), level_error)
    mean = rng.normal(0, 0.3, (3, contexts, G + N))
    curves = rng.normal(0, 0.5, (3, 3, 3, contexts, G)) ** np.array([1, 2, 1])[:, None, None, None, None]
    return Pair(mean, np.full(mean.shape, 0.1**2), (dosages,) * contexts, 2.0), Curves(*curves)


def density_of(pair: Pair, curves: Curves, loadings: np.ndarray, t: int, d: int) -> float:
    """Log likelihood but for its constant, by the covariance of all levels of all contexts."""
    n, contexts = G + N, len(pair.dosages)
    cov = np.diag(pair.variance[t].ravel()) + TAU**2 * np.kron(np.eye(contexts) * (1 - RHO) + RHO, np.eye(n))
    mean, moved = np.zeros(contexts * n), np.zeros((len(loadings), contexts * n))
    for c in range(contexts):
        own = np.arange(c * n, (c + 1) * n)
        cov[np.ix_(own, own)] += pair.level_sd**2
        moved[:, own[:G]] = curves.slope[t, d, c] * loadings[:, c]
        cov[own[:G], own[:G]] += curves.variance[t, d, c]
        mean[own[:G]] = curves.value[t, d, c]
    cov += moved.T @ moved
    return float(multivariate_normal(mean, cov).logpdf(pair.mean[t].ravel()) + contexts * n / 2 * np.log(2 * np.pi))


@pytest.mark.parametrize("contexts", [1, 2, 3])
@pytest.mark.parametrize("together", [False, True])
def test_likelihood_is_that_of_a_normal_with_a_dense_covariance(contexts: int, together: bool) -> None:
    pair, curves = some_pair(contexts)
    errors = np.eye(contexts)[:, :, None] * np.full(G, LEVEL_ERROR)  # those of the NTC levels
    if together:
        errors = np.random.default_rng(9).normal(0, 0.1, (3, contexts, G))
        errors[0, contexts - 1] = 0.0
        pair = replace(pair, loadings=errors)
    found = log_likelihood(pair, curves, np.array([TAU]), RHO)[..., 0]
    dense = [[density_of(pair, curves, errors, t, d) for d in range(3)] for t in range(3)]
    np.testing.assert_allclose(found, dense, rtol=1e-8)


@pytest.mark.parametrize("level_error", [0.0, LEVEL_ERROR])
def test_of_two_contexts_both_likelihoods_are_the_same(level_error: float) -> None:
    pair, curves = some_pair(2, level_error)
    one, other = (module(pair, curves, 0.1, 0.3) for module in (pair_likelihood._at_tau, joint_likelihood.at_tau))
    np.testing.assert_allclose(one, other, rtol=1e-9)
