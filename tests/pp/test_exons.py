"""Cassette exons against loops over all triples of junctions; real exons of known length."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds

if TYPE_CHECKING:
    from pathlib import Path


def _by_hand(adata: ad.AnnData, least: int) -> set[tuple[str, str, str]]:
    total = dict(zip(adata.var_names, adata.X.toarray().sum(0), strict=True))
    rows = [row for row in adata.var.itertuples() if total[row.Index] >= least]
    found = set()
    for left, skip in itertools.permutations(rows, 2):
        if (left.chrom, left.strand, left.start) != (skip.chrom, skip.strand, skip.start):
            continue
        for right in rows:
            genes = {row.gene for row in (left, right, skip)} - {""}
            same = (right.chrom, right.strand, right.end) == (skip.chrom, skip.strand, skip.end)
            if same and len(genes) <= 1 and left.end + 1 < right.start:
                found.add((left.Index, right.Index, skip.Index))
    return found


def _names(out: ad.AnnData) -> list[tuple[str, str, str]]:
    return list(out.var[["junction_left", "junction_right", "junction_skipping"]].itertuples(index=False, name=None))


@pytest.fixture
def cassette() -> ad.AnnData:
    """One exon, 101 to 110, in 20,000 cells."""
    rng = np.random.default_rng(0)
    var = pd.DataFrame({"chrom": "1", "start": [50, 111, 50], "end": [100, 200, 200], "strand": "-"})
    var.index = ["left", "right", "skip"]
    x = sparse.csr_matrix(rng.poisson([0.3, 0.1, 0.2], (20_000, 3)))
    return ad.AnnData(x, pd.DataFrame(index=[f"c{k}" for k in range(20_000)]), var)


@pytest.mark.parametrize("least", [0, 1, 3])
def test_exons_by_hand(junctions: ad.AnnData, least: int) -> None:
    want = _by_hand(junctions, least)
    out = ds.pp.exon_skipping(junctions, min_counts=least)
    assert set(_names(out)) == want
    assert len(want) == out.n_vars
    assert out.var_names.is_unique
    x = junctions.to_df()
    for k, (left, right, skip) in enumerate(_names(out)):
        included = np.array([min(i, j) for i, j in zip(x[left], x[right], strict=True)])
        np.testing.assert_array_equal(out.X[:, [k]].toarray()[:, 0], included)
        np.testing.assert_array_equal(out.layers["denominator"][:, [k]].toarray()[:, 0], included + x[skip])
        row = out.var.iloc[k]
        assert row["exon_start"] == junctions.var.loc[left, "end"] + 1
        assert row["exon_end"] == junctions.var.loc[right, "start"] - 1
        assert {row["gene"], ""} >= set(junctions.var.loc[[left, right, skip], "gene"])
    for matrix in (out.X, out.layers["denominator"]):
        assert (matrix.format, matrix.dtype, matrix.has_canonical_format) == ("csr", np.int32, True)
        assert (matrix.data > 0).all()
    keys = list(out.var[["chrom", "exon_start", "exon_end"]].astype({"chrom": str}).itertuples(index=False))
    assert keys == sorted(keys)


def test_without_genes(one: ad.AnnData) -> None:
    one.var["gene"] = ""
    want = _by_hand(one, 1)
    del one.var["gene"]
    out = ds.pp.exon_skipping(one)
    assert set(_names(out)) == want
    assert set(out.var["gene"]) == {""}


def test_longest_exon(one: ad.AnnData) -> None:
    every = ds.pp.exon_skipping(one)
    length = every.var["exon_end"] - every.var["exon_start"] + 1
    out = ds.pp.exon_skipping(one, max_exon_length=2)
    assert list(out.var_names) == list(every.var_names[length <= 2])
    assert out.uns["modality"]["left_out"]["max_exon_length"] == (length > 2).sum()
    np.testing.assert_array_equal(out.X.toarray(), every[:, length <= 2].X.toarray())


def test_mean_is_the_mean_but_for_rounding(cassette: ad.AnnData) -> None:
    out = ds.pp.exon_skipping(cassette, inclusion="mean")
    left, right, skip = cassette.X.toarray().T
    x = out.X.toarray()[:, 0]
    even = (left + right) % 2 == 0
    np.testing.assert_array_equal(x[even], (left + right)[even] / 2)
    rest = x[~even] - (left + right)[~even] / 2
    assert set(rest) == {-0.5, 0.5}
    assert abs(rest.mean()) < 3 * 0.5 / np.sqrt(len(rest))
    np.testing.assert_array_equal(out.layers["denominator"].toarray()[:, 0], x + skip)
    psi = out.X.sum() / out.layers["denominator"].sum()
    assert psi == pytest.approx(0.5, abs=0.015)
    least = ds.pp.exon_skipping(cassette)
    assert least.X.sum() / least.layers["denominator"].sum() < 0.2


def test_rounding_does_not_depend_on_what_else_is_there(one: ad.AnnData) -> None:
    out = ds.pp.exon_skipping(one, inclusion="mean")
    name = out.var_names[3]
    cells = one.obs_names[::-3]
    part = ds.pp.exon_skipping(one[cells, list(_names(out)[3])], inclusion="mean", min_counts=0)
    np.testing.assert_array_equal(part[:, name].X.toarray(), out[cells, name].X.toarray())


def test_an_exon_has_a_base(cassette: ad.AnnData) -> None:
    cassette.var.loc["right", "start"] = 102
    out = ds.pp.exon_skipping(cassette)
    assert (out.var["exon_start"].item(), out.var["exon_end"].item()) == (101, 101)
    cassette.var.loc["right", "start"] = 101
    with pytest.raises(ValueError, match="no exon with two junctions and a third that skips it: of 3 junctions, 3"):
        ds.pp.exon_skipping(cassette)


@pytest.mark.parametrize(
    "wrong", [{"inclusion": "sum"}, {"max_exon_length": 0}, {"min_counts": -1}], ids=lambda wrong: next(iter(wrong))
)
def test_what_makes_no_sense(one: ad.AnnData, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ds.pp.exon_skipping(one, **wrong)


def test_round_trip_through_h5ad(one: ad.AnnData, tmp_path: Path) -> None:
    out = ds.pp.exon_skipping(one)
    out.write_h5ad(tmp_path / "exons.h5ad")
    back = ad.read_h5ad(tmp_path / "exons.h5ad")
    assert _names(back) == _names(out)
    np.testing.assert_array_equal(back.layers["denominator"].toarray(), out.layers["denominator"].toarray())
