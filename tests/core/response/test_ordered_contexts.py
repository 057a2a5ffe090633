"""Ordered contexts: the likelihood of several, lines through the lattice, evidence by quadrature, trends on sums."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.special import logsumexp

from dream_sc._core.priors import TransPriors
from dream_sc._core.response.contexts.decision import Decision
from dream_sc._core.response.contexts.evidence import total
from dream_sc._core.response.contexts.guide_levels import Sums
from dream_sc._core.response.contexts.lattice_draws import lattice_evidence, tables_of
from dream_sc._core.response.contexts.measured import Measured
from dream_sc._core.response.contexts.pair_likelihood import Curves, Pair, log_likelihood
from dream_sc._core.response.contexts.shapes import Dosages, Shapes
from dream_sc._core.response.ordered.decision import decide
from dream_sc._core.response.ordered.describe import curves_of, described
from dream_sc._core.response.ordered.evidence import evidence
from dream_sc._core.response.ordered.hypotheses import (
    AMPLITUDE_SD,
    BOTH,
    DOSAGE,
    EC50_SD,
    EQUAL,
    FREE,
    HYPOTHESES,
    Trends,
    places_of,
)
from dream_sc._core.response.ordered.lattice_trends import NODES, STEP, LineDraws, lattice_sums
from dream_sc._core.types import Axis, GuideStats

G, N, C = 10, 4, 4  # targeting and NTC guides, contexts
X = np.linspace(-3.0, 1.0, G)
LN2 = np.log(2.0)
NUMBERS = np.array([0.0, 6.0, 12.0, 24.0])
PLACES = places_of(NUMBERS)


def dosages(error: float = 0.05, level_error: float = 0.05, scale: float = 1.0) -> Dosages:
    return Dosages.of(scale * X, np.full(G, 0.2), np.zeros(G), np.full(G, error), level_error)


def shapes() -> Shapes:
    return Shapes(Axis.of(X), TransPriors())


def some_pair(rng: np.random.Generator, n: int = 2, sd: float = 0.1, contexts: int = C) -> Pair:
    mean = rng.normal(0, 0.3, (n, contexts, G + N))
    return Pair(mean, np.full(mean.shape, sd**2), (dosages(),) * contexts, 2.0)


def test_a_trend_moves_curves_linearly_with_the_numbers() -> None:
    s = shapes()
    family = Trends(s, PLACES, of_ec50=True, of_amplitude=True)
    phi = np.array([-1.0, 0.7, float(s.beta(np.array(-1.5))), 0.8, 1.0])
    theta = np.stack([family.theta(phi, c) for c in range(C)])
    hours = NUMBERS - NUMBERS[0]
    np.testing.assert_allclose(theta[:, 0] - theta[0, 0], 0.8 * hours / 24)
    amplitude = s.amplitude(theta[:, 2])
    assert (amplitude < 0).all()
    np.testing.assert_allclose(np.log2(amplitude / amplitude[0]), hours / 24, atol=1e-9)
    assert (theta[:, 1] == 0.7).all()
    # the density of the changes has a mass of 1
    d, a = np.meshgrid(np.linspace(-9, 9, 181), np.linspace(-6, 6, 121), indexing="ij")
    every = np.concatenate([np.broadcast_to(phi[:3], (*d.shape, 3)), d[..., None], a[..., None]], -1)
    mass = np.exp(family.log_prior(every) - s.log_prior(phi[:3])).sum() * 0.1 * 0.1
    assert mass == pytest.approx(1.0, abs=1e-3)


def test_lines_without_a_change_are_the_points_of_the_lattice() -> None:
    s = shapes()
    tables = np.random.default_rng(2).normal(0, 2.0, (2, C, *s.lattice.theta.shape[:3]))
    found = lattice_sums(s, PLACES, tables).log_bf()
    before = lattice_evidence(s, tables)
    np.testing.assert_allclose(found[:, 1], before[:, 1])
    alone = logsumexp(tables + s.lattice.log_prior - logsumexp(s.lattice.log_prior), axis=(2, 3, 4))
    ways = np.array(list(np.ndindex(*(2,) * C)))[1:]
    np.testing.assert_allclose(found[:, 5], logsumexp(alone @ ways.T, axis=1) - np.log(len(ways)))
    # a flat likelihood says nothing for or against a trend
    np.testing.assert_allclose(lattice_sums(s, PLACES, np.zeros_like(tables)).log_bf()[:, :5], 0.0, atol=1e-9)


def test_cells_along_lines_have_a_mass_of_one() -> None:
    s, rng = shapes(), np.random.default_rng(3)
    tables = tables_of(s, some_pair(rng, sd=0.3), np.full(2, 0.06))
    for of_ec50, of_amplitude in ((True, False), (False, True), (True, True)):
        family = Trends(s, PLACES, of_ec50, of_amplitude)
        cells = LineDraws.of(s, tables, family)
        log_density = cells.log_density(cells.draw(rng.random((256, family.n_free + 3))))
        assert np.isfinite(log_density).all()
        # the volume of all cells, by draws from them
        lattice = s.lattice
        ends = [STEP * sd * len(NODES) for sd, has in ((EC50_SD, of_ec50), (AMPLITUDE_SD, of_amplitude)) if has]
        log_volume = np.log([step * len(p) for step, p in zip(lattice.steps, lattice.points, strict=True)]).sum()
        even = LineDraws(s, family, np.full_like(cells.log_p, -np.log(cells.log_p[0].size)), cells.pairs)
        at = even.log_density(even.draw(rng.random((16, family.n_free + 3))))
        np.testing.assert_allclose(at, -log_volume - np.log(ends).sum())


def test_evidence_is_the_integral_over_curves_and_changes() -> None:
    rng, s = np.random.default_rng(4), shapes()
    d = dosages(error=0.05, level_error=0.0)
    truth = Trends(s, PLACES, of_ec50=True, of_amplitude=False)
    phi = np.array([-0.8, np.log(2.0), float(s.beta(np.array(1.4))), 1.2])
    curve = np.stack([s.curve(truth.theta(phi, c), d)[0] for c in range(C)])
    mean = rng.normal(0, 0.12, (1, C, G + N))
    mean[0, :, :G] += curve
    pair, taus = Pair(mean, np.full(mean.shape, 0.1**2), (d,) * C, 2.0), np.array([0.06])
    found = evidence(s, pair, PLACES, taus, 0.3, tables_of(s, pair, taus), taus)
    k, log_n, beta = np.linspace(-2.3, 0.7, 21), np.linspace(-1.0, 2.0, 11), np.linspace(1.4, 6.2, 25)
    change = np.linspace(-0.5, 2.75, 14)
    grid = np.stack(np.meshgrid(k, log_n, beta, change, indexing="ij"), -1).reshape(-1, 4)
    volume = np.prod([a[1] - a[0] for a in (k, log_n, beta, change)])
    each = [s.with_errors(truth.theta(grid, c), d) for c in range(C)]
    every = Curves(*(np.stack([e[i] for e in each], 1)[None] for i in range(3)))
    exact = log_likelihood(pair, every, taus, 0.3)[0, :, 0] + truth.log_prior(grid)
    assert found.values[0, HYPOTHESES.index(DOSAGE), 0] == pytest.approx(logsumexp(exact) + np.log(volume), abs=0.25)
    # without a change, on a finer grid
    k, log_n, beta = np.linspace(-2.0, 0.6, 35), np.linspace(-1.0, 2.0, 19), np.linspace(1.8, 5.4, 41)
    grid = np.stack(np.meshgrid(k, log_n, beta, indexing="ij"), -1).reshape(-1, 3)
    each_same = Curves(*(np.stack([part] * C, 1)[None] for part in s.with_errors(grid, d)))
    exact = log_likelihood(pair, each_same, taus, 0.3)[0, :, 0] + s.log_prior(grid)
    log_same = logsumexp(exact) + np.log(np.prod([a[1] - a[0] for a in (k, log_n, beta)]))
    assert found.values[0, HYPOTHESES.index(EQUAL), 0] == pytest.approx(log_same, abs=0.25)


def test_free_curves_are_those_of_the_contexts_alone() -> None:
    rng, s = np.random.default_rng(5), shapes()
    pair, taus = some_pair(rng, n=2, sd=0.5), np.array([0.06])
    tables = tables_of(s, pair, np.full(2, 0.06))
    tables[:, :, 0, 0, 0] += 1e-3
    looked = lattice_sums(s, PLACES, tables).log_bf()
    # as if something responded, so that everything is drawn
    found = evidence(s, pair, PLACES, taus, 0.0, tables + 20.0, np.full(2, 0.06))
    null = found.values[:, 0, 0]
    np.testing.assert_allclose(found.values[:, HYPOTHESES.index(FREE), 0] - null, looked[:, 5], atol=0.35)
    assert set(found.posteriors) == set(HYPOTHESES[1:])
    assert (total(found.posteriors[FREE]) == found.values[:, 5]).all()


def simulated(seed: int, n: int, kinds: str = "nedaf", nuisances: bool = False) -> tuple[Measured, np.ndarray]:
    """Features without a response (n), with equal ones (e), trends of EC50 (d) or amplitude (a), or one apart (f)."""
    rng, s = np.random.default_rng(seed), shapes()
    kind = np.array(list(kinds))[np.arange(n) % len(kinds)]
    sign = rng.choice([-1.0, 1.0], n)
    base = np.stack([rng.uniform(-1.6, -0.4, n), np.full(n, 0.7), s.beta(rng.choice([-2.0, 2.0], n))], 1)
    shared = rng.normal(0, 0.07 * 0.5**0.5, (n, G + N))
    sums, axes = [], []
    for c, place in enumerate(PLACES):
        theta, scale = base.copy(), (1.0, 0.8, 0.65, 0.5)[c] if nuisances else 1.0
        theta[kind == "d", 0] += 1.5 * (sign * place)[kind == "d"]
        theta[kind == "a", 2] = s.beta(s.amplitude(theta[:, 2]) * 2.0 ** (sign * place * 1.2))[kind == "a"]
        theta[(kind == "f") & (c == 1), 0] += 1.5
        d = dosages(scale=scale)
        curve = np.zeros((n, G + N))
        curve[:, :G] = np.where((kind == "n")[:, None], 0.0, s.curve(theta, d)[0])
        own = rng.normal(0, 0.07 * 0.5**0.5, curve.shape)
        level, cells = ((4.0, 2.0, 1.0, 0.5)[c], (200, 100, 150, 40)[c]) if nuisances else (1.0, 100)
        exposure = np.full(G + N, float(cells))
        mean = 4.0 * level * cells * np.exp(curve + shared + own)
        phi = cells / 0.3**2
        stats = GuideStats(
            rng.poisson(rng.gamma(phi, mean / phi)).astype(float),
            exposure,
            exposure**2 / cells,
            np.arange(G + N),
            np.zeros(G + N, int),
            G + N,
            1,
        )
        sums.append(Sums(stats, np.full(n, 0.3), 0.3))
        axes.append(d)
    targeting = np.arange(G + N) < G
    return Measured(tuple(sums), tuple(axes), targeting, Axis.of(X), TransPriors()), kind


@cache
def trends() -> tuple[Measured, np.ndarray, Decision, list]:
    measured, kind = simulated(0, 44, kinds="nneenneedaf")
    return measured, kind, *decide(measured, PLACES, n_null=40, seed=1)


def test_trends_are_found_and_equal_responses_have_none() -> None:
    measured, kind, decision, blocks = trends()
    has = np.isin(kind, ["d", "a"])
    assert (decision.q_value[has] < 0.05).mean() >= 0.8
    called = decision.q_value < 0.05
    assert (called & np.isin(kind, ["n", "e"])).sum() <= 1
    assert np.median(decision.p_value[has]) < 0.01
    found = described(measured, decision, blocks, NUMBERS)
    assert (found["hypothesis"][kind == "n"] == "null").all()
    assert (found["hypothesis"][kind == "e"] == "equal").mean() > 0.85
    assert np.isin(found["hypothesis"][(kind == "d") & called], ["dosage_trend", "both_trends"]).mean() > 0.8
    assert np.isin(found["hypothesis"][(kind == "a") & called], ["amplitude_trend", "both_trends"]).mean() >= 0.75
    # one context apart in the middle is a difference, and no trend
    assert (decision.lfdr_differs[kind == "f"] < 0.2).sum() >= 3
    assert (found["hypothesis"][kind == "f"] == "free").sum() >= 2


def test_intervals_of_slopes_hold_the_simulated_ones() -> None:
    measured, kind, decision, blocks = trends()
    found = described(measured, decision, blocks, NUMBERS)
    sign = np.random.default_rng(0).choice([-1.0, 1.0], len(kind))  # the first draw of the simulation
    for name, size, of in (("log2_ec50", 1.5, "d"), ("log2_amplitude", 1.2, "a")):
        true = np.where(kind == of, sign * size / 24.0, 0.0)
        middle, low, high = found[name]
        responds = np.isin(kind, ["e", "d", "a"]) & np.isfinite(middle)
        assert responds.sum() > 20
        assert ((low <= true) & (true <= high))[responds].mean() >= 0.85
        assert np.abs(middle - true)[responds].mean() < 0.5 * size / 24.0


def test_curves_of_all_contexts_have_bands() -> None:
    measured, kind, decision, blocks = trends()
    drawn = curves_of(measured, decision, blocks)
    assert drawn.curves.shape == (len(drawn.rows), C, 3, 25)
    assert (drawn.curves[:, :, 1] <= drawn.curves[:, :, 2]).all()
    responds = np.isin(drawn.rows, np.flatnonzero(kind != "n"))
    assert (np.abs(drawn.curves[responds, :, 0]).max((1, 2)) > 0.3).all()


def test_what_is_no_trend_is_not_called() -> None:
    measured, kind = simulated(7, 60, kinds="nne", nuisances=True)
    decision, _ = decide(measured, PLACES, n_null=60, seed=2)
    assert (decision.q_value < 0.05).sum() <= 1
    assert (decision.lfdr[kind == "e"] > 0.5).mean() > 0.9
    p = decision.p_value
    # p-values of features without a trend are even, or higher
    assert (p < 0.05).mean() <= 0.12
    assert 0.02 < (p < 0.2).mean() < 0.4
    assert 0.3 < (p < 0.6).mean() < 0.85


def test_permuted_numbers_find_no_trend() -> None:
    measured, _ = simulated(3, 20, kinds="d")
    straight, _ = decide(measured, PLACES, n_null=0)
    permuted, _ = decide(measured, places_of(NUMBERS[[1, 3, 0, 2]]), n_null=0)
    assert (straight.lfdr < 0.05).mean() > 0.7
    assert np.median(permuted.log_bf) < np.median(straight.log_bf) - 5.0
    assert (permuted.lfdr < 0.05).mean() < 0.3


def test_the_order_of_contexts_guides_and_features_does_not_matter() -> None:
    measured, _ = simulated(4, 10)
    one, blocks = decide(measured, PLACES, n_null=20, seed=5)
    again, _ = decide(measured, PLACES, n_null=20, seed=5)
    np.testing.assert_array_equal(one.p_value, again.p_value)
    np.testing.assert_array_equal(one.values, again.values)
    order = np.random.default_rng(0).permutation(10)
    features, _ = decide(measured.take(order), PLACES, n_null=20, seed=5)
    np.testing.assert_allclose(features.lfdr, one.lfdr[order], rtol=1e-6)
    np.testing.assert_allclose(features.p_value, one.p_value[order], rtol=1e-6)
    # contexts in another order are drawn with other numbers
    turned = replace(measured, sums=measured.sums[::-1], dosages=measured.dosages[::-1])
    reverse, of_reverse = decide(turned, PLACES[::-1], n_null=0)
    np.testing.assert_allclose(reverse.lfdr, one.lfdr, atol=0.12)
    slopes = [
        described(m, d, b, x)["log2_ec50"][0]
        for m, d, b, x in ((measured, one, blocks, NUMBERS), (turned, reverse, of_reverse, NUMBERS[::-1]))
    ]
    np.testing.assert_allclose(slopes[0], slopes[1], atol=0.02)
    # guides under other numbers
    guides = np.random.default_rng(1).permutation(G)
    every = np.append(guides, np.arange(G, G + N))
    sums = [replace(m, stats=replace(m.stats, counts=m.stats.counts[:, every])) for m in measured.sums]
    at = [Dosages.of(X[guides], np.full(G, 0.2), np.zeros(G), np.full(G, 0.05), 0.05)] * C
    moved, _ = decide(replace(measured, sums=tuple(sums), dosages=tuple(at)), PLACES, n_null=0)
    np.testing.assert_allclose(moved.lfdr, one.lfdr, atol=1e-4)


def test_features_that_nothing_is_learned_from_have_no_q_value() -> None:
    measured, _ = simulated(6, 12, kinds="ne")
    learns = np.arange(12) < 10
    decision, blocks = decide(measured, PLACES, n_null=0, learns=learns)
    assert np.isnan(decision.q_value[~learns]).all()
    assert np.isfinite(decision.q_value[learns]).all()
    assert np.isnan(decision.p_value).all()
    assert BOTH in {name for b in blocks for name in b.evidence.posteriors}
