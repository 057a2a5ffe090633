"""Contexts compared on objects: calls, what is kept, files, modalities, several contexts, and errors that help."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc.pl._style import number
from dream_sc.tl._compare_tables import NOT_HERE, with_calls

pytestmark = pytest.mark.usefixtures("few_null_features")

SILENCED = "gene_0001"


def _two_lines(adata: ad.AnnData) -> ad.AnnData:
    """Every second cell is of line B, in which one gene that responds does not: its counts there are shuffled."""
    rng = np.random.default_rng(0)
    adata.obs["line"] = pd.Categorical(np.where(rng.random(adata.n_obs) < 0.5, "A", "B"))
    called = ds.get.responders(adata)
    name = str(called["log_bf"].astype(float).idxmax())
    adata.var_names = [SILENCED if n == name else name if n == SILENCED else n for n in adata.var_names]
    x, cells = sparse.csc_matrix(adata.X), np.flatnonzero(adata.obs["line"] == "B")
    column = x[:, adata.var_names.get_loc(SILENCED)].toarray().ravel()
    column[cells] = column[rng.permutation(cells)]
    dense = sparse.lil_matrix(x)
    dense[:, adata.var_names.get_loc(SILENCED)] = column[:, None]
    adata.X = dense.tocsr()
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    return adata


@pytest.fixture(scope="module")
def compared(titration_fit: ad.AnnData) -> ad.AnnData:
    adata = _two_lines(titration_fit.copy())
    ds.tl.compare(adata, "line", reference="A", n_null=40)
    return adata


def test_a_gene_that_responds_in_one_line_only_is_found(compared: ad.AnnData) -> None:
    table = ds.get.compare(compared, sort=True)
    assert table.index[0] == SILENCED
    assert table["hypothesis"].iloc[0] == "only"
    assert table["responds_in"].iloc[0] == "A"
    assert table["qvalue_differs"].iloc[0] < 0.01
    assert table["pvalue_differs"].iloc[0] < 0.02
    others = table.iloc[1:]
    assert (others["lfdr_differs"].dropna() > 0.1).mean() > 0.9
    assert table.attrs["reference"] == "A"
    assert set(table["context"]) == {"B"}
    low, high = others["delta_log2_ec50_q025"], others["delta_log2_ec50_q975"]
    assert ((low < 0) & (high > 0))[others["hypothesis"] == "equal"].mean() > 0.8


def test_every_feature_has_a_row_and_a_reason(compared: ad.AnnData) -> None:
    table = ds.get.compare(compared)
    assert table.index.equals(compared.var_names)
    assert table.loc["GFI1B", "status"] == "cis_gene"
    assert np.isnan(table.loc["GFI1B", "lfdr_differs"])
    assert (table["status"] == "compared").sum() > 30
    filtered = table["status"] == "filtered"
    assert table.loc[filtered, "note"].notna().all()
    inside = table["lfdr_differs"].dropna()
    assert ((inside >= 0) & (inside <= 1)).all()
    assert table.loc[table["hypothesis"] == "null", "responds_in"].isna().all()


def test_calls_of_the_fit_that_have_no_response_here_are_noted() -> None:
    names = [f"f{i}" for i in range(4)]
    table = pd.DataFrame({"hypothesis": ["null", "null", "equal", "null"], "note": [None, None, None, "why"]}, names)
    out = with_calls(table, np.array([True, False, True, True]))
    assert list(out["note"].astype(object).where(out["note"].notna(), None)) == [NOT_HERE, None, None, "why"]
    assert list(out["hypothesis"]) == ["null", "null", "equal", "null"]


def test_it_leaves_the_fits_alone(titration_fit: ad.AnnData) -> None:
    adata = titration_fit.copy()
    adata.obs["line"] = np.where(np.arange(adata.n_obs) % 2 == 0, "A", "B")
    before = {key: adata.varm[key].copy() for key in ("technical", "trans")}
    guides, dosage = adata.uns["cis"]["guides"].copy(), adata.obsm["cis"].copy()
    out = ds.tl.compare(adata, "line", n_null=0, copy=True)
    assert "compare" not in adata.uns
    assert "compare" not in adata.varm
    ds.tl.compare(adata, "line", n_null=0)
    for key, frame in before.items():
        pd.testing.assert_frame_equal(adata.varm[key], frame)
    pd.testing.assert_frame_equal(adata.uns["cis"]["guides"], guides)
    pd.testing.assert_frame_equal(adata.obsm["cis"], dosage)
    pd.testing.assert_frame_equal(out.varm["compare"], adata.varm["compare"])
    assert adata.varm["compare"]["pvalue_differs"].isna().all()


def test_results_survive_a_file_and_a_subset(compared: ad.AnnData, tmp_path: Any) -> None:
    compared.write_h5ad(tmp_path / "compared.h5ad")
    again = ad.read_h5ad(tmp_path / "compared.h5ad")
    pd.testing.assert_frame_equal(ds.get.compare(again), ds.get.compare(compared))
    some = again[:, ["gene_0003", SILENCED]].copy()
    assert ds.get.compare(some, sort=True).index[0] == SILENCED
    pd.testing.assert_frame_equal(ds.pl.compare_data(some, SILENCED), ds.pl.compare_data(compared, SILENCED))


def test_the_table_of_the_plot_has_curves_and_guides(compared: ad.AnnData) -> None:
    table = ds.pl.compare_data(compared, SILENCED)
    assert table.groupby(["context", "kind"], sort=False).size().to_dict() == {
        ("A", "curve"): 25,
        ("A", "guide"): 12,
        ("B", "curve"): 25,
        ("B", "guide"): 12,
    }
    curves = table[table["kind"] == "curve"]
    moved = curves.groupby("context")["change"].agg(lambda v: v.max() - v.min())
    assert moved["A"] > 1.0
    assert moved["B"] < 0.2
    assert (curves["lower"] <= curves["upper"]).all()
    axes = ds.pl.compare(compared, [SILENCED, "GFI1B"])
    title = axes[0].get_title().replace("\n", " ")
    assert title.startswith(f"{SILENCED}: only in A, q = ")
    assert title.endswith(number(ds.get.compare(compared).loc[SILENCED, "qvalue_differs"]))
    with pytest.raises(ValueError, match="one feature"):
        ds.pl.compare(compared, [SILENCED, "GFI1B"], ax=axes[0])


def test_three_contexts_have_a_row_each_and_one_over_all(compared: ad.AnnData) -> None:
    adata = compared.copy()
    extra = np.random.default_rng(1).random(adata.n_obs) < 0.5
    adata.obs["line3"] = np.where((adata.obs["line"] == "A") & extra, "C", adata.obs["line"].astype(str))
    ds.tl.compare(adata, "line3", reference="B", n_null=0)
    table = ds.get.compare(adata)
    assert len(table) == 2 * adata.n_vars
    assert set(table["context"]) == {"A", "C"}
    over = ds.get.compare(adata, omnibus=True)
    assert over.index.equals(adata.var_names)
    least = table.groupby(level=0)["lfdr_differs"].min().reindex(over.index)
    np.testing.assert_allclose(over["lfdr_differs"], least)
    assert over["lfdr_differs"].idxmin() == SILENCED
    assert len(ds.get.compare(adata, context="C")) == adata.n_vars
    with pytest.raises(ValueError, match="context"):
        ds.get.compare(adata, context="B")
    assert ds.pl.compare_data(adata, SILENCED, context="C")["context"].unique().tolist() == ["B", "C"]


@pytest.mark.slow
def test_shares_and_scores_of_a_mudata(modalities: Any) -> None:
    data = modalities.copy()
    names = data.mod["rna"].obs_names
    line = pd.Series(np.where(np.random.default_rng(0).random(len(names)) < 0.5, "A", "B"), index=names)
    for mod in data.mod.values():
        mod.obs["line"] = line.reindex(mod.obs_names).to_numpy()
    for mod, effect in (("psi", "delta_log_odds_full"), ("score", "delta_delta_full")):
        ds.tl.compare(data, "line", mod=mod, n_null=0)
        table = ds.get.compare(data, mod=mod)
        assert effect in table
        assert (table["hypothesis"].iloc[:4] == "equal").sum() >= 3, mod
        assert (table["hypothesis"].iloc[4:] == "null").sum() >= 3, mod
        assert (table["lfdr_differs"] > 0.5).all()
    with pytest.raises(ValueError, match="several categories"):
        ds.tl.compare(data, "line", mod="usage", n_null=0)


def test_cells_without_a_label_are_counted_and_odd_names_survive_a_file(
    titration_fit: ad.AnnData, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    adata = titration_fit.copy()
    adata.obs["line"] = np.where(np.arange(adata.n_obs) % 2 == 0, "K/562", "HL/60")
    adata.obs.loc[adata.obs_names[::10], "line"] = np.nan
    n_of_fit = int(adata.obs["cis_guide"].notna().sum())
    n_without = int((adata.obs["cis_guide"].notna() & adata.obs["line"].isna()).sum())
    assert n_without > 10
    with caplog.at_level("WARNING", "dream_sc"):
        ds.tl.compare(adata, "line", reference="K/562", n_null=0)
    assert f"tl.compare: {n_without} of {n_of_fit} cells of the fit have no label in .obs['line']" in caplog.text
    assert int(adata.uns["compare"]["n_cells"].sum()) == n_of_fit - n_without
    adata.write_h5ad(tmp_path / "compared.h5ad")
    again = ad.read_h5ad(tmp_path / "compared.h5ad")
    assert set(again.uns["compare"]) == set(adata.uns["compare"])
    assert list(again.uns["compare"]["contexts"]) == ["K/562", "HL/60"]
    np.testing.assert_array_equal(again.uns["compare"]["n_cells"], adata.uns["compare"]["n_cells"])
    pd.testing.assert_frame_equal(ds.get.compare(again), ds.get.compare(adata), check_categorical=False)
    one = str(ds.get.compare(adata, sort=True).index[0])
    pd.testing.assert_frame_equal(ds.pl.compare_data(again, one), ds.pl.compare_data(adata, one))


def test_errors_say_what_to_do(titration_fit: ad.AnnData) -> None:
    adata = titration_fit.copy()
    with pytest.raises(KeyError, match="line"):
        ds.tl.compare(adata, "line")
    adata.obs["line"] = "A"
    with pytest.raises(ValueError, match="two contexts"):
        ds.tl.compare(adata, "line")
    adata.obs["line"] = np.where(adata.obs["target"] == "NTC", "A", "B")
    with pytest.raises(ValueError, match="cannot be fitted on its own"):
        ds.tl.compare(adata, "line")
    adata.obs["line"] = np.where(np.arange(adata.n_obs) % 2 == 0, "A", "B")
    with pytest.raises(ValueError, match="reference"):
        ds.tl.compare(adata, "line", reference="C")
    with pytest.raises(ValueError, match="n_null"):
        ds.tl.compare(adata, "line", n_null=3)
    with pytest.raises(ValueError, match="key_added"):
        ds.tl.compare(adata, "line", key_added="trans")
    with pytest.raises(KeyError, match="fit_trans"):
        ds.tl.compare(adata, "line", key="other")
    with pytest.raises(KeyError, match="compare"):
        ds.get.compare(adata)
    adata.uns["trans"]["params"]["dosage"] = "none"
    with pytest.raises(ValueError, match="dosages of guides"):
        ds.tl.compare(adata, "line")


def test_a_comparison_keeps_to_the_memory_or_is_refused(
    titration_fit: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dream_sc._memory import guard

    adata = titration_fit.copy()
    adata.obs["line"] = np.where(np.arange(adata.n_obs) % 3 > 0, "A", "B")
    monkeypatch.setattr(guard, "SMALL", 0)
    before = set(adata.uns) | set(adata.varm)
    refused = r"tl\.compare: it needs about .* more than the memory_limit='1MB'.* would do: memory_limit='(\d+)MB'"
    with pytest.raises(ValueError, match=refused) as error:
        ds.tl.compare(adata, "line", n_null=0, memory_limit="1MB")
    assert set(adata.uns) | set(adata.varm) == before
    with pytest.raises(ValueError, match="memory_limit='little' is no amount of memory"):
        ds.tl.compare(adata, "line", memory_limit="little")
    least = str(error.value).split("memory_limit='")[2].split("'")[0]
    ds.tl.compare(adata, "line", n_null=0, memory_limit=least)
    found = adata.uns["compare"]["memory"]
    assert set(found) == {"measured", "peak", "estimated", "estimated_total"}
    assert found["estimated"] <= int(least.removesuffix("MB")) * 10**6
    sizes = guard._estimate("compare", {"data": adata, "by": "line", "key": "trans", "mod": None}).sizes
    assert (sizes.n_contexts, sizes.context_cells) == (2, int((adata.obs["line"] == "A").sum()))
