"""Which guides act, where all that act share one level."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from dream_sc._core.response import inert_guides
from dream_sc._core.response.inert_guides import Distances, without_guides
from dream_sc._core.response.prepare import Prepared
from dream_sc._core.response.rows import Layout
from dream_sc._core.types import Axis, GuideStats, RowDosage

SCALES = np.array([0.4, 1.0, 2.0])
VARIANCE, TAU = 0.1**2, 0.1


def distances(effects: np.ndarray, seed: int = 0) -> Distances:
    """Guides with these effects ``(T, n)``, with errors of counts and effects of their own."""
    rng, n_t = np.random.default_rng(seed), len(effects)
    value = effects + rng.normal(0, np.hypot(VARIANCE**0.5, TAU), effects.shape)
    none = np.zeros((n_t, 1))
    return Distances(value, np.full(effects.shape, VARIANCE), np.array([TAU]), none, none + 0.03)


def found(effects: np.ndarray, n_rest: int = 300) -> tuple[np.ndarray, bool]:
    likely = inert_guides._acting(distances(effects), 1.0, SCALES, n_rest)
    return likely.probability, likely.disagree


def programme(seed: int, n: int = 30, size: float = 0.6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return size * rng.choice([-1.0, 1.0], n) * rng.uniform(0.7, 1.3, n)


def density(x: float, variance: float) -> float:
    weight, sd = inert_guides.OWN
    narrow, wide = (stats.norm.pdf(x, scale=s) for s in (variance**0.5, (variance + sd**2) ** 0.5))
    # the kernel leaves the factor of the normal density out
    return ((1 - weight) * narrow + weight * wide) * np.sqrt(2 * np.pi)


def moment(theta: float) -> float:
    return float(np.mean([theta**2 / s**2 * stats.norm.pdf(theta, scale=s) for s in SCALES]))


def test_the_likelihood_of_a_set_is_its_integral() -> None:
    value, variance = np.array([[0.5, 0.7, 0.02]]), np.array([[0.01, 0.02, 0.01]])
    d = Distances(value, variance, np.array([0.1]), np.zeros((1, 1)), np.full((1, 1), 1e-6))
    sets = np.array([[True, True, False]])
    out = inert_guides._shared(d, 1.0, SCALES, sets)[0]
    v = variance[0] + 0.01
    none = np.prod([density(x, s) for x, s in zip(value[0], v, strict=True)])

    def joint(theta: float) -> float:
        at = value[0] - np.array([theta, theta, 0.0])
        return moment(theta) * float(np.prod([density(x, s) for x, s in zip(at, v, strict=True)]))

    expected = integrate.quad(joint, -3, 3, points=[0.5, 0.7], limit=200)[0]
    np.testing.assert_allclose(out[0], np.log(none), atol=1e-6)
    np.testing.assert_allclose(out[1], np.log(expected), atol=0.05)


@pytest.mark.parametrize(("n", "inert"), [(4, 1), (5, 2), (6, 1), (6, 2), (10, 3), (12, 5)])
def test_guides_that_do_nothing_are_found(n: int, inert: int) -> None:
    effects = np.tile(programme(1)[:, None], (1, n))
    effects[:, n - inert :] = 0.0
    probability, disagree = found(effects)
    np.testing.assert_array_equal(probability < 0.05, np.arange(n) >= n - inert)
    assert not disagree


@pytest.mark.parametrize("n", [3, 4, 6])
def test_without_evidence_all_act(n: int) -> None:
    for effects in (np.zeros((30, n)), np.tile(programme(2)[:, None], (1, n))):
        probability, disagree = found(effects)
        np.testing.assert_array_equal(probability, 1.0)
        assert not disagree


@pytest.mark.parametrize("n", [3, 4, 6])
@pytest.mark.parametrize("n_off_target", [1, 2])
def test_off_target_programmes_make_no_other_guide_inert(n: int, n_off_target: int) -> None:
    own = np.zeros((60, n))
    own[:30, :n_off_target] = programme(3, size=1.0)[:, None]
    with_target = own.copy()
    with_target[30:] = programme(4)[:, None]
    for effects in (own, with_target):
        np.testing.assert_array_equal(found(effects)[0], 1.0)


def test_where_half_act_nothing_is_decided_and_it_is_said() -> None:
    effects = np.tile(programme(5)[:, None], (1, 6))
    effects[:, 3:] = 0.0
    probability, disagree = found(effects)
    np.testing.assert_array_equal(probability, 1.0)
    assert disagree


def test_a_guide_with_half_the_effect_is_not_inert() -> None:
    effects = np.tile(programme(6)[:, None], (1, 6))
    effects[:, 5] *= 0.5
    np.testing.assert_array_equal(found(effects)[0], 1.0)


def test_guides_of_graded_strength_are_not_inert_and_disagree() -> None:
    effects = programme(8, size=0.9)[:, None] * np.array([1.0, 1.0, 1.0, 1.0, 0.4, 0.35, 0.0])
    probability, disagree = found(effects)
    np.testing.assert_array_equal(probability < 0.05, [False] * 6 + [True])
    assert disagree


def test_one_feature_does_not_decide() -> None:
    effects = np.tile(programme(7)[:, None], (1, 6))
    effects[0] = [3.0, 3.0, 3.0, 3.0, 3.0, 0.0]
    np.testing.assert_array_equal(found(effects)[0], 1.0)


def test_rows_and_cells_of_inert_guides_are_left_out() -> None:
    guide = np.array([0, 0, 1, 2, 2])
    stats_ = GuideStats(np.arange(10.0).reshape(2, 5), np.ones(5), np.ones(5), guide, np.array([0, 1, 0, 0, 1]), 3, 2)
    dosage = RowDosage(-1.0 * (guide < 2), np.zeros(5), np.zeros(3), np.array([False, False, True]))
    rows = Layout(np.array([0, 1, 2, 2, 3, 4, -1]), guide, stats_.group, dosage)
    prepared = Prepared.of_sums(stats_, dosage, np.ones(2), axis=Axis.of(np.array([-1.0])), group_effect_sd=0.1)
    out = without_guides(replace(prepared, rows=rows), np.array([False, True, False]))
    assert out.rows is not None
    np.testing.assert_array_equal(out.stats.guide, [0, 0, 2, 2])
    np.testing.assert_array_equal(out.stats.counts[0], [0, 1, 3, 4])
    np.testing.assert_array_equal(out.dosage.mean, [-1, -1, 0, 0])
    np.testing.assert_array_equal(out.rows.row_of_cell, [0, 1, -1, -1, 2, 3, -1])
    np.testing.assert_array_equal(out.rows.guide, out.stats.guide)
