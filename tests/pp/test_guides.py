"""Guides of cells from a matrix: in `.obsm`, in a modality of guides, with bad input."""

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

GUIDES = ["a1", "a2", "b1", "n1", "n2"]
TARGETS = ["A", "A", "B", "NTC", "NTC"]
# one guide in most cells, none in the fourth, two in the fifth; a stray UMI in the first
UMIS = np.array([[9, 1, 0, 0, 0], [0, 7, 0, 0, 0], [0, 0, 5, 0, 0], [0, 0, 0, 0, 0], [6, 0, 0, 8, 0], [0, 0, 0, 0, 3]])
WANT = ["a1", "a2", "b1", np.nan, np.nan, "n2"]


@pytest.fixture
def adata() -> ad.AnnData:
    out = ad.AnnData(np.ones((6, 2), dtype=np.float32))
    out.obs_names = [f"c{i}" for i in range(6)]
    out.obsm["guide"] = pd.DataFrame(UMIS, out.obs_names, GUIDES)
    out.uns["guide_target"] = TARGETS
    return out


def _labels(adata: ad.AnnData, key: str) -> list[Any]:
    return adata.obs[key].astype(object).to_list()


def _same(got: list[Any], want: list[Any]) -> None:
    pd.testing.assert_series_equal(pd.Series(got, dtype=object), pd.Series(want, dtype=object))


@pytest.mark.parametrize("kind", ["frame", "array", "csr", "csc", "bool"])
def test_obsm(adata: ad.AnnData, kind: str) -> None:
    least = 2
    if kind != "frame":
        adata.uns["guide_ids"] = np.array(GUIDES)
        forms = {"array": UMIS, "csr": sparse.csr_matrix(UMIS), "csc": sparse.csc_matrix(UMIS), "bool": UMIS > 1}
        adata.obsm["guide"] = forms[kind]
        least = 1 if kind == "bool" else 2
    ds.pp.assign_guides(adata, "guide", min_umis=least)
    _same(_labels(adata, "guide"), WANT)
    _same(_labels(adata, "target"), ["A", "A", "B", np.nan, np.nan, "NTC"])
    assert adata.obs["n_guides"].tolist() == [1, 1, 1, 0, 2, 1]


def test_stray_umis_are_guides_by_default(adata: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    ds.pp.assign_guides(adata, "guide", guide_key="g", target_key="t")
    assert pd.isna(adata.obs["g"].iloc[0])
    assert adata.obs["t"].notna().sum() == 3
    assert "3 cells have exactly one guide, and 4 would with min_umis=3" in caplog.text


@pytest.mark.parametrize("called", [False, True])
def test_nothing_is_said_of_clear_guides(adata: ad.AnnData, caplog: pytest.LogCaptureFixture, *, called: bool) -> None:
    """Where a threshold is given, and where the matrix holds calls instead of UMIs."""
    if called:
        adata.obsm["guide"] = adata.obsm["guide"].clip(upper=1)
    ds.pp.assign_guides(adata, "guide", min_umis=1 if called else 2)
    assert "leaked" not in caplog.text


def _modality(**changes: Any) -> ad.AnnData:
    """As IGVF writes it: UMIs in `.X`, calls in a layer, other cells in another order."""
    order = [5, 1, 2, 0, 3]
    x = sparse.csr_matrix(UMIS[order].astype(np.float32))
    var = pd.DataFrame({"intended_target_name": ["A", "A", "B", "", ""], "targeting": [True, True, True, False, False]})
    var.index = GUIDES
    out = ad.AnnData(x, pd.DataFrame(index=[f"c{i}" for i in order]), var)
    out.layers["guide_assignment"] = sparse.csr_matrix((UMIS[order] > 1).astype(np.float32))
    for name, values in changes.items():
        out.var[name] = values
    return out


def test_modality_of_guides(adata: ad.AnnData) -> None:
    del adata.obsm["guide"]
    data = md.MuData({"gene": adata, "guide": _modality()})
    ds.pp.assign_guides(data, "guide", mod="gene")
    _same(_labels(data["gene"], "guide"), WANT)
    _same(_labels(data["gene"], "target"), ["A", "A", "B", np.nan, np.nan, "NTC"])
    assert data["gene"].obs["n_guides"].tolist() == [1, 1, 1, 0, 0, 1]  # the fifth cell is not there


@pytest.mark.parametrize(
    "flags",
    [
        [1.0, 1.0, 1.0, 0.0, 0.0],
        [1, 1, 1, 0, 0],
        ["yes", "Yes", "TRUE", "no", "False"],
        [True, None, None, False, False],
    ],
)
def test_flags_of_targeting(adata: ad.AnnData, flags: list[Any]) -> None:
    del adata.obsm["guide"]
    data = md.MuData({"gene": adata, "guide": _modality(targeting=pd.array(flags, dtype=object))})
    ds.pp.assign_guides(data, "guide", mod="gene")
    assert set(data["gene"].obs["target"].dropna()) == {"A", "B", "NTC"}
    data["guide"].var["targeting"] = "maybe"
    with pytest.raises(ValueError, match=r"holds \['maybe'\], which is neither true nor false"):
        ds.pp.assign_guides(data, "guide", mod="gene")


def test_targets_by_name(adata: ad.AnnData) -> None:
    del adata.obsm["guide"]
    data = md.MuData({"gene": adata, "guide": _modality(gene=["X", "X", "Y", "neg", "neg"])})
    del data["guide"].var["targeting"]
    ds.pp.assign_guides(data, "guide", mod="gene", targets="gene")
    assert set(data["gene"].obs["target"].dropna()) == {"X", "Y", "neg"}
    ds.pp.assign_guides(data, "guide", mod="gene", targets=dict(zip(GUIDES, TARGETS, strict=True)))
    assert set(data["gene"].obs["target"].dropna()) == {"A", "B", "NTC"}
    with pytest.raises(ValueError, match=r"2 of 5 guides of 'guide' have no target, \['n1', 'n2'\]"):
        ds.pp.assign_guides(data, "guide", mod="gene")
    with pytest.raises(KeyError, match="'nothing' is not a column"):
        ds.pp.assign_guides(data, "guide", mod="gene", targets="nothing")


def test_bad_input(adata: ad.AnnData) -> None:
    before = set(adata.obs)
    with pytest.raises(KeyError, match=r"neither a key of .obsm nor a modality"):
        ds.pp.assign_guides(adata, "crispr")
    with pytest.raises(ValueError, match="no cell has exactly one guide: 6 have none and 0 several"):
        ds.pp.assign_guides(adata, "guide", min_umis=100)
    with pytest.raises(ValueError, match="layer='x' is of a modality"):
        ds.pp.assign_guides(adata, "guide", layer="x")
    for values, match in ((-UMIS, "negative"), (UMIS / 2, "fraction")):
        adata.obsm["guide"] = pd.DataFrame(values, adata.obs_names, GUIDES)
        with pytest.raises(ValueError, match=match):
            ds.pp.assign_guides(adata, "guide")
    adata.obsm["guide"] = pd.DataFrame(UMIS, adata.obs_names, ["a1", "a1", "b1", "n1", "n2"])
    with pytest.raises(ValueError, match=r"more than once: \['a1'\]"):
        ds.pp.assign_guides(adata, "guide")
    adata.obsm["guide"] = UMIS
    with pytest.raises(KeyError, match="no names of guides"):
        ds.pp.assign_guides(adata, "guide")
    adata.uns["guide_ids"] = GUIDES[:3]
    del adata.uns["guide_target"]
    with pytest.raises(ValueError, match="5 columns, but there are 3 names"):
        ds.pp.assign_guides(adata, "guide")
    assert set(adata.obs) == before


def test_the_three_steps_follow() -> None:
    rna = ds.datasets.titration(800, 10, rng=0)
    want = ds.tl.fit_technical(rna, copy=True)
    ds.tl.fit_cis(want, "GFI1B")
    codes = rna.obs["guide"].astype("category")
    matrix = sparse.csr_matrix(pd.get_dummies(codes).to_numpy(dtype=np.float32))
    targets = rna.obs.groupby("guide", observed=True)["target"].first()
    var = pd.DataFrame({"target": targets.loc[codes.cat.categories].astype(str)})
    guides = ad.AnnData(matrix, rna.obs[[]].copy(), var)
    plain = rna.copy()
    plain.obs = plain.obs.drop(columns=["guide", "target"])
    data = md.MuData({"rna": plain, "guide": guides[::-1].copy()})
    ds.pp.assign_guides(data, "guide", mod="rna")
    ds.tl.fit_technical(data, mod="rna")
    ds.tl.fit_cis(data, "GFI1B", mod="rna")
    got, expected = ds.get.guides(data, mod="rna"), ds.get.guides(want)
    np.testing.assert_allclose(got["log2_dosage"], expected["log2_dosage"])


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_accessibility_of_a_promoter_as_the_dosage() -> None:
    """Any modality of counts may hold the cis feature."""
    rna = ds.datasets.titration(1200, 8, rng=1)
    atac = rna[:, ["GFI1B"]].copy()
    atac.var_names = ["chr9:133000000-133000500"]
    data = md.MuData({"rna": rna, "atac": atac})
    ds.tl.fit_technical(data, mod="rna")
    ds.tl.fit_technical(data, mod="atac")
    ds.tl.fit_cis(data, "chr9:133000000-133000500", cis_targets="GFI1B", mod="atac")
    ds.tl.fit_trans(data, mod="rna", cis_mod="atac")
    assert data["rna"].uns["trans"]["cis_gene"] == "chr9:133000000-133000500"
    assert data["rna"].varm["trans"].loc["GFI1B", "lfdr"] < 1e-3  # the gene itself is a feature like any other
