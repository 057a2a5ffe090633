"""Coverage of the dosages of `get.doses`, and error rates of the p-values of `get.guide_effects`.

    python benchmarks/doses.py [--seeds 3] [--genes 200] [--cells 4000]

Screens of the calibration study, without nuisance and with guide shifts of sd 0.15 log2. Dosages: over called genes
that respond, whether the 95 % interval holds the dosage at which the true curve has done a tenth, half and nine tenths
of its movement to the strongest knock-down, and the median error. P-values: of single guides, over genes that do not
respond.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from calibration.scenarios import GRID

import dream_sc as ds

SCENARIOS = ("plain", "shift_015")


def fitted(name: str, seed: int, n_genes: int, n_cells: int):
    adata = GRID[name].simulate(seed, n_genes=n_genes, n_cells=n_cells)
    ds.tl.fit_technical(adata, batch_key="batch", progress=False)
    ds.tl.fit_cis(adata, "GFI1B", progress=False)
    ds.tl.fit_trans(adata, progress=False)
    return adata


def of_doses(adata) -> pd.DataFrame:
    """The dosages of called genes beside the true ones."""
    table = ds.get.doses(adata)
    table = table[(adata.var.loc[table["feature"], "true_model"] != "null").to_numpy()]
    end = adata.uns["titration"]["guides"]["log2_dosage"].min()  # the strongest knock-down
    x = np.linspace(0.0, end, 4001)
    truth = []
    for name, own in table.groupby("feature", sort=False):
        curve = ds.datasets.true_curve(adata, str(name), x)[0]
        share = (curve - curve[0]) / (curve[-1] - curve[0])
        truth += [x[(share >= level).argmax()] for level in own["level"]]
    inside = (table["q025"] <= truth) & (truth <= table["q975"])
    return table.assign(inside=inside, error=(table["log2_dosage"] - truth).abs())


def of_guides(adata) -> pd.DataFrame:
    """P-values of the guides of genes that do not respond, and were fitted."""
    there = ds.get.trans(adata)["lfdr"].notna().to_numpy() & (adata.var["true_model"] == "null").to_numpy()
    return ds.get.guide_effects(adata, list(adata.var_names[there]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--genes", type=int, default=200)
    parser.add_argument("--cells", type=int, default=4000)
    options = parser.parse_args()
    for name in SCENARIOS:
        fits = [fitted(name, seed, options.genes, options.cells) for seed in range(1, options.seeds + 1)]
        doses = pd.concat([of_doses(adata) for adata in fits])
        print(f"{name}: dosages of {len(doses) // 3} called genes")
        print(doses.groupby("level").agg(covered=("inside", "mean"), error=("error", "median")).round(3).to_string())
        guides = pd.concat([of_guides(adata) for adata in fits])
        for label, part in guides.groupby("is_control"):
            rates = ", ".join(f"{(part['pvalue'] < p).mean():.4f} below {p:g}" for p in (0.05, 0.005))
            print(f"{'NTC' if label else 'targeting'} guides of null genes, p: {rates}")
        print(f"difference from the curve, p: {(guides['p_fitted'] < 0.05).mean():.4f} below 0.05", flush=True)


if __name__ == "__main__":
    main()
