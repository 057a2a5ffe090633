"""Junctions against their gene, by loops over dictionaries."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc.pp import _modality

if TYPE_CHECKING:
    from pathlib import Path


def _dense(out: ad.AnnData) -> np.ndarray:
    return out.layers["denominator"].toarray()


@pytest.fixture
def genes(one: ad.AnnData) -> ad.AnnData:
    """Gene counts of the same cells and one more, in another order, without g2."""
    rng = np.random.default_rng(4)
    names = [*one.obs_names, "another"]
    rng.shuffle(names)
    x = sparse.csr_matrix(rng.poisson(6.0, (len(names), 3)))
    return ad.AnnData(x, pd.DataFrame(index=names), pd.DataFrame(index=["g3", "other", "g1"]))


@pytest.mark.parametrize("least", [0, 1, 25])
def test_against_the_junctions_of_the_gene(junctions: ad.AnnData, least: int) -> None:
    x = pd.DataFrame(junctions.X.toarray(), junctions.obs_names, junctions.var_names)
    members, kept = defaultdict(list), defaultdict(list)
    for name, gene in junctions.var["gene"].items():
        if gene:
            members[gene].append(name)
            if x[name].sum() >= least:
                kept[gene].append(name)
    want = {name: x[members[gene]].sum(axis=1) for gene in kept for name in kept[gene] if len(kept[gene]) >= 2}
    out = ds.pp.junction_psi(junctions, min_counts=least)
    assert sorted(out.var_names) == sorted(want)
    np.testing.assert_array_equal(out.X.toarray(), x[list(out.var_names)])
    np.testing.assert_array_equal(_dense(out), pd.DataFrame(want)[list(out.var_names)])
    for matrix in (out.X, out.layers["denominator"]):
        assert (matrix.format, matrix.dtype, matrix.has_canonical_format) == ("csr", np.int32, True)
        assert (matrix.data > 0).all()
    keys = list(out.var[["gene", "chrom", "start", "end", "strand"]].astype({"gene": str}).itertuples(index=False))
    assert keys == sorted(keys)
    assert out.uns["modality"]["distribution"] == "binomial"
    assert out.uns["modality"]["denominator_layer"] == "denominator"
    pd.testing.assert_frame_equal(out.obs, junctions.obs)


def test_parts_of_the_cells_make_no_difference(one: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    want = ds.pp.junction_psi(one)
    monkeypatch.setattr(_modality, "PART", 400)
    out = ds.pp.junction_psi(one)
    np.testing.assert_array_equal(out.X.toarray(), want.X.toarray())
    np.testing.assert_array_equal(_dense(out), _dense(want))
    assert out.layers["denominator"].has_canonical_format


def test_sums_beyond_a_byte(one: ad.AnnData) -> None:
    one.X = sparse.csr_matrix(np.full(one.shape, 200, dtype=np.uint8))
    out = ds.pp.junction_psi(one)
    size = one.var["gene"].value_counts()
    np.testing.assert_array_equal(_dense(out)[0], 200 * size[out.var["gene"].astype(str)].to_numpy())


def test_numbers_beyond_32_bits(one: ad.AnnData) -> None:
    one.X = sparse.csr_matrix(np.full(one.shape, 2**31 - 1, dtype=np.int64))
    out = ds.pp.junction_psi(one)
    assert out.X.dtype == np.int32
    assert out.layers["denominator"].dtype == np.int64
    assert _dense(out).min() > 2**31


def test_against_other_counts_of_the_gene(one: ad.AnnData, genes: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="dream_sc"):
        out = ds.pp.junction_psi(one, genes=genes)
    x = pd.DataFrame(one.X.toarray(), one.obs_names, one.var_names)
    y = pd.DataFrame(genes.X.toarray(), genes.obs_names, genes.var_names)
    assert set(out.var["gene"]) == {"g1", "g3"}
    raised = 0
    for gene, rows in out.var.groupby("gene", observed=True):
        largest = x[list(rows.index)].max(axis=1)
        want = np.maximum(y.loc[one.obs_names, gene], largest)
        raised += int((largest > y.loc[one.obs_names, gene]).sum())
        np.testing.assert_array_equal(_dense(out[:, rows.index]), np.tile(want.to_numpy()[:, None], len(rows)))
    assert raised > 0
    assert out.uns["modality"]["n_raised"] == raised
    assert f"in {raised} of" in caplog.text
    assert out.layers["denominator"].has_canonical_format


def test_single_junctions_and_layers_of_gene_counts(one: ad.AnnData, genes: ad.AnnData) -> None:
    name = one.var.index[one.var["gene"] == "g1"][0]
    single = one[:, [name]]
    genes.layers["twice"] = genes.X * 2
    out = ds.pp.junction_psi(single, genes=genes, genes_layer="twice", min_categories=1, min_counts=0)
    want = np.maximum(genes.to_df("twice").loc[one.obs_names, "g1"], single.to_df()[name])
    np.testing.assert_array_equal(_dense(out)[:, 0], want)
    with pytest.raises(ValueError, match="min_categories=1 is not allowed"):
        ds.pp.junction_psi(single, min_categories=1)


def test_gene_counts_of_a_mudata(one: ad.AnnData, genes: ad.AnnData) -> None:
    both = md.MuData({"sj": one, "rna": genes})
    out = ds.pp.junction_psi(both, mod="sj", genes="rna")
    np.testing.assert_array_equal(_dense(out), _dense(ds.pp.junction_psi(one, genes=genes)))


def test_cells_and_genes_that_are_not_there(one: ad.AnnData, genes: ad.AnnData) -> None:
    with pytest.raises(KeyError, match="1 of 40 cells are not in genes=, 'cell7'"):
        ds.pp.junction_psi(one, genes=genes[genes.obs_names != "cell7"])
    genes.var_names = ["ENSG3", "ENSG0", "ENSG1"]
    with pytest.raises(KeyError, match=r"no gene of .var\['gene'\]"):
        ds.pp.junction_psi(one, genes=genes)


def test_the_gene_is_needed(one: ad.AnnData) -> None:
    del one.var["gene"]
    with pytest.raises(KeyError, match="gene='gene' is not a column"):
        ds.pp.junction_psi(one)


def test_round_trip_through_h5ad(one: ad.AnnData, tmp_path: Path) -> None:
    out = ds.pp.junction_psi(one)
    out.write_h5ad(tmp_path / "psi.h5ad")
    back = ad.read_h5ad(tmp_path / "psi.h5ad")
    np.testing.assert_array_equal(_dense(back), _dense(out))
    pd.testing.assert_frame_equal(back.var, out.var)
