"""Features that are called, and scanpy's form of them."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest

import dream_sc as ds


def test_responders_are_the_calls_best_first(titration_fit: ad.AnnData) -> None:
    table, found = ds.get.trans(titration_fit), ds.get.responders(titration_fit)
    assert set(found.index) == set(table.index[table["qvalue"] < 0.05])
    assert found["lfdr"].is_monotonic_increasing
    assert list(found) == list(table)
    assert found["confidence"].notna().all()
    assert table.loc[~table.index.isin(found.index), "confidence"].isna().all()
    strict = ds.get.responders(titration_fit, q=1e-6)
    assert 0 < len(strict) < len(found)
    assert len(ds.get.responders(titration_fit, columns="main").columns) <= 12


def test_confidence_is_at_least_what_is_asked_for(titration_fit: ad.AnnData) -> None:
    by = {level: ds.get.responders(titration_fit, confidence=level) for level in ("high", "moderate", "low")}
    assert set(by["high"]["confidence"]) <= {"high"}
    assert set(by["moderate"]["confidence"]) <= {"high", "moderate"}
    assert len(by["low"]) == len(ds.get.responders(titration_fit))


def test_a_fold_change_is_probably_that_large(titration_fit: ad.AnnData) -> None:
    found = ds.get.responders(titration_fit, min_log2fc=1.0)
    table = ds.get.responders(titration_fit)
    assert 0 < len(found) < len(table)
    assert found["p_min_log2fc"].between(0.95, 1.0).all()
    assert (found["log2fc_full"].abs() > 1.0).all()
    # where the interval of 95 % leaves out 1, so does the probability
    nearer = np.minimum(table["log2fc_full_q025"].abs(), table["log2fc_full_q975"].abs())
    same_sign = np.sign(table["log2fc_full_q025"]) == np.sign(table["log2fc_full_q975"])
    sure = table.index[same_sign & (nearer > 1.1)]
    assert set(sure) <= set(found.index)
    with pytest.raises(ValueError, match="min_log2fc"):
        ds.get.responders(titration_fit, min_log2fc=-1.0)


@pytest.mark.slow
def test_responders_of_other_distributions(modalities: Any) -> None:
    for mod in ("psi", "score", "usage"):
        table = ds.get.trans(modalities, mod=mod)
        assert set(ds.get.responders(modalities, mod=mod).index) == set(table.index[table["qvalue"] < 0.05])
        with pytest.raises(ValueError, match=r"is of counts.*delta"):
            ds.get.responders(modalities, mod=mod, min_log2fc=1.0)
        with pytest.raises(ValueError, match="log2 fold changes"):
            ds.get.rank_genes_groups(modalities, mod=mod)


@pytest.mark.parametrize(("name", "value"), [("q", 0.0), ("confidence", "sure"), ("columns", "short")])
def test_arguments_out_of_range_are_refused(titration_fit: ad.AnnData, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        ds.get.responders(titration_fit, **{name: value})


def test_scanpy_reads_the_ranking(titration_fit: ad.AnnData, tmp_path: Any) -> None:
    sc = pytest.importorskip("scanpy")
    adata = titration_fit.copy()
    adata.uns["rank_genes_groups"] = ds.get.rank_genes_groups(adata)
    frame = sc.get.rank_genes_groups_df(adata, group="GFI1B").set_index("names")
    table = ds.get.trans(adata).loc[frame.index]
    assert len(frame) == table["qvalue"].notna().sum()
    assert "GFI1B" not in frame.index
    assert frame["scores"].is_monotonic_decreasing
    np.testing.assert_allclose(frame["scores"], table["score"], rtol=1e-6)
    np.testing.assert_allclose(frame["logfoldchanges"], table["log2fc_full"], rtol=1e-6)
    np.testing.assert_array_equal(frame["pvals_adj"], table["qvalue"])
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = sc.get.rank_genes_groups_df(ad.read_h5ad(tmp_path / "a.h5ad"), group="GFI1B").set_index("names")
    np.testing.assert_array_equal(again["scores"], frame["scores"])
    assert list(again.index) == list(frame.index)


def test_symbols_name_the_rows(titration_fit: ad.AnnData) -> None:
    adata = titration_fit.copy()
    ids = list(ds.get.responders(adata).index)
    adata.var["symbol"] = [f"S{i}" for i in range(adata.n_vars)]
    adata.var.loc[ids[:2], "symbol"] = "twice"
    found = ds.get.responders(adata, min_log2fc=0.01, gene_symbols="symbol")
    assert list(found.index[:2]) == [f"twice ({ids[0]})", f"twice ({ids[1]})"]
    assert found.index[2] == adata.var.loc[ids[2], "symbol"]
    doses = ds.get.doses(adata, gene_symbols="symbol")
    assert list(dict.fromkeys(doses["feature"])) == list(ds.get.responders(adata, gene_symbols="symbol").index)
    effects = ds.get.guide_effects(adata, str(found.index[2]), gene_symbols="symbol")
    assert set(effects["feature"]) == {found.index[2]}
    assert str(found.index[0]) in " ".join(ds.get.summary(adata, gene_symbols="symbol").split())
    assert ds.get.rank_genes_groups(adata, gene_symbols="symbol")["names"]["GFI1B"][0].startswith(("S", "twice"))
