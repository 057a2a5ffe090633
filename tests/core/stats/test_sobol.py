"""The points that draws are made from, against scipy; and which steps import what they need."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import chi2, kstest, norm, qmc, t

from dream_sc._core.stats.sobol import EDGE, sobol_points, student_scale


@pytest.mark.parametrize("n", [64, 100])
def test_points_are_the_first_of_a_scrambled_sequence(n: int) -> None:
    points = sobol_points(3, n, 5)
    assert points.shape == (n, 3)
    np.testing.assert_array_equal(
        points, qmc.Sobol(3, seed=5).random(128)[:n] if n > 64 else qmc.Sobol(3, seed=5).random(64)
    )
    assert (points >= EDGE).all()
    assert (points <= 1 - EDGE).all()
    assert qmc.discrepancy(points) < 0.2 * qmc.discrepancy(np.random.default_rng(0).random((n, 3)))


@pytest.mark.parametrize("df", [3.0, 8.0])
def test_scaled_normal_numbers_are_students(df: float) -> None:
    points = sobol_points(2, 4096, 1)
    scale = student_scale(points[:, 0], df)
    np.testing.assert_array_equal(scale, np.sqrt(df / chi2.ppf(points[:, 0], df)))
    assert kstest(norm.ppf(points[:, 1]) * scale, t(df).cdf).statistic < 0.01


@pytest.mark.parametrize("module", ["response.describe", "response.prepare", "technical.counts", "dosage.guides"])
def test_scipys_statistics_are_imported_where_they_are_used(module: str) -> None:
    """They take most of a second: a technical or a cis fit does without them."""
    code = f"import sys, dream_sc._core.{module}; print('scipy.stats' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "False"
