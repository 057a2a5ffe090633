"""What the dosages of guides tell: noise, one level, a titration."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.dosage.resolution import real_share, resolution, told_apart


@pytest.mark.parametrize("n", [4, 12])
def test_noise_one_level_and_a_titration(n: int) -> None:
    rng, sd = np.random.default_rng(0), np.full(n, 0.1)
    found = [resolution(rng.normal(0, 0.1, n), sd) for _ in range(200)]
    assert np.mean([r.told_apart for r in found]) < 0.03
    assert np.mean([r.none for r in found]) > 0.97
    strong = [resolution(rng.normal(-3, 0.1, n), sd) for _ in range(200)]
    assert np.mean([r.one_level for r in strong]) > 0.97
    assert not any(r.none for r in strong)
    graded = resolution(np.linspace(-3, 0.5, n), sd)
    assert graded.told_apart
    assert graded.share > 0.98
    assert not graded.none
    assert not graded.one_level


def test_share_of_the_variance_that_is_real() -> None:
    rng = np.random.default_rng(1)
    mean = rng.normal(0, 1.0, 4000) + rng.normal(0, 0.5, 4000)
    assert real_share(mean, np.full(4000, 0.5)) == pytest.approx(1 / 1.25, abs=0.02)
    assert real_share(np.zeros(5), np.ones(5)) == 0.0
    assert np.isnan(real_share(np.zeros(1), np.ones(1)))
    assert not told_apart(np.zeros(1), np.ones(1))
