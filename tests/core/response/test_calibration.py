"""Null refits: who gets whose dosage, evidence under it, and what the p-values say, against independent formulas."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats as st
from statsmodels.stats.multitest import multipletests

from dream_sc._core.priors import TransPriors
from dream_sc._core.response import calibration, decision
from dream_sc._core.response.fit import fit
from dream_sc._core.response.prepare import Prepared
from dream_sc._core.response.settings import Settings
from dream_sc._core.types import Axis, GuideStats, RowDosage

if TYPE_CHECKING:
    from collections.abc import Iterator

N_TARGETING, N_NTC = 6, 4
N_GUIDES = N_TARGETING + N_NTC
CONTROL = np.arange(N_GUIDES) >= N_TARGETING
DOSES = np.r_[0.9, -2.5, -0.4, -1.7, -1.1, 0.4, np.zeros(N_NTC)]  # not sorted
POOL = np.flatnonzero(CONTROL)


@pytest.fixture(scope="module", autouse=True)
def _few_null_features() -> Iterator[None]:
    """The p-values of a fit rest on fewer simulated features, which is most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decision, "N_NULL", 100)
        yield


# which guide gets whose dosage


def _mean(n_targeting: int, n_ntc: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dosages in no order, control flags, and the NTC guides."""
    mean = np.r_[np.random.default_rng(3).permutation(np.linspace(-3, 1, n_targeting)), np.zeros(n_ntc)]
    control = np.arange(n_targeting + n_ntc) >= n_targeting
    return mean, control, np.flatnonzero(control)


@pytest.mark.parametrize(("n_targeting", "n_ntc"), [(6, 4), (3, 9), (12, 7), (1, 5), (4, 2), (5, 3)])
def test_at_most_half_of_the_ntc_guides_pose(n_targeting: int, n_ntc: int) -> None:
    mean, control, pool = _mean(n_targeting, n_ntc)
    sources = calibration.posing_sources(mean, control, pool, 25, 0)
    k = min(n_targeting, n_ntc // 2)
    assert len({tuple(s) for s in sources}) == len(sources)
    for source in sources:
        assert (source[~control] == -1).all()
        given = source[pool]
        posing = ~control[given]
        assert posing.sum() == k
        assert len(set(given[posing])) == k  # no dosage twice
        np.testing.assert_array_equal(given[~posing], pool[~posing])  # the others keep their own


@pytest.mark.parametrize(("n_ntc", "chosen"), [(4, [0, 5]), (6, [0, 2, 5]), (12, range(6)), (2, [0])])
def test_posing_guides_span_the_real_dosages(n_ntc: int, chosen: list[int]) -> None:
    mean, control, pool = _mean(6, n_ntc)
    given = calibration.posing_sources(mean, control, pool, 1, 0)[0][pool]
    # a single one gets the dosage that is farthest from NTC, here the smallest
    np.testing.assert_allclose(np.sort(mean[given[~control[given]]]), np.sort(mean[~control])[chosen])


def test_a_guide_without_cells_lends_no_dosage() -> None:
    mean = np.where(np.arange(N_GUIDES) == 1, np.nan, DOSES)
    for source in calibration.posing_sources(mean, CONTROL, POOL, 12, 0):
        assert 1 not in source


def test_guides_outside_the_pool_take_no_part() -> None:
    half = POOL[:2]
    sources = calibration.posing_sources(DOSES, CONTROL, half, 20, 0)
    assert len(sources) == 2
    for source in sources:
        assert (source >= 0).sum() == 2
        assert (source[half] >= 0).all()


def test_every_set_of_guides_poses_before_one_does_again() -> None:
    n_sets = comb(N_NTC, 2)
    sources = calibration.posing_sources(DOSES, CONTROL, POOL, 100, 5)
    assert len(sources) == len(set(permutations(range(N_NTC), 2)))  # all there are
    sets = [frozenset(np.flatnonzero((s >= 0) & ~CONTROL[s])) for s in sources]
    assert len(set(sets[:n_sets])) == n_sets
    again = calibration.posing_sources(DOSES, CONTROL, POOL, 7, 5)
    np.testing.assert_array_equal(again, sources[:7])
    assert not np.array_equal(again, calibration.posing_sources(DOSES, CONTROL, POOL, 7, 6))


def test_dosages_are_permuted_between_the_guides_present() -> None:
    present = np.array([0, 2, 3, 7])
    control = np.zeros(N_GUIDES, dtype=bool)
    sources = calibration.permuted_sources(present, control, 100, 1)
    assert len({tuple(s) for s in sources}) == len(sources) == 23  # 4! without the identity
    for source in sources:
        np.testing.assert_array_equal(np.sort(source[present]), present)
        assert not np.array_equal(source[present], present)
        assert (np.delete(source, present) == -1).all()
    np.testing.assert_array_equal(calibration.permuted_sources(present, control, 3, 1), sources[:3])
    control[present[1:]] = True
    sources = calibration.permuted_sources(present, control, 100, 1)
    assert len(sources) == 24 - 6  # the one targeting guide never keeps its dosage
    assert all(s[present[0]] != present[0] for s in sources)


def test_permuted_cells_stay_in_their_group_and_fifth_of_depth(rng: np.random.Generator) -> None:
    n, n_strata = 1003, 5
    group = rng.integers(0, 3, n)
    row = np.where(rng.random(n) < 0.1, -1, 10 * group + rng.integers(0, 4, n))
    depth = rng.choice([0.5, 1.0, 1.1, 1.2, 1.3, 2.0, 3.0], n)  # ties
    before = row.copy()
    out = calibration.permuted_cells(row, group, depth, n_strata, 0)
    np.testing.assert_array_equal(row, before)
    np.testing.assert_array_equal(out[row < 0], -1)
    for c in range(3):
        cells = np.flatnonzero((row >= 0) & (group == c))
        cells = cells[np.argsort(depth[cells], kind="stable")]
        for part in np.split(cells, np.flatnonzero(np.diff(np.arange(len(cells)) * n_strata // len(cells))) + 1):
            assert abs(len(part) - len(cells) / n_strata) < 1
            np.testing.assert_array_equal(np.sort(out[part]), np.sort(row[part]))
    moved = (out != row)[row >= 0].mean()
    assert 0.65 < moved < 0.85  # three in four where four rows are of one size
    assert not np.array_equal(out, calibration.permuted_cells(row, group, depth, n_strata, 1))


# refits


def _problem() -> tuple[GuideStats, RowDosage, np.ndarray, float]:
    """Ten guides in two groups, two rows each; half of the features respond."""
    rng = np.random.default_rng(0)
    n = 24
    guide, group = np.repeat(np.arange(N_GUIDES), 2), np.tile([0, 1], N_GUIDES)
    slope = np.where(np.arange(n) % 2 == 0, 0.0, rng.normal(0, 0.5, n))
    log_mean = rng.uniform(-1, 3, n)[:, None] + slope[:, None] * DOSES[guide] + 0.2 * group
    log_mean = log_mean + rng.normal(0, 0.05, (n, N_GUIDES))[:, guide]
    w = rng.uniform(40, 120, len(guide))
    counts = rng.poisson(np.exp(log_mean) * w).astype(float)
    spread = np.where(CONTROL, 0.0, 0.1 + 0.02 * np.arange(N_GUIDES))
    error = 0.03 + 0.01 * np.arange(N_GUIDES)
    stats = GuideStats(counts, w, 1.05 * w, guide, group, N_GUIDES, 2)
    return stats, RowDosage(DOSES[guide], spread[guide], error, CONTROL), np.full(n, 0.4), 0.3


def _fitted(
    hyper: dict[str, object], settings: Settings, *, dosage: RowDosage | None = None, own_spread: bool = False
) -> tuple[GuideStats, calibration.Fitted]:
    stats, by_guide, overdispersion, group_effect_sd = _problem()
    spread = np.zeros(N_GUIDES)
    spread[stats.guide] = by_guide.spread
    prior, null = decision.restore(hyper)
    return stats, calibration.Fitted(
        dosage=by_guide if dosage is None else dosage,
        guide=stats.guide,
        guide_mean=DOSES,
        guide_spread=None if own_spread else spread,
        control=CONTROL,
        overdispersion=overdispersion,
        group_effect_sd=group_effect_sd,
        priors=TransPriors(),
        settings=settings,
        prior=prior,
        null=null,
    )


def _fit(stats: GuideStats, dosage: RowDosage, settings: Settings, hyper: dict[str, object] | None = None) -> Any:
    _, _, overdispersion, group_effect_sd = _problem()
    doses = dosage.mean[~dosage.control[stats.guide]]
    axis = Axis.of(np.unique(doses))
    prepared = Prepared.of_sums(stats, dosage, overdispersion, axis=axis, group_effect_sd=group_effect_sd)
    return fit(prepared, replace(settings, learned=hyper))


SINGLE = Settings(function_type="single_hill", nsamples=20)


@pytest.fixture(scope="module")
def hyper() -> dict[str, object]:
    """What the whole fit learned."""
    return _fit(*_problem()[:2], SINGLE).learned


@pytest.mark.parametrize(
    "settings",
    [SINGLE, replace(SINGLE, function_type="auto"), replace(SINGLE, guide_effects=False)],
    ids=["single_hill", "auto", "no guide effects"],
)
def test_refit_with_own_dosages_is_the_fit(settings: Settings) -> None:
    found = _fit(*_problem()[:2], settings)
    stats, fitted = _fitted(found.learned, settings)
    evidence = calibration.refit(fitted, stats, np.arange(N_GUIDES))
    np.testing.assert_allclose(decision.log_bf_of(evidence, fitted.prior), found.columns["log_bf"], rtol=1e-10)
    some = np.array([3, 17])
    part = calibration.refit(fitted.take(some), replace(stats, counts=stats.counts[some]), np.arange(N_GUIDES))
    np.testing.assert_allclose(decision.log_bf_of(part, fitted.prior), found.columns["log_bf"][some], rtol=1e-10)


def test_refit_with_dosages_permuted_is_a_fit_of_permuted_dosages(hyper: dict[str, object]) -> None:
    stats, fitted = _fitted(hyper, SINGLE)
    source = np.random.default_rng(1).permutation(N_GUIDES)
    g = stats.guide
    dosage = RowDosage(DOSES[source[g]], fitted.guide_spread[source[g]], fitted.dosage.error[source], CONTROL[source])
    wanted = _fit(stats, dosage, SINGLE, hyper).columns["log_bf"]
    found = decision.log_bf_of(calibration.refit(fitted, stats, source), fitted.prior)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    own = decision.log_bf_of(calibration.refit(fitted, stats, np.arange(N_GUIDES)), fitted.prior)
    assert np.abs(found - own).max() > 1


def test_refit_of_ntc_guides_that_pose_knows_no_other_cells(hyper: dict[str, object]) -> None:
    """Against a fit of their rows alone, renumbered; it does not change with the counts of the guides left out."""
    stats, fitted = _fitted(hyper, SINGLE)
    source = np.full(N_GUIDES, -1)
    source[POOL] = [1, 0, POOL[2], POOL[3]]
    rows = CONTROL[stats.guide]
    alone = replace(
        stats,
        counts=stats.counts[:, rows],
        exposure=stats.exposure[rows],
        exposure2=stats.exposure2[rows],
        guide=stats.guide[rows] - N_TARGETING,
        group=stats.group[rows],
        n_guides=N_NTC,
    )
    g = source[stats.guide[rows]]
    dosage = RowDosage(DOSES[g], fitted.guide_spread[g], fitted.dosage.error[source[POOL]], CONTROL[source[POOL]])
    wanted = _fit(alone, dosage, SINGLE, hyper).columns["log_bf"]
    np.testing.assert_allclose(
        decision.log_bf_of(calibration.refit(fitted, stats, source), fitted.prior), wanted, rtol=1e-10
    )
    other = replace(stats, counts=np.where(rows, stats.counts, 0.0))
    np.testing.assert_allclose(
        decision.log_bf_of(calibration.refit(fitted, other, source), fitted.prior), wanted, rtol=1e-10
    )


def test_rows_of_cell_dosages_keep_their_distance_to_the_guide(hyper: dict[str, object]) -> None:
    stats, by_guide = _problem()[:2]
    off = np.tile([-0.2, 0.3], N_GUIDES)
    own = RowDosage(by_guide.mean + off, 0.1 + 0.01 * np.arange(2 * N_GUIDES), np.zeros(N_GUIDES), CONTROL)
    _, fitted = _fitted(hyper, SINGLE, dosage=own, own_spread=True)
    source = np.roll(np.arange(N_GUIDES), 3)
    _, dosage, axis = fitted.rearranged(stats, source)
    np.testing.assert_allclose(dosage.mean, DOSES[source[stats.guide]] + off)
    np.testing.assert_allclose(dosage.spread, own.spread)
    np.testing.assert_allclose(axis.guides, np.sort(DOSES[~CONTROL]))
    np.testing.assert_array_equal(dosage.control, CONTROL[source])


def test_null_refits_rank_evidence_among_nulls_of_their_design(
    hyper: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Own nulls: Monte-Carlo p-values (more + 1) / (n + 1) in the body. The fit's nulls: its own distribution."""
    monkeypatch.setattr(calibration, "N_NULL", 100)
    stats, fitted = _fitted(hyper, SINGLE)
    sources = calibration.posing_sources(DOSES, CONTROL, POOL, 2, 0)
    pairs = [(stats, s) for s in sources]
    nulls = calibration.null_refits(fitted, pairs, own_null=True, seed=4, n=2)
    seeds = np.random.default_rng(4).integers(2**31, size=2).tolist()
    refits = [calibration.refit(fitted, stats, s) for s in sources]
    observed = np.array([decision.strength(e, fitted.prior) for e in refits])
    own = np.concatenate(
        [
            decision.strength(calibration.simulated(fitted, e, 50, s), fitted.prior)
            for e, s in zip(refits, seeds, strict=True)
        ]
    )
    more = (own[:, None, None] >= observed).sum(0)
    body = more > 5
    assert body.sum() > 20
    np.testing.assert_allclose(nulls.pvalue[body], (more[body] + 1) / 101)
    assert (nulls.pvalue[~body] < 0.07).all()
    rate = np.array([s.counts.sum(1) / s.exposure.sum() for s, _, _ in (fitted.rearranged(*p) for p in pairs)])
    np.testing.assert_allclose(nulls.mean, rate, rtol=1e-10)
    theirs = calibration.null_refits(fitted, pairs, own_null=False, seed=4, n=2)
    np.testing.assert_array_equal(theirs.pvalue, fitted.null.p_value(observed))
    np.testing.assert_array_equal(theirs.called, nulls.called)
    assert ((nulls.null_weight > 0.5) & (nulls.null_weight < 1)).all()


# what the refits say


def test_error_rates_are_means_over_refits(rng: np.random.Generator) -> None:
    p = rng.random((7, 300)) ** 2
    rate, se = calibration.error_rates(p, (0.3, 0.05))
    for i, level in enumerate((0.3, 0.05)):
        each = [sum(row <= level) / 300 for row in p]
        np.testing.assert_allclose([rate[i], se[i]], [np.mean(each), st.sem(each)])


def test_standard_error_is_that_of_a_mean_and_unknown_of_one_value(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 9))
    np.testing.assert_allclose(calibration.standard_error(x), st.sem(x, axis=1))
    np.testing.assert_array_equal(calibration.standard_error(x[:, :1]), np.full(3, np.nan))


@pytest.mark.parametrize("shape", [(9, 60), (2, 10), (1, 4)])
def test_quantiles_are_those_of_the_members(shape: tuple[int, int], rng: np.random.Generator) -> None:
    p, member = rng.random(shape) ** 1.5, np.arange(np.prod(shape)).reshape(shape) % 3 > 0
    expected, observed, lower, upper = calibration.quantiles(p, member, 0)
    some = np.sort(p[member])
    n = len(some)
    np.testing.assert_allclose([expected[0], expected[-1]], [1 / (n + 1), 1.0])
    np.testing.assert_allclose(np.diff(np.log(expected)), np.log(n + 1) / (len(expected) - 1))
    np.testing.assert_allclose(observed, np.interp(expected, np.arange(1, n + 1) / (n + 1), some))
    assert (lower <= observed).all()
    assert (observed <= upper).all()
    assert (np.diff(observed) >= 0).all()


def test_the_band_of_quantiles_follows_the_refits() -> None:
    """Features of one refit that move together make the band wide, as far as the refits' own quantiles vary."""
    rng = np.random.default_rng(2)
    alike = np.repeat(rng.random((20, 1)), 50, axis=1)
    apart = rng.random((20, 50))
    whole = np.ones((20, 50), dtype=bool)
    width = {}
    for name, p in (("alike", alike), ("apart", apart)):
        expected, _, lower, upper = calibration.quantiles(p, whole, 0)
        at = np.abs(expected - 0.5).argmin()
        width[name] = upper[at] - lower[at]
    independent = np.diff(st.beta.ppf([0.025, 0.975], 500, 501))[0]
    assert 0.6 * independent < width["apart"] < 1.5 * independent
    assert width["alike"] > 4 * independent


def test_independent_band_is_that_of_uniform_order_statistics(rng: np.random.Generator) -> None:
    n, i = 99, np.array([1, 10, 50, 99])
    low, high = calibration.independent_band(i / (n + 1), n)
    np.testing.assert_allclose([low, high], [st.beta.ppf(q, i, n + 1 - i) for q in (0.025, 0.975)])
    ranks = np.sort(rng.random((4000, n)), axis=1)[:, i - 1]
    inside = ((ranks > low) & (ranks < high)).mean(0)
    np.testing.assert_allclose(inside, 0.95, atol=4 * np.sqrt(0.95 * 0.05 / 4000))


def _near(share: float, level: float, *sizes: int) -> bool:
    """Whether a share is what it should be, by 4.5 standard errors of all Monte Carlo in it."""
    return bool(abs(share - level) < 4.5 * np.sqrt(level * (1 - level) * sum(1 / n for n in sizes)))


def test_uniform_p_values_stay_uniform(rng: np.random.Generator) -> None:
    n, m = 20_000, 50_000
    null = calibration.empirical_null(rng.random((20, n // 20)))
    p = calibration.recalibrated(null, rng.random(m))
    for level in (0.5, 0.2, 0.05, 0.01, 1e-3):
        assert _near((p <= level).mean(), level, n, m)
    assert null.rate > 1 - 4.5 / np.sqrt(200)


def test_a_tail_too_heavy_is_corrected_on_held_out_draws(rng: np.random.Generator) -> None:
    """``-log p`` of mean 1 / 0.6: p = 1e-3 is met 16 times too often."""
    n, m, rate = 20_000, 50_000, 0.6
    learned, held_out = (rng.random(k) ** (1 / rate) for k in (n, m))
    assert (held_out < 1e-3).mean() > 10e-3
    null = calibration.empirical_null(learned.reshape(20, -1))
    np.testing.assert_allclose(null.rate, rate, rtol=4.5 / np.sqrt(200))
    p = calibration.recalibrated(null, held_out)
    for level in (0.5, 0.05, 0.01, 1e-3):
        assert _near((p <= level).mean(), level, n, m)
    # beyond the largest null, 1e-4.3, on the exponential
    far = calibration.recalibrated(null, np.array([1e-12]))[0]
    np.testing.assert_allclose(np.log(far), rate * np.log(1e-12), rtol=0.2)


@pytest.mark.parametrize("power", [1.0, 0.6, 2.5], ids=["right", "heavy", "light"])
def test_the_tail_never_falls_faster_than_theory(power: float, rng: np.random.Generator) -> None:
    """Beyond the threshold p only gains on theory; a tail that is lighter earns nothing."""
    theory = np.sort(rng.random(4000)) ** (1 / power)
    null = calibration.empirical_null(theory.reshape(20, -1))
    assert null.rate <= 1
    far = np.exp(-null.threshold) * np.geomspace(1.0 - 1e-9, 1e-30, 50)
    gain = np.log(calibration.recalibrated(null, far)) - np.log(far)
    assert (np.diff(gain) >= -1e-9).all()
    share = (theory < np.exp(-null.threshold)).mean()
    np.testing.assert_allclose(gain[0], np.log(share) + null.threshold, atol=1e-6)
    if power < 1:  # too many small ones: no p is made smaller
        assert (gain > 0).all()
    ordered = calibration.recalibrated(null, np.geomspace(1.0, 1e-30, 500))
    assert (np.diff(ordered) <= 0).all()
    assert (ordered > 0).all()
    assert ordered[0] == 1


@pytest.mark.parametrize(
    "p",
    [np.full((2, 10), 0.3), np.repeat(np.linspace(0.2, 1, 10), 2)[None], np.ones((1, 3))],
    ids=["all", "pairs", "ones"],
)
def test_ties_at_the_smallest_null_leave_a_tail(p: np.ndarray) -> None:
    """The tail starts at the smallest null p-values, with their share."""
    again = calibration.recalibrated(calibration.empirical_null(p), np.array([1.0, 0.1, 1e-4]))
    np.testing.assert_allclose(again, [1.0, *((p == p.min()).mean() * np.array([0.1, 1e-4]) / p.min())])


def test_p_values_that_underflow_are_small_and_not_wrong(rng: np.random.Generator) -> None:
    p = rng.random((5, 100))
    again = calibration.recalibrated(calibration.empirical_null(p), np.array([0.0, 1e-300, 0.5]))
    assert again[0] <= again[1] < 1e-200
    p[0, 0] = 0.0
    null = calibration.empirical_null(p)
    assert 0 < null.rate < 1


@pytest.mark.parametrize("n", [1, 7, 500])
def test_step_up_is_that_of_benjamini_and_hochberg(n: int, rng: np.random.Generator) -> None:
    p = np.round(rng.random(n) ** 2, 2)  # ties, 0 and 1 among them
    np.testing.assert_allclose(calibration.step_up(p), multipletests(p, method="fdr_bh")[1], rtol=1e-14)


def test_the_band_of_independent_p_values_is_that_of_order_statistics() -> None:
    low, high = calibration.independent_band(np.array([0.5]), 1)  # of one, which is uniform
    np.testing.assert_allclose([low[0], high[0]], [0.025, 0.975])
    low, high = calibration.independent_band(np.array([0.1, 0.9]), 9)  # the least and the largest of nine
    np.testing.assert_allclose([low[0], high[1]], [1 - 0.975 ** (1 / 9), 0.975 ** (1 / 9)])


def test_the_standard_error_needs_two_refits() -> None:
    assert calibration.standard_error(np.array([[0.1, 0.3]]))[0] == pytest.approx(0.1)
    assert np.isnan(calibration.standard_error(np.array([[0.1]]))[0])


@pytest.mark.parametrize(("n", "share"), [(1_000, 0.05), (10_000, 0.02), (200_000, 0.002)])
def test_the_tail_of_an_empirical_null_is_200_tests_within_bounds(
    n: int, share: float, rng: np.random.Generator
) -> None:
    null = calibration.empirical_null(rng.random((10, n // 10)))
    assert (null.body > null.threshold).mean() == pytest.approx(share, rel=0.01)
