"""The Hill function and its means over nodes: the three forms against the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dream_sc._core.compiled import from_python
from dream_sc._core.curves import _hill

LN2 = np.log(2.0)


def _formula(x: np.ndarray, k: np.ndarray, n: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + 2.0 ** (-n * (x - k)))


@pytest.fixture
def hills(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """EC50s, log steepness and signs of 16 Hills, nodes of 5 dosages and their weights."""
    weights = rng.dirichlet(np.ones(8), 5)
    signs = np.where(rng.random(16) < 0.5, -1.0, 1.0)
    return rng.normal(0, 2, 16), rng.normal(0.5, 0.6, 16), signs, rng.normal(0, 1.5, (5, 8)), weights


def test_values_are_those_of_the_formula(hills: tuple[np.ndarray, ...]) -> None:
    k, log_n, signs, nodes, _ = hills
    n, x = signs * np.exp(log_n), nodes[0, 0]
    want = _formula(x, k, n)
    np.testing.assert_allclose(_hill.hill(x, k, n), want, rtol=1e-12)
    log_h, log_c = _hill.log_values(_hill.rates(log_n, signs), k, x)
    np.testing.assert_allclose(log_h, np.log(want), rtol=1e-10)
    np.testing.assert_allclose(log_c, np.log(_formula(x, k, -n)), rtol=1e-10)


def test_the_three_forms_have_the_same_means(hills: tuple[np.ndarray, ...]) -> None:
    k, log_n, signs, nodes, weights = hills
    n = signs * np.exp(log_n)
    want = np.stack([(weights * _formula(nodes, a, b)).sum(1) for a, b in zip(k, n, strict=True)])
    mean, rest = _hill.means(LN2 * n, k, nodes, weights)
    np.testing.assert_allclose(mean, want, rtol=1e-12)
    np.testing.assert_allclose(rest, 1.0 - want, rtol=1e-9, atol=1e-12)

    rate, ec50, at, mass = (torch.as_tensor(each) for each in ((LN2 * n)[:, None], k[:, None], nodes, weights))
    log_h, log_c = _hill.torch_log_means(rate, ec50, at, mass)
    np.testing.assert_allclose(log_h.exp().numpy(), want, rtol=1e-10)
    np.testing.assert_allclose(log_c.exp().numpy(), rest, rtol=1e-10)

    shapes, out = np.zeros((4, 16)), np.zeros((5, 6, 16))
    shapes[2], shapes[3] = k, log_n
    from_python(_hill.fill_means)(1, signs, shapes, nodes, weights, out)
    np.testing.assert_allclose(out[:, 2].T, want, rtol=1e-9)
    np.testing.assert_allclose(out[:, 3].T, rest, rtol=1e-9)
    logs = np.zeros((6, 16))
    from_python(_hill.fill_logs)(1, signs, shapes, nodes[0, 0], logs)
    np.testing.assert_allclose(logs[2], np.log(_formula(nodes[0, 0], k, n)), rtol=1e-9)
    np.testing.assert_allclose(logs[3], np.log(_formula(nodes[0, 0], k, -n)), rtol=1e-9)
