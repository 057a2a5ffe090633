"""Guides that depart from the curves of many features are found, alone and in pairs, and no others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from dream_sc._core.likelihoods import likelihood
from dream_sc._core.priors import TransPriors
from dream_sc._core.response.decision import local_fdr, log_bf_of, q_values
from dream_sc._core.response.departures import learn_departures
from dream_sc._core.response.evidence import evaluate
from dream_sc._core.response.joint_departures import Pair, _together, as_one, pairs_of, with_pairs
from dream_sc._core.response.learned import Departures, Wide, learn, restored_wide, stored_departures
from dream_sc._core.response.problem import Problem, null_evidence, problem
from dream_sc._core.response.settings import Settings
from dream_sc._core.response.simulated_nulls import simulated_alike
from dream_sc._core.response.wide_effects import with_wide
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[-3.2, np.linspace(-2.4, 1.0, 8), np.zeros(5)]
N_G, CONTROL = len(DOSES), DOSES == 0
GENERAL = Wide(0.01, 0.35)


def _problem(shift: np.ndarray, rng: np.random.Generator, order: np.ndarray | None = None) -> Problem:
    """Features of which a quarter respond, guides shifted by `shift` ``(T, G)``, natural log; guides in an order."""
    n = len(shift)
    slope = np.where(np.arange(n) % 4 == 0, rng.choice([-0.4, 0.4], n), 0.0)
    w = np.full(N_G, 150.0)
    counts = rng.poisson(np.exp(rng.normal(0.5, 0.7, (n, 1)) + slope[:, None] * DOSES + shift) * w).astype(float)
    order = np.arange(N_G) if order is None else order
    stats = GuideStats(counts[:, order], w, 1.1 * w, np.arange(N_G), np.zeros(N_G, int), N_G, 1)
    dosage = RowDosage(DOSES[order], np.zeros(N_G), np.full(N_G, 0.05), CONTROL[order])
    axis = Axis.of(DOSES[~CONTROL])
    return problem(stats, dosage, np.full(n, 0.3), group_effect_sd=0.3, axis=axis, priors=TransPriors())


def _shift(who: dict[int, int], rng: np.random.Generator, n: int = 300) -> np.ndarray:
    """Programmes on a fifth of the features: guides with the same number share one."""
    out = rng.normal(0, 0.03, (n, N_G))
    programmes = [rng.normal(0, 0.7, n) * (rng.random(n) < 0.2) for _ in range(1 + max(who.values(), default=0))]
    for guide, which in who.items():
        out[:, guide] += programmes[which]
    return out


def _learn(p: Problem) -> Departures:
    found = learn_departures(p, Settings(), GENERAL, N_G)
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(2))
def test_no_guide_departs_where_none_does(seed: int) -> None:
    """Then every number is that of guides in general, exactly."""
    rng = np.random.default_rng(seed)
    found = _learn(_problem(_shift({}, rng), rng))
    assert not found.own.any()
    np.testing.assert_array_equal(found.weight, GENERAL.weight)
    np.testing.assert_array_equal(found.sd, GENERAL.sd)
    np.testing.assert_array_equal(found.partner, -1)
    assert found.share.max() < 0.05


@pytest.mark.parametrize("guide", [0, 4, N_G - 1], ids=["strongest", "middle", "NTC"])
def test_a_guide_with_a_programme_is_found(guide: int) -> None:
    rng = np.random.default_rng(3)
    found = _learn(_problem(_shift({guide: 0}, rng), rng))
    np.testing.assert_array_equal(np.flatnonzero(found.own), [guide])
    assert 0.1 < found.weight[guide] < 0.3
    assert 0.3 < found.sd[guide] < 1.1
    assert 0.1 < found.share[guide] < 0.3
    assert (found.partner == -1).all()


@pytest.mark.parametrize(("n_acting", "n_ntc"), [(8, 4), (15, 4), (12, 2)])
def test_few_ntc_guides_do_not_depart_where_all_others_act_alike(n_acting: int, n_ntc: int) -> None:
    """A knock-out with more guides than controls: the guides act, it is not the controls that depart."""
    rng = np.random.default_rng(4)
    n_g, n = n_acting + n_ntc, 300
    acts = np.arange(n_g) < n_acting
    change = np.where(rng.random(n) < 0.3, rng.choice([-1, 1], n) * rng.uniform(0.7, 1.7, n), 0.0)
    log_mean = rng.normal(0.5, 1.2, (n, 1)) + change[:, None] * acts + rng.normal(0, 0.035, (n, n_g))
    w = np.full(n_g, 150.0)
    counts = rng.poisson(np.exp(log_mean) * w).astype(float)
    stats = GuideStats(counts, w, 1.1 * w, np.arange(n_g), np.zeros(n_g, int), n_g, 1)
    dosage = RowDosage(np.where(acts, -1.0, 0.0), np.zeros(n_g), np.zeros(n_g), ~acts)
    p = problem(
        stats, dosage, np.full(n, 0.3), group_effect_sd=0.3, axis=Axis.of(np.array([-1.0])), priors=TransPriors()
    )
    found = learn_departures(p, Settings(function_type="switch"), GENERAL, n_g)
    assert found is not None
    assert not found.own.any()
    e = evaluate(p, Settings(function_type="switch"), GENERAL._replace(departures=found))
    prior = learn(e.values, e.comparison.grid, p.priors, wide=e.wide)
    called = q_values(local_fdr(log_bf_of(e, prior), prior)) < 0.05
    assert called[change != 0].mean() > 0.9
    assert (called & (change == 0)).sum() <= 0.1 * called.sum()


@pytest.mark.parametrize("sd", [0.12, 0.25])
def test_targeting_guides_that_are_noisier_than_ntc_guides_share_one_sd(sd: float) -> None:
    rng = np.random.default_rng(10)
    p = _problem(rng.normal(0, sd, (300, N_G)) * ~CONTROL, rng)
    found = _learn(p)
    np.testing.assert_array_equal(found.own, ~CONTROL)
    assert found.weight[~CONTROL].min() > 0.99
    assert len(set(found.sd[~CONTROL])) == 1
    np.testing.assert_allclose(found.sd[0], sd, rtol=0.12)
    np.testing.assert_array_equal(found.weight[CONTROL], GENERAL.weight)
    assert (found.partner == -1).all()


def test_noise_that_all_guides_have_is_not_that_of_targeting_guides() -> None:
    rng = np.random.default_rng(11)
    found = _learn(_problem(rng.normal(0, 0.2, (300, N_G)), rng))
    assert found.weight.max() < 0.9
    assert found.own.sum() < CONTROL.sum()


def test_guides_that_act_alike_are_not_noisy() -> None:
    """A knock-out: the shift that all targeting guides share is no disagreement, however large it is."""
    rng = np.random.default_rng(12)
    together = rng.normal(0, 0.5, (300, 1)) * (rng.random((300, 1)) < 0.3)
    found = _learn(_problem(together * ~CONTROL + rng.normal(0, 0.03, (300, N_G)), rng))
    assert not found.own.any()


def test_a_guide_with_a_programme_is_told_among_noisy_ones() -> None:
    rng = np.random.default_rng(13)
    shift = rng.normal(0, 0.12, (300, N_G)) * ~CONTROL
    shift[:, 4] += rng.normal(0, 1.2, 300) * (rng.random(300) < 0.3)
    found = _learn(_problem(shift, rng))
    others = np.delete(np.arange(CONTROL.sum() + (~CONTROL).sum())[~CONTROL], 4)
    np.testing.assert_allclose(found.sd[others], 0.12, rtol=0.2)
    assert found.sd[4] > 2 * found.sd[others].max()
    assert found.weight[4] < 0.9


def test_two_guides_go_together_only_where_they_share_a_programme() -> None:
    rng = np.random.default_rng(4)
    together = _learn(_problem(_shift({0: 0, 3: 0}, rng), rng))
    assert together.partner[0] == 3
    assert together.partner[3] == 0
    assert 0.1 <= together.together[0] <= 0.3
    apart = _learn(_problem(_shift({0: 0, 3: 1}, rng), rng))
    np.testing.assert_array_equal(np.flatnonzero(apart.own), [0, 3])
    np.testing.assert_array_equal(apart.partner, -1)


def test_the_order_of_features_and_of_guides_changes_nothing() -> None:
    shift = _shift({0: 0, 3: 0}, np.random.default_rng(5))
    p = _problem(shift, np.random.default_rng(6))
    one, mixed = _learn(p), _learn(p.take(np.random.default_rng(7).permutation(len(p.counts))))
    for name in ("weight", "sd", "share", "together"):
        np.testing.assert_allclose(getattr(mixed, name), getattr(one, name), rtol=1e-9)
    order = np.random.default_rng(8).permutation(N_G)
    other = _learn(_problem(shift, np.random.default_rng(6), order))
    np.testing.assert_allclose(other.weight, one.weight[order], rtol=1e-6)
    np.testing.assert_array_equal(other.partner >= 0, (one.partner >= 0)[order])


def test_few_features_or_guides_tell_nothing() -> None:
    rng = np.random.default_rng(9)
    assert learn_departures(_problem(_shift({0: 0}, rng, 40), rng), Settings(), GENERAL, N_G) is None


def test_the_density_of_a_pair_is_that_of_a_bivariate_normal(rng: np.random.Generator) -> None:
    x, variance = rng.normal(size=(3, 2, 2)), rng.uniform(0.1, 1.0, (3, 2, 2))
    got = _together(x, variance, 0.5)
    for t, l in np.ndindex(3, 2):
        want = multivariate_normal.logpdf(x[t, l], cov=np.diag(variance[t, l]) + 0.5)
        np.testing.assert_allclose(got[t, l], want, rtol=1e-10)


def _pair_problem(rng: np.random.Generator) -> tuple[Problem, Departures]:
    p = _problem(_shift({0: 0, 3: 0}, rng, 5), rng)
    general, partner = np.full(N_G, 0.2), np.full(N_G, -1)
    partner[[0, 3]] = 3, 0
    found = Departures(general, np.full(N_G, 0.6), general, partner, 0.15 * (partner >= 0), partner >= 0)
    return with_wide(p, 0.2, 0.6, found), found


def test_evidence_of_a_pair_equals_a_sum_over_a_grid(rng: np.random.Generator) -> None:
    """The rows of a pair share one wide effect; level and effects are summed over fine grids."""
    p, _ = _pair_problem(rng)
    pair, tau = Pair(0, 3, 0.15, 0.6), 0.1
    got = null_evidence(as_one(p, pair), np.full((5, 1), tau))[0][:, 0]
    u, step = np.linspace(-4, 4, 1601, retstep=True)
    narrow = 0.8 * norm.pdf(u, 0, tau) + 0.2 * norm.pdf(u, 0, np.hypot(tau, 0.6))
    wide, o2 = norm.pdf(u, 0, np.hypot(tau, 0.6)), p.overdispersion[0] ** 2 * p.design.scale2
    want = []
    for t in range(5):
        levels, apart = np.linspace(p.level[t] - 1.5, p.level[t] + 1.5, 151, retstep=True)
        total = norm(p.level[t], p.priors.level_sd).logpdf(levels)
        joint = np.zeros((len(levels), len(u)))
        for g in range(N_G):
            y, phi = p.counts[t, g], 1 / o2[g]
            eta = levels[:, None] + u + p.design.log_w[g]
            density = y * eta - (y + phi) * np.log1p(np.exp(eta) / phi) - (y * 0.0)
            if g in (0, 3):
                joint += density
            else:
                total = total + logsumexp(density, b=narrow * step, axis=1)
        want.append(logsumexp(total + logsumexp(joint, b=wide * step, axis=1)) + np.log(apart))
    # terms of the counts alone are left out by both, up to the same constant of each feature
    np.testing.assert_allclose(got - got[0], _without_counts(p, np.array(want), got, o2), atol=0.03)


def _without_counts(p: Problem, want: np.ndarray, got: np.ndarray, o2: np.ndarray) -> np.ndarray:
    """Differences between features, less what the kernel leaves out of each: found from one guide at a time."""
    one = np.full((5, 1), 0.1)
    base = null_evidence(p, one)[0][:, 0]
    u, step = np.linspace(-4, 4, 1601, retstep=True)
    narrow = 0.8 * norm.pdf(u, 0, 0.1) + 0.2 * norm.pdf(u, 0, np.hypot(0.1, 0.6))
    plain = []
    for t in range(5):
        levels, apart = np.linspace(p.level[t] - 1.5, p.level[t] + 1.5, 151, retstep=True)
        total = norm(p.level[t], p.priors.level_sd).logpdf(levels)
        for g in range(N_G):
            y, phi = p.counts[t, g], 1 / o2[g]
            eta = levels[:, None] + u + p.design.log_w[g]
            total = total + logsumexp(y * eta - (y + phi) * np.log1p(np.exp(eta) / phi), b=narrow * step, axis=1)
        plain.append(logsumexp(total) + np.log(apart))
    left_out = base - np.array(plain)
    want = want + left_out
    return np.asarray(want - want[0])


def test_without_a_pair_the_null_is_what_it_was(rng: np.random.Generator) -> None:
    p, found = _pair_problem(rng)
    taus = np.full((5, 2), 0.1)
    null = null_evidence(p, taus)[0]
    np.testing.assert_array_equal(with_pairs(p, (), null, taus), null)
    assert pairs_of(p, Wide(0.2, 0.6)) == ()
    (pair,) = pairs_of(p, Wide(0.2, 0.6, found))
    assert (pair.one, pair.other, pair.weight) == (0, 3, 0.15)
    assert pairs_of(p.guides(np.arange(N_G) != 3), Wide(0.2, 0.6, found)) == ()
    both = with_pairs(p, (pair,), null, taus)
    assert (both >= null + np.log1p(-0.15) - 1e-12).all()


def test_a_pair_departs_by_the_geometric_mean_of_what_its_guides_do(rng: np.random.Generator) -> None:
    p, found = _pair_problem(rng)
    sd = found.sd.copy()
    sd[[0, 3]] = 0.4, 0.9
    (pair,) = pairs_of(p, Wide(0.2, 0.6, replace(found, sd=sd)))
    assert pair.sd == pytest.approx(0.6)


def test_simulated_features_have_the_departures_of_their_guides(rng: np.random.Generator) -> None:
    """Wide effects of the guides that have them, and equal ones of a pair."""
    p, found = _pair_problem(rng)
    weight = np.where(found.own, 0.5, 0.0)
    prior = replace(_prior(), departures=replace(found, weight=weight, together=0.5 * found.own))
    n = 2000
    drawn = simulated_alike(p, np.zeros(n, int), np.zeros((n, 1)), np.array([0.01]), prior, rng)
    u = np.log((drawn.counts + 0.5) / (np.exp(p.level[0]) * np.exp(p.design.log_w)))
    assert u[:, [0, 3]].std(0).min() > 2 * np.delete(u, [0, 3], 1).std(0).max()
    assert np.corrcoef(u[:, 0], u[:, 3])[0, 1] > 0.4


def _prior():
    from dream_sc._core.response.learned import Prior

    return Prior(np.ones(1), -3.0, 0.5, 0.01, 0.35)


def test_what_is_stored_comes_back(rng: np.random.Generator) -> None:
    _, found = _pair_problem(rng)
    hyper = {"wide_weight": 0.01, "wide_sd": 0.35} | stored_departures(found)
    back = restored_wide(hyper).departures
    for name in ("weight", "sd", "share", "partner", "together"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
    assert restored_wide({"wide_weight": 0.01, "wide_sd": 0.35}) == Wide(0.01, 0.35)
    assert stored_departures(None) == {}


@pytest.mark.parametrize(
    ("kind", "n_ntc"), [("negbinom", 60), ("binomial", 5), ("normal", 5)], ids=["many NTC guides", "shares", "scores"]
)
def test_other_designs_and_data_tell_a_pair_as_well(kind: str, n_ntc: int) -> None:
    rng, n = np.random.default_rng(0), 200
    dose = np.r_[-3.0, np.linspace(-2.2, 0.8, 7), np.zeros(n_ntc)]
    n_g, like = len(dose), likelihood(kind)
    shift, programme = rng.normal(0, 0.02, (n, n_g)), rng.normal(0, 0.8, n) * (rng.random(n) < 0.25)
    shift[:, [0, 2]] += programme[:, None]
    w, weights = np.ones(n_g), None
    if kind == "negbinom":
        w = np.full(n_g, 150.0)
        y = rng.poisson(np.exp(0.5 + shift) * w).astype(float)
    elif kind == "binomial":
        weights = np.full((n, n_g), 300.0)
        y = rng.binomial(300, 1 / (1 + np.exp(-shift))).astype(float)
    else:
        weights = np.full((n, n_g), (0.07 * like.unit) ** -2)
        y = (shift + rng.normal(0, 0.07, (n, n_g))) * like.unit
    stats = GuideStats(y, w, 1.1 * w, np.arange(n_g), np.zeros(n_g, int), n_g, 1, weights, kind)
    dosage = RowDosage(dose, np.zeros(n_g), np.full(n_g, 0.05), dose == 0)
    priors, axis = TransPriors().in_unit(like.unit), Axis.of(dose[dose != 0])
    p = problem(stats, dosage, np.full(n, 0.3), group_effect_sd=0.3 * like.unit, axis=axis, priors=priors)
    wide = Wide(0.01, 0.35 * like.unit)
    found = learn_departures(p, Settings(), wide, n_g)
    np.testing.assert_array_equal(np.flatnonzero(found.own), [0, 2])
    assert (found.partner[0], found.partner[2]) == (2, 0)
    some = p.take(np.argsort(-np.abs(programme))[:8])
    plain, told = (evaluate(some, Settings(), x).values for x in (wide, wide._replace(departures=found)))
    factors = [logsumexp(v[:, 1:], axis=(1, 2)) - logsumexp(v[:, 0], axis=1) for v in (plain, told)]
    assert (factors[1] < 1.0).all()
    assert (factors[1] < factors[0]).all()
