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


def test_intervals_hold_95_percent_of_what_draws_are_of() -> None:
    """Ranks over n + 1: of 199 draws that are 1 to 199, the fifth from either end."""
    draws = np.tile([1.0, -1.5, 0.0, 0.4], (1, 199, 1))
    draws[0, :, 2] = np.random.default_rng(0).permutation(np.arange(1.0, 200.0))
    out = summary.summarise(draws, curve("single_hill"), np.zeros((1, 2)), AXIS, NEGBINOM)
    found = [out[f"log2_ec50{part}"][0] for part in ("", "_q025", "_q975")]
    np.testing.assert_allclose(found, [100.0, 5.0, 195.0], rtol=1e-12)
    curves = curve("single_hill").log_curve(np.array([-3.0, 0.0]), draws[0], np.zeros((199, 2)))
    change = np.sort((curves[:, 0] - curves[:, 1]) / np.log(2))
    found = [out[f"log2fc_full{part}"][0] for part in ("", "_q025", "_q975")]
    np.testing.assert_allclose(found, change[[99, 4, 194]], rtol=1e-12)


def test_an_ec50_beyond_either_end_is_not_inside() -> None:
    at = np.array([[-3.5, -3.01, -2.99, 0.0, 1.19, 1.21, 2.0, 5.0]])
    assert summary.inside(at, AXIS)[0] == 3 / 8


@pytest.mark.parametrize("amplitude", [0.3, -0.3])
def test_the_inflection_is_where_the_curve_is_steepest(amplitude: float, rng: np.random.Generator) -> None:
    """Up or down: by the size of the slope."""
    c = curve("single_hill")
    draws = _tight([1.0, amplitude, -1.5, 0.9], rng)
    out = summary.summarise(draws, c, np.zeros((1, 2)), AXIS, NEGBINOM)
    x = AXIS.points(summary.N_GRID)
    fine = c.log_curve(np.concatenate([x - 1e-4, x + 1e-4]), draws[0, :1], np.zeros((1, 2)))[0]
    want = x[np.abs(fine[len(x) :] - fine[: len(x)]).argmax()]
    assert out["inflection"][0] == want
    assert abs(want + 1.5) < 0.3


def _piecewise(*points: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    x = AXIS.points(summary.N_GRID)
    return np.interp(x, *zip(*points, strict=True))[None], x


@pytest.mark.parametrize(("arm", "expected"), [(0.19, "increasing"), (0.21, "biphasic_min")])
def test_both_arms_of_a_turn_move_by_a_fifth_of_a_log2(arm: float, expected: str) -> None:
    curves, x = _piecewise((-3.0, arm), (-0.9, 0.0), (1.2, 0.8))  # the other arm is long
    assert summary.CLASSES[summary._shapes(curves, x, AXIS)[0][0]] == expected
    curves, x = _piecewise((-3.0, -arm), (-0.9, 0.0), (1.2, -0.8))
    expected = {"increasing": "decreasing", "biphasic_min": "biphasic_max"}[expected]
    assert summary.CLASSES[summary._shapes(curves, x, AXIS)[0][0]] == expected


@pytest.mark.parametrize(("within", "expected"), [(0.75, "increasing"), (0.85, "threshold_increasing")])
def test_a_threshold_has_four_fifths_of_its_move_within_a_log2(within: float, expected: str) -> None:
    rest = (1 - within) / 2
    curves, x = _piecewise((-3.0, 0.0), (-1.3, rest), (-0.6, rest + within), (1.2, 1.0))
    assert summary.CLASSES[summary._shapes(curves, x, AXIS)[0][0]] == expected
    few = Axis(-3.0, 1.2, np.array([-1.2, -0.9]))  # no guide lies beyond it on the lower side
    assert summary.CLASSES[summary._shapes(curves, x, few)[0][0]] == "increasing"
    little = summary._shapes(0.19 * curves, x, AXIS)[0][0]
    assert summary.CLASSES[little] == "increasing"


@pytest.mark.parametrize(("within", "expected"), [(0.75, False), (0.85, True)])
def test_one_gap_between_guides_holds_four_fifths_of_the_move(within: float, expected: bool) -> None:
    rest = (1 - within) / 2
    curves, x = _piecewise((-3.0, 0.0), (-2.0, rest), (-1.0, rest + within), (1.2, 1.0))
    apart = Axis(-3.0, 1.2, np.array([-3.0, -2.5, -2.1, -0.9, -0.5, 1.2]))
    assert summary._shapes(curves, x, apart)[1][0] == expected
    assert not summary._shapes(0.19 * curves, x, apart)[1][0]
    step, x = _piecewise((-3.0, 0.0), (-1.6, 0.0), (-1.5, 1.0), (1.2, 1.0))
    close = Axis(-3.0, 1.2, np.array([-3.0, -1.63, -1.47, 1.2]))  # two guides within 0.2 log2 make no gap
    assert not summary._shapes(step, x, close)[1][0]


@pytest.mark.parametrize(("low", "high", "has"), [(-0.09, 1.0, (False, True)), (-0.11, 0.09, (True, False))])
def test_an_end_near_ntc_has_no_fold_change(low: float, high: float, has: tuple[bool, bool]) -> None:
    draws = np.tile([1.0, 1.0, 0.0, 0.4], (1, 10, 1))
    axis = Axis(low, high, np.linspace(low, high, 5))
    out = summary.summarise(draws, curve("single_hill"), np.zeros((1, 2)), axis, NEGBINOM)
    assert (np.isfinite(out["log2fc_full"][0]), np.isfinite(out["log2fc_max"][0])) == has
    assert np.isfinite(out["log2fc_full_q975"][0]) == has[0]


def test_slopes_are_per_log2_of_dosage(rng: np.random.Generator) -> None:
    """Of shares too, whose effect is no multiple of the predictor's change."""
    binomial, c = likelihood("binomial"), curve("single_hill")
    draws = _tight([-1.0, 1.5, -0.2, 0.4], rng)
    out = summary.summarise(draws, c, np.zeros((1, 2)), AXIS, binomial)
    h = 1e-3
    logit = c.log_curve(np.array([-h, h]), draws[0, :1], np.zeros((1, 2)))[0]
    share = 1 / (1 + np.exp(-logit))
    assert out["slope_ntc"][0] == pytest.approx((share[1] - share[0]) / (2 * h), rel=1e-3)


def test_curves_have_the_likeliest_class_that_agrees_with_the_change_by_a_knock_down() -> None:
    """Of a hundred curves each: most are of one class; where the change says the other way, the next that agrees."""
    code = np.repeat([[0, 3], [3, 0], [1, 2], [4, 5], [5, 4]], [60, 40], axis=1)
    gap = np.zeros(code.shape, dtype=bool)
    fall, rise = np.full(5, 0.5), np.full(5, -0.5)
    unknown = np.full(5, np.nan)
    for change, expected in (
        (rise, ["increasing", "increasing", "threshold_increasing", "biphasic_min", "biphasic_max"]),
        (fall, ["threshold_decreasing", "threshold_decreasing", "decreasing", "biphasic_min", "biphasic_max"]),
        (unknown, ["increasing", "threshold_decreasing", "decreasing", "biphasic_min", "biphasic_max"]),
    ):
        assert list(summary._classes(code, gap, change)["class"]) == expected
    np.testing.assert_allclose(summary._classes(code, gap, rise)["p_class"], [0.6, 0.4, 0.4, 0.6, 0.6])
