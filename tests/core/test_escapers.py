"""Guides that fail in a part of their cells: recovered where they are, not seen where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import nbinom, norm

from dream_sc._core.compiled import from_python
from dream_sc._core.dosage import cells, escaping_cells
from dream_sc._core.dosage.guides import cis
from dream_sc._core.dosage.nodes import dosage_nodes
from dream_sc._core.priors import CisPriors
from dream_sc._core.types import CisCells

DOSAGES = np.array([-3.0, -2.0, -1.0, -0.2, 0.8, 0.0, 0.0, 0.0])
PER_GUIDE, OVERDISPERSION = 300, 0.4
NODES = np.polynomial.hermite_e.hermegauss(9)


def _cells(rng: np.random.Generator, share: float, mean: float = 5.0) -> CisCells:
    guide = np.repeat(np.arange(len(DOSAGES)), PER_GUIDE)
    control = DOSAGES == 0
    x = np.where(control[guide], 0.0, rng.normal(DOSAGES[guide], 0.2))
    x[~control[guide] & (rng.random(len(guide)) < share)] = 0.0
    e = mean * rng.lognormal(0, 0.3, len(guide))
    phi = 1 / OVERDISPERSION**2
    return CisCells(
        rng.poisson(e * 2.0**x * rng.gamma(phi, 1 / phi, len(x))).astype(float), e, guide, control, OVERDISPERSION
    )


def test_share_and_dosage_are_recovered(rng: np.random.Generator) -> None:
    fit = cis(_cells(rng, 0.3), CisPriors())
    assert fit.escape is not None
    np.testing.assert_allclose(fit.escape[:2], 0.3, atol=0.1)
    assert (fit.escape[3] == 0) & (fit.escape[5:] == 0).all()
    assert fit.acting_mean is not None
    assert fit.acting_sd is not None
    np.testing.assert_allclose(fit.acting_mean[:2], DOSAGES[:2], atol=0.5)
    assert (np.abs(fit.acting_mean - DOSAGES) < 4 * fit.acting_sd + 0.1)[:2].all()
    every = np.log2(0.7 * 2.0 ** DOSAGES[:2] + 0.3)
    assert (np.abs(fit.guide_mean[:2] - every) < 4 * fit.guide_sd[:2]).all()
    np.testing.assert_array_equal(fit.guide_mean[3:], fit.acting_mean[3:])


@pytest.mark.parametrize("mean", [1.0, 5.0, 20.0])
def test_none_are_seen_where_there_are_none(mean: float, rng: np.random.Generator) -> None:
    for _ in range(3):
        fit = cis(_cells(rng, 0.0, mean), CisPriors())
        assert fit.escape is not None
        assert (fit.escape == 0).all()


def test_cells_without_effect_are_told_apart(rng: np.random.Generator) -> None:
    cells = _cells(rng, 0.3, 20.0)
    fit = cis(cells, CisPriors())
    strong = cells.guide == 0
    at_ntc = fit.cell_median[strong] > -0.5
    many = cells.counts[strong] > 0.5 * cells.exposure[strong]
    assert (at_ntc == many).mean() > 0.97


def test_mixture_density_equals_integration(rng: np.random.Generator) -> None:
    """Of one guide at its mode: every cell's density by a fine grid over its dosage, plus the part at the NTC level."""
    made = _cells(rng, 0.3)
    use = made.guide == 1
    y, e, phi = made.counts[use], made.exposure[use], 1 / OVERDISPERSION**2
    sd, share = 0.4, 0.2
    value, x, _ = escaping_cells.mixture_mode(
        y, e, phi, 0.1, -2.0, sd, share, NODES[0], np.log(NODES[1] / NODES[1].sum())
    )
    grid = np.linspace(x - 6 * sd, x + 6 * sd, 2001)

    def log_count(at: np.ndarray) -> np.ndarray:
        m = e[:, None] * 2.0**at
        return nbinom(phi, phi / (phi + m)).logpmf(y[:, None])

    log_prior = norm(x, sd).logpdf(grid) + np.log(grid[1] - grid[0])
    acted, escaped = logsumexp(log_count(grid) + log_prior, axis=1), log_count(np.full(1, 0.1))[:, 0]
    by_cell = np.logaddexp(np.log(1 - share) + acted, np.log(share) + escaped)
    # the engine leaves out what depends on the count alone
    log_one = from_python(cells.log_count)
    constant = nbinom(phi, phi / (phi + e)).logpmf(y) - np.array(
        [log_one(a, b, phi, 0.0) for a, b in zip(y, e, strict=True)]
    )
    np.testing.assert_allclose(value + constant.sum(), by_cell.sum(), rtol=1e-5)


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
