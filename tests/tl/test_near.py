"""Features near the cis gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds
from dream_sc.tl._near_cis import near_cis, tell_of_positions

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("few_null_features")


def test_features_near_the_cis_gene_are_flagged(tmp_path: Path) -> None:
    adata = ds.datasets.titration(800, 8, rng=0)
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    assert "near_cis" not in adata.varm["trans"]
    cis = adata.var_names.get_loc("GFI1B")
    adata.var["chrom"], adata.var["start"], adata.var["end"] = "chr9", 133_000_000, 133_010_000
    others = np.delete(np.arange(8), cis)
    # just within reach on either side, just beyond, on another chromosome, without coordinates
    adata.var.iloc[others[0], adata.var.columns.get_loc("start")] = 134_010_000
    adata.var.iloc[others[0], adata.var.columns.get_loc("end")] = 134_020_000
    adata.var.iloc[others[1], adata.var.columns.get_loc("start")] = 134_010_001
    adata.var.iloc[others[1], adata.var.columns.get_loc("end")] = 134_020_000
    adata.var.iloc[others[2], adata.var.columns.get_loc("start")] = 131_900_000
    adata.var.iloc[others[2], adata.var.columns.get_loc("end")] = 132_000_000
    adata.var.iloc[others[3], adata.var.columns.get_loc("chrom")] = "chr1"
    adata.var["start"] = adata.var["start"].astype(float)
    adata.var.iloc[others[4], adata.var.columns.get_loc("start")] = np.nan
    ds.tl.fit_trans(adata)
    near = ds.get.trans(adata)["near_cis"]
    assert near.dtype == bool
    assert near.iloc[others].tolist() == [True, False, True, False, False, True, True]
    assert not near["GFI1B"]
    adata.write_h5ad(tmp_path / "x.h5ad")
    assert ad.read_h5ad(tmp_path / "x.h5ad").varm["trans"]["near_cis"].tolist() == near.tolist()
    adata.var["start"] = adata.var["start"].astype(str).where(adata.var_names != adata.var_names[others[0]], "")
    ds.tl.fit_trans(adata)  # text, and no number in one of them
    assert ds.get.trans(adata)["near_cis"].iloc[others[2]]
    adata.var.loc["GFI1B", "start"] = ""
    ds.tl.fit_trans(adata)
    assert "near_cis" not in ds.get.trans(adata)


@pytest.mark.parametrize(
    ("cis", "others"),
    [
        ("chr9", ["9", "chr9", "Chr9", "chr19"]),
        ("9", ["9", "chr9", "CHR9", "chr90"]),
        (9.0, [9.0, 9.0, 9.0, np.nan]),
        ("chrX", ["X", "chrX", "x", "Y"]),
        ("MT", ["chrM", "MT", "M", "1"]),
    ],
)
def test_spellings_of_a_chromosome(cis, others) -> None:
    """Ensembl writes "9" what UCSC writes "chr9"; a numeric column with a gap holds 9.0."""
    names = ["ENSG00000165702", *(f"ENSG0000000000{i}" for i in range(4))]
    var = pd.DataFrame({"chrom": pd.Series([cis, *others]).to_numpy(), "start": 100, "end": 200}, index=names)
    adata = ad.AnnData(np.zeros((3, 5), dtype=np.float32), var=var)
    assert near_cis(adata, adata, ["ENSG00000165702"]).tolist() == [False, True, True, True, False]


def test_a_cis_gene_without_a_chromosome_has_no_neighbours() -> None:
    var = pd.DataFrame({"chrom": [None, None, "chr1"], "start": 100, "end": 200}, index=["ENSG1", "ENSG2", "ENSG3"])
    adata = ad.AnnData(np.zeros((3, 3), dtype=np.float32), var=var)
    assert near_cis(adata, adata, ["ENSG1"]) is None
    assert near_cis(adata, adata, ["ENSG3"]).tolist() == [False, False, False]


def test_neighbours_in_another_modality() -> None:
    """Peaks are named by position with "chr", genes by Ensembl id without."""
    genes = ad.AnnData(
        np.zeros((3, 1), dtype=np.float32),
        var=pd.DataFrame({"chrom": pd.Categorical(["1"]), "start": [5_000_000], "end": [5_010_000]}, index=["ENSG1"]),
    )
    peaks = ad.AnnData(
        np.zeros((3, 3), dtype=np.float32),
        var=pd.DataFrame(
            {
                "chrom": pd.Categorical(["chr1", "chr1", "chr2"]),
                "start": [4_500_000, 500, 5_000_000],
                "end": [4_500_500, 900, 5_000_500],
            },
            index=["a", "b", "c"],
        ),
    )
    assert near_cis(peaks, genes, ["ENSG1"]).tolist() == [True, False, False]


def test_columns_of_a_reference_of_genes() -> None:
    """Objects of the IGVF consortium have "gene_chr", "gene_start" and "gene_end"."""
    var = pd.DataFrame(
        {"gene_chr": ["chr9", "9", "chr1"], "gene_start": [100, 900_000, 100], "gene_end": [200, 900_100, 200]},
        index=["GFI1B", "a", "b"],
    )
    adata = ad.AnnData(np.zeros((3, 3), dtype=np.float32), var=var)
    assert near_cis(adata, adata, ["GFI1B"]).tolist() == [False, True, False]
    peaks = var.set_axis(["chrom", "start", "end"], axis=1).set_axis(["p", "q", "r"])
    other = ad.AnnData(np.zeros((3, 3), dtype=np.float32), var=peaks)
    assert near_cis(other, adata, ["GFI1B"]).tolist() == [True, True, False]
    adata.var = var.drop(columns="gene_end")
    assert near_cis(adata, adata, ["GFI1B"]) is None


def test_positions_may_be_text_with_commas(caplog: pytest.LogCaptureFixture) -> None:
    var = pd.DataFrame(
        {
            "chrom": "chr9",
            "start": ["1,200,010", "2,300,000", "9,000,000", "?"],
            "end": ["1,200,900", "2,300,500", "9,000,500", ""],
        },
        index=["GFI1B", "a", "b", "c"],
    )
    adata = ad.AnnData(np.zeros((3, 4), dtype=np.float32), var=var)
    assert near_cis(adata, adata, ["GFI1B"]).tolist() == [False, False, False, False]
    adata.var.loc["a", ["start", "end"]] = ["2,200,900", "2,200,950"]
    assert near_cis(adata, adata, ["GFI1B"]).tolist() == [False, True, False, False]
    tell_of_positions(adata, "tl.fit_trans")
    assert "tl.fit_trans: .var['start'] holds '?', which is no position: near_cis is False for 1 such" in caplog.text
    assert "'end'" not in caplog.text


def test_neighbours_of_targets_without_dosages() -> None:
    adata = ds.datasets.titration(800, 8, rng=0)
    far = np.arange(8) * 10_000_000
    adata.var["chrom"], adata.var["start"], adata.var["end"] = "chr9", far, far + 100
    cis, other = adata.var_names.get_loc("GFI1B"), next(n for n in adata.var_names if n != "GFI1B")
    adata.var.loc[other, ["start", "end"]] = [far[cis] + 500_000, far[cis] + 500_100]
    ds.tl.fit_technical(adata)
    ds.tl.fit_trans(adata, dosage="none", cis_targets="GFI1B")
    near = ds.get.trans(adata)["near_cis"]
    assert near[near].index.tolist() == [other]
