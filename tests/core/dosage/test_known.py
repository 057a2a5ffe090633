"""Dosages that are known, nodes of dosages, and densities of their population: against formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from dream_sc._core.dosage import known
from dream_sc._core.dosage.nodes import dosage_nodes, two_parts
from dream_sc._core.dosage.population import log_student


def test_cells_of_a_label_give_its_mean_and_the_spread_beyond_their_errors() -> None:
    log2, sd = np.array([1.0, 2.0, 6.0, 4.0, 9.0]), np.array([0.5, 0.1, 1.0, 0.3, 0.0])
    found = known.of_cells(log2, sd, np.array([0, 0, 0, 1, -1]), 2)
    np.testing.assert_allclose(found.mean, [3.0, 4.0])
    error = (0.25 + 0.01 + 1.0) / 3
    np.testing.assert_allclose(found.sd, [np.sqrt(error / 3), 0.3])
    np.testing.assert_allclose(found.spread, [np.sqrt((4.0 + 1.0 + 9.0) / 2 - error), 0.0])


def test_the_sd_of_a_log_is_that_of_the_log_normal() -> None:
    value, sd = known.to_log2(np.array([4.0, 0.0]), np.array([2.0, 1.0]))
    np.testing.assert_allclose(value, [2.0, np.nan])
    np.testing.assert_allclose(sd, [np.sqrt(np.log(1.25)) / np.log(2), np.nan])


def test_dose_0_is_far_below_the_lowest_dose() -> None:
    zero = known.zero_of(np.array([-30.0, 1.0, 3.0]), np.array([True, False, False]))
    assert zero == 1.0 - 24.0
    np.testing.assert_array_equal(known.above(np.array([np.nan, 1.0, 3.0]), zero), [0.0, 24.0, 26.0])


def test_nodes_have_the_moments_of_the_dosages_and_the_escaping_share_at_ntc_level() -> None:
    x, w = dosage_nodes(np.array([-2.0, -1.0, -1.0]), np.array([0.5, 0.0, 0.0]), np.array([0.3, 0.2, 0.0]))
    np.testing.assert_allclose(w.sum(1), 1.0)
    np.testing.assert_allclose(w[:, -1], [0.3, 0.2, 0.0])
    np.testing.assert_array_equal(x[:, -1], [0.0, 0.0, -1.0])
    acting = w[0, :-1] / 0.7
    assert acting @ x[0, :-1] == pytest.approx(-2.0)
    assert acting @ (x[0, :-1] + 2.0) ** 2 == pytest.approx(0.25)
    np.testing.assert_array_equal((w[1:] > 0).sum(1), [2, 1])  # no spread: one node
    at, share = two_parts(np.array([-2.0]), np.array([0.3]))
    np.testing.assert_allclose([at[0], share[0]], [[-2.0, 0.0], [0.7, 0.3]])


def test_the_population_is_a_student_t() -> None:
    x = np.linspace(-4, 4, 9)
    np.testing.assert_allclose(log_student(x, -0.7, 1.3, 4.0), t.logpdf(x, 4.0, -0.7, 1.3), rtol=1e-12)
