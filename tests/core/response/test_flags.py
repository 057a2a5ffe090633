"""What is doubtful in a whole screen: each measure has the value that follows from its definition."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dream_sc._core.response.flags import flags

N_GUIDES, N_GROUPS = 10, 2
DOSAGE = np.array([-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, -0.25, 0.0, 0.0, 0.0])
CONTROL = np.arange(N_GUIDES) >= 7


def _prepared(cells: np.ndarray, offset: Any = None, control: np.ndarray = CONTROL, one_dosage: bool = False) -> Any:
    """Rows of guides x groups with so many cells each, ``(G, C)``."""
    guide, group = (x.ravel() for x in np.indices(cells.shape))
    row = np.repeat(np.arange(cells.size), cells.ravel())
    return SimpleNamespace(
        stats=SimpleNamespace(
            guide=guide, group=group, n_guides=len(cells), n_groups=cells.shape[1], exposure=cells.ravel().astype(float)
        ),
        dosage=SimpleNamespace(mean=np.where(control, 0.0, DOSAGE)[guide], control=control, error=np.zeros(len(cells))),
        rows=SimpleNamespace(row_of_cell=row, n_rows=cells.size),
        guide_offset=np.zeros(len(cells)) if offset is None else offset,
        one_dosage=one_dosage,
    )


def _found(prepared: Any, q: Any = (1.0, 1.0), cis: Any = None) -> dict[str, Any]:
    return {f.flag: f for f in flags(prepared, np.asarray(q), cis)}


EVEN = np.full((N_GUIDES, N_GROUPS), 40)


def test_a_sound_screen_raises_nothing() -> None:
    expected = EVEN.ravel() * 5.0
    counts = expected * 2.0 ** np.where(CONTROL, 0.0, DOSAGE).repeat(2)
    found = _found(_prepared(EVEN), [0.01] * 10 + [0.2, np.nan] + [0.9] * 19, (counts, expected))
    assert not any(f.raised for f in found.values())
    assert found["many_responders"].value == pytest.approx(1 / 3)
    assert found["batches_follow_dosage"].value == pytest.approx(0.0, abs=1e-12)
    assert found["size_factors_follow_dosage"].value == 0.0
    assert found["few_ntc_guides"].value == 3.0
    assert found["knock_down_by_batch"].value == pytest.approx(1.0, abs=0.05)


def test_many_responders() -> None:
    found = _found(_prepared(EVEN), [0.01] * 12 + [0.9] * 8)["many_responders"]
    assert found.raised
    assert found.value == pytest.approx(0.6)


def test_dosage_between_batches_is_a_correlation_ratio() -> None:
    cells = np.array([[60, 20]] * 3 + [[20, 60]] * 4 + [[40, 40]] * 3)
    found = _found(_prepared(cells))["batches_follow_dosage"]
    x = np.repeat(np.repeat(DOSAGE, 2), cells.ravel())
    group, acting = (
        np.repeat(np.tile([0, 1], N_GUIDES), cells.ravel()),
        np.repeat(np.repeat(CONTROL, 2), cells.ravel()) == 0,
    )
    x, group = x[acting], group[acting]
    between = sum((group == c).sum() * (x[group == c].mean() - x.mean()) ** 2 for c in (0, 1))
    assert found.value == pytest.approx(between / ((x - x.mean()) ** 2).sum())
    assert found.raised


@pytest.mark.parametrize(("dosage", "error", "raised"), [(-9.5, 1.2, True), (-9.5, 0.3, False), (-4.4, 1.2, False)])
def test_a_guide_alone_at_the_end_of_the_axis(dosage: float, error: float, raised: bool) -> None:
    prepared = _prepared(EVEN)
    prepared.dosage.mean = np.where(prepared.stats.guide == 0, dosage, prepared.dosage.mean)
    prepared.dosage.error[0] = error
    found = _found(prepared)["lone_guide_at_end"]
    assert found.raised == raised
    assert found.value == pytest.approx(-2.5 - dosage)


def test_an_end_of_well_known_dosage_does_not_hide_the_other() -> None:
    prepared = _prepared(EVEN)
    x = np.select([prepared.stats.guide == 0, prepared.stats.guide == 6], [-9.0, 8.0], prepared.dosage.mean)
    prepared.dosage.mean = x
    prepared.dosage.error[0] = 1.2
    found = _found(prepared)["lone_guide_at_end"]
    assert found.raised
    assert found.value == pytest.approx(6.5)  # not the 8 of the activating guide, whose dosage is known


def test_one_dosage_follows_no_batch() -> None:
    prepared = _prepared(np.array([[60, 20]] * 5 + [[20, 60]] * 5))
    prepared.dosage.mean = np.zeros_like(prepared.dosage.mean)
    assert _found(prepared)["batches_follow_dosage"].value == 0.0


@pytest.mark.parametrize(("share", "raised"), [(0.1, False), (0.15, True)])
def test_guides_that_disagree_are_counted_among_known_features(share: float, raised: bool) -> None:
    p = np.where(np.arange(20) < 20 * share, 1e-7, 2e-6)
    found = flags(_prepared(EVEN), np.ones(2), None, np.append(p, np.full(5, np.nan)))
    (one,) = (f for f in found if f.flag == "guides_disagree")
    assert one.value == pytest.approx(share)
    assert one.raised == raised
    (none,) = (f for f in flags(_prepared(EVEN), np.ones(2), None, np.full(3, np.nan)) if f.flag == one.flag)
    assert none.value == 0.0


def test_offsets_that_follow_the_dosage() -> None:
    found = _found(_prepared(EVEN, 0.3 * DOSAGE))["size_factors_follow_dosage"]
    assert found.raised
    assert found.value == pytest.approx(0.9)
    assert not _found(_prepared(EVEN, 0.1 * DOSAGE))["size_factors_follow_dosage"].raised


def test_knock_down_that_differs_between_batches() -> None:
    expected = EVEN.ravel() * 20.0
    strength = np.tile([1.0, 0.4], N_GUIDES)
    counts = expected * 2.0 ** (np.where(CONTROL, 0.0, DOSAGE).repeat(2) * strength)
    # the level of a batch, which the technical step may have got wrong, is no knock-down
    counts *= np.tile([1.0, 1.3], N_GUIDES)
    found = _found(_prepared(EVEN), cis=(counts, expected))["knock_down_by_batch"]
    assert found.raised
    assert found.value == pytest.approx(2.5, rel=0.05) or found.value == pytest.approx(0.4, rel=0.05)


def test_few_counts_say_nothing_of_the_knock_down() -> None:
    gen = np.random.default_rng(0)
    expected = EVEN.ravel() * 0.05
    raised = 0
    for _ in range(200):
        counts = gen.poisson(expected * 2.0 ** np.where(CONTROL, 0.0, DOSAGE).repeat(2)).astype(float)
        found = _found(_prepared(EVEN), cis=(counts, expected))
        raised += "knock_down_by_batch" in found and found["knock_down_by_batch"].raised
    assert raised <= 10


@pytest.mark.parametrize("over", [0.0, 0.15, 0.3])
def test_guides_that_move_nothing_differ_between_no_batches(over: float) -> None:
    gen = np.random.default_rng(1)
    expected = EVEN.ravel() * 20.0
    raised = 0
    for _ in range(300):
        counts = gen.poisson(expected * np.exp(np.where(CONTROL.repeat(2), 0.0, gen.normal(0, over, 2 * N_GUIDES))))
        raised += _found(_prepared(EVEN), cis=(counts.astype(float), expected))["knock_down_by_batch"].raised
    assert raised <= 3  # of 300


def test_few_ntc_guides_matter_where_few_guides_target() -> None:
    one = np.arange(N_GUIDES) >= 9
    assert not _found(_prepared(EVEN, control=one))["few_ntc_guides"].raised  # nine graded guides
    assert _found(_prepared(EVEN, control=one, one_dosage=True))["few_ntc_guides"].raised
    few = np.where(np.isin(np.arange(N_GUIDES), [0, 1, 2, 9])[:, None], EVEN, 0)
    prepared = _prepared(few, control=one)
    prepared.stats.guide = prepared.stats.guide[few.ravel() > 0]
    for name in ("group", "exposure"):
        setattr(prepared.stats, name, getattr(prepared.stats, name)[few.ravel() > 0])
    prepared.dosage.mean = prepared.dosage.mean[few.ravel() > 0]
    prepared.stats.n_groups, prepared.rows = 1, None
    found = _found(prepared)["few_ntc_guides"]
    assert found.raised
    assert found.value == 1.0


def test_a_few_features_or_scores_say_nothing_of_size_factors() -> None:
    assert "many_responders" not in _found(_prepared(EVEN), [0.01] * 12)
    scores = _prepared(EVEN)
    scores.guide_offset = None
    assert "many_responders" not in _found(scores, [0.01] * 30)


def test_guides_that_disagree_where_they_share_one_level() -> None:
    p = np.array([1e-9] * 3 + [0.5] * 17 + [np.nan])
    found = {f.flag: f for f in flags(_prepared(EVEN), np.ones(21), None, p)}["guides_disagree"]
    assert found.value == pytest.approx(0.15)
    assert found.raised
