"""Donor, acceptor and isoform usage against loops over dictionaries, and what cannot be a table of junctions."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds

if TYPE_CHECKING:
    from pathlib import Path

SITES = {"donor": (ds.pp.donor_usage, "+-"), "acceptor": (ds.pp.acceptor_usage, "-+")}


def _by_hand(adata: ad.AnnData, site: str, least: int) -> dict[str, list[str]]:
    """Junctions of each site with two or more of them."""
    total = dict(zip(adata.var_names, adata.X.toarray().sum(0), strict=True))
    groups = defaultdict(list)
    for row in adata.var.itertuples():
        if row.strand == "." or total[row.Index] < least:
            continue
        position = row.start if row.strand == SITES[site][1][0] else row.end
        groups[f"{row.chrom}:{position}:{row.strand}"].append(row.Index)
    return {name: members for name, members in groups.items() if len(members) >= 2}


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("least", [0, 1, 12])
def test_sites_by_hand(junctions: ad.AnnData, site: str, least: int) -> None:
    out = SITES[site][0](junctions, min_counts=least)
    found = {name: sorted(rows.index) for name, rows in out.var.groupby(site, observed=True)}
    assert found == {name: sorted(members) for name, members in _by_hand(junctions, site, least).items()}
    np.testing.assert_array_equal(out.X.toarray(), junctions[:, out.var_names].X.toarray())
    assert out.X.format == "csr"
    assert out.X.has_canonical_format
    assert out.X.dtype == np.int32
    pd.testing.assert_frame_equal(out.obs, junctions.obs)
    note = out.uns["modality"]
    assert (note["distribution"], note["category_key"]) == ("multinomial", site)
    assert sum(note["left_out"].values()) == junctions.n_vars - out.n_vars


@pytest.mark.parametrize("site", SITES)
def test_order_is_by_site_and_not_that_of_the_input(one: ad.AnnData, site: str) -> None:
    out = SITES[site][0](one)
    mixed = SITES[site][0](one[:, np.random.default_rng(1).permutation(one.n_vars)])
    pd.testing.assert_frame_equal(mixed.var, out.var)
    np.testing.assert_array_equal(mixed.X.toarray(), out.X.toarray())
    parts = out.var[site].astype(str).str.split(":", expand=True)
    keys = list(zip(parts[0], parts[1].astype(int), parts[2], out.var["start"], out.var["end"], strict=True))
    assert keys == sorted(keys)


def test_least_number_of_categories(one: ad.AnnData) -> None:
    out = ds.pp.donor_usage(one, min_categories=3)
    assert out.var["donor"].value_counts().min() >= 3
    assert list(out.var["donor"].cat.categories) == list(out.var["donor"].unique())


def test_the_input_stays_as_it_is_and_may_be_a_view(one: ad.AnnData) -> None:
    before = one.copy()
    view = one[::2]
    out = ds.pp.donor_usage(view)
    assert view.is_view
    assert not out.is_view
    out.obs["guide"] = "changed"
    out.X.data[:] = 99
    pd.testing.assert_frame_equal(one.obs, before.obs)
    pd.testing.assert_frame_equal(one.var, before.var)
    np.testing.assert_array_equal(one.X.toarray(), before.X.toarray())


@pytest.mark.parametrize("kind", ["csc", "dense", "float", "uint8", "layer", "unsorted", "zeros"])
def test_storage_does_not_matter(one: ad.AnnData, kind: str) -> None:
    want, layer = ds.pp.donor_usage(one), None
    if kind == "unsorted":
        x = one.X.copy()
        for low, high in zip(x.indptr[:-1], x.indptr[1:], strict=True):
            x.indices[low:high], x.data[low:high] = x.indices[low:high][::-1].copy(), x.data[low:high][::-1].copy()
        one.X = sparse.csr_matrix((x.data, x.indices, x.indptr), x.shape)
    elif kind == "zeros":
        x = one.X.tocoo()
        more = np.zeros(40, dtype=np.int32), np.arange(40)
        one.X = sparse.csr_matrix(
            (np.r_[x.data, more[0]], (np.r_[x.row, more[1]], np.r_[x.col, more[1]])), shape=x.shape
        )
    elif kind == "layer":
        layer = "counts"
        one.layers["counts"] = one.X.copy()
        one.X = one.X * 0.5
    else:
        types = {"csc": one.X.tocsc(), "dense": one.X.toarray(), "float": one.X.astype(np.float32)}
        one.X = types[kind] if kind in types else one.X.astype(np.uint8)
    out = ds.pp.donor_usage(one, layer=layer)
    np.testing.assert_array_equal(out.X.toarray(), want.X.toarray())
    assert out.X.dtype == np.int32
    assert out.X.has_canonical_format


def test_backed_file(one: ad.AnnData, tmp_path: Path) -> None:
    one.write_h5ad(tmp_path / "junctions.h5ad")
    want = ds.pp.acceptor_usage(one)
    backed = ad.read_h5ad(tmp_path / "junctions.h5ad", backed="r")
    out = ds.pp.acceptor_usage(backed)
    backed.file.close()
    np.testing.assert_array_equal(out.X.toarray(), want.X.toarray())


def test_round_trip_through_h5ad(one: ad.AnnData, tmp_path: Path) -> None:
    out = ds.pp.donor_usage(one)
    out.write_h5ad(tmp_path / "donors.h5ad")
    back = ad.read_h5ad(tmp_path / "donors.h5ad")
    pd.testing.assert_frame_equal(back.var, out.var)
    np.testing.assert_array_equal(back.X.toarray(), out.X.toarray())
    assert back.uns["modality"]["category_key"] == "donor"
    assert back.uns["modality"]["left_out"] == out.uns["modality"]["left_out"]


def test_modality_of_a_mudata(one: ad.AnnData) -> None:
    both = md.MuData({"sj": one, "rna": ad.AnnData(np.ones((40, 2)), obs=one.obs[[]])})
    out = ds.pp.donor_usage(both, mod="sj")
    np.testing.assert_array_equal(out.X.toarray(), ds.pp.donor_usage(one).X.toarray())
    assert "size_factor" in out.obs
    with pytest.raises(ValueError, match="mod="):
        ds.pp.donor_usage(both)


def test_names_of_columns(one: ad.AnnData) -> None:
    want = ds.pp.donor_usage(one)
    names = {"chrom": "chr", "start": "first", "end": "last", "strand": "sense", "gene": "symbol"}
    one.var = one.var.rename(columns=names)
    out = ds.pp.donor_usage(one, **names)
    pd.testing.assert_frame_equal(out.var[list(want.var.columns)], want.var)
    with pytest.raises(KeyError, match="start='start' is not a column"):
        ds.pp.donor_usage(one, chrom="chr")
    with pytest.raises(KeyError, match="gene='name'"):
        ds.pp.donor_usage(one, **(names | {"gene": "name"}))


def test_the_gene_may_be_missing(one: ad.AnnData) -> None:
    want = ds.pp.donor_usage(one)
    del one.var["gene"]
    out = ds.pp.donor_usage(one)
    assert "gene" not in out.var
    np.testing.assert_array_equal(out.X.toarray(), want.X.toarray())


@pytest.mark.parametrize("unknown", [".", "*", "?", "", None, np.nan])
def test_unknown_strands(unknown: object) -> None:
    var = pd.DataFrame({"chrom": "1", "start": [1, 1, 1], "end": [5, 7, 9], "strand": ["+", "+", unknown]})
    var.index = list("abc")
    out = ds.pp.donor_usage(ad.AnnData(sparse.csr_matrix(np.ones((4, 3), dtype=int)), var=var))
    assert list(out.var_names) == ["a", "b"]
    assert out.uns["modality"]["left_out"]["no_strand"] == 1


BAD = {
    "after": ({"start": 9, "end": 8}, "lies after"),
    "strand": ({"strand": "2"}, "of STAR's numbers, 1 is"),
    "zero": ({"start": 0}, "first base of a chromosome is 1"),
    "fraction": ({"start": 1.5}, "whole numbers"),
    "missing position": ({"end": np.nan}, "whole numbers"),
    "missing chromosome": ({"chrom": None}, "is missing for 'j3'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables(one: ad.AnnData, case: str) -> None:
    values, message = BAD[case]
    var = one.var.astype({"start": float, "end": float})
    for column, value in values.items():
        var.loc["j3", column] = value
    one.var = var
    with pytest.raises(ValueError, match=message):
        ds.pp.donor_usage(one)


def test_positions_may_be_text(one: ad.AnnData) -> None:
    want = ds.pp.donor_usage(one).var
    one.var["start"] = one.var["start"].astype(str).astype("category")
    out = ds.pp.donor_usage(one).var
    pd.testing.assert_frame_equal(out, want)


def test_duplicates(one: ad.AnnData) -> None:
    one.var.loc["j7", ["chrom", "start", "end", "strand"]] = one.var.loc["j2", ["chrom", "start", "end", "strand"]]
    with pytest.raises(ValueError, match="'j7' has the chromosome, start, end and strand of a junction before it"):
        ds.pp.donor_usage(one)


@pytest.mark.parametrize(("change", "message"), [(-1.0, "negative"), (0.5, "fraction"), (np.nan, "NaN")])
def test_what_is_no_count(one: ad.AnnData, change: float, message: str) -> None:
    one.X = one.X.astype(np.float64)
    one.X.data[5] = change
    with pytest.raises(ValueError, match=message):
        ds.pp.donor_usage(one)


def test_nothing_left(one: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="no donor has 2 junctions or more: of 110 junctions"):
        ds.pp.donor_usage(one, min_counts=10**6)
    with pytest.raises(ValueError, match="no gene has 2 transcripts or more"):
        ds.pp.isoform_usage(one, min_counts=10**6)


@pytest.mark.parametrize("wrong", [{"min_counts": -1}, {"min_counts": 1.5}, {"min_categories": 1}])
def test_numbers_that_make_no_sense(one: ad.AnnData, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is not allowed"):
        ds.pp.donor_usage(one, **wrong)


def test_isoforms_by_hand(junctions: ad.AnnData) -> None:
    junctions.var = junctions.var[["gene"]].replace("", np.nan)
    total = dict(zip(junctions.var_names, junctions.X.toarray().sum(0), strict=True))
    groups = defaultdict(list)
    for name, gene in junctions.var["gene"].items():
        if isinstance(gene, str) and total[name] >= 5:
            groups[gene].append(name)
    want = [name for gene in sorted(groups) for name in sorted(groups[gene]) if len(groups[gene]) >= 2]
    out = ds.pp.isoform_usage(junctions, min_counts=5)
    assert list(out.var_names) == want
    np.testing.assert_array_equal(out.X.toarray(), junctions[:, want].X.toarray())
    assert out.uns["modality"]["category_key"] == "gene"
    del junctions.var["gene"]
    with pytest.raises(KeyError, match="gene='gene' is not a column"):
        ds.pp.isoform_usage(junctions)
