"""The fused kernel against brute-force integration, and recovery of simulated curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.integrate import dblquad, quad
from scipy.special import gammaln, logsumexp
from scipy.stats import nbinom, norm

from dream_sc._core.compiled import from_python
from dream_sc._core.curves import curve, place
from dream_sc._core.laplace.quadrature import LAPLACE_ERROR, log_marginal
from dream_sc._core.likelihoods import negbinom
from dream_sc._core.priors import TransPriors
from dream_sc._core.response import learned
from dream_sc._core.response.draws import draws
from dream_sc._core.response.problem import Problem, evidence, problem
from dream_sc._core.response.wide_effects import with_wide
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[np.linspace(-3, 1.2, 6), np.zeros(3)]
AXIS = Axis(-3.0, 1.2, DOSES[:6])


def _problem(rng: np.random.Generator, n_features: int = 4, n_groups: int = 2, level: float = 3.0) -> Problem:
    n_g = len(DOSES)
    guide, group = np.repeat(np.arange(n_g), n_groups), np.tile(np.arange(n_groups), n_g)
    w = rng.uniform(80, 120, len(guide))
    stats = GuideStats(
        rng.poisson(np.exp(level) * rng.gamma(20, 1 / 20, (n_features, len(guide)))).astype(float),
        w,
        w * 1.1,
        guide,
        group,
        n_g,
        n_groups,
    )
    dosage = RowDosage(DOSES[guide], np.where(DOSES[guide] != 0, 0.2, 0.0), np.full(n_g, 0.05))
    return problem(stats, dosage, np.full(n_features, 0.5), group_effect_sd=0.3, axis=AXIS, priors=TransPriors())


LOG_DENSITY, LOG_NORMALISER = from_python(negbinom.log_density), from_python(negbinom.log_normaliser)


def test_row_likelihood() -> None:
    for y, m, phi in [(0.0, 0.3, 5.0), (7.0, 3.0, 2.0), (500.0, 800.0, 90.0)]:
        value = LOG_DENSITY(y, np.log(m), phi) + LOG_NORMALISER(y, phi)
        np.testing.assert_allclose(value, nbinom(phi, phi / (phi + m)).logpmf(y), rtol=1e-10)


def test_normaliser_is_the_log_gamma_ratio() -> None:
    np.testing.assert_allclose(LOG_NORMALISER(4.0, 2.5), gammaln(6.5) - gammaln(2.5) - gammaln(5.0), rtol=1e-12)


def test_null_evidence_equals_brute_force(rng: np.random.Generator) -> None:
    """Two guides, one group: level and both guide effects integrated on a fine grid."""
    tau = 0.2
    counts = np.array([[3.0, 7.0]])
    w = np.array([10.0, 12.0])
    stats = GuideStats(counts, w, w * 1.05, np.arange(2), np.zeros(2, int), 2, 1)
    dosage = RowDosage(np.zeros(2), np.zeros(2), np.zeros(2))
    p = problem(stats, dosage, np.array([0.6]), group_effect_sd=0.3, axis=AXIS, priors=TransPriors())
    got = evidence(p, curve("null"), np.zeros((1, 1, 0)), np.zeros((1, 1, 2)), np.array([[tau]]), tol=1e-10)[0][0, 0, 0]
    a = np.linspace(p.level[0] - 4, p.level[0] + 4, 801)
    u = np.linspace(-1.6, 1.6, 321)
    log_p = norm(p.level[0], 2).logpdf(a)
    for r in range(2):
        phi = 1 / (0.36 * p.design.scale2[r])
        m = np.exp(a[:, None] + u) * w[r]
        ll = counts[0, r] * np.log(m / phi) - (counts[0, r] + phi) * np.log1p(m / phi)
        log_p = log_p + logsumexp(ll + norm(0, tau).logpdf(u), axis=1) + np.log(u[1] - u[0])
    want = logsumexp(log_p) + np.log(a[1] - a[0])
    assert abs(got - want) < 0.02


def _normal(x: float, sd: float) -> float:
    """That of scipy, which takes a tenth of a millisecond for each of many thousand numbers."""
    return float(np.exp(-0.5 * (x / sd) ** 2) / (sd * np.sqrt(2 * np.pi)))


def test_single_hill_evidence_equals_brute_force(rng: np.random.Generator) -> None:
    """Given the shape and no guide effects: level and amplitude by two-dimensional quadrature."""
    p = _problem(rng, 1, 1).with_design(group_effect_sd=1.0, error=np.zeros(9))
    shape = np.array([[[-0.8, 0.5]]])
    got = evidence(p, curve("single_hill"), shape, np.zeros((1, 1, 2)), np.array([[1e-5]]), tol=1e-10)[0][0, 0, 0]
    phi = 1 / (p.overdispersion[0] ** 2 * p.design.scale2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    weights = weights / weights.sum()
    n_h = np.exp(0.5)

    def h(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + 2.0 ** (-n_h * (x + 0.8)))

    by_dose = [(weights * h(m + s * nodes)).sum() for m, s in zip(p.dose_mean, p.dose_spread, strict=True)]
    mean_h = np.array(by_dose)[p.design.dose]

    def density(b: float, a: float) -> float:
        ratio = (1 + np.expm1(b) * mean_h) / (1 + np.expm1(b) * h(np.zeros(1)))
        m = np.exp(a) * ratio * np.exp(p.design.log_w)
        ll = (p.counts[0] * np.log(m / phi) - (p.counts[0] + phi) * np.log1p(m / phi)).sum()
        low, high = h(np.array([AXIS.low]))[0], h(np.array([AXIS.high]))[0]
        d = np.log((1 + np.expm1(b) * high) / (1 + np.expm1(b) * low))
        jac = np.exp(b) * high / (1 + np.expm1(b) * high) - np.exp(b) * low / (1 + np.expm1(b) * low)
        prior = sum(d**2 / s**2 * _normal(d, s) / 3 for s in (0.4, 1.0, 2.0)) * jac
        return float(np.exp(ll - offset) * _normal(a - p.level[0], 2) * prior)

    m0 = np.exp(p.level[0] + p.design.log_w)
    offset = (p.counts[0] * np.log(m0 / phi) - (p.counts[0] + phi) * np.log1p(m0 / phi)).sum()
    want = np.log(dblquad(density, p.level[0] - 0.4, p.level[0] + 0.4, -1.5, 1.5, epsabs=1e-7)[0]) + offset
    assert abs(got - want) < 0.05


@pytest.mark.parametrize("name", ["null", "single_hill", "additive_hill", "polynomial"])
@pytest.mark.parametrize("wide", [0.0, 0.2])
def test_gradient_of_the_marginal_density(
    name: str, wide: float, rng: np.random.Generator, kernel_density: Callable[..., Any]
) -> None:
    """The kernel's gradient equals differences of its value when the dosage is exact."""
    p = with_wide(_problem(rng, 1).with_design(error=np.zeros(9)), wide, 0.4)
    c = curve(name)
    n_amp = c.n_amplitudes
    shapes, _, consts = c.lattice(AXIS, p.priors)
    theta = np.concatenate([[p.level[0] + 0.1], rng.normal(0, 0.4, n_amp), [0.15]])

    def value(point: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        return kernel_density(p, c, point, shapes[len(shapes) // 2], consts[len(shapes) // 2], 0.15)

    grad = value(theta)[1]
    for i in range(len(theta)):
        step = np.zeros(len(theta))
        step[i] = 1e-4
        numeric = (value(theta + step)[0] - value(theta - step)[0]) / 2e-4
        np.testing.assert_allclose(grad[i], numeric, rtol=2e-4, atol=2e-3)


def test_blocks_do_not_change_a_feature(rng: np.random.Generator) -> None:
    p = _problem(rng, 5)
    c = curve("single_hill")
    shapes, _, consts = c.lattice(AXIS, p.priors)
    taus = np.tile(p.priors.tau_grid, (5, 1))
    together = evidence(p, c, shapes[None], consts[None], taus)[0]
    alone = evidence(p.take([3]), c, shapes[None], consts[None], taus[:1])[0]
    np.testing.assert_array_equal(together[3], alone[0])


def test_draws_recover_a_strong_response(rng: np.random.Generator) -> None:
    truth = np.array([[3.0, -2.0, -1.0, np.log(2.0)]])
    p = _problem(rng, 1, 1)
    mean = np.exp(curve("single_hill").log_curve(DOSES[p.guide], truth, None) + p.design.log_w)
    p = replace(
        p,
        counts=rng.poisson(mean).astype(float),
        overdispersion=np.array([0.1]),
    ).with_design(nodes=p.dose_mean[:, None], node_weights=np.ones((len(p.dose_mean), 1)), error=np.full(9, 1e-3))
    c = curve("single_hill")
    shapes, log_w, consts = c.lattice(AXIS, p.priors)
    grid = np.array(p.priors.tau_grid)
    log_z = evidence(p, c, shapes[None], consts[None], grid[None])[0]
    prior = learned.Prior(np.array([0.8, 0.2]), np.log(0.06), 0.9)
    log_post = log_z + log_w[None, :, None] + prior.log_tau(grid)
    drawn = draws(
        p, c, (shapes, consts), logsumexp(log_post, axis=2), logsumexp(log_post, axis=1), grid, prior, n=1000, seed=0
    )
    out = drawn.params
    assert drawn.pareto_k[0] < 0.7
    assert out.shape == (1, 1000, 4)
    low, high = np.quantile(out[0], [0.001, 0.999], axis=0)
    assert ((low < truth[0]) & (truth[0] < high)).all()
    assert out[0, :, 2].std() < 0.2


@pytest.mark.parametrize("wide", [0.0, 0.1])
@pytest.mark.parametrize("level", [-4.0, -2.0, 1.0])
def test_quadrature_of_the_guide_effects_equals_scipy(level: float, wide: float, rng: np.random.Generator) -> None:
    """The marginal density that importance weights compare with, by adaptive integration guide by guide.

    Guides for which it is good enough keep their Laplace value; its error is bounded.
    """
    p = with_wide(_problem(rng, 1, 1, level=level), wide, 0.5)
    c, tau = curve("null"), 0.3
    out = np.zeros((1, 1))
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    log_marginal(
        place(c),
        0,
        p.counts,
        p.weights,
        p.overdispersion,
        p.offset,
        p.anchor(np.ones((1, 1))),
        p.design,
        p.level[None, None],
        np.array([[tau]]),
        np.zeros((1, 1, 0)),
        np.zeros((1, 2)),
        nodes,
        weights / weights.sum(),
        out,
    )
    phi = 1 / (p.overdispersion[0] ** 2 * p.design.scale2)
    want = norm(p.level[0], p.priors.level_sd).logpdf(p.level[0])
    for r in range(9):
        base = np.exp(p.level[0] + p.design.log_w[r]) / phi[r]

        def density(u: float, r: int = r, base: float = base) -> float:
            y = p.counts[0, r]
            log_like = y * (np.log(base) + u) - (y + phi[r]) * np.log1p(base * np.exp(u))
            prior = (1 - wide) * _normal(u, tau) + wide * _normal(u, np.hypot(tau, 0.5))
            return float(np.exp(log_like) * prior)

        want += np.log(quad(density, -4, 4, points=[0], epsabs=0, limit=200)[0])
    np.testing.assert_allclose(out[0, 0], want, rtol=0, atol=0.5 * 9 * LAPLACE_ERROR)
