"""A CRISPRi and a CRISPRa line in one object: one dosage axis across lines, technical effects from NTC cells of both.

The lines differ in every gene (group effects of 0.5 log2); the same guides knock down in one and activate in the other.

    python benchmarks/two_lines.py [--seeds 10]
"""

from __future__ import annotations

import argparse

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds

LINES = {"CRISPRi": (-3.0, -0.2), "CRISPRa": (0.2, 1.5)}


def simulate(seed: int, n_cells: int, n_genes: int) -> ad.AnnData:
    """Half of the guides of a titration are taken for those of the second line; NTC cells are in both."""
    adata = ds.datasets.titration(
        n_cells,
        n_genes,
        rng=seed,
        n_guides=12,
        n_ntc_guides=12,
        n_groups=1,
        dosage_range=(-3.0, 1.5),
        guide_shift_sd=0.1,
    )
    rng = np.random.default_rng([seed, 1])
    truth = adata.uns["titration"]["guides"].set_index("guide")["log2_dosage"]
    guide = adata.obs["guide"].astype(str)
    ntc = (adata.obs["target"] == "NTC").to_numpy()
    activating = np.where(ntc, rng.random(n_cells) < 0.4, truth[guide].to_numpy() > 0)
    adata.obs["line"] = np.where(activating, "CRISPRa", "CRISPRi")
    # a line's cells have each gene at a level of their own: counts are thinned by its effect
    effect = np.minimum(0.0, rng.normal(0, 0.5, n_genes))
    x = sparse.coo_matrix(adata.X)
    keep = np.where(activating[x.row], 2.0 ** effect[x.col], 1.0)
    x.data = rng.binomial(x.data.astype(np.int64), keep).astype(np.float32)
    adata.X = x.tocsr()
    return adata


def one(seed: int, n_cells: int, n_genes: int, batch_key: str | None) -> dict[str, float]:
    """Errors of the dosages, false calls and power."""
    adata = simulate(seed, n_cells, n_genes)
    ds.tl.fit_technical(adata, batch_key=batch_key)
    ds.tl.fit_cis(adata, "GFI1B", guide_covariate_key=batch_key)
    ds.tl.fit_trans(adata, progress=False)
    table = ds.get.guides(adata)
    table = table[~table["is_control"]]
    truth = adata.uns["titration"]["guides"].set_index("guide")["log2_dosage"]
    truth = truth.reindex(table.index.str.partition("|").get_level_values(0)).to_numpy()
    inside = (truth > table["log2fc_q025"]) & (truth < table["log2fc_q975"])
    found, var = ds.get.trans(adata).iloc[1:], adata.var.iloc[1:]
    called, null = found["qvalue"] < 0.05, var["true_model"] == "null"
    movers = (var["true_log2fc_range"] >= 1) & (var["true_baseline"] >= 0.5)
    return {
        "guide_rmse": float(np.sqrt(((table["log2_dosage"] - truth) ** 2).mean())),
        "guide_coverage": inside.mean(),
        "fdp": (called & null).sum() / max(called.sum(), 1),
        "calls": called.sum(),
        "power": called[movers].mean(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--cells", type=int, default=6000)
    parser.add_argument("--genes", type=int, default=300)
    args = parser.parse_args()
    for batch_key in ("line", None):
        rows = pd.DataFrame([one(seed, args.cells, args.genes, batch_key) for seed in range(args.seeds)])
        print(f"batch_key={batch_key!r}, guide_covariate_key={batch_key!r}")
        print(pd.DataFrame({"mean": rows.mean(), "se": rows.std() / len(rows) ** 0.5}).T.round(3).to_string())
    adata = simulate(0, args.cells, 20)
    adata.obs["line"] = np.where(adata.obs["target"] == "NTC", "CRISPRi", adata.obs["line"])
    for all_cells in (True, False):
        try:
            ds.tl.fit_technical(adata, batch_key="line", use_all_cells=all_cells)
            ds.tl.fit_cis(adata, "GFI1B")
        except ValueError as error:
            print(f"NTC in one line only, use_all_cells={all_cells}: {error}")


if __name__ == "__main__":
    main()
