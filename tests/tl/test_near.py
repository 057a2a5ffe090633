"""Features near the cis gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np

import dream_sc as ds

if TYPE_CHECKING:
    from pathlib import Path


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
