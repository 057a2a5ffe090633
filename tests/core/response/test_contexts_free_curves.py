"""Curves that each context has for itself: draws that are put together, and intervals from few draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp

from dream_sc._core.priors import TransPriors
from dream_sc._core.response.contexts.describe import quantiles
from dream_sc._core.response.contexts.free_curves import at_start, put_together
from dream_sc._core.response.contexts.pair_likelihood import Curves, Pair, log_likelihood
from dream_sc._core.response.contexts.shapes import Dosages, Shapes
from dream_sc._core.types import Axis

G, N = 6, 3  # targeting and NTC guides
X = np.linspace(-3.0, 1.0, G)
TAUS = np.array([0.05, 0.15])


def screen(level_error: float = 0.1) -> tuple[Shapes, Pair]:
    """Three features in two contexts, in which the second EC50 is 0.5 log2 higher."""
    rng, shapes = np.random.default_rng(0), Shapes(Axis.of(X), TransPriors())
    dosages = Dosages.of(X, np.full(G, 0.2), np.zeros(G), np.full(G, 0.05), level_error)
    mean = rng.normal(0, 0.2, (3, 2, G + N))
    for c, ec50 in enumerate((-1.0, -0.5)):
        mean[:, c, :G] += shapes.curve(np.array([ec50, 0.7, float(shapes.beta(np.array(1.5)))]), dosages)[0]
    return shapes, Pair(mean, np.full(mean.shape, 0.2**2), (dosages, dosages), 2.0)


def draws_of(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    theta = np.stack(
        [rng.normal(-0.8, 0.8, (2, 3, n)), rng.normal(0.7, 0.3, (2, 3, n)), rng.normal(3, 1, (2, 3, n))], -1
    )
    return [(each, rng.normal(0, 0.5, (3, n))) for each in theta]


def curves_of(shapes: Shapes, pair: Pair, theta: np.ndarray) -> Curves:
    each = [shapes.with_errors(theta[:, :, c], d) for c, d in enumerate(pair.dosages)]
    return Curves(*(np.stack([e[i] for e in each], 2) for i in range(3)))


def test_likelihood_at_the_sd_of_each_feature() -> None:
    shapes, pair = screen()
    curves = curves_of(shapes, pair, np.stack([theta for theta, _ in draws_of(8)], 2))
    found = at_start(pair, curves, TAUS, 0.3, TAUS[[0, 1, 0]])
    every = log_likelihood(pair, curves, TAUS, 0.3)
    np.testing.assert_allclose(found, np.stack([every[0, :, 0], every[1, :, 1], every[2, :, 0]]))


@pytest.mark.parametrize("or_none", [False, True])
def test_what_is_put_together_has_the_evidence_of_all_pairs(or_none: bool) -> None:
    shapes, pair = screen()
    n, draws = 128, draws_of(128)
    theta, log_weight = put_together(shapes, pair, TAUS, 0.3, TAUS[[0, 0, 1]], draws, seed=3, or_none=or_none)
    assert theta.shape == (3, n, 2, 3)
    found = logsumexp(log_weight, axis=1) - np.log(n)
    # every draw of the first context with every one of the second, and with none
    first, second = (np.concatenate([d[0], np.zeros((3, 1, 3))], 1) for d in draws)
    log_w = [np.concatenate([d[1] - np.log(n), np.full((3, 1), 0.0 if or_none else -np.inf)], 1) for d in draws]
    a, b = (part.ravel() for part in np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij"))
    every = log_likelihood(pair, curves_of(shapes, pair, np.stack([first[:, a], second[:, b]], 2)), TAUS, 0.3)
    weight = log_w[0][:, a] + log_w[1][:, b]
    weight[:, (a == n) & (b == n)] = -np.inf
    exact = logsumexp(every + weight[..., None], axis=1) - (np.log(3.0) if or_none else 0.0)
    np.testing.assert_allclose(found, exact, atol=0.25)


def test_draws_are_put_together_as_they_are_likely() -> None:
    shapes, pair = screen(level_error=0.0)
    draws = draws_of(512)
    _, log_weight = put_together(shapes, pair, TAUS[:1], 0.0, TAUS[[0, 0, 0]], draws, seed=3)
    # nothing in common: the product of what the contexts say is what was drawn from
    np.testing.assert_allclose(log_weight - log_weight[:, :1], 0.0, atol=1e-8)


def test_intervals_of_few_draws_hold_what_they_say() -> None:
    rng, n = np.random.default_rng(2), 50
    values, truth = rng.normal(size=(4000, n)), rng.normal(size=4000)
    middle, low, high = quantiles(values, np.ones((4000, n)))
    assert ((low <= truth) & (truth <= high)).mean() == pytest.approx(
        0.95, abs=0.012
    )  # 0.931 by the draws' own quantiles
    # draws without weight do not count
    padded = np.concatenate([values, np.full((4000, 10), 9.0)], 1)
    weights = np.concatenate([np.ones((4000, n)), np.full((4000, 10), 1e-12)], 1)
    np.testing.assert_allclose(quantiles(padded, weights), [middle, low, high], atol=1e-6)
