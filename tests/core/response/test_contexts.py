"""Two contexts: the likelihood against dense algebra, priors and evidence by quadrature, calls on simulated sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import nbinom

from dream_sc._core.priors import TransPriors
from dream_sc._core.response.contexts.decision import TAUS, change_sd, decide, gather, learn_rho, log_bf_of, p_values
from dream_sc._core.response.contexts.describe import curves_of, described, quantiles
from dream_sc._core.response.contexts.evidence import DIFFERENCE, FIRST, SECOND, evidence, total
from dream_sc._core.response.contexts.guide_levels import Sums, guide_levels
from dream_sc._core.response.contexts.hypotheses import OWN_AMPLITUDE, OWN_EC50, SAME
from dream_sc._core.response.contexts.lattice_draws import LatticeDraws, lattice_evidence, tables_of
from dream_sc._core.response.contexts.measured import Measured
from dream_sc._core.response.contexts.pair_likelihood import Curves, Pair, log_likelihood
from dream_sc._core.response.contexts.proposals import draw
from dream_sc._core.response.contexts.shapes import Dosages, Shapes
from dream_sc._core.response.contexts.simulated_nulls import Nulls, errors_of_dosages
from dream_sc._core.response.decision import null_distribution
from dream_sc._core.response.learned import Prior, learn
from dream_sc._core.types import Axis, GuideStats

G, N = 8, 3  # targeting and NTC guides
X = np.linspace(-3.0, 1.0, G)
LN2 = np.log(2.0)


def dosages(error: float = 0.1, level_error: float = 0.05, scale: float = 1.0) -> Dosages:
    return Dosages.of(scale * X, np.full(G, 0.2), np.zeros(G), np.full(G, error), level_error)


def a_pair(rng: np.random.Generator, n: int = 3, sd: float = 0.1, scale: float = 1.0) -> Pair:
    mean = rng.normal(0, 0.3, (n, 2, G + N))
    return Pair(mean, np.full((n, 2, G + N), sd**2), (dosages(), dosages(scale=scale)), 2.0)


def shapes() -> Shapes:
    return Shapes(Axis.of(X), TransPriors())


@pytest.mark.parametrize("sharing", [SAME, OWN_AMPLITUDE, OWN_EC50], ids=["same", "amplitude", "EC50"])
def test_the_second_context_has_the_parameters_of_the_first_but_for_its_own(sharing) -> None:
    first, second = sharing.layout
    np.testing.assert_array_equal(first, [0, 1, 2])
    own = [] if sharing.own is None else [sharing.own]
    np.testing.assert_array_equal(np.flatnonzero(first != second), own)
    np.testing.assert_array_equal(second[own], [3] * len(own))


def test_prior_of_curves_has_a_mass_of_one_and_the_marginals_that_hypotheses_use():
    s = shapes()
    k, log_n, beta = np.linspace(-16, 16, 129), np.linspace(-2.5, 4.0, 53), np.linspace(-6.4, 6.4, 258)
    theta = np.stack(np.meshgrid(k, log_n, beta, indexing="ij"), -1)
    density = np.exp(s.log_prior(theta))
    steps = [a[1] - a[0] for a in (k, log_n, beta)]
    assert density.sum() * np.prod(steps) == pytest.approx(1.0, abs=0.02)
    inside = (np.abs(k) < 3)[:, None] & (np.abs(log_n - LN2) < 1.5)
    by_shape = density.sum(2) * steps[2]
    np.testing.assert_allclose(by_shape[inside], np.exp(s.log_mass(theta[:, :, 0]))[inside], rtol=0.03)
    some = (slice(10, 43, 8), slice(100, 250, 30))
    by_step = (density.sum(0) * steps[0])[some]
    np.testing.assert_allclose(by_step, np.exp(s.log_mass_of_steps(theta[0][some])), rtol=0.05)


def test_curve_and_its_errors_are_averages_over_dosages():
    s, d = shapes(), dosages(error=0.15)
    theta = np.array([-1.0, np.log(2.0), s.beta(np.array(1.5))])

    def log_hill(x: np.ndarray) -> np.ndarray:
        h = 1.0 / (1.0 + 2.0 ** (-2.0 * (x + 1.0)))
        return np.log(np.exp(1.5) * h + 1 - h)

    z = np.random.default_rng(0).normal(size=(2, 400, 400))
    error, spread = 0.15 * z[0, :, :1], 0.2 * z[1]
    many = np.stack([np.log(np.exp(log_hill(x + error + spread)).mean(1)) - log_hill(np.zeros(1)) for x in X], 1)
    mean, variance, slope = s.with_errors(theta, d)
    np.testing.assert_allclose(mean, many.mean(0), atol=0.02)
    np.testing.assert_allclose(np.sqrt(variance), many.std(0), atol=0.015)
    h = 1e-4
    up, down = (s.curve(theta, replace(d, at=d.at + sign * h))[0] for sign in (1, -1))
    np.testing.assert_allclose(slope, (up - down) / (2 * h), atol=1e-5)


def test_levels_of_guides_have_the_likelihood_of_the_counts():
    rng = np.random.default_rng(1)
    counts = rng.poisson(50.0, (4, 2 * G)).astype(float)
    counts[0, :2] = 0.0
    guide, group = np.repeat(np.arange(G), 2), np.tile([0, 1], G)
    exposure = np.where(group == 0, 30.0, 60.0)
    stats = GuideStats(counts, exposure, exposure**2 / 25, guide, group, G, 2)
    found, _ = guide_levels(Sums(stats, np.full(4, 0.4), 0.3))
    # a guide without counts is low, and its level hardly known
    assert found.mean[0, 0] < found.mean[0, 1:].min() - 1.0
    assert found.variance[0, 0] > 5 * found.variance[0, 1]
    one = GuideStats(counts[1:, ::2], exposure[::2], exposure[::2] ** 2 / 25, np.arange(G), np.zeros(G, int), G, 1)
    found, base = guide_levels(Sums(one, np.full(3, 0.4), 0.3), sd=20.0)
    at, sd, h = found.mean[0, 2], found.variance[0, 2] ** 0.5, 1e-3
    size = 25 / 0.16

    def log_density(level: float) -> float:
        mean = np.exp(base[0, 2] + level)
        return float(nbinom.logpmf(counts[1, 4], size, size / (size + mean)))

    assert abs(log_density(at + h) - log_density(at - h)) / (2 * h) < 0.5
    curvature = (log_density(at + h) + log_density(at - h) - 2 * log_density(at)) / h**2
    assert sd == pytest.approx((-curvature) ** -0.5, rel=0.02)


def test_draws_have_the_density_that_they_say():
    rng = np.random.default_rng(2)
    s, pair, tau = shapes(), a_pair(rng, sd=2.0), np.full(3, 0.06)
    tables = tables_of(s, pair, tau)
    for sharing in (SAME, OWN_AMPLITUDE, OWN_EC50):
        drawn = draw(s, pair, tau, tables, sharing, n=1024, seed=3)
        # without information the prior is the posterior, whose mass is 1
        mass = np.exp(logsumexp(drawn.log_weight, axis=1)) / 1024
        np.testing.assert_allclose(mass, 1.0, atol=0.12)
        cells = LatticeDraws.of(s, tables, sharing)
        inside = cells.draw(rng.random((64, 8)))
        assert np.isfinite(cells.log_density(inside)).all()


def test_evidence_is_the_integral_over_curves():
    rng = np.random.default_rng(3)
    s, d = shapes(), dosages(error=0.05, level_error=0.0)
    theta = np.array([[-1.0, np.log(2.0), s.beta(np.array(1.2))], [-0.5, 0.5, s.beta(np.array(-1.5))]])
    curve = np.stack([s.curve(t, d)[0] for t in theta])
    mean = rng.normal(0, 0.1, (2, 2, G + N))
    mean[:, :, :G] += curve[:, None]
    pair, taus = Pair(mean, np.full((2, 2, G + N), 0.08**2), (d, d), 2.0), np.array([0.06])
    start = np.full(2, 0.06)
    found = evidence(s, pair, taus, 0.0, tables_of(s, pair, start), start)
    k, log_n, beta = np.linspace(-4, 3, 71), np.linspace(-1, 2.6, 25), np.linspace(-5, 5, 101)
    grid = np.stack(np.meshgrid(k, log_n, beta, indexing="ij"), -1).reshape(-1, 3)
    volume = (k[1] - k[0]) * (log_n[1] - log_n[0]) * (beta[1] - beta[0])
    every = np.stack([s.with_errors(grid, d)] * 2, -2)[:, None]
    for t in range(2):
        exact = log_likelihood(pair.take([t]), Curves(*every), taus, 0.0)[0, :, 0] + s.log_prior(grid)
        assert found.values[t, 1, 0] == pytest.approx(logsumexp(exact) + np.log(volume), abs=0.2)
    # guides apart, so that free curves are those of each context alone
    null = found.values[:, 0]
    apart = total(found.posteriors[FIRST]) + total(found.posteriors[SECOND]) - 2 * null
    np.testing.assert_allclose(found.values[:, 4] - null, apart, atol=0.3)
    assert (found.values[:, 1] > found.values[:, 0] + 10).all()


def test_lattice_evidence_is_the_evidence_where_little_is_known():
    s, pair, tau = shapes(), a_pair(np.random.default_rng(4), sd=0.8), np.full(3, 0.06)
    looked = lattice_evidence(s, tables_of(s, pair, tau))
    assert looked.shape == (3, 6)
    assert (looked[:, 0] == 0).all()
    found = evidence(s, pair, np.array([0.06]), 0.0, tables_of(s, pair, tau), tau)
    np.testing.assert_allclose(found.values[:, :, 0] - found.values[:, :1, 0], looked, atol=0.5)


def simulated(seed: int, n: int = 40) -> tuple[Measured, np.ndarray]:
    """Features without a response, with the same in both contexts, in the first one only, or reversed in the second."""
    rng, s = np.random.default_rng(seed), shapes()
    kind = np.arange(n) % 4
    theta = np.stack([rng.uniform(-2, 0, n), np.full(n, 0.7), s.beta(rng.choice([-2.0, 2.0], n))], 1)
    sums = []
    for c in range(2):
        curve = np.zeros((n, G + N))
        curve[:, :G] = s.curve(theta, dosages())[0]
        curve[(kind == 0) | ((kind == 2) & (c == 1))] = 0.0
        curve[(kind == 3) & (c == 1)] *= -1
        mean = (300.0 if c == 0 else 1200.0) * np.exp(curve + rng.normal(0, 0.05, curve.shape))
        exposure = np.full(G + N, 100.0)
        stats = GuideStats(
            rng.poisson(mean).astype(float),
            exposure,
            exposure**2 / 1e6,
            np.arange(G + N),
            np.zeros(G + N, int),
            G + N,
            1,
        )
        sums.append(Sums(stats, np.full(n, 0.3), 0.3))
    return Measured((sums[0], sums[1]), (dosages(), dosages()), np.arange(G + N) < G, Axis.of(X), TransPriors()), kind


def test_differences_are_found_and_equal_responses_are_not():
    measured, kind = simulated(0)
    decision, blocks = decide(measured, n_null=40, seed=1)
    assert (decision.q_value[kind >= 2] < 0.05).all()
    assert (decision.lfdr[kind < 2] > 0.5).all()
    assert (decision.p_value[kind >= 2] < 0.05).all()
    assert (decision.p_value[kind == 1] > 0.01).all()
    found = described(measured, decision, blocks, LN2)
    assert (found["hypothesis"][kind == 0] == "null").all()
    assert (found["hypothesis"][kind == 1] == "equal").all()
    assert (found["hypothesis"][kind == 2] == "only").mean() > 0.8
    assert (found["responds_first"][kind == 2] > 0.9).all()
    low, high = found["log2_ec50"][1:, kind == 1]
    assert ((low < 0) & (high > 0)).mean() >= 0.7
    drawn = curves_of(measured, decision, blocks)
    assert drawn.curves.shape == (len(drawn.rows), 2, 3, 25)
    assert (drawn.curves[:, :, 1] <= drawn.curves[:, :, 2]).all()


def test_the_same_seed_and_any_block_give_the_same_numbers():
    measured, _ = simulated(1, 12)
    one, _ = decide(measured, n_null=20, seed=5)
    two, _ = decide(measured, n_null=20, seed=5)
    np.testing.assert_array_equal(one.p_value, two.p_value)
    np.testing.assert_array_equal(one.values, two.values)
    order = np.random.default_rng(0).permutation(12)
    other, _ = decide(measured.take(order), n_null=20, seed=5)
    np.testing.assert_allclose(other.p_value, one.p_value[order], rtol=1e-6)
    np.testing.assert_allclose(other.lfdr, one.lfdr[order], rtol=1e-6)
    learns = np.arange(12) < 10
    some, _ = decide(measured, n_null=0, learns=learns)
    assert np.isnan(some.q_value[~learns]).all()
    assert np.isnan(some.p_value).all()
    assert np.isfinite(some.q_value[learns]).all()


def test_p_values_are_among_features_of_the_same_kind():
    rng = np.random.default_rng(5)
    simulated_bf = np.concatenate([rng.normal(-5, 1, 200), rng.normal(0, 1, 200)])
    responds = np.arange(400) >= 200
    probability = np.array([[0.9, 0.0], [0.0, 0.9]]) @ np.eye(2, 6)
    nulls = Nulls(simulated_bf, np.full(400, 0.2))
    p = p_values(np.array([-2.0, -2.0]), np.full(2, 0.2), probability, nulls, responds)
    assert p[0] < 0.02
    assert p[1] > 0.9


def test_evidence_of_a_change_does_not_grow_with_that_of_a_response():
    yes, response = np.array([False, False, True]), np.array([0.0, 2.0, 8.0])
    # a change is as likely as without it; a response is more and more so
    values = np.stack([np.zeros(3), response, response], 1)[..., None]
    prior, grid = Prior(np.array([0.8, 0.15, 0.05]), np.log(0.06), 0.9), np.array([0.06])
    np.testing.assert_allclose(log_bf_of(values, grid, prior, yes, beside=1), 0.0, atol=1e-12)
    assert (np.diff(log_bf_of(values, grid, prior, yes)) > 0.5).all()


def test_simulated_features_have_the_errors_of_dosages():
    rng = np.random.default_rng(9)
    pair = replace(a_pair(rng), dosages=(dosages(0.1, 0.3), dosages(0.2, 0.0)))
    errors = errors_of_dosages(pair, 4000, rng)
    assert errors.shape == (4000, 2, G)
    np.testing.assert_allclose(errors.std(0), np.array([[0.1**2 + 0.3**2], [0.2**2]]) ** 0.5 * np.ones(G), rtol=0.06)
    found = np.corrcoef(errors[:, 0].T)[np.triu_indices(G, 1)]  # the error of the NTC level moves all guides
    np.testing.assert_allclose(found, 0.9, atol=0.03)
    loadings = rng.normal(0, 0.2, (3, 2, G))
    errors = errors_of_dosages(replace(pair, loadings=loadings), 4000, rng)
    expected = np.einsum("fcg,fdh->cgdh", loadings, loadings).reshape(2 * G, 2 * G)
    expected += np.diag(np.repeat([0.1**2, 0.2**2], G))
    np.testing.assert_allclose(np.cov(errors.reshape(4000, -1).T), expected, atol=0.02)


def test_a_few_features_that_respond_tell_little_of_the_shares_among_them():
    start, grid, priors = np.array([0.8, 0.15, 0.05]), np.array([0.06]), TransPriors()

    def shares(n_responding: int, among: float | None) -> np.ndarray:
        values = np.tile([0.0, -6.0, -6.0], (10 * n_responding, 1))
        values[:n_responding] = [-30.0, -1.0, 0.0]  # each goes a little better with the last
        return learn(values[..., None], grid, priors, start=start, among=among).weights

    for n in (4, 400):
        alone, together = shares(n, None), shares(n, 20.0)
        assert together[0] == pytest.approx(alone[0], abs=0.02)
        assert together.sum() == pytest.approx(1.0)
        assert alone[2] > 0.7 * alone[1:].sum()
    assert shares(4, 20.0)[2] < 0.4 * shares(4, 20.0)[1:].sum()
    assert shares(400, 20.0)[2] > 0.8 * shares(400, 20.0)[1:].sum()


def test_p_values_hold_for_features_that_say_little_and_much():
    rng = np.random.default_rng(7)

    def some(n: int) -> Nulls:
        # without a difference, evidence is far below 0 where a difference would be known well, and varies more
        sd = np.exp(rng.uniform(np.log(0.05), np.log(2.0), n))
        return Nulls(-3.0 + 1.5 * np.log(sd) + (0.5 - 0.2 * np.log(sd)) * rng.gumbel(size=n), sd)

    features, apart = some(6000), []
    none = np.zeros(100, dtype=bool)
    for part in np.array_split(np.arange(6000), 20):
        mine, probability = features.take(part), np.tile(np.eye(1, 6), (300, 1))
        apart.append(p_values(mine.log_bf, mine.sd, probability, some(100), none))
    p = np.concatenate(apart)
    for third in np.array_split(np.argsort(features.sd), 3):
        assert 0.03 < (p[third] < 0.05).mean() < 0.075
        assert 0.15 < (p[third] < 0.2).mean() < 0.26
    # one distribution of all says that those which say little differ
    plain = null_distribution(some(2000).log_bf).p_value(features.log_bf)
    assert (plain[features.sd > 1.2] < 0.05).mean() > 0.1


def test_lattice_evidence_is_a_sum_over_the_lattice():
    s = shapes()
    tables = np.random.default_rng(8).normal(0, 3.0, (2, 2, *s.lattice.theta.shape[:3]))
    tables[1, 1] -= 900.0
    prior = s.lattice.log_prior - logsumexp(s.lattice.log_prior)
    found, each = lattice_evidence(s, tables), tables + prior
    np.testing.assert_allclose(found[:, 1], logsumexp(tables.sum(1) + prior, axis=(1, 2, 3)))
    for i, own in ((2, 2), (3, 0)):
        joint = logsumexp(each, axis=2 + own).sum(1) - logsumexp(prior, axis=own)
        np.testing.assert_allclose(found[:, i], logsumexp(joint, axis=(1, 2)))
    alone = logsumexp(each, axis=(2, 3, 4))
    np.testing.assert_allclose(found[:, 4], alone.sum(1))
    np.testing.assert_allclose(found[:, 5], logsumexp(alone, axis=1) - np.log(2))


def test_quantiles_of_weighted_draws():
    values = np.random.default_rng(6).normal(size=(2, 4000))
    weights = np.ones((2, 4000))
    weights[1] = values[1] > 0
    found = quantiles(values, weights)
    np.testing.assert_allclose(found[:, 0], [0, -1.96, 1.96], atol=0.1)
    np.testing.assert_allclose(found[:, 1], [0.674, 0.031, 2.24], atol=0.2)


def test_grid_of_guide_effects_is_in_order():
    assert (np.diff(TAUS) > 0).all()


@pytest.mark.parametrize(("shared", "low", "high"), [(0.0, 0.0, 0.3), (1.0, 0.7, 1.0)])
def test_what_guide_effects_have_in_common_is_learned(shared: float, low: float, high: float) -> None:
    measured, _ = simulated(2, 80)
    rng, flat = np.random.default_rng(7), []
    common = rng.normal(0, 0.15, (80, G + N))
    for c in range(2):
        effect = common if shared == 1.0 or c == 0 else rng.normal(0, 0.15, (80, G + N))
        stats = replace(measured.sums[c].stats, counts=rng.poisson(500 * np.exp(effect)).astype(float))
        flat.append(replace(measured.sums[c], stats=stats))
    assert low <= learn_rho(replace(measured, sums=(flat[0], flat[1])), TAUS) <= high


def test_how_well_a_change_is_known_is_that_of_two_regressions():
    """The error of the difference of two slopes over the axis, each by a weighted regression of levels on dosages."""
    measured, _ = simulated(1, 8)
    grid, prior = np.array([0.05, 0.2]), Prior.start(measured.priors)
    prior = replace(prior, weights=np.full(6, 1 / 6))
    blocks = gather(measured, DIFFERENCE, grid, 0.0)
    found = change_sd(measured, blocks, DIFFERENCE.places, grid, prior)
    pair, values = blocks[0].levels.pair, blocks[0].evidence.values
    weight = np.exp(values + prior.log_tau(grid)) / 6
    share = (weight / weight.sum((1, 2), keepdims=True)).sum(1)
    x = np.append(X[:G], np.zeros(N))
    for t in range(8):
        tau, errors = np.exp(share[t] @ np.log(grid)), []
        for c in range(2):
            w = np.diag(1 / (pair.variance[t, c] + tau**2))
            design = np.stack([np.ones(G + N), x], 1)
            slope = np.linalg.inv(design.T @ w @ design)[1, 1]
            errors.append(slope * (measured.axis.high - measured.axis.low) ** 2)
        assert found[t] == pytest.approx(np.sqrt(sum(errors)), rel=1e-6)
