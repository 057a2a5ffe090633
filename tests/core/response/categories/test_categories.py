"""Features with several categories, as binomials that share a shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from dream_sc._core.curves import curve
from dream_sc._core.response.categories import decision, describe, evidence, usage
from dream_sc._core.response.categories.draws import LinkDraws
from dream_sc._core.response.categories.links import Links, Spans
from dream_sc._core.response.categories.shapes import lagged
from dream_sc._core.response.evidence import gather
from dream_sc._core.response.fit import fit
from dream_sc._core.response.prepare import Prepared
from dream_sc._core.response.settings import Settings
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[np.linspace(-2.5, 1.2, 8), np.zeros(4)]
AXIS = Axis.of(DOSES[:8])
N_G = len(DOSES)
DOSAGE = RowDosage(DOSES, np.zeros(N_G), np.full(N_G, 0.03), DOSES == 0)
SETTINGS = Settings(nsamples=400)
PLAIN = {"axis": AXIS, "group_effect_sd": 0.3}


def simulate(n_categories: np.ndarray, seed: int, n: float = 150.0, shift: float = 0.05):
    """Sums of features whose shares move along a line, and their truth."""
    rng = np.random.default_rng(seed)
    f = len(n_categories)
    k, hill_n, responds = rng.uniform(-1.6, 0.4, f), np.exp(rng.normal(np.log(2), 0.3, f)), rng.random(f) < 0.35
    y, total, feature, moved = [], [], [], []
    for i, n_cat in enumerate(n_categories):
        low = rng.dirichlet(np.full(n_cat, 2.0))
        high = rng.dirichlet(np.full(n_cat, 2.0)) if responds[i] else low
        h = expit(hill_n[i] * np.log(2) * (DOSES[:, None] - k[i]))
        share = (low + (high - low) * h) * np.exp(rng.normal(0, shift, (N_G, n_cat)))
        counts = np.stack([rng.multinomial(m, p / p.sum()) for m, p in zip(rng.poisson(n, N_G), share, strict=True)])
        order = np.argsort(-counts.sum(0), kind="stable")
        counts, low, high = counts[:, order], low[order], high[order]
        moved.append((high - low) * (h[0] - h[-1]))
        for j in range(n_cat - 1):
            y.append(counts[:, j])
            total.append(counts[:, j:].sum(1))
            feature.append(i)
    one, zero = np.ones(N_G), np.zeros(N_G, dtype=int)
    stats = GuideStats(
        np.array(y, float), one, one, np.arange(N_G), zero, N_G, 1, np.array(total, float), "multinomial"
    )
    return stats, np.array(feature), responds, k, moved


def fitted(stats, feature, settings=SETTINGS):  # type: ignore[no-untyped-def]
    """What is decided of the features, and what draws say of them."""
    of = np.unique(feature, return_inverse=True)[1]
    links = Links.in_order(of)
    prepared = Prepared.of_sums(stats, DOSAGE, np.ones(len(of)), links=links, **PLAIN)
    out = decision.decide(gather(prepared, settings))
    asked = np.ones(links.n_features, dtype=bool)
    return out.calls, describe.of_draws(out, asked, progress=lambda x: x, kept=None)


def test_evidence_of_a_feature_is_that_of_its_links() -> None:
    rng = np.random.default_rng(0)
    log_bf = rng.normal(0, 3, (5, 4))
    parts = Spans.of(np.array([0, 1, 1, 2, 2]))
    got = evidence.together(log_bf, parts)
    np.testing.assert_allclose(got[0], log_bf[0], rtol=1e-9)
    for f, (i, j) in enumerate([(1, 2), (3, 4)], 1):
        b1, b2 = np.exp(log_bf[i]), np.exp(log_bf[j])
        # one of the two moves, the other does, or both do
        np.testing.assert_allclose(np.exp(got[f]), (b1 + b2 + b1 * b2) / 3, rtol=1e-9)


def test_two_categories_are_a_binomial() -> None:
    stats, feature, *_ = simulate(np.full(60, 2), seed=1)
    found, rows = fitted(stats, feature)
    settings = Settings(one_step=True, nsamples=400, learned=found.learned)
    alone = fit(Prepared.of_sums(stats, DOSAGE, np.ones(len(feature)), **PLAIN), settings)
    np.testing.assert_allclose(found.lfdr, alone.columns["lfdr"], atol=1e-3)
    np.testing.assert_allclose(found.log_bf, alone.columns["log_bf"], atol=1e-3)
    for name in ("log2_ec50", "log2_ec50_q025", "log2_ec50_q975", "delta_p_full"):
        np.testing.assert_allclose(rows.by_category[name][::2], alone.columns[name], atol=1e-3)
    # the other category is its mirror image, up to where quantiles are cut
    np.testing.assert_allclose(rows.by_category["delta_p_full"][1::2], -alone.columns["delta_p_full"], atol=1e-3)
    np.testing.assert_allclose(rows.by_category["log2_ec50"][1::2], alone.columns["log2_ec50"], atol=1e-3)


@pytest.mark.parametrize(("most", "large"), [(4, 0.25), (20, 0.08)])
def test_responders_are_found_and_their_usage_covered(most: int, large: float) -> None:
    rng = np.random.default_rng(most)
    stats, feature, responds, k, moved = simulate(rng.integers(most // 2, most + 1, 90), seed=2, n=400.0)
    found, rows = fitted(stats, feature)
    called = found.q_value < 0.05
    largest = np.array([np.abs(m).max() for m in moved])
    assert called[responds & (largest > large)].mean() > 0.85
    assert (called & ~responds).sum() <= 0.15 * max(called.sum(), 1)
    lead = rows.leading
    truth = np.concatenate(moved)
    yes = called & responds
    low, high = (rows.by_category[f"delta_p_full_{q}"][lead] for q in ("q025", "q975"))
    assert ((low <= truth[lead]) & (truth[lead] <= high))[yes].mean() > 0.8
    low, high = (rows.by_category[f"log2_ec50_{q}"][lead] for q in ("q025", "q975"))
    assert ((low <= k) & (k <= high))[yes].mean() > 0.8
    of_feature = np.repeat(np.arange(90), [len(m) for m in moved])
    np.testing.assert_allclose(np.bincount(of_feature, rows.by_category["baseline"]), 1.0, atol=0.05)


def knocked_out(n_features: int, seed: int):  # type: ignore[no-untyped-def]
    """Features of three categories of which every third goes to other shares wherever a guide acts, and their truth."""
    rng = np.random.default_rng(seed)
    acts, responds = DOSES != 0, np.arange(n_features) % 3 == 0
    y, total, moved = [], [], []
    for i in range(n_features):
        share = np.array([0.5, 0.3, 0.2])
        after = np.array([0.2, 0.3, 0.5]) if responds[i] else share
        at = np.where(acts[:, None], after, share) * np.exp(rng.normal(0, 0.05, (N_G, 3)))
        counts = np.stack([rng.multinomial(400, p / p.sum()) for p in at])
        moved.append(after - share)
        for j in range(2):
            y.append(counts[:, j])
            total.append(counts[:, j:].sum(1))
    one, zero = np.ones(N_G), np.zeros(N_G, dtype=int)
    sums = np.array(y, float), one, one, np.arange(N_G), zero, N_G, 1, np.array(total, float), "multinomial"
    return GuideStats(*sums), np.repeat(np.arange(n_features), 2), responds, np.concatenate(moved)


@pytest.mark.parametrize("function_type", ["auto", "switch"])
def test_a_switch_of_usage_is_one_of_each_category(function_type: str) -> None:
    """Usage that is the same in all acting guides, whatever their dosage: called, not graded, the change right."""
    stats, feature, responds, moved = knocked_out(36, seed=5)
    found, rows = fitted(stats, feature, replace(SETTINGS, function_type=function_type))
    called = found.q_value < 0.05
    np.testing.assert_array_equal(called, responds)
    names = np.array([c.name for c in found.evidence.comparison.curves])
    assert set(names[found.best[called]]) == {"switch"}
    if function_type == "auto":
        assert (found.q_graded[called] > 0.05).all()
    else:
        assert np.isnan(found.graded.lfdr).all()
    of_called = np.repeat(called, 3)
    assert set(rows.by_category["class"][of_called]) == {"switch"}
    got, low, high = (rows.by_category[f"delta_p_full{end}"][of_called] for end in ("", "_q025", "_q975"))
    truth = moved[of_called]
    np.testing.assert_allclose(got, truth, atol=0.06)
    assert ((low <= truth) & (truth <= high)).mean() > 0.85
    assert np.isnan(rows.by_category.get("log2_ec50", np.full(len(moved), np.nan))[of_called]).all()


def test_a_feature_does_not_depend_on_the_others() -> None:
    stats, feature, *_ = simulate(np.array([3, 4, 2, 5, 3, 3]), seed=4)
    found, rows = fitted(stats, feature)
    some = np.isin(feature, [1, 3])
    alone, alone_rows = fitted(stats.take(some), feature[some], replace(SETTINGS, learned=found.learned))
    np.testing.assert_allclose(alone.log_bf, found.log_bf[[1, 3]], rtol=1e-6)
    at = np.concatenate([np.arange(3, 7), np.arange(9, 14)])
    for name in ("log2_ec50_q025", "delta_p_range", "baseline"):
        np.testing.assert_allclose(alone_rows.by_category[name], rows.by_category[name][at], rtol=1e-6)


def test_usage_moves_along_a_line() -> None:
    """Links with their lags give shares that move by one Hill, whose EC50 is reported."""
    low, high = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
    k, n = -0.7, 1.8
    x = np.linspace(-3, 2, 31)
    share = low + (high - low) * expit(n * np.log(2) * (x[:, None] - k))
    odds_low = [low[0] / (1 - low[0]), low[1] / low[2]]
    odds_high = [high[0] / (1 - high[0]), high[1] / high[2]]
    b = np.log(odds_high) - np.log(odds_low)
    rest_low, rest_high = np.array([1 - low[0], low[2]]), np.array([1 - high[0], high[2]])
    lag = np.log2(rest_low / rest_high)  # of each link, times n
    first = k + lag[0] / n
    shapes = np.array([[[first, np.log(n)]]])
    of_links = lagged(np.repeat(shapes, 2, 0), lag - lag[0])
    curves = []
    for s in range(2):
        z = n * np.log(2) * (x - of_links[s, 0, 0])
        curves.append(np.log(odds_low[s]) + np.log1p(np.expm1(b[s]) * expit(z)))
    got = np.exp(usage.log_shares(np.stack(curves), np.array([0]), np.array([2])))
    np.testing.assert_allclose(got.T, share, rtol=1e-10)
    at_ntc = [np.interp(0.0, x, c) for c in curves]
    at_ntc = [
        np.log(odds_low[s]) + np.log1p(np.expm1(b[s]) * expit(-n * np.log(2) * of_links[s, 0, 0])) for s in range(2)
    ]
    drawn = LinkDraws(
        np.stack([at_ntc, b], 1)[:, None],
        shapes,
        np.zeros((1, 2)),
        lag - lag[0],
        Spans.of(np.zeros(2, int)),
        np.zeros(2),
        np.zeros(2),
        np.zeros(1),
    )
    found = usage.usage(drawn, curve("single_hill"), AXIS)
    assert found.as_hill.all()
    for c in range(3):
        got = expit(curve("single_hill").log_curve(x, found.hill[c], None)[0])
        np.testing.assert_allclose(got, share[:, c], rtol=1e-9)


def test_usage_that_is_no_hill_is_written_as_it_is() -> None:
    """Links that move at dosages of their own: the record follows their product, not a Hill through its ends."""
    rng = np.random.default_rng(0)
    parts = Spans.of(np.zeros(3, int))
    b = np.array([2.0, -2.5, 2.0])[:, None] + rng.normal(0, 0.1, (3, 50))
    params = np.stack([rng.normal(0, 0.3, (3, 50)), b], 2)
    shapes = np.tile([-0.8, 0.6], (1, 50, 1))
    drawn = LinkDraws(
        params, shapes, np.zeros((1, 2)), np.array([0.0, 3.0, -3.0]), parts, np.zeros(3), np.zeros(3), np.zeros(1)
    )
    found = usage.usage(drawn, curve("single_hill"), AXIS)
    x = np.linspace(AXIS.low, AXIS.high, 21)
    links = np.concatenate([params, lagged(np.repeat(shapes, 3, 0), drawn.lag)], 2)
    want = np.exp(usage.log_shares(curve("single_hill").log_curve(x, links, None), parts.start, parts.length))
    got = np.zeros_like(want)
    for which, c, draws, consts in found.parts():
        got[which] = expit(c.log_curve(x, draws, consts[:, None]))
    assert not found.as_hill.all()
    assert np.abs(got - want).max(2).mean(1).max() < 0.02
    np.testing.assert_allclose(got.sum(0).mean(0), 1.0, atol=0.02)


@pytest.mark.parametrize("name", ["additive_hill", "polynomial"])
def test_other_curves_run(name: str) -> None:
    stats, feature, *_ = simulate(np.array([3, 4, 2, 3]), seed=5)
    found, rows = fitted(stats, feature, Settings(function_type=name, nsamples=200))
    assert np.isfinite(found.lfdr).all()
    assert np.isfinite(rows.by_category["delta_p_range"]).all()
