"""Symbols in place of ids, in every reader and plot, and several cis genes side by side."""

from __future__ import annotations

import inspect

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds

ID = "ENSG{:011d}".format


@pytest.fixture(scope="module")
def fitted() -> ad.AnnData:
    """Genes named by Ensembl id; two share a symbol, one has none. Two cis genes with guides of their own."""
    a = ds.datasets.titration(1500, 20, rng=3, single_fraction=0.5, additive_fraction=0.0, mean_range=(1.0, 4.0))
    symbols = ["GFI1B", *(f"SYM{i}" for i in range(1, 20))]
    symbols[4] = symbols[5] = "TWICE"
    symbols[6] = None
    a.var["symbol"] = pd.Categorical(symbols)
    a.var_names = [ID(i) for i in range(20)]
    del a.uns["titration"]
    # gene 1 takes a part of the targeting guides for its own, and follows them
    guide, target = a.obs["guide"].astype(str), a.obs["target"].astype(str)
    other = guide.isin([f"GFI1B_g{i:02d}" for i in range(1, 13, 2)]).to_numpy()
    target[target == "GFI1B"] = ID(0)
    target[other] = ID(1)
    x = a.X.toarray()
    level = a.obs["true_size_factor"].to_numpy() * 2.0 ** np.where(other, a.obs["true_log2_dosage"], 0.0)
    x[:, 1] = np.random.default_rng(0).poisson(8 * level)
    a.X = type(a.X)(x.astype(np.float32))
    a.obs["target"] = target
    ds.tl.fit_technical(a, batch_key="batch")
    for name, i in (("a", 0), ("b", 1)):
        ds.tl.fit_cis(a, ID(i), key_added=f"cis_{name}")
        keys = {"cis_key": f"cis_{name}", "key_added": f"trans_{name}"}
        ds.tl.fit_trans(a, function_type="single_hill", nsamples=100, **keys)
    ds.tl.check_confounding(a, cis_key="cis_a")
    return a


def test_every_reader_and_plot_takes_the_column() -> None:
    of_no_features = {"columns", "memory", "memory_data", "power", "power_data", "screen", "screen_data"}
    for space in (ds.get, ds.pl):
        for name in set(space.__all__) - of_no_features:
            assert "gene_symbols" in inspect.signature(getattr(space, name)).parameters, name


def test_rows_are_called_by_symbols(fitted: ad.AnnData) -> None:
    ids, table = ds.get.trans(fitted, key="trans_a"), ds.get.trans(fitted, key="trans_a", gene_symbols="symbol")
    assert table.index.is_unique
    assert table.index[3] == "SYM3"
    assert table.index[4] == f"TWICE ({ID(4)})"
    assert table.index[6] == ID(6)
    pd.testing.assert_frame_equal(table.set_axis(ids.index), ids)
    technical = ds.get.technical(fitted, gene_symbols="symbol")
    assert list(technical.index) == list(table.index)
    assert list(ds.pl.technical_data(fitted, gene_symbols="symbol").index) == list(table.index)
    assert fitted.varm["trans_a"].index[3] == ID(3)


def test_features_are_asked_for_by_symbol(fitted: ad.AnnData) -> None:
    keys = {"key": "trans_a", "gene_symbols": "symbol"}
    one = ds.get.trans(fitted, "SYM7", **keys)
    assert list(one.index) == ["SYM7"]
    assert one["lfdr"].iloc[0] == ds.get.trans(fitted, ID(7), key="trans_a")["lfdr"].iloc[0]
    curve = ds.get.dose_response(fitted, ["SYM7", ID(6)], **keys)
    assert list(curve["feature"].unique()) == ["SYM7", ID(6)]
    other = ds.get.dose_response(fitted, [ID(7), ID(6)], key="trans_a")
    np.testing.assert_array_equal(curve["median"], other["median"])
    draws = ds.get.posterior(fitted, ["SYM7"], **keys)
    assert list(draws["feature"].to_numpy()) == ["SYM7"]
    np.testing.assert_array_equal(draws["a"], ds.get.posterior(fitted, [ID(7)], key="trans_a")["a"])
    points = ds.pl.dose_response_data(fitted, f"TWICE ({ID(5)})", **keys)
    pd.testing.assert_frame_equal(points, ds.pl.dose_response_data(fitted, ID(5), key="trans_a"))


def test_what_cannot_be_found(fitted: ad.AnnData) -> None:
    keys = {"key": "trans_a", "gene_symbols": "symbol"}
    calls = [
        lambda name: ds.get.trans(fitted, name, **keys),
        lambda name: ds.get.dose_response(fitted, name, **keys),
        lambda name: ds.get.posterior(fitted, [name], **keys),
        lambda name: ds.pl.dose_response(fitted, name, **keys),
        lambda name: ds.pl.dose_response_data(fitted, name, **keys),
        lambda name: ds.pl.technical(fitted, features=name, gene_symbols="symbol"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"'TWICE' to 2 features, \['{ID(4)}', '{ID(5)}'\]"):
            call("TWICE")
        with pytest.raises(KeyError, match=r"var_names: ask without gene_symbols"):
            call(ID(7))
        with pytest.raises(KeyError, match=r"did you mean.*SYM7"):
            call("SYM07")
    for space, names in ((ds.get, ("technical", "cis", "guides", "trans")), (ds.pl, ("technical", "cis"))):
        for name in names:
            key = {"trans": "trans_a", "technical": "technical"}.get(name, "cis_a")
            with pytest.raises(KeyError, match=r"'symbols' is not a column of .var.*'symbol'"):
                getattr(space, name)(fitted, key=key, gene_symbols="symbols")


def test_plots_show_symbols(fitted: ad.AnnData) -> None:
    keys = {"key": "trans_a", "gene_symbols": "symbol"}
    ax = ds.pl.dose_response(fitted, "SYM7", **keys)
    assert ax.get_title().startswith("SYM7:")
    assert "GFI1B" in ax.get_xlabel()
    assert "ENSG" in ds.pl.dose_response(fitted, ID(7), key="trans_a").get_xlabel()
    panels = ds.pl.dose_response(fitted, ["SYM7", "SYM8"], **keys)
    assert [panel.get_title().split(":")[0] for panel in panels] == ["SYM7", "SYM8"]
    assert "GFI1B" in ds.pl.cis(fitted, key="cis_a", gene_symbols="symbol").get_xlabel()
    ax = ds.pl.technical(fitted, features=["SYM7", "SYM8"], gene_symbols="symbol")
    assert {text.get_text() for text in ax.texts} == {"SYM7", "SYM8"}
    assert "GFI1B" in ds.pl.confounding(fitted, what="size factor", gene_symbols="symbol").get_xlabel()


def test_guides_name_their_targets(fitted: ad.AnnData) -> None:
    guides = ds.get.guides(fitted, key="cis_a", gene_symbols="symbol")
    assert set(guides["target"]) == {"GFI1B", "NTC"}
    assert guides.attrs["cis_gene"] == ds.pl.cis_data(fitted, key="cis_a", gene_symbols="symbol").attrs["cis_gene"]
    assert ds.get.cis(fitted, key="cis_a", gene_symbols="symbol").attrs["cis_gene"] == "GFI1B"
    assert ds.get.cis(fitted, key="cis_b").attrs["cis_gene"] == ID(1)


def test_two_cis_genes_side_by_side(fitted: ad.AnnData, tmp_path) -> None:
    fitted.write_h5ad(tmp_path / "x.h5ad")
    for adata in (fitted, ad.read_h5ad(tmp_path / "x.h5ad")):
        tables = {name: ds.get.trans(adata, key=f"trans_{name}") for name in "ab"}
        assert tables["a"].loc[ID(0), "status"] == "cis_gene"
        assert tables["b"].loc[ID(1), "status"] == "cis_gene"
        assert tables["b"].loc[ID(0), "status"] != "cis_gene"
        both = tables["a"]["lfdr"].notna() & tables["b"]["lfdr"].notna()
        assert not np.allclose(tables["a"]["lfdr"][both], tables["b"]["lfdr"][both])
        for name, gene in (("a", "GFI1B"), ("b", "SYM1")):
            guides = ds.get.guides(adata, key=f"cis_{name}", gene_symbols="symbol")
            assert set(guides["target"]) == {gene, "NTC"}
            keys = {"key": f"trans_{name}", "gene_symbols": "symbol"}
            axis = adata.uns[f"trans_{name}"]["axis"]
            curve = ds.get.dose_response(adata, "SYM9", **keys)
            assert curve["log2_dosage"].min() == pytest.approx(axis["low"])
            assert gene in ds.pl.dose_response(adata, "SYM9", **keys).get_xlabel()
            points = ds.pl.dose_response_data(adata, "SYM9", **keys)
            assert set(points["guide"]) == set(guides.index)
            ax = ds.pl.cis(adata, key=f"cis_{name}", gene_symbols="symbol")
            assert gene in ax.get_xlabel()
            assert len(ax.get_yticklabels()) == len(guides)


def test_symbols_of_features_with_categories(modalities: md.MuData) -> None:
    """Donors of genes, and layers of features; categories keep their names."""
    data = modalities.copy()
    usage, layers = data["usage"], data["layers"]
    usage.var["gene"] = [f"G{int(d[1]) // 2}" if d < "d6" else f"H{d}" for d in usage.var["donor"]]
    layers.var["gene"] = [f"G{i}" for i in range(8)]
    keys = {"mod": "usage", "gene_symbols": "gene"}
    table, plain = ds.get.trans(data, **keys), ds.get.trans(data, mod="usage")
    assert list(table.index) == [*(f"G{i // 2} (d{i})" for i in range(6)), "Hd6", "Hd7"]
    np.testing.assert_array_equal(table["lfdr"], plain["lfdr"])
    assert list(ds.get.trans(data, "Hd6", **keys).index) == ["Hd6"]
    with pytest.raises(ValueError, match=r"'G1' to 2 features, \['d2', 'd3'\]"):
        ds.get.trans(data, "G1", **keys)
    rows = ds.get.trans(data, "Hd6", by="category", **keys)
    assert set(rows["feature"]) == {"Hd6"}
    assert list(rows.index) == list(ds.get.trans(data, "d6", by="category", mod="usage").index)
    assert ds.pl.dose_response(data, "Hd6", **keys).get_title().startswith("Hd6")
    pd.testing.assert_frame_equal(
        ds.pl.dose_response_data(data, "Hd6", **keys), ds.pl.dose_response_data(data, "d6", mod="usage")
    )
    keys = {"mod": "layers", "gene_symbols": "gene"}
    assert list(ds.get.trans(data, **keys).index) == [f"G{i}" for i in range(8)]
    assert list(ds.get.trans(data, "G2", by="category", **keys).index) == ["G2:p", "G2:q", "G2:r"]
    curve = ds.get.dose_response(data, "G2:p", **keys)
    assert set(curve["feature"]) == {"G2"}
    assert set(curve["category"]) == {"p"}
    np.testing.assert_array_equal(curve["median"], ds.get.dose_response(data, "l2:p", mod="layers")["median"])
    assert ds.pl.dose_response(data, "G2", **keys).get_title().startswith("G2")


def test_the_cis_gene_of_another_modality_is_named_by_its_symbol(modalities: md.MuData) -> None:
    data = modalities.copy()
    name = data["psi"].var_names[0]
    data["psi"].var["gene"] = [f"G{i}" for i in range(data["psi"].n_vars)]
    data["rna"].var["gene"] = ["the cis gene", *data["rna"].var_names[1:]]
    ax = ds.pl.dose_response(data, "G0", mod="psi", gene_symbols="gene")
    assert "the cis gene" in ax.get_xlabel()
    assert name not in ax.get_title()
