"""Dual-guide libraries: two guides of one target in every cell, against the same cells with one label each.

Guides are combined as labels, or left as a matrix. Then one of the two is not captured in 30 % of cells, or one cell in
twenty carries the guides of another too.

    python benchmarks/dual_guides.py [--seeds 10] [--cells 2000] [--genes 100]
"""

from __future__ import annotations

import argparse
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import dream_sc as ds

LOST, DOUBLETS = 0.3, 0.05


def pairs(labels: ad.AnnData, seed: int, *, lost: float = 0.0, doublets: float = 0.0) -> ad.AnnData:
    """The screen with two guides in place of each label, one of them missing in a share of cells, and doublets."""
    out, rng, n = labels.copy(), np.random.default_rng(seed), labels.n_obs
    names, code = np.unique(labels.obs["guide"].astype(str), return_inverse=True)
    target = labels.obs.drop_duplicates("guide").set_index("guide")["target"]
    x = np.zeros((n, 2 * len(names)), dtype=int)
    x[np.arange(n), 2 * code] = x[np.arange(n), 2 * code + 1] = 1
    one = np.flatnonzero(rng.random(n) < lost)
    x[one, 2 * code[one] + rng.integers(2, size=len(one))] = 0
    two = np.flatnonzero(rng.random(n) < doublets)
    other = code[rng.permutation(n)[: len(two)]]
    x[two, 2 * other] = x[two, 2 * other + 1] = 1
    out.obsm["umis"] = pd.DataFrame(x, out.obs_names, [f"{name}{which}" for name in names for which in "xy"])
    out.uns["umis_target"] = [str(target[name]) for name in names for _ in "xy"]
    del out.obs["guide"], out.obs["target"]
    return out


def fit(adata: ad.AnnData, guides: str | None = None) -> pd.DataFrame:
    """All three steps."""
    ds.tl.fit_technical(adata, batch_key="batch", guides=guides)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, progress=False)
    return ds.get.trans(adata)


def combined(adata: ad.AnnData, **options: Any) -> pd.DataFrame:
    """The fit with combinations as labels."""
    ds.pp.combine_guides(adata, "umis", **options)
    return fit(adata)


def matrix(adata: ad.AnnData) -> pd.DataFrame:
    """The fit with the guides as they are."""
    ds.pp.guide_matrix(adata, "umis")
    return fit(adata, guides="guides")


def one_seed(seed: int, n_cells: int, n_genes: int) -> list[dict[str, Any]]:
    """Calls of each way, against those of the labels and against the truth."""
    labels = ds.datasets.titration(n_cells, n_genes, rng=seed)
    var = labels.var
    null, movers = var["true_model"] == "null", (var["true_log2fc_range"] >= 1) & (var["true_baseline"] >= 0.5)
    movers &= var.index != "GFI1B"
    whole, part = pairs(labels, seed), pairs(labels, seed, lost=LOST)
    found = {
        "one label per cell": fit(labels),
        "pairs, labels": combined(whole.copy()),
        "pairs, matrix": matrix(whole),
        "30 % of cells with one of two, complete": combined(part.copy()),
        "30 % of cells with one of two, complete=False": combined(part, complete=False),
        "5 % doublets, labels": combined(pairs(labels, seed, doublets=DOUBLETS)),
    }
    base = found["one label per cell"]["qvalue"] < 0.05
    rows = []
    for way, table in found.items():
        called = table["qvalue"] < 0.05
        rows.append(
            {
                "way": way,
                "cells": table["n_cells"].max(),
                "calls": called.sum(),
                "other calls": (called != base).sum(),
                "false": (called & null).sum(),
                "found": (called & movers).sum() / movers.sum(),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--genes", type=int, default=100)
    options = parser.parse_args()
    rows = [row for seed in range(options.seeds) for row in one_seed(seed, options.cells, options.genes)]
    by_way = pd.DataFrame(rows).groupby("way", sort=False)
    mean, error = by_way.mean(), by_way.std() / np.sqrt(options.seeds)
    print((mean.round(2).astype(str) + " +- " + error.round(2).astype(str)).to_string())


if __name__ == "__main__":
    main()
