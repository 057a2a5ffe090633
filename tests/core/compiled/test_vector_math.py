"""Vector exponential, logarithm and turn weights of the kernels against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.compiled import from_python
from dream_sc._core.compiled.vector_math import vexp, vlog
from dream_sc._core.curves import _turn, curve
from dream_sc._core.priors import TransPriors
from dream_sc._core.types import Axis

AXIS = Axis(-3.0, 1.2, np.linspace(-3, 1.2, 6))
X = _turn.points(AXIS)
PRIORS = TransPriors()
SCALE = PRIORS.turn_scale
TURN = curve("additive_hill").factor


def _exp(x, out):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        out[i] = vexp(x[i])


def _log(x, out):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        out[i] = vlog(x[i])


def test_exponential(rng: np.random.Generator) -> None:
    x = np.concatenate([rng.uniform(-680, 680, 3001), rng.normal(0, 1e-3, 500), [0.0, -0.0, 1.0]])
    out = np.empty_like(x)
    run = from_python(_exp)
    run(x, out)
    np.testing.assert_allclose(out, np.exp(x), rtol=1e-11)
    run(np.array([-1e5, 1e5]), out[:2])
    assert 0 < out[0] < 1e-299
    assert 1e299 < out[1] < np.inf


def test_logarithm(rng: np.random.Generator) -> None:
    x = np.concatenate([np.exp(rng.uniform(-690, 690, 3001)), 1 + rng.normal(0, 1e-6, 500), [1.0, 0.5**0.5, 2.0**0.5]])
    out = np.empty_like(x)
    from_python(_log)(x, out)
    np.testing.assert_allclose(out, np.log(x), rtol=1e-13, atol=1e-15)


def _two_hills(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shapes, _, consts = curve("additive_hill").lattice(AXIS, TransPriors())
    pick = rng.integers(len(shapes), size=n)
    return shapes[pick], consts[pick], rng.normal(0, 1.5, (n, 3))


def test_turns_of_points(rng: np.random.Generator) -> None:
    shapes, consts, theta = _two_hills(rng, 40)
    curves = curve("additive_hill").log_curve(X, np.concatenate([theta, shapes], 1), consts)
    out = np.zeros((40, 1))
    TURN.add_each(out, theta[:, None], shapes[:, None], consts, AXIS, PRIORS)
    want = np.log(np.maximum(_turn.weight(X, curves, SCALE), _turn.LEAST_WEIGHT))
    np.testing.assert_allclose(out[:, 0], want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sd", [1e-4, 0.3])
def test_mean_turn_equals_its_mean_over_draws(sd: float, rng: np.random.Generator) -> None:
    shapes, consts, theta = _two_hills(rng, 6)
    cov = np.array([[1.0, 0.3, 0.0], [0.3, 1.0, -0.6], [0.0, -0.6, 1.0]]) * sd**2
    log_z = np.zeros((1, 6, 1))
    args = theta[None, :, None], np.tile(cov, (1, 6, 1, 1, 1)), shapes[None], consts[None]
    TURN.add_mean(log_z, *args, AXIS, PRIORS)
    draws = theta + rng.multivariate_normal(np.zeros(3), cov, (4000, 1))
    params = np.concatenate([draws, np.broadcast_to(shapes, (4000, 6, 4))], -1)
    want = _turn.weight(X, curve("additive_hill").log_curve(X, params, consts), SCALE).mean(0)
    got = np.exp(log_z[0, :, 0])
    np.testing.assert_allclose(got, np.maximum(want, _turn.LEAST_WEIGHT), rtol=0.1 * sd / 0.3, atol=0.02 * sd)
