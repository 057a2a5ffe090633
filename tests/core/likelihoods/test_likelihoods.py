"""Shares and scores: their likelihoods against scipy, their kernel against brute force, and simulated truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit, logit, logsumexp
from scipy.stats import betabinom, binom, norm

from dream_sc._core.curves import curve
from dream_sc._core.laplace.lookup import MOVES, Start, log_ratios
from dream_sc._core.likelihoods import binomial, likelihood, normal
from dream_sc._core.priors import TransPriors
from dream_sc._core.response.fit import fit
from dream_sc._core.response.prepare import Prepared
from dream_sc._core.response.problem import Problem, null_evidence
from dream_sc._core.response.problem import problem as problem_of
from dream_sc._core.response.settings import Settings
from dream_sc._core.response.wide_effects import with_wide
from dream_sc._core.sums.pair_sums import robust_means
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[np.linspace(-2.5, 1.2, 8), np.zeros(4)]
AXIS = Axis.of(DOSES[:8])
ONE = np.ones(len(DOSES))
FAMILIES = ["binomial", "normal"]


def rows(distribution: str, rng: np.random.Generator, predictor: np.ndarray, n: float = 40.0) -> GuideStats:
    """Rows whose predictor is `predictor` ``(T, G)``, in units of the likelihood."""
    like, size = likelihood(distribution), predictor.shape
    if distribution == "binomial":
        w = rng.poisson(n, size).astype(float)
        y = rng.binomial(w.astype(int), expit(predictor)).astype(float)
    else:
        y, w = predictor + rng.normal(0, 1 / np.sqrt(n), size), np.full(size, n)
        y, w = normal.in_units(y, w, np.zeros(size[0]), np.ones(size[0]))
    g = size[1]
    return GuideStats(y, ONE[:g], ONE[:g], np.arange(g), np.zeros(g, dtype=int), g, 1, w, like.name)


def log_row_density(distribution: str, y: float, w: float, eta: np.ndarray | float, unit: float) -> np.ndarray:
    if distribution == "binomial":
        return np.asarray(y * eta - w * np.logaddexp(0, eta))
    return np.asarray(-0.5 * w * (y - unit * eta) ** 2)


def problem(distribution: str, stats: GuideStats) -> Problem:
    unit = likelihood(distribution).unit
    dosage = RowDosage(DOSES, np.zeros(len(DOSES)), np.full(len(DOSES), 0.03), DOSES == 0)
    return problem_of(
        stats,
        dosage,
        np.ones(len(stats.counts)),
        group_effect_sd=0.3 * unit,
        axis=AXIS,
        priors=TransPriors().in_unit(unit),
    )


def hills(t: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """EC50, Hill coefficient, and whether each of `t` features responds."""
    return rng.uniform(-1.8, 0.6, t), np.exp(rng.normal(np.log(2), 0.3, t)), rng.random(t) < 0.3


def hill(x: np.ndarray, k: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.asarray(expit(n[:, None] * np.log(2) * (x - k[:, None])))


def test_densities_equal_scipys(rng: np.random.Generator) -> None:
    n, y, eta = np.array([3.0, 17.0, 400.0]), np.array([0.0, 9.0, 388.0]), np.array([-1.3, 0.2, 3.0])
    got = binomial.torch_log_density(*(torch.tensor(v) for v in (y, eta, n)), None).numpy()
    at_zero = binomial.torch_log_density(*(torch.tensor(v) for v in (y, 0 * eta, n)), None).numpy()
    want = binom(n, expit(eta)).logpmf(y) - binom(n, 0.5).logpmf(y)
    np.testing.assert_allclose(got - at_zero, want, rtol=1e-10)
    w = np.array([0.5, 3.0, 1e4])
    got = normal.torch_log_density(*(torch.tensor(v) for v in (y, eta, w)), None).numpy()
    np.testing.assert_allclose(got, norm(eta, w**-0.5).logpdf(y) - norm(0, w**-0.5).logpdf(0), rtol=1e-10)


def test_effective_counts_have_the_variance_of_beta_binomial_sums() -> None:
    n, p, rho = np.array([1.0, 4.0, 9.0]), 0.3, 0.2
    m = (1 - rho) / rho
    variance = sum(betabinom(k, p * m, (1 - p) * m).var() for k in n)
    y, w = binomial.effective(
        np.array([[n.sum() * p]]), np.array([[n.sum()]]), np.array([[(n * (n - 1)).sum()]]), np.array([rho])
    )
    assert y[0, 0] / w[0, 0] == pytest.approx(p)
    # the variance of the share
    assert p * (1 - p) / w[0, 0] == pytest.approx(variance / n.sum() ** 2)


def test_a_hill_of_the_odds_is_one_of_the_share() -> None:
    x = np.linspace(-6, 6, 41)
    k, n, low, b = 0.4, 1.7, -1.2, 3.1
    odds = np.exp(low) * (1 + np.expm1(b) * expit(n * np.log(2) * (x - k)))
    centre = binomial.ec50_of_share(k, n, low, low + b)
    bottom, top = expit(low), expit(low + b)
    share = bottom + (top - bottom) * expit(n * np.log(2) * (x - centre))
    np.testing.assert_allclose(odds / (1 + odds), share, rtol=1e-12)


@pytest.mark.parametrize("distribution", FAMILIES)
@pytest.mark.parametrize("name", ["null", "single_hill", "additive_hill", "polynomial"])
def test_gradient_of_the_marginal_density(
    distribution: str, name: str, rng: np.random.Generator, kernel_density: Callable[..., Any]
) -> None:
    unit = likelihood(distribution).unit
    p = with_wide(problem(distribution, rows(distribution, rng, rng.normal(0, 0.5, (1, 12)))), 0.1, 0.4 * unit)
    p = p.with_design(error=np.zeros(len(DOSES)))
    c = curve(name)
    shapes, _, consts = c.lattice(AXIS, p.priors)
    shape, const = shapes[len(shapes) // 2], consts[len(consts) // 2]
    n = 1 + c.n_amplitudes
    theta = unit * rng.normal(0.2, 0.1, n)

    def value(theta: np.ndarray) -> tuple[float, np.ndarray]:
        return kernel_density(p, c, theta, shape, const, 0.1 * unit)[:2]

    grad, step = value(theta)[1], 1e-4 * unit
    for i in range(n):
        move = np.eye(n)[i] * step
        numeric = (value(theta + move)[0] - value(theta - move)[0]) / (2 * step)
        np.testing.assert_allclose(grad[i] * unit, numeric * unit, rtol=3e-4, atol=3e-3)


@pytest.mark.parametrize("distribution", FAMILIES)
def test_null_evidence_equals_brute_force(distribution: str, rng: np.random.Generator) -> None:
    """Level and the effects of two guides integrated on a fine grid."""
    unit, tau = likelihood(distribution).unit, 0.2
    stats = rows(distribution, rng, np.array([[0.3, -0.4]]), n=9.0)
    dosage = RowDosage(np.zeros(2), np.zeros(2), np.zeros(2))
    priors = TransPriors().in_unit(unit)
    p = problem_of(stats, dosage, np.ones(1), group_effect_sd=0.3 * unit, axis=AXIS, priors=priors)
    got = null_evidence(p, np.array([[tau * unit]]), tol=1e-10)[0][0, 0]
    a, u = np.linspace(-4, 4, 1601), np.linspace(-1.6, 1.6, 321)
    level = p.level[0] / unit
    log_p = norm(level, 2.0).logpdf(a)
    for r in range(2):
        y, w = stats.counts[0, r], stats.weights[0, r]
        eta = a[:, None] + u
        each = log_row_density(distribution, y, w, eta, unit)
        log_p = log_p + logsumexp(each + norm(0, tau).logpdf(u), axis=1) + np.log(u[1] - u[0])
    assert abs(got - logsumexp(log_p) - np.log(a[1] - a[0])) < (0.03 if distribution == "binomial" else 1e-3)


@pytest.mark.parametrize("distribution", FAMILIES)
def test_the_look_tabulates_the_likelihood(distribution: str, rng: np.random.Generator) -> None:
    """Guides moved by known amounts, against integrating their effects by quadrature."""
    unit, tau = likelihood(distribution).unit, 0.15
    p = problem(distribution, rows(distribution, rng, np.zeros((1, 12))))
    n_g = len(DOSES)
    start = Start(
        np.repeat(p.level[:, None], n_g, 1), np.array([tau * unit]), np.zeros((1, n_g)), np.array([[0.0, 1.0]])
    )
    moves = np.vstack([np.full(8, 0.31), np.linspace(-0.8, 0.6, 8)])
    got = log_ratios(p, start, (moves - MOVES[0]) / (MOVES[1] - MOVES[0]))[0][0]

    def log_row(r: int, move: float) -> float:
        def f(u: float) -> float:
            eta = p.level[0] / unit + move + u
            y, w = p.counts[0, r], p.weights[0, r]
            log_like = log_row_density(distribution, y, w, eta, unit)
            return float(np.exp(log_like - here - 0.5 * (u / tau) ** 2) / (tau * np.sqrt(2 * np.pi)))

        eta0 = p.level[0] / unit
        y0, w0 = p.counts[0, r], p.weights[0, r]
        here = y0 * eta0 - w0 * np.logaddexp(0, eta0) if distribution == "binomial" else 0.0
        return float(np.log(quad(f, -1.5, 1.5, epsabs=0, limit=200)[0]))

    targeting = np.flatnonzero(p.targeting)
    want = [sum(log_row(r, m) - log_row(r, 0.0) for r, m in zip(targeting, row, strict=True)) for row in moves]
    np.testing.assert_allclose(got, want, atol=0.05)


@pytest.mark.parametrize("distribution", FAMILIES)
def test_responders_are_found_and_their_curves_covered(distribution: str) -> None:
    rng = np.random.default_rng(3)
    t = 200
    k, n, responds = hills(t, rng)
    h = hill(DOSES, k, n)
    if distribution == "binomial":
        low = rng.uniform(0.1, 0.9, t)
        high = np.where(responds, rng.uniform(0.05, 0.95, t), low)
        mean = low[:, None] + (high - low)[:, None] * h
        predictor = logit(mean)
    else:
        move = np.where(responds, rng.normal(0, 1.0, t), 0.0)
        mean = move[:, None] * h
        predictor = mean
    stats = rows(distribution, rng, predictor + rng.normal(0, 0.05, h.shape), n=150.0)
    p = problem(distribution, stats)
    dosage = RowDosage(DOSES, np.zeros(len(DOSES)), np.full(len(DOSES), 0.03), DOSES == 0)
    prepared = Prepared.of_sums(stats, dosage, np.ones(t), axis=AXIS, group_effect_sd=p.design.group_effect_sd)
    c, effect = fit(prepared, Settings()).columns, likelihood(distribution).effect
    called = c["qvalue"] < 0.05
    large = responds & (np.abs(mean[:, 0] - mean[:, 7]) > (0.3 if distribution == "binomial" else 0.7))
    assert called[large].mean() > 0.9
    assert (called & ~responds).sum() <= 0.12 * called.sum()
    truth = mean[:, 0] - mean[:, -1]
    inside = (c[f"{effect}_full_q025"] <= truth) & (truth <= c[f"{effect}_full_q975"])
    assert inside[called & responds].mean() > 0.85
    inside = (c["log2_ec50_q025"] <= k) & (k <= c["log2_ec50_q975"])
    assert inside[called & responds & (c["model"] == "single_hill")].mean() > 0.85


def test_units_do_not_change_a_normal_fit(rng: np.random.Generator) -> None:
    """Contrasts and simulations are in the unit of the predictor."""
    p = problem("normal", rows("normal", rng, rng.normal(0, 0.3, (3, 12))))
    ratio, variance, fitted = p.likelihood.contrasts(p.rows, np.zeros((3, 12)), np.zeros((3, 12)))
    np.testing.assert_allclose(ratio, p.counts)
    np.testing.assert_allclose(variance, 1 / p.weights)
    assert (fitted == 0).all()
    y, w = p.likelihood.simulate(rng, p.rows, np.zeros((3, 12)))
    assert np.std(y * np.sqrt(w)) == pytest.approx(1.0, abs=0.4)


def test_rows_without_reads_say_nothing(rng: np.random.Generator) -> None:
    stats = rows("binomial", rng, np.zeros((2, 12)))
    blank = stats.weights.copy()
    blank[:, 3] = 0
    without = replace(stats, counts=np.where(blank > 0, stats.counts, 0.0), weights=blank)
    p = problem("binomial", without)
    q = p.guides(np.arange(12) != 3)
    taus = np.full((2, 1), 0.1)
    np.testing.assert_allclose(null_evidence(p, taus)[0], null_evidence(q, taus)[0], atol=1e-6)


def test_robust_means_of_student_t_scores() -> None:
    rng = np.random.default_rng(0)
    row = np.repeat(np.arange(4), 500)
    x = rng.standard_t(3, (2000, 3)) * 2.0 + np.array([0.0, 1.0, 2.0, 3.0])[row][:, None]
    x[::50] += 100.0  # outliers
    x[5, 0] = np.nan
    mean, precision = robust_means([(slice(0, 3), x)], row, 5, np.full(3, 1.5), np.full(3, 2.0))
    np.testing.assert_allclose(mean[:, :4], np.tile([0.0, 1.0, 2.0, 3.0], (3, 1)), atol=0.35)
    assert (precision[:, 4] == 0).all()
    assert precision[1, 0] == pytest.approx(500 * 4 / 6 / 4)
    # a hard feature beside it does not change one that has converged
    hard = np.where(rng.random(2000) < 0.5, -40.0, 40.0) + rng.normal(size=2000)
    together, _ = robust_means([(slice(0, 4), np.c_[x, hard])], row, 5, np.full(4, 1.5), np.full(4, 2.0))
    np.testing.assert_allclose(together[:3], mean, rtol=1e-12)
