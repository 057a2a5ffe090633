"""Normal and Student t scores: against closed forms and scipy, recovery with coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import optimize, stats

from dream_sc._core.engines import engine
from dream_sc._core.priors import ScorePriors
from dream_sc._core.sums.pair_sums import score_sums

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDE = ScorePriors(effect_scale=1e4, effect_scale_bounds=(1e4, 1e4))


def _blocks(x: np.ndarray, size: int = 16) -> Iterator[tuple[slice, np.ndarray]]:
    for i in range(0, x.shape[1], size):
        part = slice(i, min(i + size, x.shape[1]))
        yield part, x[:, part]


def _fit(x: np.ndarray, group: np.ndarray, kind: str, priors: ScorePriors, size: int = 16) -> Any:
    n_groups = int(group.max()) + 1
    if kind == "normal":
        sums = score_sums(_blocks(x, size), group, n_groups, x.shape[1])
        return engine("laplace").technical_normal(sums, priors)
    return engine("laplace").technical_studentt(_blocks(x, size), group, n_groups, x.shape[1], priors)


def _draw(rng: np.random.Generator, kind: str, size: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=size) if kind == "normal" else rng.standard_t(3, size)


@pytest.mark.parametrize("kind", ["normal", "studentt"])
def test_without_shrinkage_it_is_the_maximum_of_the_likelihood(kind: str) -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(-1, 2, 300)
    x = 1e3 + 2.0 * _draw(rng, kind, (300, 5)) + 0.7 * (group == 1)[:, None]
    x[rng.random(x.shape) < 0.1] = np.nan
    fit = _fit(x, group, kind, WIDE)
    density = stats.norm if kind == "normal" else stats.t(3)

    def loss(at: np.ndarray, t: int) -> float:
        z = (x[:, t] - at[0] - at[1] * (group == 1)) / np.exp(at[2])
        return -float(np.nansum(np.where(group >= 0, density.logpdf(z) - at[2], 0.0)))

    for t in range(5):
        start = [np.nanmean(x[:, t]), 0.0, 0.5]
        best = optimize.minimize(loss, start, args=(t,), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
        unbiased = np.sqrt(1 - 2 / np.isfinite(x[group >= 0, t]).sum()) if kind == "normal" else 1.0
        found = [fit.mu[t], fit.effects[t, 1], np.log(fit.sigma[t] * unbiased)]
        np.testing.assert_allclose(found, best.x, rtol=1e-5, atol=1e-5)
    if kind == "normal":
        a, b = (x[group == c, 0][np.isfinite(x[group == c, 0])] for c in (0, 1))
        np.testing.assert_allclose(fit.mu_sd[0], fit.sigma[0] / np.sqrt(len(a)), rtol=1e-6)
        np.testing.assert_allclose(fit.effects_sd[0, 1], fit.sigma[0] * np.sqrt(1 / len(a) + 1 / len(b)), rtol=1e-6)


@pytest.mark.parametrize("kind", ["normal", "studentt"])
def test_truth_is_recovered_and_covered(kind: str) -> None:
    rng = np.random.default_rng(1)
    n_t, group = 200, rng.integers(0, 3, 240)
    mu, sigma = rng.normal(0, 5, n_t), np.exp(rng.normal(0, 1, n_t))
    a = np.c_[np.zeros(n_t), 0.3 * rng.standard_t(3, (n_t, 2))] * sigma[:, None]
    x = mu + a[:, group].T + sigma * _draw(rng, kind, (240, n_t))
    fit = _fit(x, group, kind, ScorePriors())
    assert fit.converged.all()
    assert 0.2 < fit.effect_scale < 0.42  # 0.3 in truth
    for estimate, sd, truth in (
        (fit.mu, fit.mu_sd, mu),
        (fit.sigma, fit.sigma_sd, sigma),
        (fit.effects[:, 1:], fit.effects_sd[:, 1:], a[:, 1:]),
    ):
        z = (estimate - truth) / sd
        assert 0.91 < (np.abs(z) < 1.96).mean() < 0.985
    again = _fit(x, group, kind, ScorePriors(), size=7)
    np.testing.assert_allclose(again.effects, fit.effects, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["normal", "studentt"])
def test_constant_missing_and_few_scores_are_said(kind: str) -> None:
    rng = np.random.default_rng(2)
    group = np.repeat([0, 1], 50)
    x = rng.normal(size=(100, 6))
    x[:, 0], x[:, 1] = 3.7e5, np.nan
    x[1:, 2] = np.nan
    x[group == 1, 3] = np.nan
    x[group == 0, 4] = np.nan
    fit = _fit(x, group, kind, ScorePriors())
    np.testing.assert_array_equal(fit.converged, [False, False, False, True, True, True])
    assert np.isnan(fit.sigma[:3]).all()
    assert np.isfinite(fit.effects[3:]).all()
    assert fit.effects[3, 1] == 0


def test_outliers_do_not_move_a_student_t() -> None:
    rng = np.random.default_rng(3)
    x, group = rng.normal(2.0, 1.0, (400, 1)), np.zeros(400, dtype=int)
    x[:20] = 1e4
    assert abs(_fit(x, group, "studentt", ScorePriors()).mu[0] - 2.0) < 0.2
    assert _fit(x, group, "normal", ScorePriors()).mu[0] > 100
