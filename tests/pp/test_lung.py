"""Junctions of four genes in lung cells; the file names the bases of the exons on either side of an intron."""

from __future__ import annotations

import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds

pytestmark = pytest.mark.data
JUNCTIONS = ["junction_left", "junction_right", "junction_skipping"]


@pytest.fixture(scope="module")
def lung() -> ad.AnnData:
    folder = os.environ.get("DREAM_SC_DATA")
    path = Path(folder or "") / "spliz_human_lung_junctions.h5ad"
    if not folder or not path.exists():
        pytest.skip(f"{path.name} is not there: name its folder in DREAM_SC_DATA")
    adata = ad.read_h5ad(path)
    sides = adata.var[["donor", "acceptor"]]
    adata.var["start"], adata.var["end"] = sides.min(axis=1) + 1, sides.max(axis=1) - 1
    return adata


def test_exons_of_known_length(lung: ad.AnnData) -> None:
    var = ds.pp.exon_skipping(lung, chrom="chr", max_exon_length=60).var
    length = (var["exon_end"] - var["exon_start"] + 1).groupby(var["gene"], observed=True).agg(set)
    assert 45 in length["MYL6"]  # exon 6
    assert {3, 18, 22} <= length["RPS24"]  # the microexon and two others near the 3' end
    assert {25, 32} <= length["CD47"]


def test_the_mean_keeps_the_fraction(lung: ad.AnnData) -> None:
    out = ds.pp.exon_skipping(lung, chrom="chr", inclusion="mean")
    total = pd.Series(np.asarray(lung.X.sum(0)).ravel(), lung.var_names)
    left, right, skip = (total[list(names)].to_numpy() for names in out.var[JUNCTIONS].T.to_numpy())
    want = (left + right) / (left + right + 2 * skip)
    found = np.asarray(out.X.sum(0) / out.layers["denominator"].sum(0)).ravel()
    np.testing.assert_allclose(found, want, atol=0.01)


def test_sites_are_those_of_the_file(lung: ad.AnnData) -> None:
    for site, call in (("donor", ds.pp.donor_usage), ("acceptor", ds.pp.acceptor_usage)):
        size = lung.var[f"{site}_group"].value_counts()
        out = call(lung, chrom="chr")
        assert out.n_vars == size[size >= 2].sum()
        assert out.var[site].nunique() == (size >= 2).sum()
        assert (out.var.groupby(site, observed=True)[f"{site}_group"].nunique() == 1).all()


def test_denominators_are_the_totals_of_the_genes(lung: ad.AnnData) -> None:
    out = ds.pp.junction_psi(lung, chrom="chr")
    for gene in ("MYL6", "CD47"):
        x = out[:, out.var["gene"] == gene]
        want = np.asarray(lung[:, lung.var["gene"] == gene].X.sum(1)).ravel()
        np.testing.assert_array_equal(x.layers["denominator"][:, [0]].toarray()[:, 0], want)
