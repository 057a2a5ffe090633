"""Errors of dosages that all features share: slopes against a dense normal density, and dosages that are put right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import multivariate_normal

from dream_sc._core.priors import TransPriors
from dream_sc._core.response.contexts.decision import TAUS, decide
from dream_sc._core.response.contexts.dosage_errors import LEAST_ERROR, Picked, _linear, _root, with_learned_dosages
from dream_sc._core.response.contexts.evidence import DIFFERENCE
from dream_sc._core.response.contexts.guide_levels import Sums
from dream_sc._core.response.contexts.measured import Measured
from dream_sc._core.response.contexts.pair_likelihood import Pair
from dream_sc._core.response.contexts.shapes import Dosages, Shapes
from dream_sc._core.types import Axis, GuideStats

G, N = 8, 3  # targeting and NTC guides
X = np.linspace(-3.0, 1.0, G)
MOVED, LEVEL_ERROR = 0.3, 0.3  # log2


def dosages(error: float, level_error: float, by: float = 0.0) -> Dosages:
    return Dosages.of(X + by, np.full(G, 0.2), np.zeros(G), np.full(G, error), level_error)


def shapes() -> Shapes:
    return Shapes(Axis.of(X), TransPriors())


def test_slopes_by_the_errors_are_those_of_a_normal_density():
    rng, s, tau, rho = np.random.default_rng(0), shapes(), 0.2, 0.4
    d = dosages(0.0, 0.0)
    pair = Pair(rng.normal(0, 0.3, (1, 2, G + N)), np.full((1, 2, G + N), 0.01), (d, d), 2.0)
    theta = np.array([[[-1.0, 0.7, 2.0], [-0.5, 0.9, -2.0]]])
    gradient, curvature = _linear(s, pair, tau, rho, Picked(theta, np.ones((1, 2), dtype=bool)))
    cov, both = np.diag(pair.variance[0].ravel()) + tau**2 * np.eye(2 * (G + N)), np.arange(G + N)
    cov[both, G + N + both] = cov[G + N + both, both] = rho * tau**2
    for c in range(2):
        own = slice(c * (G + N), (c + 1) * (G + N))
        cov[own, own] += pair.level_sd**2
    curves = [s.curve(theta[0, c], d) for c in range(2)]

    def density(e: np.ndarray) -> float:
        mean = np.zeros((2, G + N))
        for c in range(2):
            mean[c, :G] = curves[c][0] + curves[c][1] * e[c * G : (c + 1) * G]
        return float(multivariate_normal(mean.ravel(), cov).logpdf(pair.mean[0].ravel()))

    h, unit = 1e-3, np.eye(2 * G)
    slope = [(density(h * u) - density(-h * u)) / (2 * h) for u in unit]
    np.testing.assert_allclose(gradient[0], slope, rtol=1e-3, atol=1e-3)
    bent = [(density(h * (u + unit[3])) - density(h * u) - density(h * unit[3]) + density(0 * u)) / h**2 for u in unit]
    np.testing.assert_allclose(-curvature[0, 3], bent, rtol=1e-3, atol=0.02)


def screen(kind: np.ndarray, by: float, seed: int = 0) -> Measured:
    """Features of kind 0 without a response, 1 with the same in both contexts, 2 with the EC50 1 log2 higher in the
    second; the dosages of the second context are said to be too high by `by`.
    """
    rng, s, n = np.random.default_rng(seed), shapes(), len(kind)
    theta = np.stack([rng.uniform(-2, -0.5, n), np.full(n, 0.7), s.beta(rng.choice([-2.0, 2.0], n))], 1)
    shared, sums = rng.normal(0, 0.05, (n, G + N)), []
    for c in range(2):
        curve = np.zeros((n, G + N))
        own = theta + np.where(kind == 2, float(c), 0.0)[:, None] * [1.0, 0.0, 0.0]
        curve[:, :G] = s.curve(own, dosages(0.0, 0.0))[0] * (kind > 0)[:, None]
        mean = 600.0 * np.exp(curve + shared)
        one, guide = np.full(G + N, 100.0), np.arange(G + N)
        stats = GuideStats(rng.poisson(mean).astype(float), one, one**2 / 1e6, guide, 0 * guide, G + N, 1)
        sums.append(Sums(stats, np.full(n, 0.3), 0.3))
    said = dosages(0.05, LEVEL_ERROR), dosages(0.05, LEVEL_ERROR, by)
    return Measured((sums[0], sums[1]), said, np.arange(G + N) < G, Axis.of(X), TransPriors())


def test_dosages_of_a_context_that_are_off_together_are_put_right():
    kind = np.repeat([0, 1, 2], [20, 24, 4])
    measured = screen(kind, MOVED)
    found = with_learned_dosages(measured, DIFFERENCE, np.ones(len(kind), dtype=bool), TAUS, 0.5)
    apart = [float(np.mean(d.at[:, 1] - X)) for d in found.dosages]
    assert abs(apart[1] - apart[0]) < 0.2 * MOVED
    assert found.loadings is not None
    first, second = found.loadings.mean(2).T  # of the shift of each context
    assert ((first - second) ** 2).sum() < (0.2 * LEVEL_ERROR) ** 2
    # that all dosages of both are off together, responses tell less well
    assert ((first + second) ** 2).sum() > ((first - second) ** 2).sum()
    assert all((d.error >= LEAST_ERROR * 0.05).all() for d in found.dosages)
    assert found.axis == measured.axis
    decision, _ = decide(measured, n_null=0)
    assert (decision.lfdr[kind == 1] > 0.5).all()
    assert (decision.q_value[kind == 2] < 0.05).all()
    assert decision.prior.weights[3] < 0.2  # of other EC50s: 4 of 48, of which 28 respond


def test_dosages_that_are_right_stay():
    kind = np.repeat([0, 1], [10, 20])
    found = with_learned_dosages(screen(kind, 0.0, 1), DIFFERENCE, np.ones(30, dtype=bool), TAUS, 0.5)
    apart = [float(np.mean(d.at[:, 1] - X)) for d in found.dosages]
    assert abs(apart[1] - apart[0]) < 0.06


def test_without_responses_nothing_is_learned():
    kind = np.zeros(20, dtype=int)
    kind[0] = 1
    measured = screen(kind, MOVED)
    assert with_learned_dosages(measured, DIFFERENCE, kind == 0, TAUS, 0.5) is measured
    # one feature alone cannot tell its own difference from an error
    assert with_learned_dosages(measured, DIFFERENCE, kind == kind, TAUS, 0.5) is measured


def test_the_root_is_that_of_the_errors_of_both_contexts():
    measured = replace(screen(np.zeros(4, dtype=int), 0.0), dosages=(dosages(0.1, 0.2), dosages(0.3, 0.0)))
    root = _root(measured.dosages)
    expected = np.zeros((2 * G, 2 * G))
    expected[:G, :G] = 0.1**2 * np.eye(G) + 0.2**2
    expected[G:, G:] = 0.3**2 * np.eye(G)
    np.testing.assert_allclose(root @ root.T, expected, atol=1e-5)
