"""How much units within guides differ: recovered from simulated sums, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.response.replicates import Units, row_overdispersion

N_GUIDES, PER_GUIDE, N_FEATURES = 12, 6, 300


def _sums(rng: np.random.Generator, variation: float, groups: int = 1) -> tuple[np.ndarray, np.ndarray, Units]:
    """Counts and what is expected of them ``(T, R)``; units differ by gamma factors with this squared variation."""
    guide = np.repeat(np.arange(N_GUIDES), PER_GUIDE)
    unit = np.tile(np.arange(PER_GUIDE), N_GUIDES)  # the labels are the same in each guide
    factor = np.ones((N_FEATURES, len(unit)))
    if variation > 0:
        factor = rng.gamma(1 / variation, variation, (N_FEATURES, len(unit)))
    of_guide = np.exp(rng.normal(0, 0.5, (N_FEATURES, N_GUIDES)))[:, guide]
    expected = np.repeat(rng.uniform(40, 90, (1, len(unit))), N_FEATURES, 0)
    mean = expected * of_guide * factor
    counts = np.concatenate([rng.poisson(mean / groups) for _ in range(groups)], 1).astype(float)
    units = Units.of(np.tile(unit, groups), np.tile(guide, groups))
    return counts, np.tile(expected / groups, (1, groups)), units


@pytest.mark.parametrize("variation", [0.1, 0.6])
def test_variation_of_units_is_recovered(variation: float, rng: np.random.Generator) -> None:
    counts, expected, units = _sums(rng, variation)
    none = np.zeros(counts.shape[1])
    rows, squared = row_overdispersion(counts, expected, np.full(N_FEATURES, 0.3), none, units)
    assert squared.mean() == pytest.approx(variation, rel=0.1)
    np.testing.assert_allclose(rows, np.repeat(squared[:, None], counts.shape[1], 1))  # a row for each unit


def test_no_variation_is_found_where_there_is_none(rng: np.random.Generator) -> None:
    counts, expected, units = _sums(rng, 0.0)
    squared = row_overdispersion(counts, expected, np.full(N_FEATURES, 0.3), np.zeros(counts.shape[1]), units)[1]
    assert np.median(squared) < 0.005


def test_the_noise_of_cells_is_not_taken_for_that_of_units(rng: np.random.Generator) -> None:
    counts, expected, units = _sums(rng, 0.05)  # as if from the overdispersion 0.5 of five cells in each row
    few = np.full(counts.shape[1], 0.2)
    squared = row_overdispersion(counts, expected, np.full(N_FEATURES, 0.5), few, units)[1]
    assert np.median(squared) < 0.02


def test_what_units_do_to_control_cells_is_not_counted_twice(rng: np.random.Generator) -> None:
    """Single cells vary by units as well: of rows of one cell, their overdispersion says all."""
    counts, expected, units = _sums(rng, 0.4)
    o, one = np.full(N_FEATURES, np.sqrt(0.4)), np.ones(counts.shape[1])
    assert (row_overdispersion(counts, expected, o, one, units)[0] == 0).all()
    rows, squared = row_overdispersion(counts, expected, o, 0.1 * one, units)
    assert (0.4 * 0.1 + rows[:, 0]).mean() == pytest.approx(0.4, rel=0.1)
    assert squared.mean() == pytest.approx(0.4, rel=0.15)


def test_rows_of_one_unit_share_its_variance(rng: np.random.Generator) -> None:
    counts, expected, units = _sums(rng, 0.4, groups=2)
    rows, squared = row_overdispersion(counts, expected, np.full(N_FEATURES, 0.3), np.zeros(counts.shape[1]), units)
    assert squared.mean() == pytest.approx(0.4, rel=0.1)
    np.testing.assert_allclose(rows, 2 * np.repeat(squared[:, None], counts.shape[1], 1))


def test_a_label_in_two_guides_is_two_units() -> None:
    units = Units.of(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))
    assert units.of_row.tolist() == [0, 1, 2, 3]
    assert units.guide.tolist() == [0, 0, 1, 1]
    assert units.spare == 2


def test_features_without_expectation_get_what_others_have(rng: np.random.Generator) -> None:
    counts, expected, units = _sums(rng, 0.4)
    expected[0] = np.nan
    rows, squared = row_overdispersion(counts, expected, np.full(N_FEATURES, 0.3), np.zeros(counts.shape[1]), units)
    assert squared[0] == pytest.approx(0.4, rel=0.2)
    assert np.isfinite(rows).all()


def test_the_order_of_rows_and_features_does_not_matter(rng: np.random.Generator) -> None:
    counts, expected, units = _sums(rng, 0.4)
    o, none = np.full(N_FEATURES, 0.3), np.zeros(counts.shape[1])
    before = row_overdispersion(counts, expected, o, none, units)[1]
    rows, features = rng.permutation(counts.shape[1]), rng.permutation(N_FEATURES)
    shuffled = Units(units.of_row[rows], units.guide)
    after = row_overdispersion(counts[features][:, rows], expected[features][:, rows], o, none, shuffled)[1]
    np.testing.assert_allclose(after, before[features], rtol=1e-9)
