"""Evidence in closed form against brute force and against the trans step, and what follows from it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import nbinom

from dream_sc._core.power.ec50_width import fine_curves, widths
from dream_sc._core.power.evidence import Curves, Known, curves_of, log_bayes_factors
from dream_sc._core.power.forecast import Forecast, Gene, Population, Shape, as_fitted
from dream_sc._core.power.guide_sums import Design, Features, draw
from dream_sc._core.priors import TransPriors
from dream_sc._core.response.decision import log_bayes_factor, marginals
from dream_sc._core.response.evidence import evaluate
from dream_sc._core.response.learned import Prior
from dream_sc._core.response.problem import problem
from dream_sc._core.response.settings import Settings
from dream_sc._core.types import GuideStats, RowDosage

PRIORS = TransPriors()
GRID = np.array(PRIORS.tau_grid)
TAU, NOISE = 0.06, 0.5


def design(cells: float = 100.0, n: int = 10, n_ntc: int = 5) -> Design:
    return Design(np.linspace(-3, 1, n), cells, np.full(n_ntc, 2 * cells))


def features(d: Design, n: int, mean: float, log2fc: float) -> Features:
    """Features of one Hill with an EC50 of -1 whose upper asymptote is `log2fc` above the lower one."""
    x = np.append(d.dosages, 0.0)
    curve = np.log(1 + (2.0**log2fc - 1) / (1 + 2.0 ** (-2 * (x + 1))))
    moves = np.repeat((curve[:-1] - curve[-1])[None], n, 0)
    return Features(np.full(n, mean), np.full(n, NOISE), np.full(n, TAU), moves)


def known(d: Design, mean: float, prior: Prior | None = None, grid: np.ndarray = GRID) -> Known:
    return Known(d, mean, NOISE, prior or Prior(np.array([0.8, 0.05, 0.15]), np.log(TAU), 0.5), grid)


def test_draws_have_the_moments_of_sums():
    d = design()
    f = features(d, 20000, 1.0, 1.0)
    sums = draw(f, d, np.random.default_rng(0))
    mean = d.exposure * np.exp(np.append(f.curve[0], np.zeros(5)) + TAU**2 / 2)
    assert sums.mean(0) == pytest.approx(mean, rel=0.01)
    noise = (1 + NOISE**2 * d.noise) * np.exp(TAU**2) - 1
    assert sums.var(0) == pytest.approx(mean + noise * mean**2, rel=0.08)


@pytest.mark.parametrize("mean", [0.05, 1.0])
def test_log_bayes_factors_are_those_of_brute_force(mean):
    d, grid = design(), np.array([0.04, 0.16])
    prior = Prior(np.array([0.8, 0.1, 0.1]), np.log(0.08), 0.7)
    every = curves_of(d, PRIORS)
    pick = np.random.default_rng(1).permutation(len(every.log_weight))[:40]
    curves = Curves(every.moves[pick], every.log_weight[pick], every.log2_ec50[pick])
    sums = draw(features(d, 6, mean, 1.0), d, np.random.default_rng(2))
    found = log_bayes_factors(sums, known(d, mean, prior, grid), curves)

    level = np.linspace(-1.5, 1.5, 301)
    log_weight = curves.log_weight + np.log(0.5)
    log_tau = prior.log_tau(grid)
    expected = []
    for y in sums:
        null, response = [], []
        for tau, w in zip(grid, log_tau, strict=True):
            k = 1 / ((1 + NOISE**2 * d.noise) * np.exp(tau**2) - 1)

            def at(moves, k=k, y=y):
                mu = (mean * d.exposure * np.exp(np.append(moves, np.zeros(5))))[:, None] * np.exp(level)
                return logsumexp(nbinom.logpmf(y[:, None], k[:, None], k[:, None] / (k[:, None] + mu)).sum(0))

            null.append(w + at(np.zeros(10)))
            response.append(w + logsumexp([at(m) for m in curves.moves] + log_weight))
        expected.append(logsumexp(response) - logsumexp(null))
    error = np.abs(found - expected)
    assert error.max() < 0.4
    assert error.mean() < 0.2


def test_the_trans_step_says_the_same():
    d, mean = design(), 0.5
    f = [features(d, 25, mean, fc) for fc in (0.0, 0.5, 1.0)]
    rng = np.random.default_rng(3)
    sums = np.concatenate([draw(each, d, rng) for each in f])
    closed = log_bayes_factors(sums, known(d, mean), curves_of(d, PRIORS))
    x = np.append(d.dosages, np.zeros(5))
    rows = np.arange(len(x))
    stats = GuideStats(sums, d.exposure, d.exposure**2 * d.noise, rows, np.zeros_like(rows), len(x), 1)
    spread = np.where(x == 0, 0.0, d.within_sd)
    dosage = RowDosage(x, spread, np.zeros(len(x)), control=np.arange(len(x)) >= len(d.dosages))
    p = problem(stats, dosage, np.full(len(sums), NOISE), group_effect_sd=0.3, axis=d.axis, priors=PRIORS)
    e = evaluate(p, Settings(), (0.0, 0.3))
    names = [c.name for c in e.comparison.curves]
    weights = {"null": 0.8, "switch": 0.05, "single_hill": 0.14, "additive_hill": 0.01}
    prior = Prior(np.array([weights[name] for name in names]), np.log(TAU), 0.5)
    fitted = log_bayes_factor(marginals(e.values, e.comparison.grid, prior), prior)
    as_said = as_fitted(closed, mean * d.cells, np.ones(len(sums)))
    assert np.corrcoef(as_said, fitted)[0, 1] > 0.98
    assert abs(np.mean(as_said - fitted)) < 0.4
    assert np.std(as_said - fitted) < 0.8


def test_an_interval_narrows_with_the_data():
    wide = [
        np.median(widths(draw(f, d, np.random.default_rng(4)), known(d, 1.0), fine_curves(d, PRIORS)))
        for d in (design(5.0), design(100.0), design(5000.0))
        for f in [features(d, 20, 1.0, 2.0)]
    ]
    assert wide[0] > 1.5 * wide[1] > 1.5 * wide[2] > 0
    assert wide[0] < 14 + 1e-9  # the lattice: the axis and 5 log2 to either side


def test_a_larger_share_of_strong_responders_lowers_the_threshold():
    d = design()

    def threshold(share: float, sizes: list[float]) -> float:
        population = Population(np.array([0.5]), np.array([NOISE]), np.array(sizes))
        prior = Prior(np.array([1 - share, 0.1 * share, 0.9 * share]), np.log(TAU), 0.3)
        return Forecast(d, population, prior, 0.05).threshold(curves_of(d, PRIORS))

    assert threshold(0.4, [1.5, 2.0]) < threshold(0.1, [1.5, 2.0]) < threshold(0.02, [1.5, 2.0])


def test_what_cannot_be_is_missing():
    d = design()
    population = Population(np.array([0.5]), np.array([NOISE]), np.zeros(0))
    forecast = Forecast(d, population, Prior(np.array([0.9, 0.01, 0.09]), np.log(TAU), 0.3), 0.05)
    outside, flat, steep = forecast.of(
        [
            Gene(1.0, NOISE, -1.0, Shape(-8.0, 1.0, log2_ec50=-6.0)),
            Gene(1.0, NOISE, 0.0, Shape(-3.0, 1.0)),
            Gene(1.0, NOISE, -3.0, Shape(-3.0, 1.0, log2_ec50=2.0, hill_n=0.5)),
        ]
    )
    assert outside.power < 0.5
    assert np.isnan(outside.ec50_width)
    assert flat.power < 0.05
    assert np.isnan(flat.ec50_width)
    assert np.isnan(steep.power)
