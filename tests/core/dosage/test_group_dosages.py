"""Dosages that differ between technical groups: told where they do, silent where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.dosage.group_dosages import Differs, between_groups
from dream_sc._core.types import CisCells

N_GUIDES, N_NTC, PER_GUIDE = 10, 6, 120


def _cells(
    rng: np.random.Generator, differs: float, *, mean: float = 4.0, escape: float = 1 / 6
) -> tuple[CisCells, np.ndarray]:
    """Guides from -2.5 to 0.5 log2, which differ by this sd (log2) between two groups; a share of the cells escapes."""
    guide = np.repeat(np.arange(N_GUIDES + N_NTC), PER_GUIDE)
    group = rng.integers(0, 2, len(guide))
    dosage = np.append(np.linspace(-2.5, 0.5, N_GUIDES), np.zeros(N_NTC))
    own = rng.normal(0, differs, (N_GUIDES + N_NTC, 2))
    own[N_GUIDES:] = 0.0
    log2 = (dosage[:, None] + own)[guide, group] + rng.normal(0, 0.2, len(guide)) * (guide < N_GUIDES)
    log2[(rng.random(len(guide)) < escape) & (guide < N_GUIDES)] = 0.0
    exposure = mean * rng.lognormal(0, 0.3, len(guide)) * np.array([1.0, 1.4])[group]
    counts = rng.poisson(exposure * 2.0**log2 * rng.gamma(6.0, 1 / 6.0, len(guide))).astype(float)
    control = np.arange(N_GUIDES + N_NTC) >= N_GUIDES
    return CisCells(counts, exposure, guide, control, 0.4), group


def test_silent_where_guides_act_alike(rng: np.random.Generator) -> None:
    found = [between_groups(*_cells(rng, 0.0)) for _ in range(60)]
    assert sum(each.clear for each in found) <= 1
    p = np.array([each.p_value for each in found])
    assert 0.3 < p.mean() < 0.7
    assert (p < 0.05).mean() <= 0.15


def test_told_where_they_differ(rng: np.random.Generator) -> None:
    found = [between_groups(*_cells(rng, 0.5, escape=0.0)) for _ in range(20)]
    assert sum(each.clear for each in found) >= 19
    # by the sd of what each group has of its own
    assert np.mean([each.sd for each in found]) == pytest.approx(0.5, abs=0.12)


def test_a_level_that_differs_for_all_cells_is_none_of_the_guides(rng: np.random.Generator) -> None:
    cells, group = _cells(rng, 0.0)
    counts = cells.counts.copy()
    counts[group == 1] = rng.poisson(3 * counts[group == 1])  # controls, too
    assert not between_groups(CisCells(counts, cells.exposure, cells.guide, cells.is_control, 0.4), group).clear


def test_too_few_counts_say_nothing(rng: np.random.Generator) -> None:
    cells, group = _cells(rng, 1.0, mean=0.002)
    found = between_groups(cells, group)
    assert np.isnan(found.sd)
    assert not found.clear
    assert not Differs(0.5, 0.2).clear
    assert not Differs(0.1, 1e-9).clear


def test_guides_in_one_group_each_say_nothing(rng: np.random.Generator) -> None:
    """A guide is compared with itself in another group: with cells in one only, it is not."""
    cells, group = _cells(rng, 0.5)
    one = np.zeros_like(group)
    apart = (cells.guide % 2) * ~cells.is_control[cells.guide]  # controls in both
    apart = np.where(cells.is_control[cells.guide], group, apart)
    for of_cell in (one, apart):
        found = between_groups(cells, of_cell)
        assert np.isnan(found.sd)
        assert np.isnan(found.p_value)
