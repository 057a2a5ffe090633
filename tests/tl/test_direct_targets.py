"""Other features that the guides act on themselves, and the cis gene under another name."""

from __future__ import annotations

from typing import Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")

TARGETS = ["GFI1B", "other"]


def _screen(**options: Any) -> ad.AnnData:
    """Half of the guides are said to be of another gene, and all lower both."""
    adata = ds.datasets.titration(1500, 30, rng=0, **options)
    names = adata.var_names.to_numpy(object, copy=True)
    names[5] = "other"
    adata.var_names = names
    acting = sorted(set(adata.obs.loc[adata.obs["target"] == "GFI1B", "guide"]))
    mine = adata.obs["guide"].isin(acting[::2]).to_numpy()
    adata.obs["target"] = np.where(mine, "other", adata.obs["target"].astype(str))
    x = adata.X.toarray()
    x[:, 5] = np.random.default_rng(0).poisson(8.0 * 2.0 ** adata.obs["true_log2_dosage"] * adata.obs["size_factor"])
    adata.X = sparse.csr_matrix(x)
    ds.tl.fit_technical(adata)
    return adata


@pytest.fixture(scope="module")
def fitted() -> ad.AnnData:
    adata = _screen()
    ds.tl.fit_cis(adata, "GFI1B", cis_targets=TARGETS)
    ds.tl.fit_trans(adata)
    return adata


def test_direct_targets_are_flagged(fitted: ad.AnnData) -> None:
    table = ds.get.trans(fitted)
    assert table.index[table["direct_target"]].tolist() == ["other"]
    assert table["direct_target"].dtype == bool
    row = table.loc["other"]
    assert np.isnan(row["qvalue"])
    assert row["lfdr"] < 1e-3
    assert row["log2fc_full"] < -0.5
    assert np.isnan(table.loc["GFI1B", "qvalue"])
    others = table.drop(index=["other", "GFI1B"])
    assert others["qvalue"].notna().all()


def test_nothing_is_learned_from_them(fitted: ad.AnnData) -> None:
    """The other features have the numbers of a fit without the direct target."""
    without = fitted[:, fitted.var_names != "other"].copy()
    ds.tl.fit_trans(without)
    got, want = ds.get.trans(fitted).drop(index="other"), ds.get.trans(without)
    columns = ["lfdr", "qvalue", "pvalue", "log_bf"]
    np.testing.assert_allclose(got[columns], want[columns], rtol=1e-8)
    assert fitted.uns["trans"]["guides"]["offset"].tolist() == without.uns["trans"]["guides"]["offset"].tolist()


def test_they_are_known_by_symbol_and_by_the_targets_of_guides(fitted: ad.AnnData) -> None:
    from dream_sc.tl._direct_targets import direct_targets

    cis = {k: v for k, v in fitted.uns["cis"].items() if k in ("params", "guides", "cis_gene")}
    ids = fitted.copy()
    ids.var["gene_name"] = pd.Categorical(ids.var_names)
    ids.var_names = [n if n == "GFI1B" else f"ENSG{i}" for i, n in enumerate(ids.var_names)]
    assert np.flatnonzero(direct_targets(ids, cis)).tolist() == [5]
    cis["params"] = {"cis_targets": ["GFI1B"]}
    cis["guides"] = cis["guides"].assign(target=["GFI1B;other"] + ["GFI1B"] * (len(cis["guides"]) - 1))
    assert np.flatnonzero(direct_targets(fitted, cis)).tolist() == [5]
    cis["guides"] = cis["guides"].assign(target="GFI1B")
    assert direct_targets(fitted, cis) is None


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_scores_and_shares_have_them_too(fitted: ad.AnnData) -> None:
    rng = np.random.default_rng(0)
    dosage = fitted.obs["true_log2_dosage"].to_numpy()[:, None]
    names = pd.DataFrame(index=["other", *(f"f{i}" for i in range(5))])
    moves = np.arange(6) < 2
    scores = ad.AnnData(rng.normal(dosage * moves, 0.5, (fitted.n_obs, 6)), fitted.obs.copy(), names.copy())
    ds.tl.fit_technical(scores, distribution="normal")
    total = rng.poisson(4.0, (fitted.n_obs, 6))
    share = 1 / (1 + np.exp(-dosage * moves))
    shares = ad.AnnData(sparse.csr_matrix(rng.binomial(total, share)), fitted.obs.copy(), names.copy())
    shares.layers["denominator"] = sparse.csr_matrix(total)
    ds.tl.fit_technical(shares, distribution="binomial", denominator_layer="denominator")
    data = md.MuData({"rna": fitted.copy(), "scores": scores, "shares": shares})
    for mod in ("scores", "shares"):
        ds.tl.fit_trans(data, mod=mod, cis_mod="rna")
        table = ds.get.trans(data, mod=mod)
        assert table["direct_target"].tolist() == [True] + [False] * 5
        assert table["qvalue"].isna().tolist() == [True] + [False] * 5
        assert table["lfdr"].iloc[:2].max() < 0.01
        assert table["qvalue"].iloc[1] < 0.05


def test_calibrated_q_values_leave_them_out(fitted: ad.AnnData) -> None:
    adata = fitted.copy()
    ds.tl.calibrate(adata, n=3, replace=True)
    table = ds.get.trans(adata)
    assert np.isnan(table.loc["other", "qvalue"])
    assert table["qvalue"].notna().sum() == ds.get.trans(fitted)["qvalue"].notna().sum()


def test_without_any_none_is_flagged() -> None:
    adata = ds.datasets.titration(600, 8, rng=0)
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    assert ds.get.trans(adata)["direct_target"].tolist() == [False] * 8


def test_the_cis_gene_under_another_name(caplog: pytest.LogCaptureFixture) -> None:
    adata = ds.datasets.titration(600, 8, rng=0)
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    part = adata[:, adata.var_names != "GFI1B"].copy()
    ds.tl.fit_trans(part)  # without the cis gene
    assert "the cis gene 'GFI1B' is not in var_names" in caplog.text
    adata.var_names = [f"ENSG{n}" for n in adata.var_names]
    with pytest.raises(ValueError, match=r"cis gene 'GFI1B' .* not in var_names, where 'ENSGGFI1B' has its place"):
        ds.tl.fit_trans(adata)
    assert "trans" not in adata.uns


def test_direct_targets_alone_have_no_q_values(fitted: ad.AnnData) -> None:
    adata = fitted[:, ["GFI1B", "other"]].copy()
    ds.tl.fit_trans(adata, function_type="single_hill")
    row = ds.get.trans(adata).loc["other"]
    assert row["direct_target"]
    assert np.isnan(row["qvalue"])
    assert np.isnan(row["qvalue_graded"])
    assert row["lfdr"] < 0.01
    assert len(ds.get.responders(adata)) == 0
    ds.tl.calibrate(adata, n=2, replace=True)
    assert np.isnan(ds.get.trans(adata).loc["other", "qvalue"])
