"""Densities of the proposals of links are those that their numbers have."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from dream_sc._core.response import importance
from dream_sc._core.response.categories.proposals import (
    DEFENCE,
    INFLATE,
    WIDE,
    WIDE_DF,
    _approximation,
    _first,
    between,
)

N = 40_000


@pytest.mark.parametrize(("far", "bent"), [(0.0, True), (0.7, True), (-3.0, True), (50.0, True), (0.0, False)])
def test_the_first_amplitude_has_its_density(far: float, bent: bool) -> None:
    """Numbers against a density that is written out here and integrated."""
    z, log_q = _first(np.full(N, far), np.full(N, bent), np.random.default_rng(3))
    at = np.linspace(-60, 60, 240_001)
    core = stats.t.pdf(at, importance.DF)
    if bent:
        core = (far / INFLATE + at / INFLATE) ** 2 * np.exp(-0.5 * (at / INFLATE) ** 2)
        core /= np.trapezoid(core, at)
    density = (1 - DEFENCE) * core + DEFENCE * stats.t.pdf(at / WIDE, WIDE_DF) / WIDE
    inside = np.abs(z) < 50
    np.testing.assert_allclose(np.exp(log_q[inside]), np.interp(z[inside], at, density), rtol=2e-3, atol=1e-9)
    cdf = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(at))])
    found = stats.kstest(z[inside], lambda q: np.interp(q, at, cdf))
    assert found.pvalue > 1e-3


def test_numbers_between_points_of_a_lattice_are_linear_along_each_axis() -> None:
    size = (3, 4)
    x, y = np.meshgrid(np.arange(3.0), np.arange(4.0), indexing="ij")
    values = (2.0 + 3.0 * x - y + 0.5 * x * y).ravel()[None]
    at = np.random.default_rng(1).uniform([0, 0], [2, 3], (1, 50, 2))
    expected = 2.0 + 3.0 * at[..., 0] - at[..., 1] + 0.5 * at[..., 0] * at[..., 1]
    np.testing.assert_allclose(between(values, size, at), expected)
    outside = np.array([[[-2.0, 1.0], [9.0, 1.0]]])  # the points at the ends
    np.testing.assert_allclose(between(values, size, outside)[0], [1.0, 2 + 6 - 1 + 1.0])


@pytest.mark.parametrize("step", [0.4, 0.0])
def test_the_sd_of_guide_effects_is_spread_over_its_cell(step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells by their evidence, even within a step of log tau, whose width is in the density; modes go along."""
    rng, each = np.random.default_rng(0), 2_000
    log_z, tau = np.log([[[0.2, 0.8], [0.5, 0.5]]]), np.array([0.05, 0.2])
    mode, slopes = rng.normal(size=(1, 2, 2, 2)), rng.normal(size=(2, 1, 2, 2, 2))
    lattice = SimpleNamespace(
        log_z=log_z, tau=tau[None], tau_step=np.array([step]), mode=mode, cov=np.zeros((1, 2, 2, 2, 2)), one=lambda t: t
    )
    monkeypatch.setattr(importance, "slopes_of", lambda _: slopes)
    cell, moves, log_evidence = np.array([0, 1]), np.array([[0.3], [-0.2]]), np.array([-1.0, -4.0])
    found = _approximation(lattice, 0, cell, moves, log_evidence, each, [1, 2])  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.cell, np.repeat(cell, each))
    counts = [np.bincount(found.k[found.cell == c], minlength=2) / each for c in cell]
    np.testing.assert_allclose(counts, [[0.2, 0.8], [0.5, 0.5]], atol=0.04)
    away = found.log_tau - np.log(tau)[found.k]
    assert np.abs(away).max() <= 0.5 * step
    assert away.std() == pytest.approx(step / np.sqrt(12), rel=0.05, abs=1e-12)
    width = step or 1.0
    np.testing.assert_allclose(
        found.log_mass, np.repeat(log_evidence, each) + log_z[0, found.cell, found.k] - np.log(width)
    )
    np.testing.assert_allclose(
        found.centre,
        mode[0, found.cell, found.k]
        + np.repeat(moves, each, axis=0) * slopes[0, 0, found.cell, found.k]
        + away[:, None] * slopes[1, 0, found.cell, found.k],
    )
