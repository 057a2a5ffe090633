"""A real screen with many guides per cell (Gasperini et al. 2019): knock-downs of targets whose promoter is hit.

One technical fit on all cells, then the cis step for each positive control, its two guides against every cell without
them. Raw: log2 of the mean counts per total of the cells with a guide over those without.

    python benchmarks/real_gasperini.py --data FOLDER     # or DREAM_SC_DATA
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import dream_sc as ds

FILE = "gasperini2019_k562_crispri_highmoi.h5ad"


def read(path: Path) -> ad.AnnData:
    """Counts, the matrix of guides with its targets, size factors from all genes."""
    adata = ad.read_h5ad(path)
    table = adata.uns["guide_table"]
    ds.pp.guide_matrix(adata, "guide", targets=dict(zip(table["grna_id"], table["grna_group"], strict=True)))
    adata.obs["size_factor"] = adata.obs["total_gene_umis"] / adata.obs["total_gene_umis"].mean()
    return adata


def raw(adata: ad.AnnData, gene: str, guide: str) -> tuple[float, float]:
    """Log2 ratio of means, and mean count in cells without the guide."""
    has = adata.obsm["guides"][:, [list(adata.uns["guides_ids"]).index(guide)]].toarray().ravel() > 0
    y, s = np.asarray(adata[:, gene].X.todense()).ravel(), adata.obs["size_factor"].to_numpy()
    level = [y[m].sum() / s[m].sum() for m in (has, ~has)]
    return float(np.log2(level[0] / level[1])), float(level[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("DREAM_SC_DATA", "."))
    path = Path(parser.parse_args().data) / FILE
    if not path.exists():
        print(f"skipped: {FILE} is not there, name its folder as --data")
        return
    adata = read(path)
    start = time.perf_counter()
    ds.tl.fit_technical(adata, batch_key="batch", guides="guides", control="non-targeting", use_all_cells=True)
    print(f"fit_technical: {time.perf_counter() - start:.1f} s")
    rows = []
    for target, gene in adata.uns["positive_control_pairs"].itertuples(index=False):
        start = time.perf_counter()
        ds.tl.fit_cis(adata, gene, cis_targets=target, control_group="complement")
        seconds = time.perf_counter() - start
        table = ds.get.guides(adata)
        table = table[~table["is_control"]]
        start = time.perf_counter()
        ds.tl.fit_trans(adata, progress=False)
        trans = time.perf_counter() - start
        found = ds.get.trans(adata)
        for i, (guide, row) in enumerate(table.iterrows(), 1):
            ratio, mean = raw(adata, gene, guide)
            rows.append(
                {
                    "target": target,
                    "guide": i,
                    "cells": row["n_cells"],
                    "mean": mean,
                    "raw": ratio,
                    "log2fc": row["log2fc"],
                    "q025": row["log2fc_q025"],
                    "q975": row["log2fc_q975"],
                    "off_0": row["log2fc_q975"] < 0,
                    "escaping": row["escaper_fraction"],
                    "cis_s": seconds,
                    "trans_s": trans,
                    "calls": int((found["qvalue"] < 0.05).sum()),
                }
            )
    frame = pd.DataFrame(rows)
    print(frame.round(2).to_string(index=False))
    by = frame.groupby("target").agg(raw=("raw", "max"), off_0=("off_0", "all"))
    shows = by["raw"] < -0.2
    found = (by["off_0"] & shows).sum()
    print(f"{found} of {shows.sum()} targets whose raw means fall by 0.2 log2 in both guides are found")


if __name__ == "__main__":
    main()
