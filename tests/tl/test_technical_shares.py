"""The technical step of binomial, multinomial, normal and Student t data: recovery, layouts, files, what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc._core.likelihoods import likelihood
from dream_sc._core.response.categories.baseline_usage import log_usage
from dream_sc._data.shares import open_pairs

N, F, K = 900, 30, 4
DATA = "spliz_human_lung_junctions.h5ad"


@pytest.fixture(scope="module")
def obs() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    target = rng.choice(["NTC", "GENE"], N, p=[0.7, 0.3])
    batch = rng.choice(["one", "two", "three"], N, p=[0.5, 0.3, 0.2])
    return pd.DataFrame({"target": target, "batch": batch}, index=[f"c{i}" for i in range(N)])


@pytest.fixture(scope="module")
def usage(obs: pd.DataFrame) -> tuple[ad.AnnData, np.ndarray]:
    """Features of four categories in layers, Dirichlet-multinomial, and the usage in each group."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1, (F, 1, K)) + np.concatenate([np.zeros((F, 1, K)), rng.normal(0, 0.5, (F, 2, K))], 1)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    group = obs["batch"].map({"one": 0, "two": 1, "three": 2}).to_numpy()
    share = rng.gamma(p[:, group] * 9.0)
    share /= share.sum(-1, keepdims=True)
    y = rng.multinomial(rng.poisson(7.0, (F, N)), share).transpose(1, 0, 2)
    y[:, 3, 2] = 0  # a category that never occurs
    y[group == 1, 4, 0] = 0  # one that does not occur in a group
    y[:, 5, 1:] = 0  # a feature of one category
    y[:, 6] = 0
    layers = {f"k{k}": sparse.csr_matrix(y[:, :, k]) for k in range(K)}
    var = pd.DataFrame(index=[f"f{t}" for t in range(F)])
    return ad.AnnData(obs=obs.copy(), var=var, layers=layers), p


def _long(adata: ad.AnnData) -> ad.AnnData:
    """The same with a row per category."""
    x = np.stack([adata.layers[f"k{k}"].toarray() for k in range(K)], -1).reshape(N, F * K)
    names = [f"{f}:k{k}" for f in adata.var_names for k in range(K)]
    var = pd.DataFrame({"of": np.repeat(adata.var_names, K)}, names)
    return ad.AnnData(sparse.csc_matrix(x), adata.obs.copy(), var)


@pytest.fixture(scope="module")
def by_key(usage: tuple[ad.AnnData, np.ndarray]) -> ad.AnnData:
    long = _long(usage[0])
    ds.tl.fit_technical(long, distribution="multinomial", category_key="of", batch_key="batch", reference="one")
    return long


def test_usage_is_recovered(usage: tuple[ad.AnnData, np.ndarray], by_key: ad.AnnData) -> None:
    p, table = usage[1], ds.get.technical(by_key)
    mu, sd = table["mu"].to_numpy().reshape(F, K), table["mu_sd"].to_numpy().reshape(F, K)
    clear = np.arange(F) >= 7
    np.testing.assert_allclose(np.nansum(mu[clear], 1), 1.0)
    z = (np.log(mu) - np.log(p[:, 0]))[clear] / sd[clear]
    assert 0.9 < (np.abs(z) < 1.96).mean()
    groups = by_key.uns["technical"]["groups"]
    assert groups[0] == "one"
    for name in groups[1:]:
        c = ["one", "two", "three"].index(name)
        truth = np.log(p[:, c] / p[:, 0])
        truth -= truth.mean(1, keepdims=True)
        effect, error = (table[f"{e}_{name}"].to_numpy().reshape(F, K) for e in ("effect", "effect_sd"))
        np.testing.assert_allclose(effect[clear].sum(1), 0, atol=1e-9)
        z = ((effect - truth) / error)[clear]
        assert 0.9 < (np.abs(z) < 1.96).mean() < 0.99
    rho = by_key.uns["technical"]["sticks"]["overdispersion"]
    assert 0.08 < rho.groupby(by_key.uns["technical"]["sticks"]["feature"]).first().median() < 0.12  # 1 / 10 in truth


def test_late_links_are_as_overdispersed_as_a_dirichlet_makes_them(obs: pd.DataFrame) -> None:
    """What is left of a Dirichlet is one of less precision: its rho / (1 - rho) is that of the whole over its share."""
    rng = np.random.default_rng(3)
    p, theta = np.array([0.6, 0.28, 0.08, 0.04]), 0.25
    share = rng.gamma(p / theta, size=(F, N, K))
    y = rng.multinomial(rng.poisson(3.0, (F, N)), share / share.sum(-1, keepdims=True))
    layers = {f"k{k}": sparse.csr_matrix(y[:, :, k].T) for k in range(K)}
    adata = ad.AnnData(obs=obs.copy(), var=pd.DataFrame(index=[f"f{t}" for t in range(F)]), layers=layers)
    ds.tl.fit_technical(adata, distribution="multinomial", category_layers=list(layers))
    sticks = adata.uns["technical"]["sticks"]
    rho = sticks["overdispersion"].to_numpy().reshape(F, K - 1)
    of_link = theta / (1 - np.r_[0, np.cumsum(p[:2])])
    np.testing.assert_allclose(np.median(rho, 0), of_link / (1 + of_link), atol=0.06)  # 0.20, 0.38, 0.68


def test_categories_that_do_not_occur_are_said(by_key: ad.AnnData) -> None:
    table = ds.get.technical(by_key)
    assert table.loc["f3:k2", "status"] == "filtered: no count in any cell"
    assert table.loc[["f3:k0", "f3:k1", "f3:k3"], "status"].eq("converged").all()
    assert table.loc[["f5:k0", "f6:k0"], "status"].eq("filtered: only one category occurs").all()
    assert np.isnan(table.loc["f4:k0", "effect_two"])
    assert np.isfinite(table.loc["f4:k0", "effect_three"])
    assert np.isfinite(table.loc["f4:k1", "effect_two"])
    np.testing.assert_array_equal(table["effect_one"].dropna(), 0)


def test_layers_of_categories_give_the_same(usage: tuple[ad.AnnData, np.ndarray], by_key: ad.AnnData) -> None:
    wide = usage[0].copy()
    layers = [f"k{k}" for k in range(K)]
    ds.tl.fit_technical(
        wide, distribution="multinomial", category_layers=layers, batch_key="batch", reference="one", key_added="w"
    )
    assert wide.varm["w_effects"].shape == (F, 3, K)
    long, table = ds.get.technical(by_key), ds.get.technical(wide, key="w")
    for k, layer in enumerate(layers):
        np.testing.assert_allclose(table[f"mu_{layer}"], long["mu"].to_numpy()[k::K])
        np.testing.assert_allclose(table[f"effect_two_{layer}"], long["effect_two"].to_numpy()[k::K])
    frame = ds.pl.technical_data(wide, key="w")
    assert len(frame) == long["mu"].notna().sum()
    assert "log usage" in ds.pl.technical(wide, key="w", group="two").get_ylabel()


def test_sticks_are_found_again_by_name(by_key: ad.AnnData, tmp_path: Path) -> None:
    by_key.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(ds.get.technical(again), ds.get.technical(by_key))
    some = again[:, again.var["of"].isin(["f9", "f8", "f5"])].copy()
    table = some.uns["technical"]["sticks"]
    pairs = open_pairs(some, likelihood("multinomial"), category_key="of", sticks=table)
    rows = pairs.sticks.rows_in(table)
    assert list(table["feature"].iloc[rows]) == ["f8"] * 3 + ["f9"] * 3
    np.testing.assert_allclose(
        by_key.uns["technical"]["stick_effects"][rows], some.uns["technical"]["stick_effects"][rows]
    )
    assert some.uns["technical"]["params"]["category_key"] == "of"
    assert some.uns["technical"]["effect_unit"] == "logit"


@pytest.fixture(scope="module")
def shares(obs: pd.DataFrame) -> tuple[ad.AnnData, np.ndarray]:
    rng = np.random.default_rng(3)
    level, effect = rng.normal(0, 1.5, F), rng.normal(0, 0.5, F)
    p = 1 / (1 + np.exp(-(level + effect * (obs["batch"] == "two").to_numpy()[:, None])))
    n = rng.poisson(6.0, (N, F))
    n[:, 2] = 0
    y = rng.binomial(n, rng.beta(p * 12, (1 - p) * 12))
    adata = ad.AnnData(sparse.csr_matrix(y), obs.copy(), layers={"n": sparse.csr_matrix(n)})
    adata.layers["rest"] = sparse.csr_matrix(n - y)
    return adata, np.c_[level, effect]


def test_binomial_and_two_categories_agree(shares: tuple[ad.AnnData, np.ndarray], tmp_path: Path) -> None:
    adata, truth = shares[0].copy(), shares[1]
    ds.tl.fit_technical(adata, distribution="binomial", denominator_layer="n", batch_key="batch", reference="one")
    table = ds.get.technical(adata)
    assert table["status"].iloc[2].startswith("filtered: fewer than 3 counts in the denominators")
    ok = table["mu"].notna()
    z = (np.log(table["mu"] / (1 - table["mu"])) - truth[:, 0])[ok] / table["mu_sd"][ok]
    assert z.abs().max() < 4
    z = (table["effect_two"] - truth[:, 1])[ok] / table["effect_sd_two"][ok]
    assert z.abs().max() < 4
    assert 0.05 < table["overdispersion"].median() < 0.11  # 1 / 13 in truth
    assert "size_factor" not in adata.obs
    adata.layers["y"] = adata.X
    ds.tl.fit_technical(
        adata,
        distribution="multinomial",
        category_layers=["y", "rest"],
        batch_key="batch",
        reference="one",
        key_added="two",
    )
    both = ds.get.technical(adata, key="two")
    np.testing.assert_allclose(both.loc[ok, "mu_y"], table.loc[ok, "mu"], rtol=0.01)
    apart = (both["effect_two_y"] - both["effect_two_rest"])[ok]  # the centred logarithms differ by the logit
    np.testing.assert_allclose(apart, table.loc[ok, "effect_two"], atol=0.01)
    mdata = md.MuData({"psi": shares[0].copy()})
    ds.tl.fit_technical(mdata, mod="psi", distribution="binomial", denominator_layer="n", batch_key="batch")
    assert "technical" in mdata.mod["psi"].varm
    assert r"\rho" in ds.pl.technical(adata).get_ylabel()
    assert "logit" in ds.pl.technical(adata, group="two").get_ylabel()
    shares[0].write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    ds.tl.fit_technical(backed, distribution="binomial", denominator_layer="n", batch_key="batch", reference="one")
    np.testing.assert_array_equal(backed.varm["technical_effects"], adata.varm["technical_effects"])
    backed.file.close()


def test_plain_binomial_and_svi(shares: tuple[ad.AnnData, np.ndarray]) -> None:
    adata = shares[0][:, :8].copy()
    options: dict[str, Any] = {"distribution": "binomial", "denominator_layer": "n", "batch_key": "batch"}
    ds.tl.fit_technical(adata, **options)
    ds.tl.fit_technical(adata, **options, overdispersed=False, key_added="plain")
    ds.tl.fit_technical(adata, **options, inference="svi", niters=800, nsamples=200, device="cpu", key_added="svi")
    fast, plain, svi = (ds.get.technical(adata, key=k) for k in ("technical", "plain", "svi"))
    ok = fast["mu"].notna()
    assert (plain.loc[ok, "overdispersion"] == 0).all()
    assert (plain.loc[ok, "mu_sd"] < fast.loc[ok, "mu_sd"]).all()
    np.testing.assert_allclose(svi.loc[ok, "mu"], fast.loc[ok, "mu"], atol=0.03)
    np.testing.assert_allclose(svi.loc[ok, "effect_two"], fast.loc[ok, "effect_two"], atol=0.15)


@pytest.mark.parametrize("distribution", ["normal", "studentt"])
def test_scores(obs: pd.DataFrame, distribution: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    x = 5 + rng.normal(0, 2, (N, 6)) + (obs["batch"] == "two").to_numpy()[:, None]
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:, 4], x[:, 5] = 1.0, np.nan
    adata = ad.AnnData(np.zeros((N, 6)), obs.copy(), layers={"score": x})
    options = {"distribution": distribution, "layer": "score", "batch_key": "batch", "reference": "one"}
    ds.tl.fit_technical(adata, **options)
    table = ds.get.technical(adata)
    assert list(table["status"]) == ["converged"] * 4 + [
        "filtered: constant in control cells",
        "filtered: too few scores in control cells",
    ]
    assert table.loc[table.index[4:], ["sigma", "effect_two"]].isna().all(axis=None)
    z = (table["effect_two"] - 1)[:4] / table["effect_sd_two"][:4]
    assert z.abs().max() < 3.5
    if distribution == "normal":
        np.testing.assert_allclose(table["sigma"][:4], 2.0, rtol=0.1)
    adata.write_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(ds.get.technical(ad.read_h5ad(tmp_path / "a.h5ad")), table)
    assert "score" in ds.pl.technical(adata, group="two").get_ylabel()
    with pytest.raises(ValueError, match=r'not offered.*"laplace"'):
        ds.tl.fit_technical(adata, **options, inference="nuts")
    with pytest.raises(ValueError, match="technical fit of"):
        ds.tl.fit_cis(adata, adata.var_names[0], guide_key="batch")


def test_wrong_arguments_write_nothing(shares: tuple[ad.AnnData, np.ndarray]) -> None:
    adata = shares[0].copy()
    for options, match in (
        ({"distribution": "binomial"}, "needs denominator_layer"),
        ({"denominator_layer": "n"}, 'is for distribution="binomial"'),
        ({"distribution": "multinomial"}, "neither"),
        ({"distribution": "normal", "category_key": "x"}, "multinomial"),
        ({"distribution": "binomial", "layer": "n", "denominator_layer": "rest"}, "above"),
        ({"distribution": "multinomial", "category_layers": ["n", "rset"]}, "did you mean"),
    ):
        with pytest.raises((ValueError, KeyError), match=match):
            ds.tl.fit_technical(adata, **options)
    assert not len(adata.uns)
    assert not len(adata.varm)


def test_errors_of_usage_are_those_of_draws() -> None:
    rng = np.random.default_rng(5)
    cov = np.array([[0.01, -0.006, -0.004], [-0.006, 0.02, 0.004], [-0.004, 0.004, 0.03]])
    level, shift = np.array([0.3, -0.8]), np.array([[0.0, 0.4, -0.2], [0.0, -0.3, 0.5]])
    draws = rng.multivariate_normal(np.zeros(3), cov, (20_000, 2))
    eta = (level + draws[..., 0])[..., None] + shift
    eta[..., 1:] += draws[..., 1:]
    p, q = 1 / (1 + np.exp(-eta)), 1 / (1 + np.exp(eta))
    log_u = np.log(np.stack([p[:, 0], q[:, 0] * p[:, 1], q[:, 0] * q[:, 1]], 1))
    effect = log_u - log_u[..., :1]
    effect -= effect.mean(1, keepdims=True)
    sd = np.sqrt(np.diag(cov))
    effects_sd, effects_cov = (np.tile(np.r_[0.0, v[1:]], (2, 1)) for v in (sd, cov[0]))
    found = log_usage(level, np.full(2, sd[0]), shift, effects_sd, effects_cov, np.ones((3, 3), bool))
    np.testing.assert_allclose(np.exp(found.level).sum(), 1)
    np.testing.assert_allclose(found.level_sd, log_u[..., 0].std(0), rtol=0.05)
    np.testing.assert_allclose(found.effects, effect.mean(0), atol=0.01)
    np.testing.assert_allclose(found.effects_sd, effect.std(0), rtol=0.05)


@pytest.mark.data
def test_real_junctions() -> None:
    """Cell types as groups: MYL6 and RPS24 are spliced differently in epithelium, muscle and blood."""
    path = Path(os.environ.get("DREAM_SC_DATA", "")) / DATA
    if not path.is_file():
        pytest.skip(f"{DATA} is not in the folder that DREAM_SC_DATA names")
    adata = ad.read_h5ad(path)
    adata.obs["target"] = "NTC"
    ds.tl.fit_technical(adata, distribution="multinomial", category_key="donor_group", batch_key="compartment")
    table = ds.get.technical(adata).join(adata.var[["gene", "donor_group"]])
    usage = table.groupby("donor_group", observed=True)["mu"].sum(min_count=1).dropna()
    np.testing.assert_allclose(usage, 1.0)
    others = adata.uns["technical"]["groups"][1:]
    for gene in ("MYL6", "RPS24"):
        mine = table[table["gene"] == gene]
        z = np.max([(mine[f"effect_{g}"] / mine[f"effect_sd_{g}"]).abs().max() for g in others])
        assert z > 10, gene
