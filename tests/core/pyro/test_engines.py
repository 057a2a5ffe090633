"""The Pyro engines on small problems: agreement with the fast engine, reproducibility, no trace left behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dream_sc._core.curves import curve
from dream_sc._core.engines import ENGINES, engine
from dream_sc._core.priors import CisPriors, TechnicalPriors, TransPriors
from dream_sc._core.sums.guide_sums import RowSums, TailSums, size_factor_bins, technical_stats
from dream_sc._core.types import Axis, CisCells, GuideStats, RowDosage

TRUTH = np.array([[1.5, 3.0, -0.8, 0.7], [1.0, -3.0, -0.5, 0.7]])
DOSES = np.r_[np.linspace(-3, 1.2, 9), np.zeros(3)]
AXIS = Axis(-3.0, 1.2, DOSES[:9])


def _arguments() -> tuple[GuideStats, dict[str, Any]]:
    rng = np.random.default_rng(4)
    n_g, w = len(DOSES), np.full(len(DOSES), 200.0)
    mean = np.exp(curve("single_hill").log_curve(DOSES, TRUTH, None) + rng.normal(0, 0.03, (2, n_g))) * w
    stats = GuideStats(rng.poisson(mean).astype(float), w, w, np.arange(n_g), np.zeros(n_g, int), n_g, 1)
    keywords = {
        "overdispersion": np.full(2, 0.3),
        "curve": "single_hill",
        "axis": AXIS,
        "priors": TransPriors(),
        "hyper": {"tau_log_mean": np.log(0.04), "tau_log_sd": 0.5, "group_effect_sd": 0.3},
        "consts": np.zeros((2, 2)),
        "init": TRUTH[:, None] + rng.normal(0, [0.03, 0.1, 0.1, 0.1], (2, 50, 4)),
        "nsamples": 150,
        "device": "cpu",
        "rng": 0,
    }
    return stats, {"dosage": RowDosage(DOSES, np.zeros(n_g), np.full(n_g, 0.02))} | keywords


@pytest.mark.parametrize(("name", "niters"), [("svi", 1000), ("nuts", 60)])
def test_trans_recovers_curves(name: str, niters: int) -> None:
    stats, keywords = _arguments()
    first = slice(0, 1 if name == "nuts" else 2)  # nuts takes features one by one
    chosen = keywords | {k: keywords[k][first] for k in ("overdispersion", "consts", "init")}
    draws, info = engine(name).trans(replace(stats, counts=stats.counts[first]), niters=niters, **chosen)
    assert draws.shape == (len(TRUTH[first]), 150, 4)
    assert info["converged"].shape == (len(draws),)
    z = (draws.mean(1) - TRUTH[first]) / draws.std(1)
    assert np.abs(z).max() < 4
    assert draws[:, :, 2].std(1).max() < 0.4


@pytest.mark.parametrize("name", ["svi", "nuts"])
def test_a_feature_is_fitted_as_if_alone(name: str) -> None:
    """The numbers of the first feature are the same the second time, whatever stands beside it."""
    stats, keywords = _arguments()
    few = keywords | {"nsamples": 20, "niters": 60 if name == "nuts" else 150}
    one = few | {k: few[k][:1] for k in ("overdispersion", "consts", "init")}
    alone, _ = engine(name).trans(replace(stats, counts=stats.counts[:1]), **one)
    whole, _ = engine(name).trans(stats, **few)
    np.testing.assert_allclose(alone[0], whole[0], rtol=1e-6)
    assert alone[0].std(0).min() > 0


def test_svi_agrees_with_the_fast_engine_on_the_technical_step() -> None:
    rng = np.random.default_rng(2)
    mu, o, s = np.array([0.8, 4.0, 12.0]), np.array([0.5, 0.3, 0.6]), np.exp(rng.normal(0, 0.2, 800))
    group = rng.integers(0, 2, 800)
    m = s[:, None] * mu * np.exp(np.array([0.2, -0.1, 0.3]) * group[:, None])
    from scipy import sparse

    from dream_sc._core.sums.block import CountBlock

    y = sparse.csr_matrix(rng.poisson(rng.gamma(1 / o**2, o**2 * m)).astype(float))
    control = np.ones(800, dtype=bool)
    bins, group_of_bin = size_factor_bins(s, group, control)
    sums, tails = RowSums(bins, len(group_of_bin), 3), TailSums(control, 3, 1e7)
    sums.add(CountBlock.of(y))
    tails.add(CountBlock.of(y))
    stats = technical_stats(sums, tails, s, group_of_bin, 2)
    fast = engine("laplace").technical(stats, TechnicalPriors())
    svi = engine("svi").technical(stats, TechnicalPriors(), niters=1500, nsamples=400, device="cpu")
    np.testing.assert_allclose(np.log(svi.mu), np.log(fast.mu), atol=0.03)
    np.testing.assert_allclose(svi.overdispersion, fast.overdispersion, atol=0.05)
    np.testing.assert_allclose(svi.effects, fast.effects, atol=0.1)


@pytest.mark.parametrize(("name", "niters"), [("svi", 1000), ("nuts", 60)])
def test_cis_agrees_with_the_fast_engine(name: str, niters: int) -> None:
    rng = np.random.default_rng(0)  # of 40 seeds one draws a guide that looks as if a part of its cells escaped
    truth = np.array([-2.0, -0.7, 0.8, 0.0, 0.0])
    control, guide = np.array([False] * 3 + [True] * 2), np.repeat(np.arange(5), 40)
    x = truth[guide] + 0.25 * rng.normal(size=200) * (guide < 3)
    exposure = np.full(200, 10.0)
    counts = rng.negative_binomial(4.0, 4 / (4 + exposure * 2**x)).astype(float)
    cells = CisCells(counts, exposure, guide, control, 0.5)
    fast = engine("laplace").cis(cells, CisPriors())
    other = engine(name).cis(cells, CisPriors(), niters=niters, nsamples=100, device="cpu")
    np.testing.assert_allclose(other.guide_mean, fast.guide_mean, atol=0.3)
    assert np.corrcoef(other.cell_median, fast.cell_median)[0, 1] > 0.98
    assert (other.cell_q025 <= other.cell_median).all()
    assert (other.cell_median <= other.cell_q975).all()


def test_unknown_engine_and_missing_gpu() -> None:
    with pytest.raises(ValueError, match="laplace"):
        engine("vi")
    import torch

    assert set(ENGINES) == {"laplace", "svi", "nuts"}
    if not torch.cuda.is_available():
        stats, keywords = _arguments()
        with pytest.raises(ValueError, match="no GPU"):
            engine("svi").trans(stats, niters=10, **(keywords | {"device": "cuda"}))


def test_the_model_of_shares_agrees_with_the_fast_engine() -> None:
    from scipy import sparse

    from dream_sc._core.priors import SharePriors
    from dream_sc._core.sums.share_sums import share_stats

    rng = np.random.default_rng(6)
    group, rho = rng.integers(0, 2, 400), 0.15
    p = 1 / (1 + np.exp(-(np.array([-1.0, 0.3, 2.0]) + 0.4 * group[:, None])))
    n = rng.poisson(8.0, (400, 3))
    y = rng.binomial(n, rng.beta(p * (1 - rho) / rho, (1 - p) * (1 - rho) / rho))
    block = slice(0, 3), sparse.csc_matrix(y.astype(float)), sparse.csc_matrix(n.astype(float))
    stats = replace(share_stats([block], group, 2, 3, float(n.max())), left=np.array([1.0, 0.5, 0.1]))
    fast = engine("laplace").technical_shares(stats, SharePriors())
    for name, niters in (("svi", 1500), ("nuts", 200)):
        other = engine(name).technical_shares(stats, SharePriors(), niters=niters, nsamples=300, device="cpu")
        np.testing.assert_allclose(other.level, fast.level, atol=0.05)
        np.testing.assert_allclose(other.effects, fast.effects, atol=0.08)
        np.testing.assert_allclose(other.overdispersion, fast.overdispersion, atol=0.02)
        if name == "nuts":
            np.testing.assert_allclose(other.effects_sd, fast.effects_sd, rtol=0.25)
            np.testing.assert_allclose(other.effects_cov[:, 1], fast.effects_cov[:, 1], rtol=0.35)
    plain = engine("svi").technical_shares(stats, SharePriors(), False, niters=500, nsamples=100, device="cpu")
    assert (plain.overdispersion == 0).all()


@pytest.mark.parametrize("kind", ["normal", "studentt"])
def test_svi_of_scores_agrees_with_the_fast_engine(kind: str) -> None:
    from dream_sc._core.priors import ScorePriors
    from dream_sc._core.sums.pair_sums import score_sums

    rng = np.random.default_rng(7)
    n, n_t, group = 300, 4, rng.integers(-1, 2, 300)
    noise = rng.normal(size=(n, n_t)) if kind == "normal" else rng.standard_t(3, (n, n_t))
    x = 1e3 + np.array([1.0, 5.0, 0.2, 3.0]) * (noise + 0.4 * (group == 1)[:, None])
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:, 3] = 2.0  # constant

    def fit(name: str, features: slice, **kwargs: Any) -> Any:
        some, priors = x[:, features], ScorePriors()
        blocks = [(slice(0, some.shape[1]), some)]
        if kind == "normal":
            return engine(name).technical_normal(score_sums(blocks, group, 2, some.shape[1]), priors, **kwargs)
        return engine(name).technical_studentt(blocks, group, 2, some.shape[1], priors, **kwargs)

    fast, svi = fit("laplace", slice(0, 4)), fit("svi", slice(0, 4), niters=1500, nsamples=600, device="cpu")
    assert list(svi.converged) == [True, True, True, False]
    assert svi.settled.all()
    for name in ("mu", "sigma"):
        np.testing.assert_allclose((getattr(svi, name) - getattr(fast, name))[:3] / fast.sigma[:3], 0.0, atol=0.03)
        ratio = getattr(svi, f"{name}_sd")[:3] / getattr(fast, f"{name}_sd")[:3]
        assert (ratio > 0.5).all()  # mean field: level and effects are taken for independent
        assert (ratio < 1.3).all()
    np.testing.assert_allclose((svi.effects - fast.effects)[:3, 1] / fast.sigma[:3], 0.0, atol=0.05)
    assert np.isnan(svi.effects[3, 1])
    alone = fit("svi", slice(0, 1), niters=200, nsamples=100, device="cpu")
    first = fit("svi", slice(0, 3), niters=200, nsamples=100, device="cpu")
    # the learned scale of the effects is of all features
    np.testing.assert_allclose(alone.mu[0], first.mu[0], rtol=1e-5)


def test_svi_of_chains_agrees_with_the_fast_engine() -> None:
    from scipy.special import expit

    from dream_sc._core.response.categories import decision, describe
    from dream_sc._core.response.categories.links import Links
    from dream_sc._core.response.evidence import gather
    from dream_sc._core.response.prepare import Prepared
    from dream_sc._core.response.settings import Settings

    rng = np.random.default_rng(0)
    n_g, n_cat = len(DOSES), [3, 4, 3]
    y, total, feature = [], [], []
    for i, k in enumerate(n_cat):
        ends = rng.dirichlet(np.full(k, 3.0), 2)
        share = ends[0] + (ends[1] - ends[0]) * expit(2 * np.log(2) * (DOSES[:, None] + 0.8))
        counts = np.stack([rng.multinomial(400, p) for p in share])
        counts = counts[:, np.argsort(-counts.sum(0), kind="stable")]
        for j in range(k - 1):
            y.append(counts[:, j])
            total.append(counts[:, j:].sum(1))
            feature.append(i)
    one, zero, of = np.ones(n_g), np.zeros(n_g, int), np.array(feature)
    stats = GuideStats(
        np.array(y, float), one, one, np.arange(n_g), zero, n_g, 1, np.array(total, float), "multinomial"
    )
    dosage = RowDosage(DOSES, np.zeros(n_g), np.full(n_g, 0.02), DOSES == 0)

    def fit(name: str, niters: int, some: slice = slice(None), learned: Any = None) -> Any:
        settings = Settings("single_hill", nsamples=200, inference=name, niters=niters, device="cpu", learned=learned)
        mine = np.isin(of, np.arange(3)[some])
        links = Links.in_order(np.unique(of[mine], return_inverse=True)[1])
        rho = np.ones(int(mine.sum()))
        prepared = Prepared.of_sums(stats.take(mine), dosage, rho, axis=AXIS, group_effect_sd=0.3, links=links)
        found = decision.decide(gather(prepared, settings))
        asked = np.ones(links.n_features, dtype=bool)
        return found.calls, describe.of_draws(found, asked, progress=lambda x: x, kept=None)

    (found, fast), (_, svi) = fit("laplace", 0), fit("svi", 600)
    assert (found.lfdr < 0.01).all()
    low, high = (fast.by_category[f"delta_p_full_{q}"] for q in ("q025", "q975"))
    sd = (high - low) / 4
    off = np.abs(svi.by_category["delta_p_full"] - fast.by_category["delta_p_full"])
    assert (off < np.maximum(1.2 * sd, 0.01)).all()
    width = svi.by_category["delta_p_full_q975"] - svi.by_category["delta_p_full_q025"]
    assert 0.4 < np.median(width / (high - low)) < 1.3
    np.testing.assert_allclose(svi.by_category["log2_ec50"], fast.by_category["log2_ec50"], atol=0.25)
    assert np.isnan(svi.by_feature["pareto_k"]).all()
    _, part = fit("svi", 60, slice(1, 2), found.learned)
    _, whole = fit("svi", 60, slice(0, 3), found.learned)
    for name in ("delta_p_full", "log2_ec50_q025"):
        np.testing.assert_allclose(part.by_category[name], whole.by_category[name][3:7], rtol=1e-6, err_msg=name)
