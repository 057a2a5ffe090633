"""Objects laid out as the documentation of each format says, small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def igvf() -> Callable[..., Any]:
    """A MuData as the IGVF pipeline writes it."""
    import mudata as md

    def made(moi: str | None = "low", **change: Any) -> Any:
        genes = ad.AnnData(
            sparse.csr_matrix(np.array([[3, 0], [1, 2], [0, 5], [2, 2], [1, 0]])),
            pd.DataFrame({"batch": pd.Categorical(list("aabba")), "total_gene_umis": [3, 3, 5, 4, 1]}, list("vwxyz")),
            pd.DataFrame({"symbol": ["GFI1B", "TBCE"], "gene_chr": "chr9", "gene_start": 1.0}, ["ENSG1", "ENSG2"]),
        )
        assigned = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0]])
        var = pd.DataFrame(
            {
                "guide_id": ["g1", "g2", "n1", "s1"],
                "spacer": "ACGT",
                "targeting": [True, True, False, False],
                "type": ["targeting", "targeting", "non-targeting", "safe-targeting"],
                "intended_target_name": ["ENSG1", "ENSG1", "non-targeting|3", "chr1:5-9"],
                "intended_target_chr": ["chr9", "chr9", np.nan, "chr1"],
                "intended_target_start": [100.0, 100.0, np.nan, 5.0],
                "intended_target_end": [200.0, 200.0, np.nan, 9.0],
            },
            ["g1", "g2", "n1", "s1"],
        )
        for column, values in change.items():
            var[column] = values
        obs = pd.DataFrame({"batch": pd.Categorical(list("abba")), "total_guide_umis": [9, 8, 7, 20]}, list("vxwy"))
        guides = ad.AnnData(sparse.csr_matrix(9 * assigned), obs, var)
        guides.layers["guide_assignment"] = sparse.csr_matrix(assigned)
        guides.uns["capture_method"] = np.array(["crop-seq"], dtype=object)
        if moi is not None:
            guides.uns["moi"] = np.array([moi], dtype=object)
        return md.MuData({"gene": genes, "guide": guides})

    return made


@pytest.fixture(scope="package")
def fitted() -> ad.AnnData:
    """A fit of 24 genes, a third of which respond."""
    adata = ds.datasets.titration(1500, 24, rng=3, single_fraction=0.35, mean_range=(0.0, 4.0))
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=100)
    return adata
