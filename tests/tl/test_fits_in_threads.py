"""Fits that run at the same time in threads of one process give what they give one after the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")


def _ready(seed: int) -> ad.AnnData:
    adata = ds.datasets.titration(300, 6, rng=seed, n_guides=6, mean_range=(0.0, 3.0))
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    return adata


@pytest.mark.parametrize(
    "how",
    [
        {"nsamples": 50, "function_type": "single_hill"},
        {"inference": "svi", "niters": 15, "nsamples": 20, "function_type": "single_hill"},
    ],
    ids=["laplace", "svi"],
)
def test_two_at_once_give_what_two_in_a_row_give(how: dict[str, Any]) -> None:
    data = [_ready(1), _ready(2), _ready(1)]
    in_a_row = [ds.tl.fit_trans(adata, rng=i, progress=False, copy=True, **how) for i, adata in enumerate(data)]
    with ThreadPoolExecutor(3) as pool:
        jobs = [
            pool.submit(ds.tl.fit_trans, adata, rng=i, progress=False, copy=True, **how) for i, adata in enumerate(data)
        ]
        at_once = [job.result() for job in jobs]
    for one, other in zip(in_a_row, at_once, strict=True):
        pd.testing.assert_frame_equal(other.varm["trans"], one.varm["trans"], check_exact=True)
        np.testing.assert_array_equal(other.varm["trans_posterior"], one.varm["trans_posterior"])
