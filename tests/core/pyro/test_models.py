"""The Pyro models against the compiled engine, scipy and the curves' own formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy.stats import nbinom, norm
from scipy.stats import t as student_t

from dream_sc._core.curves import CURVES, curve, place
from dream_sc._core.laplace.layout import Anchor
from dream_sc._core.laplace.quadrature import log_joint
from dream_sc._core.priors import CisPriors, ScorePriors, TechnicalPriors, TransPriors
from dream_sc._core.pyro import scores
from dream_sc._core.pyro import tensors as _torch
from dream_sc._core.pyro.models.chains import ChainData, chains
from dream_sc._core.pyro.models.cis import cis
from dream_sc._core.pyro.models.scores import normal, studentt
from dream_sc._core.pyro.models.technical import technical
from dream_sc._core.pyro.models.trans import TransData, cell_level, guide_level
from dream_sc._core.response import problem as laplace
from dream_sc._core.response.wide_effects import with_wide
from dream_sc._core.sums.pair_sums import score_sums
from dream_sc._core.types import Axis, CisCells, GuideStats, RowDosage, ScoreFit, TechnicalStats

CPU = torch.device("cpu")
PRIORS = TransPriors()
DOSES = np.r_[np.linspace(-3, 1.2, 5), np.zeros(3)]
AXIS = Axis(-3.0, 1.2, DOSES[:5])
HYPER = {"tau_log_mean": -2.5, "tau_log_sd": 0.8, "group_effect_sd": 0.3}


def _reachable(z_low: np.ndarray, z_high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest fall and largest rise of a Hill, whose argument goes from one to the other."""
    softplus = lambda z: np.logaddexp(0.0, z)  # noqa: E731
    return softplus(z_high) - softplus(z_low), softplus(-z_low) - softplus(-z_high)


def _design(
    rng: np.random.Generator, n_groups: int = 2, error: float = 0.07, n_escaping: int = 0
) -> tuple[GuideStats, RowDosage]:
    n_g = len(DOSES)
    guide, group = np.repeat(np.arange(n_g), n_groups), np.tile(np.arange(n_groups), n_g)
    w = rng.uniform(20, 120, len(guide))
    counts = rng.poisson(rng.uniform(0.1, 300, (3, len(guide)))).astype(float)
    stats = GuideStats(counts, w, w * rng.uniform(1, 2, len(w)), guide, group, n_g, n_groups)
    spread = np.where(DOSES == 0, 0.0, rng.uniform(0.05, 0.5, n_g))
    escape = np.where(np.arange(n_g) < n_escaping, 0.3, 0.0)
    return stats, RowDosage(DOSES[guide], spread[guide], np.full(n_g, error), escape=escape[guide])


def _parameters(rng: np.random.Generator, name: str, n: int) -> dict[str, np.ndarray]:
    out = {"a": rng.normal(1, 1, n)}
    for p in curve(name).params[1:]:
        scale = 1.5 if p.startswith(("b", "log2_ec50")) else 0.5
        out[p] = rng.normal(0, scale, n)
    return out


def _log_density(model, data: TransData, c, values) -> float:  # type: ignore[no-untyped-def]
    with torch.random.fork_rng():
        trace = poutine.trace(poutine.condition(lambda: model(data, c), data=values)).get_trace()
    return float(trace.log_prob_sum())


def _engine_density(p: laplace.Problem, t: int, c, theta, u, consts, tau: float) -> float:  # type: ignore[no-untyped-def]
    n_amp = c.n_amplitudes
    shape, alpha = theta[1 + n_amp : len(c.params)], theta[len(c.params) :]
    at = np.concatenate([theta[: 1 + n_amp], alpha])
    anchor = p.take([t]).anchor(np.ones((1, 1)))
    anchor = Anchor(*(part[0] for part in anchor))
    row_weights = p.weights[t]
    value = log_joint(
        place(c),
        at,
        n_amp,
        u,
        p.counts[t],
        row_weights,
        p.overdispersion[t],
        np.zeros(0),
        anchor,
        tau,
        shape,
        consts,
        p.design,
    )
    return float(value)


@pytest.mark.parametrize("name", [c.name for c in CURVES])
@pytest.mark.parametrize("n_groups", [1, 2])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("wide", [0.0, 0.05])
@pytest.mark.parametrize("n_escaping", [0, 2])
def test_guide_level_density_equals_the_engine(
    name: str, n_groups: int, seed: int, wide: float, n_escaping: int
) -> None:
    rng = np.random.default_rng(seed)
    stats, dosage = _design(rng, n_groups, n_escaping=n_escaping)
    c, n, n_g = curve(name), len(stats.counts), len(DOSES)
    o = rng.uniform(0.2, 1.5, n)
    p = laplace.problem(stats, dosage, o, group_effect_sd=HYPER["group_effect_sd"], axis=AXIS, priors=PRIORS)
    p, hyper = with_wide(p, wide, 0.4), HYPER | {"wide_weight": wide, "wide_sd": 0.4}
    params = _parameters(rng, name, n)
    all_consts = c.lattice(AXIS, PRIORS)[2]
    consts = all_consts[rng.integers(len(all_consts), size=n)]
    data = _torch.trans_data(
        stats, dosage, overdispersion=o, axis=AXIS, priors=PRIORS, hyper=hyper, consts=consts, device=CPU
    )
    u, alpha = rng.normal(0, 0.1, (n, n_g)), rng.normal(0, 0.3, (n, n_groups - 1))
    log_tau = rng.normal(-2, 0.5, n)
    want = norm(HYPER["tau_log_mean"], HYPER["tau_log_sd"]).logpdf(log_tau).sum()
    for t in range(n):
        theta = np.concatenate([[v[t] for v in params.values()], alpha[t]])
        want += _engine_density(p, t, c, theta, u[t], consts[t], float(np.exp(log_tau[t])))
        for k, v in params.items():
            if k.startswith("log2_ec50"):
                want += norm(0, PRIORS.ec50_sd).logpdf(v[t])
            elif k.startswith("log_n"):
                want += norm(PRIORS.n_log_mean, PRIORS.n_log_sd).logpdf(v[t])
    values = {k: torch.as_tensor(v[:, None]) for k, v in params.items()}
    values |= {"log_tau": torch.as_tensor(log_tau[:, None]), "u": torch.as_tensor(u)}
    values["alpha"] = torch.as_tensor(alpha[:, None, :])
    np.testing.assert_allclose(_log_density(guide_level, data, c, values), want, rtol=1e-5)


def test_guides_with_wide_effects_of_their_own_have_the_density_of_the_engine() -> None:
    rng = np.random.default_rng(8)
    stats, dosage = _design(rng, 1)
    c, n, n_g = curve("null"), len(stats.counts), len(DOSES)
    o, weight, sd = rng.uniform(0.2, 1.5, n), rng.uniform(0.01, 0.9, n_g), rng.uniform(0.2, 1.0, n_g)
    p = laplace.problem(stats, dosage, o, group_effect_sd=HYPER["group_effect_sd"], axis=AXIS, priors=PRIORS)
    p = p.with_design(wide_sd=np.stack([0 * sd, sd], 1), wide_weight=np.stack([1 - weight, weight], 1))
    params, consts = _parameters(rng, "null", n), np.zeros((n, 2))
    hyper = HYPER | {"wide_weight": weight, "wide_sd": sd}
    data = _torch.trans_data(
        stats, dosage, overdispersion=o, axis=AXIS, priors=PRIORS, hyper=hyper, consts=consts, device=CPU
    )
    u, log_tau = rng.normal(0, 0.4, (n, n_g)), rng.normal(-2, 0.5, n)
    want = norm(HYPER["tau_log_mean"], HYPER["tau_log_sd"]).logpdf(log_tau).sum()
    for t in range(n):
        theta = np.array([v[t] for v in params.values()])
        want += _engine_density(p, t, c, theta, u[t], consts[t], float(np.exp(log_tau[t])))
    values = {k: torch.as_tensor(v[:, None]) for k, v in params.items()}
    values |= {"log_tau": torch.as_tensor(log_tau[:, None]), "u": torch.as_tensor(u)}
    np.testing.assert_allclose(_log_density(guide_level, data, c, values), want, rtol=1e-5)


def test_density_of_chains_equals_the_engine() -> None:
    """Sticks by the engine at their lagged shapes, the shape's prior once for each feature."""
    rng = np.random.default_rng(5)
    feature, moves = np.array([0, 0, 1, 1, 1]), np.array([True, True, False, True, False])
    n, n_g, lag = len(feature), len(DOSES), np.array([0.0, 0.7, 0.0, -1.1, 0.4])
    guide, group = np.repeat(np.arange(n_g), 2), np.tile([0, 1], n_g)
    total = rng.poisson(80, (n, len(guide))).astype(float)
    one = np.ones(len(guide))
    stats = GuideStats(
        rng.binomial(total.astype(int), 0.4).astype(float), one, one, guide, group, n_g, 2, total, "multinomial"
    )
    dosage = RowDosage(DOSES[guide], np.where(DOSES == 0, 0.0, 0.3)[guide], np.full(n_g, 0.05))
    p = laplace.problem(stats, dosage, np.ones(n), group_effect_sd=HYPER["group_effect_sd"], axis=AXIS, priors=PRIORS)
    p, hyper, c = with_wide(p, 0.05, 0.4), HYPER | {"wide_weight": 0.05, "wide_sd": 0.4}, curve("single_hill")
    sticks = _torch.trans_data(
        stats,
        dosage,
        overdispersion=np.ones(n),
        axis=AXIS,
        priors=PRIORS,
        hyper=hyper,
        consts=np.zeros((n, 2)),
        device=CPU,
    )
    data = ChainData(sticks, torch.as_tensor(feature), torch.as_tensor(lag), torch.as_tensor(moves), 2)
    a, b, k, log_n = rng.normal(0, 1, n), rng.normal(0, 2, n), rng.normal(-0.5, 1, 2), rng.normal(0.7, 0.5, 2)
    u, alpha, log_tau = rng.normal(0, 0.1, (n, n_g)), rng.normal(0, 0.3, (n, 1)), rng.normal(-2, 0.5, n)
    own = np.stack([k[feature] + lag * np.exp(-log_n[feature]), log_n[feature]], 1)
    shared, no = np.stack([k, log_n], 1), np.zeros((2, 2))
    want = (
        norm(HYPER["tau_log_mean"], HYPER["tau_log_sd"]).logpdf(log_tau).sum() + norm(0, PRIORS.ec50_sd).logpdf(k).sum()
    )
    want += norm(PRIORS.n_log_mean, PRIORS.n_log_sd).logpdf(log_n).sum()
    want += np.log(c.amplitude_mass(shared, no, AXIS, PRIORS)).sum()
    want -= np.log(c.amplitude_mass(own, np.zeros((n, 2)), AXIS, PRIORS)).sum()
    for t in range(n):
        theta = np.r_[a[t], b[t], own[t], alpha[t]]
        want += _engine_density(p, t, c, theta, u[t], np.zeros(2), float(np.exp(log_tau[t])))
        ends = c.log_curve(np.array([AXIS.low, AXIS.high]), np.r_[0.0, b[t], own[t]], None)
        want -= 0.0 if moves[t] else 2 * np.log(np.abs(ends[1] - ends[0]))
    values = {name: torch.as_tensor(v[:, None]) for name, v in (("a", a), ("b", b), ("log_tau", log_tau))}
    values |= {"log2_ec50": torch.as_tensor(k[:, None]), "log_n": torch.as_tensor(log_n[:, None])}
    values |= {"u": torch.as_tensor(u), "alpha": torch.as_tensor(alpha[:, None, :])}
    with torch.random.fork_rng():
        trace = poutine.trace(poutine.condition(lambda: chains(data), data=values)).get_trace()
    np.testing.assert_allclose(float(trace.log_prob_sum()), want, rtol=1e-6)


@pytest.mark.parametrize("kind", ["normal", "studentt"])
def test_density_of_scores_equals_scipy(kind: str, rng: np.random.Generator) -> None:
    n_t, group, first = 2, np.array([0, 0, 1, 2, 1, 0, -1]), ScorePriors()
    x = rng.normal(3, 2, (len(group), n_t))
    x[1, 0] = np.nan
    level, log_sigma, a = rng.normal(0, 1, n_t), rng.normal(0, 0.3, n_t), rng.normal(0, 0.5, (n_t, 2))
    blocks = [(slice(0, n_t), x)]
    if kind == "normal":
        sums = score_sums(blocks, group, 3, n_t)
        fit = replace(_no_fit(n_t), mu=sums.centre)
        data = scores.normal_data(sums, fit, np.arange(n_t), first, CPU)
    else:
        fit = _no_fit(n_t)
        data = scores.studentt_data(x, group, fit, np.arange(n_t), first, CPU)
    values = {name: torch.as_tensor(v[:, None]) for name, v in (("level", level), ("log_sigma", log_sigma))}
    values["effects"] = torch.as_tensor(a[:, None, :])
    model = normal if kind == "normal" else studentt
    with torch.random.fork_rng():
        trace = poutine.trace(poutine.condition(lambda: model(data), data=values)).get_trace()
    want = student_t(first.effect_df, 0, fit.effect_scale).logpdf(a).sum()
    density = norm if kind == "normal" else student_t(3)
    for t in range(n_t):
        at = level[t] + np.exp(log_sigma[t]) * np.r_[0.0, a[t]]
        seen = (group >= 0) & np.isfinite(x[:, t])
        z = ((x[seen, t] - fit.mu[t]) / fit.sigma[t] - at[group[seen]]) / np.exp(log_sigma[t])
        want += (density.logpdf(z) - log_sigma[t]).sum()
    np.testing.assert_allclose(float(trace.log_prob_sum()), want, rtol=1e-9)


def _no_fit(n: int) -> ScoreFit:
    """A result of the fast engine by which scores are scaled."""
    one, effects, ok = np.ones(n), np.zeros((n, 3)), np.ones(n, dtype=bool)
    return ScoreFit(3.0 * one, one, np.linspace(1.5, 2.5, n), one, effects, effects, 0.3, one, ok)


@pytest.mark.parametrize("name", [c.name for c in CURVES])
def test_torch_curves_equal_the_formulas(name: str, rng: np.random.Generator) -> None:
    c = curve(name)
    params = _parameters(rng, name, 3)
    consts = np.repeat(c.lattice(AXIS, PRIORS)[2][:1], 3, 0)
    x = np.linspace(-3, 1, 9)
    tensors = {k: torch.as_tensor(v[:, None]) for k, v in params.items()}
    at, zero = torch.as_tensor(x).requires_grad_(), torch.zeros((1, 1), dtype=torch.float64)
    one = torch.ones_like(zero)
    rows = c.torch_rows(tensors, at[:, None], one.expand(9, 1), torch.as_tensor(consts))
    level = c.torch_rows(tensors, zero, one, torch.as_tensor(consts))
    stacked = np.stack(list(params.values()), 1)
    np.testing.assert_allclose(
        (rows + tensors["a"] - level).detach(), c.log_curve(x, stacked, consts), rtol=1e-9, atol=1e-9
    )
    slope = c.slope(x, stacked, consts)
    for t in range(3):
        (grad,) = torch.autograd.grad(rows[t].sum(), at, retain_graph=True)
        np.testing.assert_allclose(grad / np.log(2), slope[t], rtol=1e-7, atol=1e-9)


def test_movement_prior_has_mass_one() -> None:
    """The moment prior, seen as a density of the amplitude, integrates to what the axis can reach."""
    c = curve("single_hill")
    b = torch.linspace(-60, 60, 400_001, dtype=torch.float64)[:, None]
    shape = {"log2_ec50": torch.tensor([[-1.0]], dtype=b.dtype), "log_n": torch.tensor([[1.0]], dtype=b.dtype)}
    density = c.torch_prior({"b": b} | shape, AXIS, PRIORS, None).exp()
    from dream_sc._core.curves._base import moment_mass

    rate = np.log(2) * np.e
    upper = np.array(_reachable(rate * (AXIS.low + 1), rate * (AXIS.high + 1)))
    want = moment_mass(upper, PRIORS.movement_scales, PRIORS.movement_weights).sum()
    np.testing.assert_allclose(float(density.nansum() * (b[1] - b[0])), want, rtol=1e-4)


def test_single_cells_give_the_same_density_at_both_levels(rng: np.random.Generator) -> None:
    """A guide with one cell, its dosage known: the sum over its cells is the cell."""
    stats, dosage = _design(rng, 1, error=0.0)
    stats = replace(stats, exposure2=stats.exposure**2)
    data = _torch.trans_data(
        stats,
        dosage,
        overdispersion=np.full(3, 0.5),
        axis=AXIS,
        priors=PRIORS,
        hyper=HYPER,
        consts=np.zeros((3, 2)),
        device=CPU,
    )
    c = curve("single_hill")
    values = {k: torch.as_tensor(v[:, None]) for k, v in _parameters(rng, "single_hill", 3).items()}
    values |= {"log_tau": torch.full((3, 1), -1.0), "u": torch.as_tensor(rng.normal(0, 0.2, (3, len(DOSES))))}
    z = torch.zeros((3, len(DOSES)), dtype=torch.float64)
    cells = _log_density(cell_level, data, c, values | {"z": z}) - norm.logpdf(0) * z.numel()
    np.testing.assert_allclose(cells, _log_density(guide_level, data, c, values), rtol=1e-7)


@pytest.mark.parametrize("name", ["single_hill", "additive_hill", "polynomial"])
def test_some_cells_stand_for_all(rng: np.random.Generator, name: str) -> None:
    """Over all halves of the cells, the scaled density of the counts has that of all cells as its mean."""
    stats, dosage = _design(rng, 2, error=0.1)
    data = _torch.trans_data(
        stats,
        dosage,
        overdispersion=np.full(3, 0.5),
        axis=AXIS,
        priors=PRIORS,
        hyper=HYPER,
        consts=np.ones((3, 2)),
        device=CPU,
    )
    c, n = curve(name), stats.counts.shape[1]
    values = {k: torch.as_tensor(v[:, None]) for k, v in _parameters(rng, name, 3).items()}
    values |= {"log_tau": torch.full((3, 1), -1.0), "u": torch.as_tensor(rng.normal(0, 0.2, (3, len(DOSES))))}
    values["z"] = torch.as_tensor(rng.normal(size=(3, len(DOSES))))
    if data.n_groups > 1:
        values["alpha"] = torch.as_tensor(rng.normal(0, 0.1, (3, 1, data.n_groups - 1)))
    halves = [torch.arange(n)[k::2] for k in (0, 1)] if n % 2 == 0 else [torch.arange(n)]
    parts = [_log_density(lambda d, k, rows=rows: cell_level(d, k, rows=rows), data, c, values) for rows in halves]
    whole = _log_density(cell_level, data, c, values)
    np.testing.assert_allclose(np.mean(parts), whole, rtol=1e-10)
    # and each feature by itself, whose latent dosages are its own
    own = [{k: v[t : t + 1] for k, v in values.items()} for t in range(3)]
    alone = [_log_density(cell_level, data.feature(t), c, own[t]) for t in range(3)]
    np.testing.assert_allclose(sum(alone), whole, rtol=1e-10)


def test_technical_density_equals_scipy(rng: np.random.Generator) -> None:
    """Bins of one cell each: the sums with their tails are the negative binomial of scipy."""
    y = np.array([[0.0, 2, 5, 1, 0, 3]])
    s, group = rng.uniform(0.5, 2, 6), np.array([0, 0, 0, 1, 1, 1])
    tail_at = np.arange(6.0)
    tail = (y[0][:, None] > tail_at).sum(0)[None].astype(float)
    stats = TechnicalStats(y, np.ones(6), s, group, 2, tail, tail_at)
    priors = TechnicalPriors()
    data = _torch.technical_data(stats, 1.0, priors, CPU)
    beta, log_mu, o, a = 2.5, 0.4, 0.7, 0.3
    values = {
        "beta_o": torch.tensor(beta, dtype=torch.float64),
        "log_mu": torch.full((1, 1), log_mu, dtype=torch.float64),
        "overdispersion": torch.full((1, 1), o, dtype=torch.float64),
        "effects": torch.full((1, 1, 1), a, dtype=torch.float64),
    }
    trace = poutine.trace(poutine.condition(lambda: technical(data), data=values)).get_trace()
    m, phi = np.exp(log_mu + a * group) * s, 1 / o**2
    from scipy.special import gammaln
    from scipy.stats import expon, gamma

    want = nbinom(phi, phi / (phi + m)).logpmf(y[0]).sum() + gammaln(y + 1).sum()
    want += gamma(priors.beta_o_shape, scale=1 / priors.beta_o_rate).logpdf(beta) + expon(scale=1 / beta).logpdf(o)
    want += norm(float(data.log_mu0[0]), priors.log_mu_sd).logpdf(log_mu)
    want += student_t(priors.effect_df, 0, np.log(2)).logpdf(a)
    np.testing.assert_allclose(float(trace.log_prob_sum()), want, rtol=1e-6)


@pytest.mark.parametrize("several", [False, True])
def test_cis_density_equals_scipy(rng: np.random.Generator, several: bool) -> None:
    control, sets = np.array([False, False, True]), np.array([[0, 1]])
    guide = np.array([0, 3 if several else 0, 1, 2, 2])
    cells = CisCells(np.array([3.0, 1, 0, 6, 5]), rng.uniform(2, 6, 5), guide, control, 0.5, sets)
    priors = CisPriors()
    data, _ = _torch.cis_data(cells, priors, CPU)
    point = {
        "level": 0.1,
        "mu": -0.5,
        "sigma": 0.8,
        "control_sd": 0.05,
        "within_centre": -1.2,
        "targeting_mean": [-1.0, 0.4],
        "within_sd": [0.2, 0.4],
        "control_mean": [0.02],
        "z": [0.3, -1.0, 0.5],
    }
    values = {k: torch.tensor(v, dtype=torch.float64) for k, v in point.items()}
    trace = poutine.trace(poutine.condition(lambda: cis(data), data=values)).get_trace()
    from scipy.special import gammaln
    from scipy.stats import halfcauchy, halfnorm, lognorm

    second = -0.6 - 0.2**0.5 if several else -1.0 - 0.2
    x = np.array([-1.0 + 0.2 * 0.3, second, 0.4 + 0.4 * 0.5, 0.02, 0.02])
    m, phi = cells.exposure * 2 ** (0.1 + x), 4.0
    want = nbinom(phi, phi / (phi + m)).logpmf(cells.counts).sum()
    want -= (gammaln(cells.counts + phi) - gammaln(phi) - gammaln(cells.counts + 1)).sum()
    want += norm(0, 1).logpdf([0.1, 0.3, -1.0, 0.5]).sum() + norm(0, 3).logpdf(-0.5)
    want += halfcauchy(scale=priors.sigma_scale).logpdf(0.8) + halfnorm(scale=priors.control_sd_scale).logpdf(0.05)
    want += norm(np.log(priors.within_median), priors.within_log_sd / 3**0.5).logpdf(-1.2)
    want += student_t(priors.guide_df, -0.5, 0.8).logpdf([-1.0, 0.4]).sum() + norm(0, 0.05).logpdf(0.02)
    want += lognorm(priors.within_log_sd, scale=np.exp(-1.2)).logpdf([0.2, 0.4]).sum()
    np.testing.assert_allclose(float(trace.log_prob_sum()), want, rtol=1e-7)


def test_turn_weight_equals_its_torch_form_and_ignores_monotone_curves(rng: np.random.Generator) -> None:
    from dream_sc._core.curves import _turn

    c = curve("additive_hill")
    params = _parameters(rng, "additive_hill", 40)
    consts = c.lattice(AXIS, PRIORS)[2][rng.integers(100, size=40)]
    x = _turn.points(AXIS)
    curves = c.log_curve(x, np.stack(list(params.values()), 1), consts)
    want = _turn.weight(x, curves, PRIORS.turn_scale)
    tensors = {k: torch.as_tensor(v[:, None]) for k, v in params.items()}
    got = c.factor.torch(tensors, torch.as_tensor(consts), AXIS, PRIORS).exp().numpy()[:, 0]
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)
    monotone = (np.diff(curves, axis=1) >= 0).all(1) | (np.diff(curves, axis=1) <= 0).all(1)
    assert monotone.any()
    np.testing.assert_array_equal(want[monotone], 0.0)
    assert 0.05 < c.factor.mass(AXIS, PRIORS) < 0.95
    np.testing.assert_allclose(c.factor.mass(AXIS, PRIORS), c.factor.mass(AXIS, PRIORS, n=400), rtol=0.1)
