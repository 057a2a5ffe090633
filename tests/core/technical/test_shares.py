"""Beta-binomial sticks: density and slopes against scipy, recovery with coverage, the binomial as the limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, sparse, stats

from dream_sc._core.compiled import from_python
from dream_sc._core.engines import engine
from dream_sc._core.likelihoods import betabinomial
from dream_sc._core.priors import SharePriors
from dream_sc._core.sums.share_sums import share_stats
from dream_sc._core.types import ShareStats

log_density, log_normaliser, slopes = (
    from_python(f) for f in (betabinomial.log_density, betabinomial.log_normaliser, betabinomial.slopes)
)


def _stats(y: np.ndarray, n: np.ndarray, group: np.ndarray, block: int = 7) -> ShareStats:
    """From dense counts ``(N, S)``, by blocks of sticks."""
    parts = [slice(i, min(i + block, y.shape[1])) for i in range(0, y.shape[1], block)]
    blocks = ((p, sparse.csc_matrix(y[:, p].astype(float)), sparse.csc_matrix(n[:, p].astype(float))) for p in parts)
    return share_stats(blocks, group, int(group.max()) + 1, y.shape[1], float(n.max()))


def _simulated(
    n_sticks: int = 120, n_cells: int = 400, seed: int = 0
) -> tuple[ShareStats, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, n_cells)
    level, rho = rng.normal(0, 1.2, n_sticks), rng.beta(1, 8, n_sticks)
    a = np.c_[np.zeros(n_sticks), 0.4 * rng.standard_t(3, (n_sticks, 2))]
    p = 1 / (1 + np.exp(-(level + a[:, group].T)))
    m = (1 - rho) / rho
    n = rng.poisson(rng.gamma(2.0, 3.0, (n_cells, 1)), (n_cells, n_sticks))
    y = rng.binomial(n, np.clip(rng.beta(p * m, (1 - p) * m), 0, 1))
    return _stats(y, n, group), level, rho, a


def _density(s: ShareStats, eta: float, theta: float) -> float:
    parts = s.numerator[0, 0], s.rest[0, 0], s.tail_numerator[0, 0], s.tail_rest[0, 0]
    return float(log_density(eta, theta, *parts, s.at) + log_normaliser(theta, s.tail_total[0], s.at))


@pytest.mark.parametrize("rho", [0.0, 1e-9, 1e-4, 0.02, 0.3, 0.9])
@pytest.mark.parametrize("p", [1e-4, 0.2, 0.97])
def test_density_is_scipys(rho: float, p: float) -> None:
    rng = np.random.default_rng(0)
    n = np.r_[rng.integers(0, 24, 40), 0, 1, 24]
    y = rng.binomial(n, rng.uniform(0, 1, len(n)))
    y[-2:] = 1, 24
    s = _stats(y[:, None], n[:, None], np.zeros(len(n), int))
    eta, theta = np.log(p / (1 - p)), rho / (1 - rho)
    coefficient = np.log(stats.binom.pmf(y, n, 0.5)) - n * np.log(0.5)
    m = (1 - rho) / max(rho, 1e-300)
    # at a vanishing rho scipy's log-gamma functions cancel
    expected = stats.betabinom.logpmf(y, n, p * m, (1 - p) * m) if rho > 1e-6 else stats.binom.logpmf(y, n, p)
    rtol = 1e-4 if rho == 1e-9 else 1e-10
    np.testing.assert_allclose(_density(s, eta, theta), (expected - coefficient).sum(), rtol=rtol)
    parts = s.numerator[0, 0], s.rest[0, 0], s.tail_numerator[0, 0], s.tail_rest[0, 0], s.at
    slope, curvature, bound = slopes(eta, theta, *parts)
    h = 1e-5
    numeric = (_density(s, eta + h, theta) - _density(s, eta - h, theta)) / (2 * h)
    np.testing.assert_allclose(slope, numeric, rtol=1e-6, atol=1e-6)
    second = (slopes(eta + h, theta, *parts)[0] - slopes(eta - h, theta, *parts)[0]) / (2 * h)
    np.testing.assert_allclose(curvature, -second, rtol=1e-6, atol=1e-6)
    assert bound > 0


def test_bins_of_large_counts_change_little() -> None:
    rng = np.random.default_rng(1)
    n = rng.integers(100, 3000, 60)
    y = rng.binomial(n, rng.beta(2, 6, 60))
    s = _stats(y[:, None], n[:, None], np.zeros(60, int))
    values = []
    for p, rho in ((0.25, 0.11), (0.4, 0.05)):
        m = (1 - rho) / rho
        exact = stats.betabinom.logpmf(y, n, p * m, (1 - p) * m).sum()
        values.append((_density(s, np.log(p / (1 - p)), 1 / m), exact))
    (a, exact_a), (b, exact_b) = values
    np.testing.assert_allclose(a - b, exact_a - exact_b, rtol=1e-2)


def test_tails_do_not_depend_on_blocks() -> None:
    rng = np.random.default_rng(2)
    n = rng.poisson(20, (50, 9))
    y, group = rng.binomial(n, 0.3), rng.integers(-1, 3, 50)
    one, other = _stats(y, n, group, 1), _stats(y, n, group, 9)
    for name in ("numerator", "rest", "tail_numerator", "tail_rest", "tail_total", "at"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    k = 4
    assert one.at[k] == 5
    np.testing.assert_array_equal(one.tail_numerator[2, 1, k], (y[group == 1, 2] > 5).sum())
    np.testing.assert_array_equal(one.tail_total[3, k], (n[group >= 0, 3] > 5).sum())


def test_truth_is_recovered_and_covered() -> None:
    s, level, rho, a = _simulated()
    fit = engine("laplace").technical_shares(s, SharePriors())
    assert fit.converged.all()
    assert 5 < fit.beta_o < 12  # 8 in truth
    assert 0.25 < fit.effect_scale < 0.6  # 0.4 in truth
    for estimate, sd, truth in (
        (fit.level, fit.level_sd, level),
        (fit.effects[:, 1:], fit.effects_sd[:, 1:], a[:, 1:]),
        (fit.overdispersion, fit.overdispersion_sd, rho),
    ):
        z = (estimate - truth) / sd
        assert 0.91 < (np.abs(z) < 1.96).mean() < 0.985
        assert 0.8 < z.std() < 1.2
    np.testing.assert_array_equal(fit.effects[:, 0], 0)


def test_binomial_counts_give_no_overdispersion_and_the_binomials_numbers() -> None:
    rng = np.random.default_rng(4)
    n = rng.poisson(8, (500, 40))
    y, group = rng.binomial(n, 0.3), rng.integers(0, 2, 500)
    s = _stats(y, n, group)
    fit, plain = (engine("laplace").technical_shares(s, SharePriors(), over) for over in (True, False))
    assert np.median(fit.overdispersion) < 0.012
    assert (fit.overdispersion < 4 * fit.overdispersion_sd).all()
    np.testing.assert_allclose(fit.level, plain.level, atol=0.01)
    np.testing.assert_allclose(fit.level_sd, plain.level_sd, rtol=0.1)
    assert (plain.overdispersion == 0).all()


def test_the_level_is_that_of_quadrature() -> None:
    """One group and no overdispersion: mean and sd of the level by quadrature, up to the Gaussian's error."""
    s = _stats(np.array([[30], [50]]), np.array([[120], [200]]), np.zeros(2, int))
    p = SharePriors()
    fit = engine("laplace").technical_shares(s, p, False)
    centre = np.log(80.5 / 240.5)

    def moment(power: int) -> float:
        def integrand(eta: float) -> float:
            joint = np.exp(_density(s, eta, 0.0) - _density(s, centre, 0.0)) * stats.norm.pdf(eta, centre, p.level_sd)
            return (eta - centre) ** power * joint

        return integrate.quad(integrand, centre - 1.5, centre + 1.5)[0]

    mean, square = moment(1) / moment(0), moment(2) / moment(0)
    np.testing.assert_allclose(fit.level[0], centre + mean, atol=0.01)
    np.testing.assert_allclose(fit.level_sd[0], np.sqrt(square - mean**2), rtol=0.02)


@pytest.mark.parametrize("left", [1.0, 0.3, 0.02])
def test_without_information_the_overdispersion_is_that_of_the_prior(left: float) -> None:
    """One read in each cell says nothing of rho: that of the feature is Beta(1, beta_o), the link's follows."""
    rng = np.random.default_rng(6)
    n = np.ones((200, 40), int)
    s = replace(_stats(rng.binomial(n, 0.4), n, np.zeros(200, int)), left=np.full(40, left))
    fit = engine("laplace").technical_shares(s, SharePriors())
    np.testing.assert_allclose(fit.beta_o, 3.0, rtol=0.02)  # the mean of its prior

    def of_link(rho: float) -> float:
        theta = rho / (1 - rho) / left
        return theta / (1 + theta)

    mean, square = (
        integrate.quad(lambda r, k=k: of_link(r) ** k * stats.beta.pdf(r, 1, fit.beta_o), 0, 1)[0] for k in (1, 2)
    )
    np.testing.assert_allclose(fit.overdispersion, mean, rtol=0.03)
    np.testing.assert_allclose(fit.overdispersion_sd, np.sqrt(square - mean**2), rtol=0.06)


def test_a_group_without_counts_and_structural_zeros_stay_finite() -> None:
    rng = np.random.default_rng(5)
    group = np.repeat([0, 1, 2], 100)
    n = rng.poisson(6, (300, 3))
    y = rng.binomial(n, 0.4)
    y[group == 1, 0] = 0
    y[group == 1, 1] = n[group == 1, 1]
    n[group == 2, 2] = y[group == 2, 2] = 0
    fit = engine("laplace").technical_shares(_stats(y, n, group), SharePriors())
    assert fit.converged.all()
    assert np.isfinite(fit.effects_sd).all()
    assert fit.effects[0, 1] < -2.5
    assert fit.effects[1, 1] > 2.5
    assert abs(fit.effects[2, 2]) < 0.1
