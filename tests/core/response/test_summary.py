"""Table columns against independent formulas on known curves."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.curves import curve
from dream_sc._core.likelihoods import likelihood
from dream_sc._core.response import summary
from dream_sc._core.types import Axis

NEGBINOM = likelihood("negbinom")
AXIS = Axis(-3.0, 1.2, np.linspace(-3, 1.2, 12))


def _tight(params: list[float], rng: np.random.Generator) -> np.ndarray:
    """Draws so close around a point that medians are its values."""
    return np.asarray(params) + 1e-6 * rng.normal(size=(1, 200, len(params)))


def _log2(params: list[float], x: float, name: str = "single_hill", consts: np.ndarray | None = None) -> float:
    c = curve(name)
    values = c.log_curve(np.array([x, 0.0]), np.array([params]), np.zeros((1, 2)) if consts is None else consts)[0]
    return float((values[0] - values[1]) / np.log(2))


def test_single_hill_columns(rng: np.random.Generator) -> None:
    params = [1.0, -1.5, -0.7, 0.4]
    out = summary.summarise(_tight(params, rng), curve("single_hill"), np.zeros((1, 2)), AXIS, NEGBINOM)
    assert out["log2_ec50"][0] == pytest.approx(-0.7, abs=1e-4)
    assert out["hill_n"][0] == pytest.approx(-np.exp(0.4), abs=1e-4)
    assert out["amplitude"][0] == pytest.approx(-1.5 / np.log(2), abs=1e-4)
    assert out["baseline"][0] == pytest.approx(np.e, abs=1e-4)
    assert out["log2fc_full"][0] == pytest.approx(_log2(params, -3.0), abs=1e-4)
    assert out["log2fc_half"][0] == pytest.approx(_log2(params, -1.5), abs=1e-4)
    assert out["log2fc_max"][0] == pytest.approx(_log2(params, 1.2), abs=1e-4)
    assert out["log2fc_range"][0] == pytest.approx(_log2(params, -3.0) - _log2(params, 1.2), abs=1e-4)
    assert out["p_ec50_inside"][0] == 1.0
    assert out["class"][0] == "decreasing"
    h = 1e-4
    slope = (_log2(params, h) - _log2(params, -h)) / (2 * h)
    assert out["slope_ntc"][0] == pytest.approx(slope, abs=1e-3)
    assert np.isnan(out["log2_ec50_b"][0])


def test_ends_without_guides_have_no_fold_change(rng: np.random.Generator) -> None:
    draws = _tight([1.0, 1.0, -1.0, 0.4], rng)
    short = Axis(-2.0, 0.05, np.linspace(-2, 0, 5))
    out = summary.summarise(draws, curve("single_hill"), np.zeros((1, 2)), short, NEGBINOM)
    assert np.isnan(out["log2fc_max"][0])
    assert np.isfinite(out["log2fc_full"][0])


@pytest.mark.parametrize(("signs", "expected"), [((-1.0, 1.0), "biphasic_min"), ((1.0, -1.0), "biphasic_max")])
def test_biphasic_classes(signs: tuple[float, float], expected: str, rng: np.random.Generator) -> None:
    params = [1.0, 1.5, 1.5, -2.0, 1.2, 0.2, 1.2]
    out = summary.summarise(_tight(params, rng), curve("additive_hill"), np.array([signs]), AXIS, NEGBINOM)
    assert out["class"][0] == expected
    assert out["hill_n"][0] == pytest.approx(signs[0] * np.exp(1.2), abs=1e-3)
    assert out["log2_ec50_b"][0] == pytest.approx(0.2, abs=1e-3)


def test_threshold_and_single_gap(rng: np.random.Generator) -> None:
    steep = _tight([1.0, -2.0, -1.0, np.log(9.0)], rng)
    out = summary.summarise(steep, curve("single_hill"), np.zeros((1, 2)), AXIS, NEGBINOM)
    assert out["class"][0].startswith("threshold_")
    sparse = Axis(-3.0, 1.2, np.array([-3.0, -2.6, -0.2, 1.2]))
    out = summary.summarise(steep, curve("single_hill"), np.zeros((1, 2)), sparse, NEGBINOM)
    assert out["single_gap"][0] == 1.0
    draws = _tight([1.0, -2.0, -1.0, 0.3], rng)
    gentle = summary.summarise(draws, curve("single_hill"), np.zeros((1, 2)), AXIS, NEGBINOM)
    assert gentle["single_gap"][0] == 0.0


def test_class_is_the_likeliest_among_the_draws(rng: np.random.Generator) -> None:
    """Half a log2 up in three draws of four, down in one."""
    rise, fall = _tight([1.0, 0.35, -1.0, 0.3], rng), _tight([1.0, -0.35, -1.0, 0.3], rng)
    draws = np.where(np.arange(200)[None, :, None] % 4 == 0, fall, rise)
    out = summary.summarise(draws, curve("single_hill"), np.zeros((1, 2)), AXIS, NEGBINOM)
    assert out["class"][0] == "increasing"
    assert out["p_class"][0] == pytest.approx(0.75, abs=0.05)


def test_blocks_do_not_change_a_feature(rng: np.random.Generator) -> None:
    draws = np.array([1.0, -1.0, -0.5, 0.5]) + 0.3 * rng.normal(size=(4, 300, 4))
    together = summary.summarise(draws, curve("single_hill"), np.zeros((4, 2)), AXIS, NEGBINOM)
    alone = summary.summarise(draws[2:3], curve("single_hill"), np.zeros((1, 2)), AXIS, NEGBINOM)
    for name, value in alone.items():
        assert (value[0] == together[name][2]) or (value[0] != value[0])
