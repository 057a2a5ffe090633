"""Curves against independent formulas and automatic derivatives."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from dream_sc._core.curves import (
    CURVES,
    FUNCTION_TYPES,
    LN2,
    RESPONSES,
    FunctionType,
    _one_step,
    _turn,
    curve,
)
from dream_sc._core.curves._base import moment_mass, torch_moment
from dream_sc._core.priors import TransPriors
from dream_sc._core.types import Axis

X = np.linspace(-4, 3, 29)
AXIS = Axis(-3.0, 1.2, np.linspace(-3, 1.2, 12))


def _reachable(z_low: np.ndarray, z_high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest fall and largest rise of a Hill, whose argument goes from one to the other."""
    softplus = lambda z: np.logaddexp(0.0, z)  # noqa: E731
    return softplus(z_high) - softplus(z_low), softplus(-z_low) - softplus(-z_high)


def _params(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    if name == "null":
        return rng.normal(size=(5, 1)), np.zeros((5, 2))
    if name == "single_hill":
        return rng.normal(size=(5, 4)) * [1, 1.5, 1, 0.5], np.zeros((5, 2))
    if name == "switch":
        return rng.normal(size=(5, 2)), np.zeros((5, 2))
    if name == "additive_hill":
        return rng.normal(size=(5, 7)) * 0.7, rng.choice([-1.0, 1.0], (5, 2))
    return rng.normal(size=(5, 7)) * 0.3, np.tile([-0.9, 2.1], (5, 1))


def _direct(name: str, x: np.ndarray, p: np.ndarray, const: np.ndarray) -> np.ndarray:
    """The formulas of the documentation on the natural scale of dosage."""
    dose = 2.0**x

    def hill(i: int, sign: float = 1.0) -> np.ndarray:
        return dose ** (sign * np.exp(p[i + 1])) / (
            dose ** (sign * np.exp(p[i + 1])) + 2.0 ** (p[i] * sign * np.exp(p[i + 1]))
        )

    if name == "null":
        return np.full_like(x, np.exp(p[0]))
    if name == "switch":
        return np.where(x > 0.5, np.exp(p[1]), 1.0)
    if name == "single_hill":
        return 1 + (np.exp(p[1]) - 1) * hill(2)
    if name == "additive_hill":
        return 1 + np.exp(p[1]) * hill(3, const[0]) + np.exp(p[2]) * hill(5, const[1])
    t = (x - const[0]) / const[1]
    return np.exp(np.polyval([*p[:0:-1], 0.0], t))


@pytest.mark.parametrize("name", [c.name for c in CURVES])
def test_curve_equals_its_formula(name: str, rng: np.random.Generator) -> None:
    params, consts = _params(name, rng)
    got = np.exp(curve(name).log_curve(X, params, consts))
    for i in range(len(params)):
        want = (
            _direct(name, X, params[i], consts[i])
            / _direct(name, np.zeros(1), params[i], consts[i])
            * np.exp(params[i, 0])
        )
        np.testing.assert_allclose(got[i], want, rtol=1e-10)


@pytest.mark.parametrize("name", [c.name for c in CURVES])
def test_slope_is_the_derivative_by_log_dosage(name: str, rng: np.random.Generator) -> None:
    params, consts = _params(name, rng)
    c, h, at = curve(name), 1e-5, X[X != 0.5]  # where a switch goes from one level to the other
    numeric = (c.log_curve(at + h, params, consts) - c.log_curve(at - h, params, consts)) / (2 * h * LN2)
    np.testing.assert_allclose(c.slope(at, params, consts), numeric, atol=1e-7)


def test_single_hill_does_not_overflow() -> None:
    params = np.array([[0.0, 30.0, 0.0, 3.0], [0.0, -30.0, -5.0, 4.0]])
    assert np.isfinite(curve("single_hill").log_curve(np.linspace(-40, 40, 9), params, None)).all()


def test_single_hill_gradient_by_amplitude_is_the_sigmoid() -> None:
    b = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    z = torch.tensor([-2.0, 0.3, 1.9], dtype=torch.float64)
    value = (torch.nn.functional.softplus(b + z) - torch.nn.functional.softplus(z)).sum()
    (grad,) = torch.autograd.grad(value, b)
    np.testing.assert_allclose(grad.item(), expit(0.7 + z.numpy()).sum(), rtol=1e-12)


def test_moment_mass_is_the_integral_of_the_density() -> None:
    scales, weights = (0.4, 1.0, 2.0), (0.2, 0.3, 0.5)

    def density(d: float) -> float:
        return sum(
            w * d**2 / s**2 * np.exp(-0.5 * (d / s) ** 2) / (s * np.sqrt(2 * np.pi))
            for s, w in zip(scales, weights, strict=True)
        )

    for upper in (0.3, 1.0, 4.0):
        np.testing.assert_allclose(moment_mass(upper, scales, weights), quad(density, 0, upper)[0], rtol=1e-6)
    np.testing.assert_allclose(moment_mass(100.0, scales, weights), 0.5, rtol=1e-9)


def test_reachable_movement_is_the_limit_of_large_amplitudes() -> None:
    c = curve("single_hill")
    params = np.array([[0.0, 60.0, -1.0, 0.4], [0.0, -60.0, -1.0, 0.4]])
    ends = c.log_curve(np.array([AXIS.low, AXIS.high]), params, None)
    rate = LN2 * np.exp(0.4)
    fall, rise = _reachable(rate * (AXIS.low + 1.0), rate * (AXIS.high + 1.0))
    np.testing.assert_allclose(ends[:, 1] - ends[:, 0], [rise, -fall], rtol=1e-6)


@pytest.mark.parametrize("name", ["single_hill", "additive_hill"])
def test_lattice_prior_has_mass_one(name: str) -> None:
    """Summed over shapes, and integrated over the reachable movements, the prior of a curve is one."""
    priors = TransPriors()
    shapes, log_w, consts = curve(name).lattice(AXIS, priors)
    mass = np.ones(len(shapes))
    for i in range(shapes.shape[1] // 2):
        k, rate = shapes[:, 2 * i], LN2 * np.exp(shapes[:, 2 * i + 1])
        fall, rise = _reachable(rate * (AXIS.low - k), rate * (AXIS.high - k))
        m = [moment_mass(d, priors.movement_scales, priors.movement_weights) for d in (fall, rise)]
        mass *= sum(m) if name == "single_hill" else 2 * np.where(consts[:, i] > 0, m[1], m[0])
    np.testing.assert_allclose((np.exp(log_w) * mass).sum(), 1.0, rtol=1e-9)


def test_every_curve_but_the_flat_one_is_a_response_and_has_a_name_to_ask_for() -> None:
    assert {c.name for c in RESPONSES} == {c.name for c in CURVES} - {"null"}
    assert set(FUNCTION_TYPES) == set(get_args(FunctionType))


def test_unknown_curve_names_the_known() -> None:
    with pytest.raises(ValueError, match="single_hill"):
        curve("double_hill")


def test_the_prior_of_movements_in_torch_is_a_mixture_of_moment_densities() -> None:
    priors, d = TransPriors(), np.array([[-1.3], [0.02], [0.4], [2.5]])
    scales, weights = np.array(priors.movement_scales), np.array(priors.movement_weights)
    parts = weights * norm.pdf(d, 0.0, scales)
    rate = torch.full((4, 1), 0.3, dtype=torch.float64)
    for square, expected in ((True, d**2 * (parts / scales**2).sum(1, keepdims=True)), (False, None)):
        found = torch_moment(torch.as_tensor(d), rate, priors, square).exp().numpy() / 0.3
        expected = (parts / scales**2).sum(1, keepdims=True) if expected is None else expected
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_mass_of_movements_in_torch_is_that_of_numpy() -> None:
    priors, z = TransPriors(), np.array([[-2.0, 1.5], [-0.3, 0.1], [0.5, 4.0]])
    ends = [-np.logaddexp(0.0, sign * z[:, [i]]) for i in (0, 1) for sign in (-1.0, 1.0)]
    found = _one_step.torch_log_mass([torch.as_tensor(each) for each in ends], priors)
    np.testing.assert_allclose(found.exp().numpy(), _one_step.mass_of(ends, priors), rtol=1e-10)


def test_the_movement_of_a_hill_in_torch_comes_with_its_derivative() -> None:
    b = torch.linspace(-3.0, 3.0, 7, dtype=torch.float64)[:, None].requires_grad_()
    ends = [torch.nn.functional.logsigmoid(torch.tensor(z, dtype=torch.float64)) for z in (-2.0, 2.0, 1.5, -1.5)]
    movement, derivative = _one_step.torch_movement(b, ends)
    (by_autograd,) = torch.autograd.grad(movement.sum(), b)
    np.testing.assert_allclose(derivative.detach().numpy(), by_autograd.numpy(), rtol=1e-9)


def test_sigma_points_have_the_moments_of_two_standard_normals() -> None:
    u, v, w = np.array(_turn.SIGMA_POINTS).T
    moments = [w.sum(), w @ u, w @ v, w @ u**2, w @ v**2, w @ (u * v), w @ u**4, w @ v**4]
    np.testing.assert_allclose(moments, [1, 0, 0, 1, 1, 0, 3, 3], atol=1e-12)


def test_the_mean_weight_of_a_curve_that_is_known_is_its_weight() -> None:
    """Beside a point that does not matter and one that has no turn."""
    x, scale = np.linspace(-3.0, 1.2, 25), 0.5
    shapes, consts = np.array([[-2.0, 1.0, 0.2, 1.0], [-2.0, 1.0, 0.2, 1.0]]), np.array([[1.0, -1.0], [1.0, 1.0]])
    b = np.array([2.0, 1.5])
    hills = expit(LN2 * np.exp(shapes[:, [1, 3]])[..., None] * consts[..., None] * (x - shapes[:, [0, 2], None]))
    curves = np.log1p((np.exp(b)[:, None] * hills).sum(1))
    log_z = np.array([[[-1.0, -40.0], [-2.0, -1.0]]])
    modes = np.broadcast_to(np.r_[0.0, b], (1, 2, 2, 3)).copy()
    _turn._add_mean(log_z, modes, np.full((1, 2, 2, 3, 3), 1e-14), shapes[None], consts[None], x, scale)
    want = _turn.weight(x, curves, scale)
    assert want[0] > 0.1
    assert want[1] == 0.0
    np.testing.assert_allclose(log_z[0, 0], [-1.0 + np.log(want[0]), -np.inf], rtol=1e-4)
    np.testing.assert_allclose(log_z[0, 1], np.array([-2.0, -1.0]) + np.log(_turn.LEAST_WEIGHT))


def test_the_weight_of_a_turn_in_torch_is_that_of_numpy() -> None:
    priors, x = TransPriors(), _turn.points(AXIS)
    curves = np.stack([0.5 * x, np.sin(x), -0.8 * (x + 1) ** 2, 0.05 * (x + 0.5) ** 2])
    found = _turn._torch(lambda *_: torch.as_tensor(curves), {"a": torch.zeros(4, 1)}, None, AXIS, priors)
    expected = _turn.weight(x, curves, priors.turn_scale)
    np.testing.assert_allclose(found.exp().numpy()[:, 0], expected, rtol=1e-6, atol=1e-9)
    assert expected[0] == 0.0
    assert (np.diff(expected[[0, 3, 1]]) > 0).all()
