"""The observed axis: how far the dosages of guides reach, given their errors."""

from __future__ import annotations

import numpy as np

from dream_sc._core.response.rows import SHARP_SD, Guides, reach_of

ALL = np.array([-1.6, -2.85, -1.26, 0.0]), np.array([0.18, 0.35, 0.22, 0.05])
CONTROL = np.array([False, False, False, True])


def _guides(acting: float, sd: float, *, from_zero: bool = False) -> Guides:
    """Three targeting guides, of which the last has escaping cells and this acting dosage."""
    escape = np.array([0.0, 0.0, 0.37, 0.0])
    of_acting = np.append(ALL[0][:2], [acting, 0.0]), np.append(ALL[1][:2], [sd, 0.05])
    return Guides.of(
        of_all=ALL,
        of_acting=of_acting,
        within_sd=np.zeros(4),
        escape=escape,
        control=CONTROL,
        level_error=0.0,
        from_zero=from_zero,
    )


def test_an_uncertain_acting_dosage_does_not_set_the_end_of_the_axis() -> None:
    axis = _guides(-3.95, 1.82).axis(np.arange(4))
    assert axis.low == -2.85  # of the guide whose dosage is sure
    assert axis.guides.tolist() == [-3.95, -2.85, -1.6]  # the guide stays where it is


def test_a_sharp_acting_dosage_sets_the_end() -> None:
    assert _guides(-3.95, 0.3).axis(np.arange(4)).low == -3.95


def test_the_end_moves_without_a_jump_as_a_dosage_gets_uncertain() -> None:
    lows = np.array([_guides(-3.95, sd).axis(np.arange(4)).low for sd in np.linspace(0.3, 2.0, 171)])
    assert lows[0] == -3.95
    assert lows[-1] == -2.85
    assert (np.diff(lows) >= 0).all()
    assert np.diff(lows).max() < 0.0101  # no more than the sd grows


def test_the_end_at_activation_is_treated_alike() -> None:
    up = -ALL[0]
    acting = np.array([1.6, 2.85, 3.95, 0.0]), np.array([0.2, 0.3, 1.82, 0.1])
    far = reach_of((up, ALL[1]), acting, np.full(4, 0.3), CONTROL)
    np.testing.assert_allclose(far, [1.6, 2.85, 3.95 - (1.82 - SHARP_SD), 0.0])


def test_where_all_dosages_are_uncertain_most_of_them_stand() -> None:
    sd = np.array([1.2, 1.0, 1.9, 0.1])
    reach = reach_of((ALL[0], sd), (ALL[0], sd), np.zeros(4), CONTROL)
    np.testing.assert_allclose(reach[:2], ALL[0][:2])
    assert reach[2] == ALL[0][2] + 0.7


def test_a_dosage_beyond_its_error_reaches_nowhere() -> None:
    sd = np.array([0.1, 0.1, 9.0, 0.1])
    assert reach_of((ALL[0], sd), (ALL[0], sd), np.zeros(4), CONTROL)[2] == 0.0


def test_doses_keep_their_ends() -> None:
    guides = _guides(3.0, 2.0, from_zero=True)
    assert guides.reach is None
