"""Counts that are simulated again from a fit have the truth that they say, and the fit finds it back."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import dream_sc as ds

N_GENES = 80


def _fit(adata: ad.AnnData) -> ad.AnnData:
    ds.tl.fit_technical(adata, batch_key="batch", progress=False)
    ds.tl.fit_cis(adata, "GFI1B", progress=False)
    ds.tl.fit_trans(adata, progress=False)
    return adata


@pytest.fixture(scope="module")
def fitted(few_null_features) -> ad.AnnData:
    return _fit(ds.datasets.titration(2500, N_GENES, rng=3, guide_shift_sd=0.1))


@pytest.fixture(scope="module")
def again(fitted) -> ad.AnnData:
    return ds.datasets.from_fit(fitted, rng=5)


def test_what_comes_back(fitted, again):
    assert sparse.issparse(again.X)
    assert again.X.format == "csr"
    assert list(again.obs_names) == list(fitted.obs_names)
    assert "cis_guide" not in again.obs
    assert again.uns["from_fit"]["cis_gene"] == "GFI1B"
    assert np.array_equal(again.X.data, np.round(again.X.data))
    assert not any(name.startswith("_") for name in again.var)
    assert (again.var["true_log2fc_full"][again.var["true_model"] == "null"] == 0).all()


def test_responders_are_as_many_as_the_fit_says(fitted, again):
    lfdr = ds.get.trans(fitted)["lfdr"]
    expected, spread = (1 - lfdr).sum(), np.sqrt((lfdr * (1 - lfdr)).sum())
    n = (~again.var["true_model"].isin(["null", "cis_gene"])).sum()
    assert abs(n - expected) < 4 * spread + 1e-9


def test_counts_are_like_those_of_the_data(fitted, again):
    """Means of genes to a few standard errors; variances too, where the overdispersion is the fitted one."""
    other = fitted[again.obs_names, again.var_names].X
    for square in (False, True):
        mine, theirs = (np.asarray((x.power(2) if square else x).mean(0)).ravel() for x in (again.X, other))
        some = theirs > 0.3
        np.testing.assert_allclose(np.median(mine[some] / theirs[some]), 1.0, atol=0.06)
        assert np.corrcoef(np.log(mine[some]), np.log(theirs[some]))[0, 1] > 0.98


def test_a_feature_follows_its_true_curve(fitted, again):
    """Its mean over cells of each guide against dosage, by size factors and the levels that the truth says."""
    table = again.var[(again.var["true_model"] == "single_hill") & (again.var["true_baseline"] > 1)]
    name = table["true_log2fc_full"].abs().idxmax()
    dosage = again.obs["true_log2_dosage"]
    low = dosage <= ds.get.trans(fitted).loc[name, "log2_dosage_full"] + 0.4
    ntc, s = again.obs["target"] == "NTC", again.obs["size_factor"]
    y = np.asarray(again[:, name].X.todense()).ravel()
    effect = np.log2((y[low].sum() / s[low].sum()) / (y[ntc].sum() / s[ntc].sum()))
    assert abs(effect - table.loc[name, "true_log2fc_full"]) < 0.45
    assert np.sign(effect) == np.sign(table.loc[name, "true_log2fc_full"])


def test_the_fit_finds_it_back(again, few_null_features):
    table, truth = ds.get.trans(_fit(again.copy())), again.var
    responds = ~truth["true_model"].isin(["null", "cis_gene"])
    called = (table["qvalue"] < 0.05) & (table["lfdr"] < 0.5)
    assert (called & ~responds).sum() <= 2
    clear = responds & (truth["true_log2fc_full"].abs() > 1) & (truth["true_baseline"] > 0.5)
    assert clear.sum() >= 5
    assert called[clear].mean() > 0.8
    of, found = truth["true_log2fc_full"], called & responds
    held = (table["log2fc_full_q025"] <= of) & (of <= table["log2fc_full_q975"])
    assert held[found].mean() > 0.8


def test_counts_of_a_feature_are_the_same_whatever_others_there_are(fitted, again):
    names = [*fitted.var_names[:12]]
    part = ds.datasets.from_fit(fitted[:, names].copy(), rng=5)
    assert (part.X != again[:, names].X).nnz == 0
    assert (ds.datasets.from_fit(fitted[:, names].copy(), rng=6).X != part.X).nnz > 0


def test_it_survives_a_file(again, tmp_path):
    again.write_h5ad(tmp_path / "again.h5ad")
    back = ad.read_h5ad(tmp_path / "again.h5ad")
    assert (back.X != again.X).nnz == 0
    assert back.var["true_model"].astype(str).tolist() == again.var["true_model"].tolist()


def test_fits_that_it_cannot_simulate_are_refused(fitted, few_null_features):
    with pytest.raises(KeyError, match="fit_trans"):
        ds.datasets.from_fit(fitted, key="nothing")
    bare = fitted[:, :20].copy()
    ds.tl.fit_trans(bare, dosage="none", cis_targets="GFI1B", key_added="switch", progress=False)
    with pytest.raises(ValueError, match="without dosages"):
        ds.datasets.from_fit(bare, key="switch")
    known = bare.uns["titration"]["guides"].set_index("guide")["log2_dosage"].to_dict()
    ds.tl.set_dosage(bare, known, scale="log2", key_added="known")
    ds.tl.fit_trans(bare, cis_key="known", key_added="given", progress=False)
    with pytest.raises(ValueError, match="given dosages"):
        ds.datasets.from_fit(bare, key="given")


def test_covariates_and_ambient_counts_come_back(few_null_features):
    """Cells of one level have more counts of a gene by the factor of the fit, ambient ones on top of them."""
    adata = ds.datasets.titration(1500, 20, rng=4)
    adata.obs["donor"] = np.resize(["a", "b", "c"], adata.n_obs)
    x = adata.X.toarray()
    more = np.where(adata.obs["donor"] == "b", 3, 1)[:, None]
    x[:, 5:10] *= more
    adata.X = sparse.csr_matrix(x)
    ds.tl.fit_technical(adata, batch_key="batch", covariates=["donor"], ambient=0.1)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, progress=False)
    again = ds.datasets.from_fit(adata, rng=1)
    null = again.var["true_model"].eq("null").to_numpy() & (np.asarray(x.mean(0)) > 1)
    b = (again.obs["donor"] == "b").to_numpy()
    ratio = np.asarray(again.X[b].mean(0) / again.X[~b].mean(0)).ravel()
    moved = np.isin(np.arange(20), np.arange(5, 10))
    assert null[moved].sum() >= 2
    assert (ratio[null & moved] > 2).all()
    np.testing.assert_allclose(ratio[null & ~moved], 1.0, atol=0.25)


def test_curves_of_two_steps_have_a_truth(few_null_features):
    adata = _fit(ds.datasets.titration(3000, 30, rng=8, single_fraction=0.1, additive_fraction=0.6))
    again = ds.datasets.from_fit(adata, rng=1)
    two = again.var[again.var["true_model"] == "additive_hill"]
    assert len(two) >= 3
    found = ds.get.trans(adata).loc[two.index]
    inside = (found["log2_ec50_q025"] - 0.5 <= two["true_log2_ec50"]) & (
        two["true_log2_ec50"] <= found["log2_ec50_q975"] + 0.5
    )
    assert inside.mean() > 0.6
