"""Likelihoods of guides and of the control level: against scipy, at few counts, and by simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import halfnorm, nbinom, norm

from dream_sc._core.dosage import population
from dream_sc._core.dosage.control_level import control_level
from dream_sc._core.dosage.guides import cis
from dream_sc._core.dosage.lattice import STRIDE, Guide, edges, fine, lattice, log_likelihood, look
from dream_sc._core.dosage.offsets import offsets
from dream_sc._core.priors import CisPriors
from dream_sc._core.types import CisCells

PHI = 1 / 0.35**2
PRIORS = CisPriors()


def _draw(rng: np.random.Generator, mean: np.ndarray) -> np.ndarray:
    return rng.poisson(mean * rng.gamma(PHI, 1 / PHI, len(mean))).astype(float)


def _log_pmf(y: np.ndarray, m: np.ndarray) -> np.ndarray:
    return nbinom(PHI, PHI / (PHI + m)).logpmf(y)


def _screen(
    rng: np.random.Generator, dosages: np.ndarray, cells: int, mean: float, ntc: tuple[int, int] = (8, 60)
) -> CisCells:
    n = len(dosages)
    guide = np.append(np.repeat(np.arange(n), cells), n + np.repeat(np.arange(ntc[0]), ntc[1]))
    x = np.append(dosages, np.zeros(ntc[0]))[guide]
    e = mean * rng.lognormal(0, 0.2, len(guide))
    return CisCells(_draw(rng, e * 2.0**x), e, guide, np.arange(n + ntc[0]) >= n, PHI**-0.5)


@pytest.mark.parametrize("extra", [0.0, 0.09])
def test_likelihood_equals_integration(extra: float, rng: np.random.Generator) -> None:
    """Every cell's density by a fine grid over its dosage, plus the part at the NTC level."""
    e = 5 * rng.lognormal(0, 0.3, 41)
    y = _draw(rng, e * 2.0 ** rng.normal(-1.3, 0.4, len(e)))
    guide = Guide(y, e, None if extra == 0 else np.full(len(e), extra))
    spreads, shares, level = np.array([0.03, 0.3, 1.2]), np.array([0.0, 0.25]), 0.1
    lat = lattice(y, e, np.zeros(len(y), dtype=np.int64), PHI, spreads)
    points = look(lat, guide, shares, level)
    found = log_likelihood(lat, guide, points, 1, spreads, shares, level)
    at = slice(0, len(found), 7)
    x = lat.z[points][at]
    want = np.zeros((len(x), len(spreads), len(shares)))
    z = np.linspace(-7, 7, 1401)
    weight = norm.pdf(z) * (z[1] - z[0])
    for i, mean in enumerate(x):
        for j, sd in enumerate(np.sqrt(spreads**2 + extra)):
            acting = np.exp(_log_pmf(y[:, None], e[:, None] * 2.0 ** (mean + sd * z))) @ weight
            for k, share in enumerate(shares):
                want[i, j, k] = np.log((1 - share) * acting + share * np.exp(_log_pmf(y, e * 2.0**level))).sum()
    # what depends on the counts alone is left out
    constant = (_log_pmf(y, e) - (-y * np.log(PHI / e) - (y + PHI) * np.log1p(e / PHI))).sum()
    near = want > want.max(0) - 20
    np.testing.assert_allclose((found[at] + constant)[near], want[near], atol=2e-3)


def test_points_between_those_of_the_lattice(rng: np.random.Generator) -> None:
    """A guide of many cells, whose likelihood is narrower than the lattice."""
    e = np.full(4000, 6.0)
    y = _draw(rng, e * 2.0 ** rng.normal(-0.7, 0.2, len(e)))
    guide, one = Guide(y, e), np.zeros(1)
    lat = lattice(y, e, np.zeros(len(y), dtype=np.int64), PHI)
    points = look(lat, guide, one, 0.0)
    value = log_likelihood(lat, guide, points, STRIDE, lat.spreads, one, 0.0)
    x, found = fine(lat, points, value, np.zeros((len(lat.spreads), 1)))
    fitted = found - np.log(np.diff(edges(x[None])[0]))[:, None, None]
    z, w = np.polynomial.hermite_e.hermegauss(31)
    for j in (4, 6):
        at = fitted[:, j, 0].argmax() + np.array([-3, 0, 3])
        m = 6.0 * 2.0 ** (x[at, None] + lat.spreads[j] * z)
        values, n = np.unique(y, return_counts=True)
        log_p = logsumexp(_log_pmf(values[:, None, None], m), b=w / w.sum(), axis=2)
        want = (n[:, None] * log_p).sum(0)
        np.testing.assert_allclose(fitted[at, j, 0] - fitted[at[1], j, 0], want - want[1], atol=0.02)


def test_control_level_equals_a_brute_force_posterior(rng: np.random.Generator) -> None:
    """Five guides, two with counts enough to be taken for normal."""
    cells = _screen(rng, np.array([-1.0]), 5, 0.8, (5, 12))
    many = np.isin(cells.guide, (2, 4))
    cells = CisCells(
        np.where(many, _draw(rng, 40 * cells.exposure), cells.counts),
        np.where(many, 40.0, 1.0) * cells.exposure,
        cells.guide,
        cells.is_control,
        cells.overdispersion,
    )
    found = control_level(lattice(cells.counts, cells.exposure, cells.guide, PHI), cells, PRIORS)
    m, u, sds = np.linspace(-1, 1, 201), np.linspace(-1.2, 1.2, 241), np.geomspace(0.01, 0.64, 60)
    log_like = np.zeros((5, len(m), len(u)))
    for c in range(5):
        mine = cells.guide == c + 1
        grid = np.linspace(-2.2, 2.2, 441)
        one = _log_pmf(cells.counts[mine, None], cells.exposure[mine, None] * 2.0**grid).sum(0)
        log_like[c] = np.interp(m[:, None] + u, grid, one)
    joint = np.zeros((len(m), len(sds)))
    for i, s in enumerate(sds):
        weight = norm(0, s).logpdf(u)
        weight -= logsumexp(weight)
        joint[:, i] = logsumexp(log_like + weight, axis=2).sum(0) + halfnorm(0, 0.1).logpdf(s) + np.log(s)
    p = np.exp(joint - logsumexp(joint)).sum(1)
    level = (p * m).sum()
    assert found.level == pytest.approx(level, abs=0.01)
    assert found.error == pytest.approx(((p * m**2).sum() - level**2) ** 0.5, rel=0.05)


@pytest.mark.parametrize(("ntc", "mean"), [((40, 6), 0.15), ((200, 10), 0.2), ((40, 20), 0.3)])
def test_many_small_ntc_guides_have_the_level_of_their_cells(
    ntc: tuple[int, int], mean: float, rng: np.random.Generator
) -> None:
    cells = _screen(rng, np.linspace(-2, 0, 6), 100, mean, ntc)
    one = CisCells(cells.counts, cells.exposure, np.minimum(cells.guide, 6), cells.is_control[:7], cells.overdispersion)
    many = cis(cells, PRIORS)
    shift = many.guide_mean[:6] - cis(one, PRIORS).guide_mean[:6]
    assert abs(shift.mean()) < 0.02
    assert np.abs(shift).max() < 0.05
    mine = cells.guide >= 6
    pooled = np.log2(cells.counts[mine].sum() / cells.exposure[mine].sum())
    assert many.hyper["ntc_level"] == pytest.approx(pooled, abs=0.05)


@pytest.mark.parametrize("expected", [300.0, 12.0])
def test_dosages_follow_the_counts(expected: float, rng: np.random.Generator) -> None:
    """Guides of equal expectation with 0, 1, 2, 3, 5 and 8 counts, beside others."""
    n = np.array([0, 1, 2, 3, 5, 8])
    cells = _screen(rng, np.append(np.zeros(len(n)), np.linspace(-2, 0.5, 6)), 60, expected / 60)
    counts = cells.counts.copy()
    for g, k in enumerate(n):
        mine = np.flatnonzero(cells.guide == g)
        counts[mine], cells.exposure[mine] = 0, expected / 60
        counts[mine[:k]] = 1
    fit = cis(CisCells(counts, cells.exposure, cells.guide, cells.is_control, cells.overdispersion), PRIORS)
    assert fit.interval is not None
    assert (np.diff(fit.guide_mean[: len(n)]) > 0).all()
    assert (np.diff(fit.interval[:, : len(n)]) > 0).all()
    # 97.5 % of the Poisson likelihood of no count, 3.7, bounds it from above; below only the population does
    assert fit.interval[1, 0] == pytest.approx(np.log2(3.7 / expected), abs=0.6)
    assert fit.interval[0, 0] < fit.guide_mean[0] - 3
    assert fit.guide_sd[0] > 1


def test_a_guide_without_counts_among_sets(rng: np.random.Generator) -> None:
    """The guide that shares its cells with another is still lower than one with counts."""
    n_ntc, sets = 6, np.array([[0, 1]])
    guide = np.append(np.repeat(np.arange(4 + n_ntc), 60), np.repeat(4 + n_ntc, 60))
    x = np.append(np.array([-9.0, -0.5, -3.0, -1.0]), np.zeros(n_ntc + 1))
    x[-1] = x[0] + x[1]
    e = np.full(len(guide), 5.0)
    control = np.arange(4 + n_ntc) >= 4
    counts = _draw(rng, e * 2.0 ** x[guide])
    counts[(guide == 0) | (guide == guide.max())] = 0
    fit = cis(CisCells(counts, e, guide, control, PHI**-0.5, sets), PRIORS)
    assert fit.interval is not None
    assert fit.guide_mean[0] < fit.guide_mean[2] - 2
    assert -8.5 < fit.interval[1, 0] < -5.5  # 0 of 300, and of the others' 210
    np.testing.assert_allclose(fit.guide_mean[1:4], x[1:4], atol=0.6)


@pytest.mark.parametrize(("mean", "cells"), [(0.3, 40), (2.0, 20)])
def test_intervals_hold_the_truth(mean: float, cells: int, rng: np.random.Generator) -> None:
    """200 guides with some ten counts each; the truth is drawn from a population such as the prior's."""
    truth = rng.normal(-1, 1.5, 200)
    fit = cis(_screen(rng, truth, cells, mean, (20, 40)), PRIORS)
    assert fit.interval is not None
    low, high = fit.interval[:, :200]
    error = 1.96 * fit.baseline_sd
    inside = (fit.guide_mean[:200] - np.hypot(fit.guide_mean[:200] - low, error) <= truth) & (
        truth <= fit.guide_mean[:200] + np.hypot(high - fit.guide_mean[:200], error)
    )
    assert 0.92 <= inside.mean() <= 0.99


def test_quantiles_of_a_density_on_points() -> None:
    x = np.array([-1.0, 3.0])[:, None] + np.array([0.2, 1.5])[:, None] * np.linspace(-6, 6, 121)
    p = population.normalised(-0.5 * np.repeat(np.linspace(-6, 6, 121)[None] ** 2, 2, 0))
    found = population.quantiles(x, p, (0.5, 0.025, 0.975))
    want = np.array([0.0, norm.ppf(0.025), norm.ppf(0.975)])
    np.testing.assert_allclose(found, np.array([-1.0, 3.0]) + np.outer(want, [0.2, 1.5]), atol=2e-3)


def test_population_of_normal_likelihoods_is_recovered(rng: np.random.Generator) -> None:
    truth = -1 + 0.8 * rng.standard_t(3, 2000)
    seen = rng.normal(truth, 0.2)
    x = seen[:, None] + np.linspace(-1.2, 1.2, 61)
    curves = population.Curves(x, -0.5 * ((x - seen[:, None]) / 0.2) ** 2)
    mu, sigma = population.learn(curves, PRIORS)
    assert mu == pytest.approx(-1, abs=0.08)
    assert sigma == pytest.approx(0.8, rel=0.08)


def test_offsets_are_recovered_and_small_guides_have_none(rng: np.random.Generator) -> None:
    n_features, cells = 300, np.array([100.0, 100.0, 100.0, 0.5, 2000.0])
    mean = rng.lognormal(0.5, 1, n_features)
    truth = np.array([0.3, -0.2, 0.0, 0.4, 0.0])
    expected = mean[:, None] * cells
    responds = rng.random(n_features) < 0.3
    effect = np.where(responds[:, None] & (np.arange(5) < 4), rng.normal(0, 1, (n_features, 1)), 0.0)
    counts = rng.poisson(expected * 2.0 ** (truth + effect)).astype(float)
    found, var = offsets(counts, expected, np.full(n_features, 0.3), 1 / cells)
    np.testing.assert_allclose(found[:3], truth[:3], atol=0.05)
    assert (np.abs(found[:3] - truth[:3]) < 4 * var[:3] ** 0.5).all()
    assert found[3] == 0
    assert var[3] > var[:3].max()
    few = offsets(counts[:30], expected[:30], np.full(30, 0.3), 1 / cells)
    np.testing.assert_array_equal(few, 0.0)


def test_ambient_counts_are_no_dosage(rng: np.random.Generator) -> None:
    """With a floor of ambient counts in every cell, dosages are those of the cells; without it, the floor's."""
    dosages = np.array([-4.0, -2.0, -1.0, 0.6])
    n, cells = len(dosages), 400
    guide = np.append(np.repeat(np.arange(n), cells), n + np.repeat(np.arange(6), 100))
    e, x = 6 * rng.lognormal(0, 0.2, len(guide)), np.append(dosages, np.zeros(6))[guide]
    floor = 0.25 * e
    counts, control = _draw(rng, e * 2.0**x + floor), np.arange(n + 6) >= n
    told = cis(CisCells(counts, e, guide, control, PHI**-0.5, floor=floor), PRIORS)
    untold = cis(CisCells(counts, e + floor, guide, control, PHI**-0.5), PRIORS)
    assert (np.abs(told.guide_mean[:n] - dosages) < 3.5 * np.hypot(told.guide_sd[:n], told.baseline_sd)).all()
    np.testing.assert_allclose(told.guide_mean[1:n], dosages[1:], atol=0.2)
    assert untold.guide_mean[0] > -2.6
    mine = guide == 1
    assert np.median(told.cell_median[mine]) == pytest.approx(-2.0, abs=0.25)
    assert np.median(told.cell_median[control[guide]]) == pytest.approx(0.0, abs=0.1)
