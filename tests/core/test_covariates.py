"""Covariates: bins of alike cells, what they do to rows, and every path of the trans step that has to heed them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy import sparse
from scipy.stats import t as student_t

from dream_sc._core import covariates
from dream_sc._core.covariates import CovariateEffects, alike, covariate_effects, dependent
from dream_sc._core.curves import chosen, curve, place
from dream_sc._core.engines import engine
from dream_sc._core.laplace.layout import Anchor
from dream_sc._core.laplace.quadrature import log_joint
from dream_sc._core.priors import TechnicalPriors, TransPriors
from dream_sc._core.pyro import tensors
from dream_sc._core.pyro.models.technical import technical
from dream_sc._core.pyro.models.trans import guide_level
from dream_sc._core.response import guide_contrasts, learned
from dream_sc._core.response.fit import fit
from dream_sc._core.response.prepare import Prepared
from dream_sc._core.response.problem import Problem, evidence, null_evidence, problem
from dream_sc._core.response.settings import Settings
from dream_sc._core.response.simulated_nulls import simulated_alike
from dream_sc._core.response.wide_effects import with_wide
from dream_sc._core.stats import within_guide_slope
from dream_sc._core.sums.block import CountBlock
from dream_sc._core.sums.guide_sums import RowSums, TailSums, covariate_bins, technical_stats
from dream_sc._core.technical.counts import technical as fit_counts
from dream_sc._core.types import Axis, GuideStats, RowDosage, TechnicalStats

CPU = torch.device("cpu")
HYPER = {"tau_log_mean": -2.5, "tau_log_sd": 0.8, "group_effect_sd": 0.3}
N_FEATURES = 30

pytestmark = pytest.mark.usefixtures("few_null_features")
POINTS = np.array([[-1.0, 0.0], [1.0, 0.5], [0.0, -1.5], [0.0, 1.0]])


def test_cells_with_equal_factors_share_a_bin(rng: np.random.Generator) -> None:
    points = rng.integers(0, 3, (400, 2)).astype(float)
    bins = alike(points, 50)
    assert bins.max() == 8
    for k in range(9):
        assert len(np.unique(points[bins == k], axis=0)) == 1


def test_bins_are_as_many_as_asked_for_and_narrow(rng: np.random.Generator) -> None:
    points = rng.normal(size=(2000, 2))
    bins = alike(points, 64)
    assert bins.max() == 63
    inside = sum(points[bins == k].var(0).sum() * (bins == k).sum() for k in range(64)) / 2000
    assert inside < 0.08 * points.var(0).sum()
    assert alike(points, 1).max() == 0
    assert alike(np.zeros((5, 0)), 10).max() == 0


def _rows(rng: np.random.Generator, n: int = 600, n_rows: int = 6) -> tuple[Any, ...]:
    z = np.column_stack([rng.normal(size=n), rng.integers(0, 2, n)])
    return rng.normal(0, [0.5, 2.0], (4, 2)), z, rng.integers(0, n_rows, n), rng.uniform(0.5, 2, n)


def test_factors_of_rows_are_means_over_their_cells(rng: np.random.Generator) -> None:
    """With a bin for each cell they are exact; with 256 for 600 cells they are right to a thousandth."""
    b, z, row, s = _rows(rng)
    m = s * np.exp(b @ z.T)
    by_row = (np.arange(6)[:, None] == row).astype(float)
    exposure = by_row @ s
    factor, square = m @ by_row.T / exposure, (m**2) @ by_row.T / (m @ by_row.T) ** 2
    noise = np.sqrt((square / ((by_row @ s**2) / exposure**2)) @ exposure / exposure.sum())
    weights = rng.normal(size=600)
    for most, tolerance in ((10_000, 1e-8), (256, 2e-3)):
        bins = alike(z, most)
        e = covariate_effects(b, z, bins, row, 6, s)
        np.testing.assert_allclose(e.log_rows(), np.log(factor), atol=tolerance)
        np.testing.assert_allclose(e.log_total(exposure), np.log(m.sum(1) / s.sum()), atol=tolerance)
        np.testing.assert_allclose(e.noise(exposure), noise, rtol=2 * tolerance)
        lean = covariates.sums_by_bin(weights * s, bins, row, 6)
        want = (m * weights) @ by_row.T / (m @ by_row.T)
        got = e.leaning(lean, np.arange(6)) / exposure
        np.testing.assert_allclose(got, want, atol=5 * tolerance)


def test_rows_and_features_are_taken(rng: np.random.Generator) -> None:
    b, z, row, s = _rows(rng)
    e = covariate_effects(b, z, alike(z, 50), row, 6, s)
    np.testing.assert_array_equal(e.take([2, 0]).some_rows([5, 1]).log_rows(), e.log_rows()[np.ix_([2, 0], [5, 1])])
    missing = covariate_effects(np.full((1, 2), np.nan), z, alike(z, 50), row, 6, s)
    np.testing.assert_allclose(missing.log_rows(), 0.0, atol=1e-12)


def test_combinations_of_columns_are_named(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 100))
    x = np.column_stack([np.ones(100), a, b, 2 * a - 3, np.full(100, 7.0), 0.5 * b + a])
    assert dependent(x, list("1abcde")) == [("c", ["1", "a"]), ("d", ["1"]), ("e", ["a", "b"])]


# ---- the technical step ----------------------------------------------------------------------------------------------


def _technical(y: np.ndarray, s: np.ndarray, group: np.ndarray, z: np.ndarray) -> TechnicalStats:
    control = np.ones(len(s), dtype=bool)
    bins, group_of_bin = covariate_bins(s, z, group, control)
    sums, tails = RowSums(bins, len(group_of_bin), y.shape[1]), TailSums(control, y.shape[1], 1e7)
    block = CountBlock.of(sparse.csr_matrix(y.astype(float)))
    sums.add(block)
    tails.add(block)
    return technical_stats(sums, tails, s, group_of_bin, 2, z)


def _cells(rng: np.random.Generator, n: int, mu: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
    s, group = np.exp(rng.normal(0, 0.25, n)), rng.integers(0, 2, n)
    z = np.column_stack([rng.normal(size=n), rng.random(n) < 0.4])
    z = (z - z.mean(0)) / z.std(0)
    m = s[:, None] * mu * np.exp(0.3 * group[:, None] + z @ b.T)
    return rng.poisson(rng.gamma(4.0, m / 4.0)), s, group, z


def test_coefficients_agree_with_negative_binomial_regression(rng: np.random.Generator) -> None:
    """Against statsmodels, cell by cell, with the overdispersion found: a tenth of a standard error."""
    import statsmodels.api as sm

    b = np.array([[0.4, 0.0], [-0.3, 0.2], [0.0, -0.5], [0.1, 0.1]])
    y, s, group, z = _cells(rng, 1500, np.array([0.5, 2.0, 6.0, 20.0]), b)
    fit = fit_counts(_technical(y, s, group, z), replace(TechnicalPriors(), covariate_scale=1.0))
    design = np.column_stack([np.ones(1500), group, z])
    for t in range(4):
        family = sm.families.NegativeBinomial(alpha=fit.overdispersion[t] ** 2)
        want = sm.GLM(y[:, t], design, family=family, offset=np.log(s)).fit()
        got, sd = fit.coefficients[t] * np.log(2), fit.coefficients_sd[t] * np.log(2)
        np.testing.assert_allclose(got, want.params[2:], atol=0.25 * want.bse[2:].min())
        np.testing.assert_allclose(sd, want.bse[2:], rtol=0.06)
        np.testing.assert_allclose(np.log(fit.mu[t]), want.params[0], atol=0.25 * want.bse[0])


def test_intervals_of_coefficients_cover(rng: np.random.Generator) -> None:
    b = rng.normal(0, 0.3, (300, 2)) * (rng.random((300, 2)) < 0.3)
    y, s, group, z = _cells(rng, 800, np.exp(rng.normal(1, 1, 300)), b)
    fit = fit_counts(_technical(y, s, group, z), TechnicalPriors())
    inside = np.abs(fit.coefficients * np.log(2) - b) < 1.959964 * fit.coefficients_sd * np.log(2)
    assert 0.93 < inside.mean() < 0.98
    assert (fit.coefficient_scale < 0.3).all()


def test_no_covariates_is_as_before(rng: np.random.Generator) -> None:
    """Columns that are 0 change nothing but the parameters' number."""
    y, s, group, z = _cells(rng, 500, np.array([1.0, 5.0]), np.zeros((2, 2)))
    stats = _technical(y, s, group, z)
    without = fit_counts(replace(stats, covariates=None), TechnicalPriors())
    zero = fit_counts(replace(stats, covariates=0.0 * stats.z), TechnicalPriors())
    assert without.coefficients.shape == (2, 0)
    np.testing.assert_allclose(zero.mu, without.mu, rtol=1e-6)
    np.testing.assert_allclose(zero.overdispersion, without.overdispersion, rtol=1e-6)
    np.testing.assert_allclose(zero.coefficients, 0.0, atol=1e-12)


def test_technical_density_has_the_coefficients(rng: np.random.Generator) -> None:
    """The Pyro model moves by the prior alone where the exposure takes over what the coefficients did."""
    y, s, group, z = _cells(rng, 300, np.array([2.0, 5.0]), np.zeros((2, 2)))
    stats = _technical(y, s, group, z)
    b = np.array([0.3, -0.2])
    moved = replace(stats, size_factor=stats.size_factor * np.exp(stats.z @ b), covariates=None)
    values = {
        "beta_o": torch.tensor(2.0),
        "log_mu": torch.zeros((2, 1)),
        "overdispersion": torch.full((2, 1), 0.5),
        "effects": torch.full((2, 1, 1), 0.1),
    }
    found = []
    for st, more in ((moved, {}), (stats, {"coefficients": torch.as_tensor(np.tile(b, (2, 1, 1)))})):
        data = tensors.technical_data(st, 0.4, TechnicalPriors(), CPU, [0.2, 0.3] if more else ())
        data = replace(data, log_mu0=torch.zeros(2, dtype=torch.float64))
        at = {k: v.double() for k, v in (values | more).items()}
        trace = poutine.trace(poutine.condition(lambda d=data: technical(d), data=at)).get_trace()
        found.append(float(trace.log_prob_sum()))
    prior = student_t(3.0, 0, np.array([0.2, 0.3]) * np.log(2)).logpdf(b).sum()
    np.testing.assert_allclose(found[1] - found[0], 2 * prior, rtol=1e-9)


def test_svi_finds_the_coefficients(rng: np.random.Generator) -> None:
    y, s, group, z = _cells(rng, 800, np.array([2.0, 6.0]), np.array([[0.4, 0.0], [0.0, -0.3]]))
    stats = _technical(y, s, group, z)
    fast = fit_counts(stats, TechnicalPriors())
    svi = engine("svi").technical(stats, TechnicalPriors(), niters=800, nsamples=400, device="cpu")
    np.testing.assert_allclose(svi.coefficients, fast.coefficients, atol=0.05)
    assert (svi.coefficients_sd > 0).all()


# ---- the trans step --------------------------------------------------------------------------------------------------


def _fit_input(n_ntc: int) -> tuple[GuideStats, RowDosage, np.ndarray, Axis]:
    """Features of which half respond, and factors on the exposures of rows."""
    # of two Hills a mode that stops a step earlier, by rounding, may move draws by 1e-5 to 1e-2: not with these data
    rng = np.random.default_rng(2)
    doses = np.r_[np.linspace(-2.5, 1.0, 8), np.zeros(n_ntc)]
    n_g = len(doses)
    guide, group = np.repeat(np.arange(n_g), 2), np.tile([0, 1], n_g)
    w, factor = rng.uniform(20, 60, 2 * n_g), np.exp(rng.normal(0, 0.5, 2 * n_g))
    slope = np.r_[np.zeros(N_FEATURES // 2), rng.normal(0, 0.8, N_FEATURES - N_FEATURES // 2)]
    u = rng.normal(0, 0.1, (N_FEATURES, n_g))[:, guide]
    log_mean = rng.uniform(-1, 3, N_FEATURES)[:, None] + slope[:, None] * doses[guide] + u + 0.2 * group
    counts = rng.poisson(np.exp(log_mean) * w * factor).astype(float)
    dosage = RowDosage(doses[guide], np.where(doses[guide] != 0, 0.2, 0), np.where(doses != 0, 0.1, 0), doses == 0)
    return GuideStats(counts, w, 1.2 * w, guide, group, n_g, 2), dosage, factor, Axis.of(doses[:8])


def _as_covariate(stats: GuideStats, factor: np.ndarray) -> GuideStats:
    """The factors as a covariate: all cells of a row are alike, and all features have the coefficient 1."""
    each = np.eye(len(factor))
    effects = CovariateEffects(np.ones((len(stats.counts), 1)), np.log(factor)[:, None], each, each)
    return replace(stats, covariates=effects)


def _multiplied(stats: GuideStats, factor: np.ndarray) -> GuideStats:
    return replace(stats, exposure=stats.exposure * factor, exposure2=stats.exposure2 * factor**2)


def _fits(n_ntc: int, **options: Any) -> list[Any]:
    stats, dosage, factor, axis = _fit_input(n_ntc)
    return [
        fit(
            Prepared.of_sums(st, dosage, np.full(N_FEATURES, 0.5), axis=axis, group_effect_sd=0.3),
            Settings(nsamples=100, **options),
        )
        for st in (_as_covariate(stats, factor), _multiplied(stats, factor))
    ]


@pytest.mark.parametrize(
    ("function_type", "n_ntc"),
    [("single_hill", 5), ("additive_hill", 5), ("polynomial", 5), ("auto", 5), ("polynomial", 55), ("auto", 55)],
)
def test_a_covariate_on_rows_is_an_exposure(function_type: str, n_ntc: int) -> None:
    """A fit with covariates equals one whose exposures were multiplied, NTC guides summed up or not.

    Of two Hills the two fits are as alike as rounding leaves them: on some processors the search for one
    of their modes ends a step earlier in one of them, which moves numbers by up to 1e-4.
    """
    one, other = _fits(n_ntc, function_type=function_type)
    most = 1e-3 if function_type == "additive_hill" else 1e-6
    for name, values in one.columns.items():
        if name == "mean":  # of the sums as they are
            continue
        if values.dtype.kind in "UO":
            assert (values == other.columns[name]).all(), name
        else:
            np.testing.assert_allclose(values.astype(float), other.columns[name].astype(float), rtol=most, atol=most)
    np.testing.assert_allclose(one.learned["tau_log_mean"], other.learned["tau_log_mean"], rtol=most)


def test_a_covariate_on_rows_is_an_exposure_for_svi() -> None:
    one, other = _fits(5, function_type="single_hill", inference="svi", niters=50)
    for name in ("log2_ec50", "baseline", "log_bf"):
        np.testing.assert_allclose(one.columns[name], other.columns[name], rtol=1e-6, atol=1e-6)


def test_it_matters() -> None:
    """Without the covariate the same fit is another one."""
    stats, dosage, factor, axis = _fit_input(5)
    found = [
        fit(
            Prepared.of_sums(st, dosage, np.full(N_FEATURES, 0.5), axis=axis, group_effect_sd=0.3),
            Settings(nsamples=50, function_type="single_hill"),
        )
        for st in (_as_covariate(stats, factor), stats)
    ]
    assert np.abs(found[0].columns["log_bf"] - found[1].columns["log_bf"]).max() > 1


@pytest.fixture
def two() -> list[Problem]:
    """The problem with covariates, and with multiplied exposures."""
    stats, dosage, factor, axis = _fit_input(5)
    return [
        with_wide(
            problem(st, dosage, np.full(N_FEATURES, 0.5), group_effect_sd=0.3, axis=axis, priors=TransPriors()),
            0.05,
            0.4,
        )
        for st in (_as_covariate(stats, factor), _multiplied(stats, factor))
    ]


def test_level_simulation_and_contrasts(two: list[Problem]) -> None:
    one, other = two
    np.testing.assert_allclose(one.level, other.level, rtol=1e-10)
    np.testing.assert_allclose(one.log_exposure, np.broadcast_to(other.log_exposure, one.counts.shape), rtol=1e-10)
    curves = np.zeros((N_FEATURES, len(one.dose_mean)))
    ratios = [guide_contrasts.log_ratios(p, p.level, curves) for p in two]
    for a, b in zip(*ratios, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
    prior = learned.Prior.start(TransPriors())
    grid, null = np.array([0.05, 0.1]), np.zeros((N_FEATURES, 2))
    sims = [simulated_alike(p, np.arange(N_FEATURES), null, grid, prior, np.random.default_rng(3)) for p in two]
    np.testing.assert_array_equal(sims[0].counts, sims[1].counts)
    np.testing.assert_allclose(sims[0].level, sims[1].level, rtol=1e-10)


def _uncertain(rng: np.random.Generator, errors: float) -> tuple[GuideStats, RowDosage, Axis]:
    """Cells of a row that differ in their covariates, and coefficients of each feature's own."""
    stats, dosage, _, axis = _fit_input(3)
    shares = rng.dirichlet(np.full(4, 0.4), len(stats.exposure))
    sd = errors * rng.uniform(0.5, 1, (N_FEATURES, 2)) if errors else None
    effects = CovariateEffects(rng.normal(0, 0.5, (N_FEATURES, 2)), POINTS, shares, shares, sd)
    return replace(stats, covariates=effects), dosage, axis


def test_directions_of_the_errors(rng: np.random.Generator) -> None:
    """Variances of the rows' log exposures are those of linear propagation, the mean over rows left out."""
    stats, _, _ = _uncertain(rng, 0.2)
    e = stats.covariates
    loads, covariance = e.uncertain(stats.exposure)
    mean = e.shares @ e.points
    mean -= stats.exposure @ mean / stats.exposure.sum()
    assert loads.shape[1] == 2
    want = np.einsum("rq,tq,sq->trs", mean, e.errors**2, mean)
    np.testing.assert_allclose(np.einsum("rd,tde,se->trs", loads, covariance, loads), want, atol=1e-10)
    alike_rows = replace(e, shares=np.repeat(e.shares[:1], len(e.shares), 0))
    assert alike_rows.uncertain(stats.exposure)[0].shape[1] == 0
    assert replace(e, errors=None).uncertain(stats.exposure)[0].shape[1] == 0


def test_errors_of_coefficients_are_integrated(rng: np.random.Generator) -> None:
    """The evidence with errors is the mean of those at coefficients around, weighted by their density."""
    stats, dosage, axis = _uncertain(rng, 0.15)
    one = replace(
        stats.covariates,
        points=stats.covariates.points[:, :1],
        coefficients=np.zeros((N_FEATURES, 1)),
        errors=np.full((N_FEATURES, 1), 0.15),
    )
    stats = replace(stats, covariates=one)
    arguments = {"group_effect_sd": 0.3, "axis": axis, "priors": TransPriors()}
    p = problem(stats, dosage, np.full(N_FEATURES, 0.5), **arguments)
    assert p.design.loads.shape[1] == 1
    taus = np.full((N_FEATURES, 1), 0.1)
    got = null_evidence(p, taus, tol=1e-10)[0][:, 0]
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    values = []
    for node in nodes:
        moved = p.design.log_w + p.design.loads[:, 0] * 0.15 * node
        q = replace(p.with_design(log_w=moved, loads=np.zeros((len(moved), 0))), load_precision=None)
        values.append(null_evidence(q, taus, tol=1e-10)[0][:, 0])
    from scipy.special import logsumexp

    want = logsumexp(np.array(values) + np.log(weights / weights.sum())[:, None], axis=0)
    np.testing.assert_allclose(got, want, atol=0.03)
    assert np.abs(got - values[10]).max() > 0.3


@pytest.mark.parametrize("name", ["null", "single_hill", "additive_hill", "polynomial"])
@pytest.mark.parametrize("wide", [0.0, 0.05])
def test_gradient_and_tensors_with_errors(
    name: str, wide: float, rng: np.random.Generator, kernel_density: Callable[..., Any]
) -> None:
    stats, dosage, axis = _uncertain(rng, 0.3)
    dosage = replace(dosage, error=np.zeros_like(dosage.error))
    p = problem(stats, dosage, np.full(N_FEATURES, 0.5), group_effect_sd=0.3, axis=axis, priors=TransPriors())
    p, c = with_wide(p, wide, 0.4), curve(name)
    shapes, _, consts = c.lattice(axis, p.priors)
    some = np.linspace(0, len(shapes) - 1, min(len(shapes), 20)).astype(int)
    taus = np.repeat(np.array([[0.05, 0.2]]), N_FEATURES, 0)
    arguments = c, shapes[None, some], consts[None, some], taus
    here = evidence(p, *arguments, tol=1e-9, modes=True)
    n = 2 + c.n_amplitudes + 2
    assert here[1].shape[-1] == n

    def at(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, grad, _ = kernel_density(p, c, theta, shapes[some[-1]], consts[0], 0.2)
        return value, grad

    theta = rng.normal(0, 0.3, n) + np.r_[p.level[0], np.zeros(n - 1)]
    step = 1e-5 * np.eye(n)
    want = [(at(theta + h)[0] - at(theta - h)[0]) / 2e-5 for h in step]
    # the modes of the guide effects, found anew at each point, are right to some digits only
    np.testing.assert_allclose(at(theta)[1], want, rtol=1e-3, atol=0.05)


@pytest.mark.parametrize(("name", "niters"), [("svi", 60), ("nuts", 5)])
def test_pyro_engines_take_the_errors(name: str, niters: int, rng: np.random.Generator) -> None:
    """They sample the model with errors of the coefficients, and the one without."""
    stats, dosage, axis = _uncertain(rng, 0.3)
    one = stats.take(np.arange(1))
    spread = []
    for st in (one, replace(one, covariates=replace(one.covariates, errors=None))):
        p = problem(st, dosage, np.full(1, 0.5), group_effect_sd=0.3, axis=axis, priors=TransPriors())
        start = np.tile([p.level[0], 0.3, 0.0, 0.7], (1, 20, 1)) + rng.normal(0, 0.05, (1, 20, 4))
        draws, _ = engine(name).trans(
            st,
            dosage,
            overdispersion=p.overdispersion,
            curve="single_hill",
            axis=axis,
            priors=TransPriors(),
            hyper=HYPER,
            consts=np.zeros((1, 2)),
            init=start,
            nsamples=8,
            niters=niters,
            device="cpu",
            rng=0,
        )
        assert np.isfinite(draws).all()
        spread.append(draws[0, :, 0].std())
    assert spread[0] > 0


@pytest.mark.parametrize("name", ["null", "single_hill", "additive_hill", "polynomial"])
@pytest.mark.parametrize("errors", [0.0, 0.2])
def test_guide_level_density_equals_the_engine(name: str, errors: float, rng: np.random.Generator) -> None:
    stats, dosage, axis = _uncertain(rng, errors)
    stats, c, n = stats.take(np.arange(2)), curve(name), 2
    consts = np.repeat(c.lattice(axis, TransPriors())[2][:1], n, 0)
    p = problem(stats, dosage, np.full(n, 0.5), group_effect_sd=0.3, axis=axis, priors=TransPriors())
    data = tensors.trans_data(
        stats,
        dosage,
        overdispersion=p.overdispersion,
        axis=axis,
        priors=TransPriors(),
        hyper=HYPER,
        consts=consts,
        device=CPU,
    )
    u, alpha = rng.normal(0, 0.1, (n, len(dosage.error))), rng.normal(0, 0.3, (n, 1))
    moves = rng.normal(0, 0.2, (n, p.design.loads.shape[1]))
    values: dict[str, Any] = {k: rng.normal(0.5, 0.5, n) for k in c.params}
    want = 0.0
    chosen.ready(place(c))
    for t in range(n):
        theta = np.array([v[t] for v in values.values()])
        at = np.concatenate([theta[: 1 + c.n_amplitudes], alpha[t], moves[t]])
        one = p.take([t])
        anchor = one.anchor(np.ones((1, 1)))
        want += log_joint(
            place(c),
            at,
            c.n_amplitudes,
            u[t],
            one.counts[0],
            one.weights[0],
            one.overdispersion[0],
            one.offset[0],
            Anchor(*(part[0] for part in anchor)),
            0.1,
            theta[1 + c.n_amplitudes :],
            consts[t],
            p.design,
        )
    priors = TransPriors()
    from scipy.stats import norm

    want += n * norm(HYPER["tau_log_mean"], HYPER["tau_log_sd"]).logpdf(np.log(0.1))
    for k, v in values.items():
        if k.startswith("log2_ec50"):
            want += norm(0, priors.ec50_sd).logpdf(v).sum()
        elif k.startswith("log_n"):
            want += norm(priors.n_log_mean, priors.n_log_sd).logpdf(v).sum()
    at = {k: torch.as_tensor(v[:, None]) for k, v in values.items()}
    at |= {"log_tau": torch.full((n, 1), np.log(0.1), dtype=torch.float64), "u": torch.as_tensor(u)}
    at |= {"alpha": torch.as_tensor(alpha[:, None, :]), "errors": torch.as_tensor(moves[:, None, :])}
    with torch.random.fork_rng():
        trace = poutine.trace(poutine.condition(lambda: guide_level(data, c), data=at)).get_trace()
    np.testing.assert_allclose(float(trace.log_prob_sum()), want, rtol=1e-5)


def test_slopes_within_guides_are_freed_of_covariates(rng: np.random.Generator) -> None:
    """Cells of a row with a higher dosage have a higher score; the score moves the feature, the dosage does not."""
    n, n_rows = 6000, 5
    row, x, s = rng.integers(0, n_rows, n), rng.normal(0, 0.3, n), rng.uniform(0.7, 1.5, n)
    z, b = (0.8 * x / 0.3 + 0.6 * rng.normal(size=n))[:, None], np.array([[0.4]])
    y = rng.poisson(4.0 * s * np.exp(b[0, 0] * z[:, 0]))
    d, bins = within_guide_slope.centred_dosage(row, x, s, n_rows), alike(z, 256)
    totals = [np.bincount(row, v, n_rows) for v in (y, s, d * y, s * d**2, s**2 * d**2)]
    e = covariate_effects(b, z, bins, row, n_rows, s)
    by_bin = covariates.sums_by_bin(s * d, bins, row, n_rows)
    stats = within_guide_slope.WithinStats(totals[2][None], totals[3], totals[4], None, by_bin)
    arguments = totals[0][None].astype(float), totals[1], np.array([0.01])
    with_, sd = within_guide_slope.within_slope(stats, *arguments, e)
    without, _ = within_guide_slope.within_slope(stats, *arguments)
    assert abs(with_[0]) < 3 * sd[0]
    assert without[0] > 10 * sd[0]
