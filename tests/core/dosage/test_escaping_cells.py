"""Guides that fail in a part of their cells: recovered where they are, not seen where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.dosage.escaping_cells import SHARES, _acting_only
from dream_sc._core.dosage.guides import cis
from dream_sc._core.dosage.nodes import dosage_nodes
from dream_sc._core.priors import CisPriors
from dream_sc._core.types import CisCells

DOSAGES = np.array([-3.0, -2.0, -1.0, -0.2, 0.8, 0.0, 0.0, 0.0])
PER_GUIDE, OVERDISPERSION = 300, 0.4


def _cells(rng: np.random.Generator, share: float, mean: float = 5.0) -> CisCells:
    return _with_truth(rng, share, mean)[0]


def _with_truth(rng: np.random.Generator, share: float, mean: float) -> tuple[CisCells, np.ndarray]:
    guide = np.repeat(np.arange(len(DOSAGES)), PER_GUIDE)
    control = DOSAGES == 0
    x = np.where(control[guide], 0.0, rng.normal(DOSAGES[guide], 0.2))
    x[~control[guide] & (rng.random(len(guide)) < share)] = 0.0
    e = mean * rng.lognormal(0, 0.3, len(guide))
    phi = 1 / OVERDISPERSION**2
    y = rng.poisson(e * 2.0**x * rng.gamma(phi, 1 / phi, len(x))).astype(float)
    return CisCells(y, e, guide, control, OVERDISPERSION), x


def test_share_and_dosage_are_recovered(rng: np.random.Generator) -> None:
    fit = cis(_cells(rng, 0.3), CisPriors())
    np.testing.assert_allclose(fit.escape[:2], 0.3, atol=0.1)
    assert (fit.escape[5:] == 0).all()
    np.testing.assert_allclose(fit.acting_mean[:2], DOSAGES[:2], atol=0.5)
    assert (np.abs(fit.acting_mean - DOSAGES) < 4 * fit.acting_sd + 0.1)[:2].all()
    every = np.log2(0.7 * 2.0 ** DOSAGES[:2] + 0.3)
    assert (np.abs(fit.guide_mean[:2] - every) < 4 * fit.guide_sd[:2]).all()
    # where the two parts overlap, the acting cells' dosage is less certain than that of all cells
    assert (np.abs(fit.acting_mean - DOSAGES) < 4 * np.hypot(fit.acting_sd, fit.baseline_sd))[:5].all()
    assert fit.acting_sd[3] > 1.3 * fit.guide_sd[3]
    np.testing.assert_array_equal(fit.guide_mean[5:], fit.acting_mean[5:])


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_interval_of_the_share_holds_it(share: float, rng: np.random.Generator) -> None:
    low, high = np.stack([cis(_cells(rng, share, 2.0), CisPriors()).escape_interval for _ in range(4)], 1)
    assert np.isnan(low[:, 5:]).all()
    assert np.isnan(high[:, 5:]).all()
    inside = (low <= share) & (share <= high)
    assert inside[:, :5].mean() >= 0.9
    assert (high <= SHARES[-1])[:, :5].all()
    if share:  # told where guides are strong, and not where they hardly differ from NTC
        assert (low[:, 0] > 0.1).all()
        assert (high - low)[:, 3].mean() > 2 * (high - low)[:, 0].mean()


@pytest.mark.parametrize("mean", [1.0, 5.0, 20.0])
def test_none_are_seen_where_there_are_none(mean: float, rng: np.random.Generator) -> None:
    for _ in range(3):
        fit = cis(_cells(rng, 0.0, mean), CisPriors())
        assert (fit.escape == 0).all()


def test_cells_without_effect_are_told_apart(rng: np.random.Generator) -> None:
    cells = _cells(rng, 0.3, 20.0)
    fit = cis(cells, CisPriors())
    strong = cells.guide == 0
    at_ntc = fit.cell_median[strong] > -0.5
    many = cells.counts[strong] > 0.5 * cells.exposure[strong]
    assert (at_ntc == many).mean() > 0.97


@pytest.mark.parametrize(("share", "worst"), [(0.0, 0.3), (0.3, 1.0)])
def test_cells_of_undecided_guides_are_of_both_cases(share: float, worst: float, rng: np.random.Generator) -> None:
    """At one count a cell few guides can be said to be of one part or of two: neither may be taken for certain."""
    error, inside = [], []
    for _ in range(8):
        cells, x = _with_truth(rng, share, 1.0)
        fit, acting = cis(cells, CisPriors()), ~cells.is_control[cells.guide]
        error.append((fit.cell_median - x)[acting] ** 2)
        inside.append(((fit.cell_q025 <= x) & (x <= fit.cell_q975))[acting])
    assert np.mean(error) ** 0.5 < worst
    assert 0.93 < np.mean(inside) < 0.99


def test_nodes_hold_the_share_at_ntc() -> None:
    at, weights = dosage_nodes(np.array([-2.0, 0.1]), np.array([0.3, 0.0]), np.array([0.25, 0.0]))
    np.testing.assert_allclose(weights.sum(1), 1)
    assert at[0, -1] == 0
    assert weights[0, -1] == 0.25
    assert (at[1] == at[1, 0]).all()
    np.testing.assert_allclose((weights[0] * at[0]).sum(), -1.5)


def test_rows_without_such_cells_keep_their_spread_beside_one_that_has_them() -> None:
    at, weights = dosage_nodes(np.array([-2.0, -1.0, 0.1]), np.array([0.3, 0.4, 0.0]), np.array([0.25, 0.0, 0.0]))
    mean = (weights * at).sum(1)
    np.testing.assert_allclose(mean, [-1.5, -1.0, 0.1])
    np.testing.assert_allclose((weights[1] * (at[1] + 1.0) ** 2).sum(), 0.4**2)
    assert (weights[2] > 0).sum() == 1


def test_an_offset_is_that_of_acting_cells_alone() -> None:
    """A guide that acts in half of its cells moves these by twice the offset of all, beyond what they have already."""
    z, slope = np.linspace(-4.0, 4.0, 81), np.array([[-1.0, 0.5, 2.0]])
    value = z[:, None, None] * slope[..., None] * np.ones(len(SHARES) - 1)
    found = _acting_only(z, value, 0.1)
    by = 0.1 * SHARES[1:] / (1 - SHARES[1:])
    np.testing.assert_allclose((found - value)[20:60], np.broadcast_to(slope.T * by, (40, 3, len(by))), atol=1e-9)
    assert _acting_only(z, value, 0.0) is value
