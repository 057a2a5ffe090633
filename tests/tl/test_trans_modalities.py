"""The trans step of shares, usage and scores: against the truth, in both layouts, in files, with bad input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.special import expit

import dream_sc as ds

if TYPE_CHECKING:
    from pathlib import Path

# modalities may have equal names of features: mudata warns of it
pytestmark = [
    pytest.mark.usefixtures("few_null_features"),
    pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning"),
]
N, T = 2000, 24
RESPONDS = np.arange(T) % 3 == 0


@pytest.fixture(scope="module")
def rna() -> ad.AnnData:
    out = ds.datasets.titration(N, 20, rng=4)
    ds.tl.fit_technical(out, batch_key="batch")
    ds.tl.fit_cis(out, "GFI1B")
    return out


def _modality(rna: ad.AnnData, x: Any) -> ad.AnnData:
    out = ad.AnnData(x, obs=rna.obs[["guide", "target", "batch"]].copy())
    out.var_names = [f"e{i}" for i in range(out.n_vars)]
    return out


@pytest.fixture(scope="module")
def data(rna: ad.AnnData) -> md.MuData:
    """Shares, scores and three categories that follow the same Hills; other cells, in another order."""
    rng = np.random.default_rng(1)
    x = rna.obs["true_log2_dosage"].to_numpy(float)
    h = expit(2.0 * np.log(2) * (x[:, None] + 0.8))
    low = rng.uniform(0.3, 0.7, T)
    p = low + np.where(RESPONDS, np.where(low > 0.5, -0.28, 0.28), 0.0) * h
    n = rng.poisson(1.5, (N, T)) * (rng.random((N, T)) < 0.6)
    y = rng.binomial(n, p)
    z = rng.binomial(n - y, 0.4)
    parts = [sparse.csr_matrix(a.astype(float)) for a in (y, z, n - y - z)]
    psi = _modality(rna, parts[0])
    psi.layers["total"] = sparse.csr_matrix(n.astype(float))
    layers = _modality(rna, sparse.csr_matrix((N, T)))
    for name, part in zip("abc", parts, strict=True):
        layers.layers[name] = part
    rows = _modality(rna, sparse.csr_matrix(np.stack([a.toarray() for a in parts], 2).reshape(N, -1)))
    rows.var_names = [f"e{i}_{c}" for i in range(T) for c in "abc"]
    rows.var["donor"] = np.repeat([f"e{i}" for i in range(T)], 3)
    score = 10.0 + 3.0 * (p - low) / 0.28 + rng.normal(0, 3.0, (N, T))
    score[rng.random((N, T)) < 0.2] = np.nan
    normal = _modality(rna, score)
    heavy = normal.copy()
    heavy.X = np.where(rng.random((N, T)) < 0.01, 500.0, score)
    some = rng.permutation(N)[:1900]
    mods = {"psi": psi[some].copy(), "rows": rows, "layers": layers, "normal": normal, "heavy": heavy}
    both = md.MuData({"rna": rna, **mods})
    kinds: dict[str, dict[str, Any]] = {
        "psi": {"distribution": "binomial", "denominator_layer": "total"},
        "rows": {"distribution": "multinomial", "category_key": "donor"},
        "layers": {"distribution": "multinomial", "category_layers": ["a", "b", "c"]},
        "normal": {"distribution": "normal"},
        "heavy": {"distribution": "studentt"},
    }
    for mod, kind in kinds.items():
        ds.tl.fit_technical(both, mod=mod, batch_key="batch", **kind)
        ds.tl.fit_trans(both, mod=mod, cis_mod="rna")
    return both


def _features(data: md.MuData, mod: str) -> pd.DataFrame:
    """A row per feature."""
    table = data[mod].varm["trans"]
    return table.iloc[::3] if mod == "rows" else table


@pytest.mark.parametrize("mod", ["psi", "rows", "layers", "normal", "heavy"])
def test_responders_are_found(data: md.MuData, mod: str) -> None:
    table = _features(data, mod)
    called = (table["qvalue"] < 0.05).to_numpy()
    assert called[RESPONDS].mean() >= 0.85
    assert called[~RESPONDS].sum() <= 1
    off = np.abs(table["log2_ec50"] + 0.8)[called & RESPONDS]
    assert off.median() < 0.5
    assert (table["log2_ec50_q025"] <= -0.8)[called & RESPONDS].mean() > 0.7


def test_scores_are_in_their_own_unit(data: md.MuData) -> None:
    for mod in ("normal", "heavy"):
        table = data[mod].varm["trans"]
        np.testing.assert_allclose(table["baseline"], 10.0, atol=3.5)
        assert table["delta_range"][RESPONDS].median() == pytest.approx(2.7, abs=0.8)
        assert table["scale"].median() == pytest.approx(3.0, abs=0.6 if mod == "normal" else 1.2)
        assert not any("log2fc" in name for name in table.columns)


def test_both_layouts_of_categories_agree(data: md.MuData) -> None:
    rows, layers = _features(data, "rows"), data["layers"].varm["trans"]
    for name in ("log_bf", "lfdr", "log2_ec50", "p_ec50_inside", "hill_n"):
        np.testing.assert_allclose(rows[name], layers[name], rtol=1e-5, err_msg=name)
    table = data["layers"].uns["trans"]["categories"]
    assert list(table["category"][:3]) == ["a", "b", "c"]
    np.testing.assert_allclose(table["delta_p_full"], data["rows"].varm["trans"]["delta_p_full"], rtol=1e-5)
    assert data["layers"].varm["trans_posterior"].shape == (T, 3 * 512)


def test_shares_of_a_feature_sum_to_one(data: md.MuData) -> None:
    table = data["rows"].varm["trans"]
    for name, total, tolerance in (("mean", 1.0, 1e-9), ("baseline", 1.0, 0.03), ("delta_p_full", 0.0, 0.05)):
        np.testing.assert_allclose(table[name].to_numpy().reshape(T, 3).sum(1), total, atol=tolerance)


def test_first_category_of_three_agrees_with_its_binomial(data: md.MuData) -> None:
    """The same reads, so the same change up to what prior and the other categories add."""
    binomial, first = data["psi"].varm["trans"], data["rows"].varm["trans"].iloc[::3]
    np.testing.assert_allclose(first["delta_p_full"][RESPONDS], binomial["delta_p_full"][RESPONDS], atol=0.08)


def test_what_is_written_can_be_read(data: md.MuData, tmp_path: Path) -> None:
    data.write(tmp_path / "x.h5mu")
    again = md.read_h5mu(tmp_path / "x.h5mu")
    for mod in ("psi", "rows", "layers", "normal"):
        a, b = data[mod].varm["trans"], again[mod].varm["trans"]
        pd.testing.assert_frame_equal(a.astype(str), b.astype(str))
        np.testing.assert_array_equal(data[mod].varm["trans_posterior"], again[mod].varm["trans_posterior"])
    ds.tl.fit_trans(again, mod="rows", cis_mod="rna", key_added="b")
    np.testing.assert_allclose(again["rows"].varm["b"]["log_bf"], data["rows"].varm["trans"]["log_bf"], rtol=1e-6)


def test_learned_numbers_make_a_subset_independent(data: md.MuData) -> None:
    for mod, some in (("psi", slice(0, 5)), ("rows", slice(0, 15)), ("normal", slice(0, 5))):
        whole = data[mod]
        part = whole[:, some].copy()
        both = md.MuData({"rna": data["rna"], mod: part})
        ds.tl.fit_trans(both, mod=mod, cis_mod="rna", hyper=whole.uns["trans"]["hyper"], key_added="b")
        for name in ("log_bf", "log2_ec50", "delta_p_full" if mod != "normal" else "delta_full"):
            np.testing.assert_allclose(part.varm["b"][name], whole.varm["trans"][name][some], rtol=1e-6)


def test_some_features(data: md.MuData) -> None:
    ds.tl.fit_trans(data, mod="rows", cis_mod="rna", features=["e0", "e4_b"], key_added="some")
    table = data["rows"].varm["some"]
    assert table.index[table["log_bf"].notna()].tolist() == [f"e{i}_{c}" for i in (0, 4) for c in "abc"]
    assert (table["status"] == "not_asked").sum() == 3 * T - 6
    with pytest.raises(KeyError, match="nobody"):
        ds.tl.fit_trans(data, mod="rows", cis_mod="rna", features="nobody", key_added="some")


def test_low_coverage_is_left_out(data: md.MuData) -> None:
    ds.tl.fit_trans(data, mod="psi", cis_mod="rna", min_denominator=3, key_added="deep")
    deep, every = data["psi"].varm["deep"], data["psi"].varm["trans"]
    assert (deep["delta_p_full_q975"] - deep["delta_p_full_q025"]).median() > (
        every["delta_p_full_q975"] - every["delta_p_full_q025"]
    ).median()
    ds.tl.fit_trans(data, mod="psi", cis_mod="rna", min_denominator=7, key_added="deep")
    deep = data["psi"].varm["deep"]
    filtered = deep.loc[(deep["status"] == "filtered").to_numpy(), "note"].astype(str)
    assert filtered.str.contains("denominators below 10 in the cells used with a denominator of 7 or more").any()


def test_svi_follows_the_fast_engine(data: md.MuData) -> None:
    for mod, effect, size in (("psi", "delta_p_full", 0.05), ("normal", "delta_full", 0.5)):
        ds.tl.fit_trans(
            data, mod=mod, cis_mod="rna", inference="svi", niters=300, features=["e0", "e3"], key_added="svi"
        )
        two = ["e0", "e3"]
        np.testing.assert_allclose(
            data[mod].varm["svi"].loc[two, effect], data[mod].varm["trans"].loc[two, effect], atol=size
        )


def test_svi_of_categories_and_of_the_technical_step_of_scores(data: md.MuData) -> None:
    ds.tl.fit_trans(
        data,
        mod="rows",
        cis_mod="rna",
        inference="svi",
        niters=300,
        nsamples=200,
        features=["e0"],
        key_added="svi",
        hyper=data["rows"].uns["trans"]["hyper"],
    )
    three = ["e0_a", "e0_b", "e0_c"]
    found, fast = (data["rows"].varm[key].loc[three] for key in ("svi", "trans"))
    np.testing.assert_allclose(found["delta_p_full"], fast["delta_p_full"], atol=0.05)
    assert set(found["status"].astype(str)) <= {"converged", "not_converged"}
    for mod in ("normal", "heavy"):
        part = data[mod][:, :4].copy()
        fast = part.varm["technical"]
        how = {"distribution": "normal" if mod == "normal" else "studentt", "batch_key": "batch"}
        ds.tl.fit_technical(part, inference="svi", niters=300, nsamples=200, key_added="other", **how)
        np.testing.assert_allclose(part.varm["other"]["mu"], fast["mu"], atol=0.4)
        np.testing.assert_allclose(part.varm["other"]["sigma"], fast["sigma"], rtol=0.08)
        with pytest.raises(ValueError, match="not offered"):
            ds.tl.fit_technical(part, inference="nuts", key_added="nuts", **how)


def test_calibration_runs(data: md.MuData) -> None:
    for mod in ("psi", "normal"):
        ds.tl.calibrate(data, mod=mod, n=4)
        assert ds.get.calibration(data, mod=mod)["fpr"].between(0, 1).all()
    with pytest.raises(ValueError, match="several categories"):
        ds.tl.calibrate(data, mod="rows", n=4)


@pytest.mark.parametrize(
    ("mod", "given", "match"),
    [
        ("psi", {"distribution": "normal"}, "is a technical fit with 'binomial'"),
        ("psi", {"distribution": "gamma"}, "distribution"),
        ("psi", {"distribution": "negbinom"}, "is a technical fit with 'binomial'"),
        ("normal", {"min_denominator": 3}, "min_denominator= is of shares"),
        ("rows", {"inference": "nuts"}, "not offered"),
        ("rows", {"inference": "svi", "function_type": "polynomial"}, "of one Hill"),
        ("psi", {"min_denominator": 0}, "min_denominator"),
    ],
)
def test_what_does_not_fit_is_refused(data: md.MuData, mod: str, given: dict[str, Any], match: str) -> None:
    before = data[mod].varm["trans"].copy()
    with pytest.raises(ValueError, match=match):
        ds.tl.fit_trans(data, mod=mod, cis_mod="rna", **given)
    pd.testing.assert_frame_equal(before, data[mod].varm["trans"])


def test_numerators_above_denominators_are_named(data: md.MuData) -> None:
    broken = data["psi"].copy()
    total = broken.layers["total"].tolil()
    cell = int(np.flatnonzero(broken.X[:, 3].toarray().ravel() > 0)[0])
    total[cell, 3] = 0
    broken.layers["total"] = total.tocsr()
    with pytest.raises(ValueError, match=rf"{broken.obs_names[cell]}.*'e3'"):
        ds.tl.fit_trans(md.MuData({"rna": data["rna"], "psi": broken}), mod="psi", cis_mod="rna")


def test_lanes_with_few_reads_do_not_bias_shares(rna: ad.AnnData) -> None:
    """A lane that has one category only by chance keeps its reads: two categories stay a binomial."""
    rng = np.random.default_rng(0)
    n = rng.poisson(0.5, (N, 8))
    y = rng.binomial(n, 0.95)
    psi = _modality(rna, sparse.csr_matrix(y.astype(float)))
    psi.obs["lane"] = [f"l{i}" for i in rng.integers(0, 25, N)]
    for name, values in (("total", n), ("a", y), ("b", n - y)):
        psi.layers[name] = sparse.csr_matrix(values.astype(float))
    two = psi.copy()
    both = md.MuData({"rna": rna, "psi": psi, "two": two})
    given = {"batch_key": "lane", "use_all_cells": True}
    ds.tl.fit_technical(both, mod="psi", distribution="binomial", denominator_layer="total", **given)
    ds.tl.fit_technical(both, mod="two", distribution="multinomial", category_layers=["a", "b"], **given)
    for mod in ("psi", "two"):
        ds.tl.fit_trans(both, mod=mod, cis_mod="rna", function_type="single_hill")
    one, other = (both[mod].varm["trans"] for mod in ("psi", "two"))
    share = other["baseline"].where(other["category"].astype(str) == "a", 1 - other["baseline"])
    np.testing.assert_allclose(share, one["baseline"], atol=0.01)
    np.testing.assert_allclose(share, 0.95, atol=0.04)


def test_learned_numbers_of_another_distribution_are_refused(data: md.MuData) -> None:
    hyper = data["psi"].uns["trans"]["hyper"]
    with pytest.raises(ValueError, match="hyper= is of a fit with 'binomial', but this one is with 'normal'"):
        ds.tl.fit_trans(data, mod="normal", cis_mod="rna", hyper=hyper, key_added="b")


def test_a_feature_in_few_guides_has_no_ec50(data: md.MuData) -> None:
    """Features of which two targeting guides, or three, have reads or scores, beside others that all have."""
    guide = data["rna"].obs["guide"].astype(str)
    targeting = [g for g in guide.unique() if not g.startswith("NTC")]
    rna = data["rna"]
    for mod, of_feature in (("psi", 1), ("rows", 3), ("layers", 1), ("normal", 1)):
        part = data[mod].copy()
        mine = guide.reindex(part.obs_names)
        del part.uns["technical"]["made_from"]  # of other counts
        keep = np.ones(part.shape)
        for feature, n in ((0, 2), (3, 3)):
            out = (mine.isin(targeting) & ~mine.isin(targeting[:n])).to_numpy()
            keep[out, feature * of_feature : (feature + 1) * of_feature] = 0.0
        if mod == "normal":
            part.X[keep == 0] = np.nan
        else:
            part.X = part.X.multiply(keep).tocsr()
            for name in list(part.layers):
                part.layers[name] = part.layers[name].multiply(keep).tocsr()
        both = md.MuData({"rna": rna, mod: part})
        ds.tl.fit_trans(both, mod=mod, cis_mod="rna", key_added="few", function_type="single_hill")
        table = part.varm["few"].iloc[::of_feature]
        status = table["status"].astype(str)
        assert status["e0" if mod != "rows" else "e0_a"] == "few_guides"
        assert (status == "few_guides").sum() == 1
        few = (status == "few_guides").to_numpy()
        for name in ("log2_ec50", "log2_ec50_q025", "hill_n", "p_ec50_inside", "inflection"):
            assert table[name].isna().to_numpy()[few].all()
            assert table[name].notna().to_numpy()[~few].all()
        effect = "delta_full" if mod == "normal" else "delta_p_full"
        assert table[effect].notna().all()
        assert table["lfdr"].notna().all()


def test_guides_without_cells_here_do_not_count(data: md.MuData) -> None:
    guide = data["normal"].obs["guide"].astype(str)
    one = guide[~guide.str.startswith("NTC")].iloc[0]
    for keep, few in ((guide.isin([one]) | guide.str.startswith("NTC"), True), (guide.str.startswith("NTC"), False)):
        both = md.MuData({"rna": data["rna"], "normal": data["normal"][keep.to_numpy()].copy()})
        if few:
            ds.tl.fit_trans(both, mod="normal", cis_mod="rna", key_added="b")
            table = both["normal"].varm["b"]
            assert (table["status"].astype(str) == "few_guides").all()
            assert table["log2_ec50"].isna().all()
            continue
        with pytest.raises(ValueError, match="only controls are"):
            ds.tl.fit_trans(both, mod="normal", cis_mod="rna", key_added="b")
