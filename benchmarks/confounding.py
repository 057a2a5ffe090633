"""What `tl.check_confounding` flags where nothing is confounded, and where something is.

    python benchmarks/confounding.py [--seeds 60] [--planted 10] [--cells 2000] [--genes 120]

Simulated titrations, 12 graded and 6 NTC guides, two batches, guide shifts of sd 0.05 log2 and 30 % of responders;
beside them a numeric covariate ("mito"), a categorical one ("phase"). "clean": nothing else; the share of data sets
with any flag (two rules of 5 % each), and how often p-values are below 0.05. The others plant one confounder each, and
the share of data sets is given in which a row of it is flagged.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds

# scenario: what has to be flagged
PLANTED = {
    "size factors 2^(0.1 dosage) too large": "size factor",
    "... and seen in stable features": "offset of stable features",
    "depth 2^(0.1 dosage), real": "depth",
    "mito 0.1 sd higher per log2 of dosage": "mito",
    "mito 0.3 sd higher in targeted cells": "mito",
    "phase: G1 falls by 0.05 per log2 of dosage": "phase",
    "batch 2 rises by 0.05 per log2 of dosage": "batch",
    "NTC cells in batch 1 only": "batch",
    "targeted cells in batch 2, batches not given": "expression at NTC dosage",
}


def simulated(seed: int, scenario: str, n_cells: int, n_genes: int):
    apart = scenario == "targeted cells in batch 2, batches not given"
    adata = ds.datasets.titration(
        n_cells, n_genes, rng=seed, guide_shift_sd=0.05, mean_range=(-2.0, 4.0), group_confounding=0.8 if apart else 0.0
    )
    gen = np.random.default_rng(seed + 1000)
    x = adata.obs["true_log2_dosage"].to_numpy()
    targeted = (adata.obs["target"] != "NTC").to_numpy()
    adata.obs["mito"] = gen.gamma(4.0, 0.5, n_cells)
    adata.obs["phase"] = gen.choice(["G1", "S", "G2M"], n_cells, p=[0.5, 0.3, 0.2])
    if scenario in ("size factors 2^(0.1 dosage) too large", "... and seen in stable features"):
        adata.obs["size_factor"] *= 2.0 ** (0.1 * x)
    elif scenario == "depth 2^(0.1 dosage), real":
        keep = np.minimum(2.0 ** (0.1 * (x - 1.5)), 1.0)
        cells = adata.X.tocoo()
        thinned = gen.binomial(cells.data.astype(int), keep[cells.row]).astype(np.float32)
        adata.X = sparse.csr_matrix((thinned, (cells.row, cells.col)), adata.shape)
        adata.obs["size_factor"] *= keep
    elif scenario == "mito 0.1 sd higher per log2 of dosage":
        adata.obs["mito"] += 0.1 * x
    elif scenario == "mito 0.3 sd higher in targeted cells":
        adata.obs["mito"] += 0.3 * targeted
    elif scenario == "phase: G1 falls by 0.05 per log2 of dosage":
        moved = (adata.obs["phase"] == "G1") & (gen.random(n_cells) < np.clip(0.1 * (x + 3.0), 0, 1))
        adata.obs.loc[moved, "phase"] = "S"
    elif scenario == "batch 2 rises by 0.05 per log2 of dosage":
        adata.obs["batch"] = np.where(gen.random(n_cells) < 0.5 + 0.05 * (x + 1.0), "batch_2", "batch_1")
    elif scenario == "NTC cells in batch 1 only":
        adata.obs["batch"] = np.where(targeted & (gen.random(n_cells) < 0.5), "batch_2", "batch_1")
    return adata, not (apart or scenario == "NTC cells in batch 1 only")


def checked(seed: int, scenario: str, n_cells: int, n_genes: int) -> pd.DataFrame:
    adata, known = simulated(seed, scenario, n_cells, n_genes)
    ds.tl.fit_technical(adata, batch_key="batch" if known else None)
    ds.tl.fit_cis(adata, "GFI1B")
    batch = None if scenario == "targeted cells in batch 2, batches not given" else "batch"
    table = ds.tl.check_confounding(adata, covariates=["mito", "phase"], batch_key=batch)
    p = adata.varm["confounding"]["pvalue"].dropna()
    return table.assign(seed=seed, features_p05=(p < 0.05).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--planted", type=int, default=10)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--genes", type=int, default=120)
    options = parser.parse_args()
    size = options.cells, options.genes
    clean = pd.concat([checked(seed, "clean", *size) for seed in range(options.seeds)])
    alone = clean["what"] == "expression at NTC dosage"
    n = options.seeds
    print(f"clean, {n} data sets")
    print(f"  any flag of those adjusted together {clean[~alone].groupby('seed')['flag'].any().mean():.3f}")
    print(f"  flag of expression at NTC dosage    {clean[alone]['flag'].mean():.3f}")
    print(f"  any flag                            {clean.groupby('seed')['flag'].any().mean():.3f}")
    print(f"  features with p < 0.05              {clean[alone]['features_p05'].mean():.3f}")
    for (what, which), rows in clean.groupby(["what", clean.groupby(["seed", "what"]).cumcount()], sort=False):
        if rows["pvalue"].notna().any():
            print(f"  p < 0.05: {what}, row {which + 1}: {(rows['pvalue'].dropna() < 0.05).mean():.3f}")
    for scenario, what in PLANTED.items():
        runs = pd.concat([checked(seed, scenario, *size) for seed in range(options.planted)])
        flags = runs.groupby(["seed", "what"])["flag"].any().unstack()
        others = flags.drop(columns=what).mean()
        more = ", ".join(f"{k} {v:.2f}" for k, v in others[others > 0].items())
        print(f"{scenario}: {what} {flags[what].mean():.2f}; others: {more or 'none'}", flush=True)


if __name__ == "__main__":
    main()
