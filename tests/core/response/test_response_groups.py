"""Groups of curves whose place and steepness are known."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.curves import curve
from dream_sc._core.response.response_groups import GROUPS, membership

END = -3.0
NO = np.zeros(2)


def hill(ec50: float, n: float, b: float = 1.0, sd: float = 0.0, seed: int = 0) -> np.ndarray:
    """Draws ``(100, 4)`` of one Hill."""
    k = ec50 + sd * np.random.default_rng(seed).normal(size=100)
    return np.stack([np.zeros(100), np.full(100, b), k, np.full(100, np.log(n))], 1)


@pytest.mark.parametrize(
    ("ec50", "n", "b", "group"),
    [
        (-0.4, 4.0, 0.5, "early"),
        (-1.5, 0.8, 0.5, "proportional"),
        (-1.5, 9.5, 0.5, "threshold"),
        (-2.7, 4.0, 0.5, "buffered"),
        (-0.4, 4.0, -0.5, "early"),
        (-2.7, 4.0, -0.5, "buffered"),
        (-1.5, 3.0, 0.01, "buffered"),  # hardly a change
    ],
)
def test_a_curve_is_in_its_group(ec50, n, b, group):
    found = membership(hill(ec50, n, b), curve("single_hill"), NO, END, 1.0)
    assert dict(zip(GROUPS, found.probability, strict=True))[group] == 1.0
    assert found.probability.sum() == pytest.approx(1.0)


def test_half_of_the_change_is_where_the_curve_has_it():
    c = curve("single_hill")
    found = membership(hill(-1.2, 3.0, 1.5), c, NO, END, 1.0)
    at = c.log_curve(np.array([0.0, found.half_at[0], END]), hill(-1.2, 3.0, 1.5)[:1], NO)[0]
    assert at[1] - at[0] == pytest.approx(0.5 * (at[2] - at[0]), abs=0.01)


def test_an_uncertain_place_is_shared_between_groups():
    found = membership(hill(-1.0, 5.0, 0.5, sd=0.8), curve("single_hill"), NO, END, 1.0)
    assert (found.probability > 0.05).sum() >= 3
    assert found.half_at[1] < found.half_at[0] < found.half_at[2] < 0
    sure = membership(hill(-1.0, 5.0, 0.5, sd=0.05), curve("single_hill"), NO, END, 1.0)
    assert np.ptp(sure.half_at) < np.ptp(found.half_at)


def test_a_trough_on_the_way_is_in_no_group():
    c = curve("additive_hill")
    draws = np.tile([0.0, 2.0, 2.0, -0.8, np.log(4.0), -2.2, np.log(4.0)], (10, 1))
    found = membership(draws, c, np.array([1.0, -1.0]), END, 1.0)
    assert found.probability.sum() == 0.0
    assert np.isnan(found.half_at).all()
