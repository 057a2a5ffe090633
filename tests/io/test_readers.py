"""What is read of the objects of other tools: counts, guides, targets; and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds


def _texts(column: pd.Series) -> list[str]:
    return column.astype(object).where(column.notna(), "").tolist()


# IGVF


def test_igvf_with_one_guide_per_cell(igvf: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    mdata = igvf()
    with caplog.at_level(logging.WARNING, "dream_sc"):
        adata = ds.io.from_igvf(mdata)
    assert adata.obs_names.tolist() == list("vwxy")  # cell "z" is not in the modality of guides
    assert "1 of 5 cells are not in modality 'guide' and are left out" in caplog.text
    assert _texts(adata.obs["guide"]) == ["g1", "s1", "n1", ""]
    assert _texts(adata.obs["target"]) == ["ENSG1", "NTC", "NTC", ""]
    assert adata.obsm["guides"].toarray().tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [1, 1, 0, 0]]
    assert list(adata.uns["guides_target"]) == ["ENSG1", "ENSG1", "NTC", "NTC"]
    assert adata.obs["total_guide_umis"].tolist() == [9, 7, 8, 20]
    assert adata.obs["batch"].tolist() == list("aabb")
    assert adata.X.toarray().tolist() == [[3, 0], [1, 2], [0, 5], [2, 2]]
    assert adata.uns["igvf_targets"].loc["g1"].tolist() == ["ENSG1", "chr9", 100.0, 200.0]
    assert "guides" not in mdata["gene"].obsm
    adata.write_h5ad(tmp_path / "x.h5ad")
    mdata.write(tmp_path / "x.h5mu")
    again = ds.io.from_igvf(tmp_path / "x.h5mu")
    pd.testing.assert_frame_equal(again.obs, adata.obs)


def test_igvf_as_the_pipeline_stores_it(igvf: Any, tmp_path: Path) -> None:
    """Guides named by an index and a column, calls as narrow whole numbers, hashtags, types made of "targeting"."""
    import mudata as md

    mdata = igvf()
    guides = mdata.mod["guide"]
    guides.var["type"] = pd.Categorical(np.where(guides.var["targeting"], "targeting", "non-targeting"))
    guides.var["targeting"] = guides.var["targeting"].astype(str)
    guides.var.index.name = "guide_id"
    guides.layers["guide_assignment"] = guides.layers["guide_assignment"].astype(np.uint16)
    guides.obs["batch_number"] = guides.obs["batch"].factorize()[0] + 1
    hashing = ad.AnnData(np.ones((guides.n_obs, 2)), pd.DataFrame(index=guides.obs_names))
    stored = md.MuData({"gene": mdata.mod["gene"], "guide": guides, "hashing": hashing})
    stored.uns["pairs_to_test"] = {"gene_id": ["ENSG1"], "guide_id": ["g1"]}
    stored.write(tmp_path / "inference_mudata.h5mu")
    adata = ds.io.from_igvf(tmp_path / "inference_mudata.h5mu")
    want = ds.io.from_igvf(igvf())
    assert _texts(adata.obs["guide"]) == _texts(want.obs["guide"])
    assert _texts(adata.obs["target"]) == _texts(want.obs["target"]) == ["ENSG1", "NTC", "NTC", ""]
    np.testing.assert_array_equal(adata.X.toarray(), want.X.toarray())
    assert adata.obs["batch_number"].tolist() == [1, 2, 2, 1]


def test_igvf_with_many_guides_per_cell(igvf: Any) -> None:
    adata = ds.io.from_igvf(igvf("high"))
    assert "guide" not in adata.obs
    assert adata.obs["n_guides"].tolist() == [1, 1, 1, 2]
    assert "guide" in ds.io.from_igvf(igvf("high"), moi="low").obs


@pytest.mark.parametrize("kind", ["non-targeting", "safe-targeting", "negative control"])
def test_igvf_controls_by_type(igvf: Any, kind: str) -> None:
    mdata = igvf(type=["targeting", "targeting", kind, kind], targeting=[True] * 4)
    mdata["guide"].var["intended_target_name"] = ["ENSG1", "ENSG1", "chr1:7-9", "chr1:5-9"]
    assert list(ds.io.from_igvf(mdata).uns["guides_target"]) == ["ENSG1", "ENSG1", "NTC", "NTC"]
    fewer = ds.io.from_igvf(mdata, control_types=[])
    assert list(fewer.uns["guides_target"]) == ["ENSG1", "ENSG1", "chr1:7-9", "chr1:5-9"]


def test_igvf_that_says_too_little(igvf: Any) -> None:
    with pytest.raises(ValueError, match="neither 'low' nor 'high'"):
        ds.io.from_igvf(igvf(None))
    mdata = igvf()
    del mdata["guide"].layers["guide_assignment"]
    with pytest.raises(KeyError, match="has no layer 'guide_assignment'"):
        ds.io.from_igvf(mdata)
    with pytest.raises(KeyError, match="modality 'rna' is not there; there are"):
        ds.io.from_igvf(igvf(), gene="rna")
    with pytest.raises(ValueError, match=r"1 targeting guides of 'guide' have no intended_target_name, \['g2'\]"):
        ds.io.from_igvf(igvf(intended_target_name=["ENSG1", np.nan, "non-targeting|1", "non-targeting|1"]))
    with pytest.raises(ValueError, match="all 4 guides of modality 'guide' are non-targeting"):
        ds.io.from_igvf(igvf(targeting=[False] * 4))
    with pytest.raises(FileNotFoundError):
        ds.io.from_igvf("nothing.h5mu")
    with pytest.raises(TypeError, match="must be a MuData or the path"):
        ds.io.from_igvf(7)


def test_log_normalised_counts_are_refused_by_that_word(igvf: Any) -> None:
    mdata = igvf()
    genes = mdata["gene"]
    genes.layers["counts"] = genes.X.copy()
    genes.raw = genes.copy()
    genes.X = np.log1p(genes.X)
    with pytest.raises(ValueError, match=r"'gene' holds fractions, it looks log-normalised") as error:
        ds.io.from_igvf(mdata)
    assert "counts are here: layer='counts', data = data.raw.to_adata() for the counts in .raw" in str(error.value)


def test_the_steps_say_where_counts_are() -> None:
    adata = ds.datasets.titration(300, 10, rng=0)
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X)
    with pytest.raises(ValueError, match=r"\.X holds fractions, it looks log-normalised.*layer='counts'"):
        ds.pp.size_factors(adata)
    with pytest.raises(ValueError, match=r"log-normalised.*layer='counts'"):
        ds.tl.fit_technical(adata)


# pertpy


def _pertpy() -> tuple[ad.AnnData, ad.AnnData]:
    cells = [f"c{i}" for i in range(5)]
    genes = ad.AnnData(sparse.csr_matrix(np.arange(10).reshape(5, 2)), pd.DataFrame(index=cells))
    umis = np.array([[9, 0, 0], [0, 8, 0], [0, 0, 7], [1, 0, 0], [6, 9, 0]])
    var = pd.DataFrame({"gene": ["A", "A", "NT"]}, ["Ag1", "Ag2", "NTg1"])
    return genes, ad.AnnData(sparse.csr_matrix(umis), pd.DataFrame(index=cells[::-1]), var)[::-1].copy()


def test_pertpy_layer() -> None:
    genes, guides = _pertpy()
    guides = guides[genes.obs_names].copy()
    guides.X = guides.X[::-1]
    guides.layers["assigned_guides"] = sparse.csr_matrix((guides.X.toarray() >= 5).astype(np.int8))
    out = ds.io.from_pertpy(genes, guides, targets="gene", control="NT")
    np.testing.assert_array_equal(out.obsm["guides"].toarray(), guides.layers["assigned_guides"].toarray())
    assert list(out.uns["guides_target"]) == ["A", "A", "NTC"]
    one = np.asarray(guides.layers["assigned_guides"].sum(1)).ravel() == 1
    assert ((np.array(_texts(out.obs["guide"])) != "") == one).all()
    assert "guides" not in genes.obsm
    with pytest.raises(ValueError, match="what the guides target is not known"):
        ds.io.from_pertpy(genes, guides)
    with pytest.raises(ValueError, match=r"control=\['NTC'\]: no guide has that target; did you mean \['NT'\]"):
        ds.io.from_pertpy(genes, guides, targets="gene", control="NTC")


def test_pertpy_column() -> None:
    genes, _ = _pertpy()
    genes.obs["assigned_guide"] = ["Ag1", "negative", "Ag1+NTg1", "multiple", "NTg1"]
    targets = {"Ag1": "A", "NTg1": "non-targeting"}
    out = ds.io.from_pertpy(genes, targets=targets)
    assert out.obs_names.tolist() == ["c0", "c1", "c2", "c4"]
    assert out.obs["n_guides"].tolist() == [1, 0, 2, 1]
    assert _texts(out.obs["guide"]) == ["Ag1", "", "", "NTg1"]
    assert _texts(out.obs["target"]) == ["A", "", "", "NTC"]
    assert "guide" not in ds.io.from_pertpy(genes, targets=targets, moi="high").obs
    genes.obs["assigned_guide"] = ["Ag1", "Negative", "A+B", "Ag1", "NTg1"]
    both = ds.io.from_pertpy(genes, targets={**targets, "A+B": "A;B"})
    assert _texts(both.obs["guide"]) == ["Ag1", "", "A+B", "Ag1", "NTg1"]
    with pytest.raises(KeyError, match="neither the layer 'assigned_guides'"):
        ds.io.from_pertpy(_pertpy()[0], targets=targets)


# sceptre

TARGETS = pd.DataFrame({"grna_id": ["g1", "g2", "n1"], "grna_target": ["ENSG1", "ENSG1", "non-targeting"]})
RESPONSES = np.array([[1, 0, 2, 0], [0, 3, 0, 0]])
GRNAS = np.array([[9, 0, 1, 0], [0, 7, 0, 0], [0, 0, 8, 0]])


def test_sceptre_matrices() -> None:
    names = {"response_names": ["ENSG1", "ENSG2"], "grna_names": ["g1", "g2", "n1"]}
    options: dict[str, Any] = {"grna_target_data_frame": TARGETS, "min_umis": 5}
    out = ds.io.from_sceptre(sparse.csc_matrix(RESPONSES), sparse.csr_matrix(GRNAS), **names, **options)
    assert out.X.toarray().tolist() == RESPONSES.T.tolist()
    assert out.obsm["guides"].toarray().tolist() == np.where(GRNAS >= 5, GRNAS, 0).T.tolist()
    assert _texts(out.obs["guide"]) == ["g1", "g2", "n1", ""]
    assert _texts(out.obs["target"]) == ["ENSG1", "ENSG1", "NTC", ""]
    cells = [f"cell_{i}" for i in range(1, 5)]
    frames = (pd.DataFrame(RESPONSES, ["ENSG1", "ENSG2"], cells), pd.DataFrame(GRNAS, names["grna_names"], cells))
    covariates = pd.DataFrame({"batch": list("abab")})
    same = ds.io.from_sceptre(*frames, **options, extra_covariates=covariates)
    np.testing.assert_array_equal(same.X.toarray(), out.X.toarray())
    assert same.obs["batch"].tolist() == list("abab")
    assert same.obs_names.tolist() == out.obs_names.tolist()


def test_sceptre_matrices_that_do_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    cells = list("wxyz")
    x, g = pd.DataFrame(RESPONSES, ["a", "b"], cells), pd.DataFrame(GRNAS, ["g1", "g2", "n1"], cells)
    with caplog.at_level(logging.WARNING, "dream_sc"):
        ds.io.from_sceptre(x, g, grna_target_data_frame=TARGETS)
    assert "pass min_umis=, 5 as in sceptre" in caplog.text
    with pytest.raises(ValueError, match="not the same cells"):
        ds.io.from_sceptre(x[list("zyxw")], g, grna_target_data_frame=TARGETS)
    with pytest.raises(ValueError, match="response_matrix has no names of rows"):
        ds.io.from_sceptre(RESPONSES, g, grna_target_data_frame=TARGETS)
    with pytest.raises(ValueError, match="transpose it if need be"):
        ds.io.from_sceptre(RESPONSES.T, g, grna_target_data_frame=TARGETS, response_names=["a", "b"])
    with pytest.raises(ValueError, match=r"lacks 1 of 3 guides, \['n1'\]"):
        ds.io.from_sceptre(x, g, grna_target_data_frame=TARGETS[:2])
    with pytest.raises(KeyError, match=r"no columns \['grna_target'\]"):
        ds.io.from_sceptre(x, g, grna_target_data_frame=TARGETS[["grna_id"]])
    with pytest.raises(ValueError, match="log-normalised"):
        ds.io.from_sceptre(np.log1p(x), g, grna_target_data_frame=TARGETS)


# scPerturb


def test_scperturb() -> None:
    obs = pd.DataFrame(
        {
            "perturbation": ["control", "A", "A_B", np.nan, "A", "control"],
            "nperts": [0, 1, 2, np.nan, 1, 0],
            "guide_id": [np.nan, "Ag1", "Ag1;Bg1", np.nan, "Ag2", "nt1"],
        },
        [f"c{i}" for i in range(6)],
    )
    data = ad.AnnData(sparse.csr_matrix(np.arange(12.0).reshape(6, 2)), obs)
    out = ds.io.from_scperturb(data)
    assert _texts(out.obs["guide"]) == ["NTC", "Ag1", "", "", "Ag2", "nt1"]
    assert _texts(out.obs["target"]) == ["NTC", "A", "", "", "A", "NTC"]
    assert "target" not in data.obs
    with pytest.raises(ValueError, match=r"no cell has the perturbation 'ctrl'.*did you mean"):
        ds.io.from_scperturb(data, control="ctrl")
    data.X = data.X * 0.5
    with pytest.raises(ValueError, match="log-normalised"):
        ds.io.from_scperturb(data)


def test_scperturb_without_guides(caplog: pytest.LogCaptureFixture) -> None:
    obs = pd.DataFrame({"perturbation": ["control", "A"], "nperts": [0, 1]}, ["c0", "c1"])
    with caplog.at_level(logging.WARNING, "dream_sc"):
        out = ds.io.from_scperturb(ad.AnnData(np.ones((2, 2)), obs))
    assert _texts(out.obs["guide"]) == ["NTC", "A"]
    assert "cells of a perturbation count as one guide" in caplog.text


# MAGeCK

SUMMARY = """sgrna\tGene\tcontrol_count\ttreatment_count\tcontrol_mean\ttreat_mean\tLFC\tcontrol_var\tadj_var\tscore\t\
p.low\tp.high\tp.twosided\tFDR\thigh_in_treatment
A_1\tA\t100\t10\t100\t10\t-3.2\t1\t1\t3\t0.1\t0.9\t0.2\t0.3\tFalse
A_2\tA\t100\t50\t100\t50\t-0.9\t1\t1\t3\t0.1\t0.9\t0.2\t0.3\tFalse
N_1\tNTC\t100\t110\t100\t110\t0.1\t1\t1\t3\t0.1\t0.9\t0.2\t0.3\tTrue
N_2\tNTC\t100\t130\t100\t130\t0.3\t1\t1\t3\t0.1\t0.9\t0.2\t0.3\tTrue
B_1\tB\t100\t100\t100\t100\t0\t1\t1\t3\t0.1\t0.9\t0.2\t0.3\tFalse
"""


def test_guide_strengths(tmp_path: Path) -> None:
    path = tmp_path / "sgrna_summary.txt"
    path.write_text(SUMMARY)
    every = ds.io.guide_strengths(path)
    assert every.to_dict() == {"A_1": -3.2, "A_2": -0.9, "N_1": 0.1, "N_2": 0.3, "B_1": 0.0}
    assert ds.io.guide_strengths(path, gene="A").to_dict() == {"A_1": -3.2, "A_2": -0.9}
    assert list(ds.io.guide_strengths(path, gene="A", control="NTC").round(9)) == [-3.4, -1.1]
    centred = ds.io.guide_strengths(path, control="NTC")
    np.testing.assert_allclose(centred[["A_1", "A_2", "N_1", "N_2"]], [-3.4, -1.1, -0.1, 0.1])
    with pytest.raises(KeyError, match="gene='a' has no guide in the file; did you mean"):
        ds.io.guide_strengths(path, gene="a")
    path.write_text(SUMMARY.replace("\t-0.9\t", "\tNA\t"))
    with pytest.raises(ValueError, match=r"line 3 of .*LFC 'NA' of guide 'A_2' is no number"):
        ds.io.guide_strengths(path)
    path.write_text(SUMMARY.replace("A_2", "A_1"))
    with pytest.raises(ValueError, match=r"guide 'A_1' is in .* more than once"):
        ds.io.guide_strengths(path)
    path.write_text("Gene\tsgRNA\teff\nA\tA_1\t1\n")
    with pytest.raises(ValueError, match="is of mageck mle"):
        ds.io.guide_strengths(path)


def test_strengths_are_dosages_of_set_dosage(tmp_path: Path) -> None:
    adata = ds.datasets.titration(600, 10, rng=1)
    targeting = adata.obs.loc[adata.obs["target"] != "NTC", "guide"].astype(str).unique()
    rows = [f"{g}\tGFI1B\t{-0.2 * i}" for i, g in enumerate(targeting)]
    path = tmp_path / "s.txt"
    path.write_text("\n".join(["sgrna\tGene\tLFC", *rows]) + "\n")
    ds.tl.fit_technical(adata)
    ds.tl.set_dosage(adata, ds.io.guide_strengths(path, gene="GFI1B"), scale="log2")
    table = ds.get.guides(adata)
    np.testing.assert_allclose(table.loc[targeting, "log2_dosage"], -0.2 * np.arange(len(targeting)), atol=1e-12)
