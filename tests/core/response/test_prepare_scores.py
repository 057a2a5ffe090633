"""Scores of few control cells: replicates at one dosage tell how much cells differ."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, t

from dream_sc._core.response.prepare_scores import _noise
from dream_sc._core.response.rows import Layout
from dream_sc._core.sums.pair_sums import ScoreStats
from dream_sc._core.types import RowDosage


def _alone(rng: np.random.Generator, sd: float) -> tuple[Any, ...]:
    """Every cell a row: six dosages in two groups, four cells each; dosage and group both move the score."""
    kind = np.repeat(np.arange(12), 4)
    group, dose = kind // 6, (kind % 6) - 3.0
    y = 2.0 * dose + 5.0 * group + rng.normal(0, sd, (200, 48))
    sums = ScoreStats(np.ones_like(y), y, y**2, np.zeros(200))
    guide = kind % 6
    rows = Layout(np.arange(48), guide, group, RowDosage(dose, np.zeros(48), np.zeros(6)))
    return sums, rows, SimpleNamespace(control=np.arange(6) == 3), y, kind


def test_single_cells_at_one_dosage_in_one_group_are_replicates(rng: np.random.Generator) -> None:
    sums, rows, guides, y, kind = _alone(rng, 0.7)
    found = _noise(sums, rows, guides, np.full(200, 9.0))
    within = sum(((y[:, kind == k] - y[:, kind == k].mean(1, keepdims=True)) ** 2).sum(1) for k in range(12))
    widened = t.ppf(0.975, 36) / norm.ppf(0.975)
    np.testing.assert_allclose(found, np.sqrt(within / 36) * widened, rtol=1e-9)
    assert found.mean() == pytest.approx(0.7 * widened, rel=0.03)


def test_many_control_cells_are_believed(rng: np.random.Generator) -> None:
    sums, rows, *_ = _alone(rng, 0.7)
    many = SimpleNamespace(control=np.ones(6, dtype=bool))
    more = Layout(np.r_[np.arange(48), np.zeros(10, int)], rows.guide, rows.group, rows.dosage)
    np.testing.assert_array_equal(_noise(sums, more, many, np.full(200, 9.0)), 9.0)
