"""Cells with several guides of the cis gene: against a brute-force posterior, and the Pyro model."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import nbinom, norm

from dream_sc._core.dosage import escaping_cells, guide_sets
from dream_sc._core.dosage.lattice import Guide, lattice
from dream_sc._core.engines import engine
from dream_sc._core.priors import CisPriors
from dream_sc._core.types import CisCells

fast = import_module("dream_sc._core.dosage.guides")  # its name in the package is that of the function
EFFECTS = np.array([-1.0, 0.6, -0.4, 0.0])


def _cells(rng: np.random.Generator, sets: np.ndarray, per: int, o: float = 0.5) -> CisCells:
    """Three targeting guides and an NTC guide; `per` cells of each guide and set, a spread of 0.2 each."""
    n_guides = len(EFFECTS)
    code = np.repeat(np.arange(n_guides + len(sets)), per)
    cells = CisCells(np.zeros(len(code)), np.full(len(code), 6.0), code, np.arange(n_guides) == 3, o, sets)
    members = cells.members[code]
    there = members >= 0
    x = np.where(there, EFFECTS[members], 0.0).sum(1)
    x += 0.2 * np.sqrt((there & (members != 3)).sum(1)) * rng.normal(size=len(code))
    y = rng.poisson(rng.gamma(1 / o**2, o**2 * 6.0 * 2.0**x)).astype(float)
    return CisCells(y, cells.exposure, code, cells.is_control, o, sets)


def test_means_and_variances_equal_a_brute_force_posterior() -> None:
    rng = np.random.default_rng(0)
    # guides 0 and 1 are mostly seen together, so their errors are tied
    sets = np.array([[0, 1]])
    cells = _cells(rng, sets, 60)
    keep = np.flatnonzero((cells.guide > 3) | (cells.guide >= 2) | (rng.random(len(cells.guide)) < 0.25))
    cells = CisCells(cells.counts[keep], cells.exposure[keep], cells.guide[keep], cells.is_control, 0.5, sets)
    priors, spreads = CisPriors(), np.array([0.2, 0.2])  # one spread
    lat = lattice(cells.counts, cells.exposure, cells.guide, 4.0, spreads)
    parts = escaping_cells.start(spreads, priors)
    alone = {
        g: escaping_cells.shape(
            lat,
            Guide(cells.counts[cells.guide == g], cells.exposure[cells.guide == g]),
            0.0,
            parts,
            priors,
            two=False,
        )
        for g in range(3)
    }
    shapes, _ = guide_sets.refine(lat, cells, alone, 0.0, parts, priors)
    grid = np.linspace(-2.5, 2.0, 121)
    a, b = np.meshgrid(grid, grid, indexing="ij")
    log_post = norm.logpdf(a, 0, 2.0) + norm.logpdf(b, 0, 2.0)  # as weak as the curvature's stand-in
    z, w = np.polynomial.hermite_e.hermegauss(31)
    for code, centre, sd in ((0, a, 0.2), (1, b, 0.2), (4, a + b, 0.2 * 2**0.5)):
        for y in cells.counts[cells.guide == code]:
            m = 6.0 * 2.0 ** (centre[..., None] + sd * z)
            log_post += logsumexp(nbinom(4.0, 4.0 / (4.0 + m)).logpmf(y), b=w / w.sum(), axis=-1)
    post = np.exp(log_post - logsumexp(log_post))
    for g, axis in ((0, a), (1, b)):
        want = (post * axis).sum()
        x, p = shapes[g].x, np.exp(shapes[g].value[:, 0, 0] - shapes[g].value[:, 0, 0].max())
        mean = (p * x).sum() / p.sum()
        var = (p * (x - mean) ** 2).sum() / p.sum()
        assert mean == pytest.approx(want, abs=0.05)
        assert var**0.5 == pytest.approx(((post * axis**2).sum() - want**2) ** 0.5, rel=0.08)


def test_a_guide_that_is_never_alone() -> None:
    rng = np.random.default_rng(1)
    sets = np.array([[0, 1], [0, 2], [1, 2]])
    cells = _cells(rng, sets, 400)
    keep = cells.guide > 2
    cells = CisCells(cells.counts[keep], cells.exposure[keep], cells.guide[keep], cells.is_control, 0.5, sets)
    fit = fast.cis(cells, CisPriors())
    np.testing.assert_allclose(fit.guide_mean[:3], EFFECTS[:3], atol=0.35)
    assert (np.abs(fit.guide_mean[:3] - EFFECTS[:3]) < 4 * fit.guide_sd[:3]).all()
    assert fit.converged


def test_guides_that_are_never_apart_share_what_is_seen() -> None:
    cells = _cells(np.random.default_rng(2), np.array([[0, 1]]), 300)
    keep = cells.guide > 1
    cells = CisCells(cells.counts[keep], cells.exposure[keep], cells.guide[keep], cells.is_control, 0.5, cells.sets)
    fit = fast.cis(cells, CisPriors())
    assert fit.guide_mean[0] == pytest.approx(fit.guide_mean[1], abs=0.02)
    assert fit.guide_mean[:2].sum() == pytest.approx(EFFECTS[:2].sum(), abs=0.2)
    assert (fit.guide_sd[:2] > 0.3).all()  # no data tell them apart
    both = cells.guide == 4
    assert fit.cell_sd[both].mean() < 0.5  # yet their sum is known
    assert fit.cell_median[both].mean() == pytest.approx(EFFECTS[:2].sum(), abs=0.2)


def test_taking_guides_apart_keeps_their_joint_posterior() -> None:
    rng = np.random.default_rng(5)
    effect, root = rng.normal(size=4), rng.normal(size=(4, 7))
    hessian, scale = root @ root.T, 1.7
    moved, widened, correlation = guide_sets.apart(effect, hessian, scale)
    own = np.diag(hessian)
    centre = np.average(effect, weights=1 / (1 / own + scale**2))
    cov = np.linalg.inv(hessian + np.eye(4) / scale**2)
    want = cov @ (hessian @ effect + centre / scale**2)
    v = widened / own
    np.testing.assert_allclose(1 / (1 / v + 1 / scale**2), np.diag(cov))
    np.testing.assert_allclose(((effect + moved) / v + centre / scale**2) * np.diag(cov), want)
    np.testing.assert_allclose(correlation, cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov))))
    moved, widened, correlation = guide_sets.apart(effect, np.diag(own), scale)
    np.testing.assert_allclose(moved, 0, atol=1e-12)
    np.testing.assert_allclose(widened, 1)
    np.testing.assert_allclose(correlation, np.eye(4))


@pytest.mark.parametrize(("name", "niters"), [("svi", 700), ("nuts", 80)])
def test_the_engines_agree(name: str, niters: int) -> None:
    cells = _cells(np.random.default_rng(3), np.array([[0, 1, -1], [0, 1, 2]]), 40)
    quick = engine("laplace").cis(cells, CisPriors())
    other = engine(name).cis(cells, CisPriors(), niters=niters, nsamples=100, device="cpu")
    np.testing.assert_allclose(other.guide_mean, quick.guide_mean, atol=0.3)
    np.testing.assert_allclose(other.guide_sd[:3], quick.guide_sd[:3], rtol=0.5)
    assert np.corrcoef(other.cell_median, quick.cell_median)[0, 1] > 0.97


def test_sets_add_nothing_where_there_are_none() -> None:
    cells = _cells(np.random.default_rng(4), np.zeros((0, 1), dtype=np.int64), 50)
    wide = CisCells(*(getattr(cells, n) for n in ("counts", "exposure", "guide", "is_control", "overdispersion")))
    assert cells.members.tolist() == [[0], [1], [2], [3]]
    np.testing.assert_array_equal(fast.cis(cells, CisPriors()).guide_mean, fast.cis(wide, CisPriors()).guide_mean)
