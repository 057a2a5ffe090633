"""How far each way to size factors restores the truth, and what false calls remain after the three steps.

    python benchmarks/size_factors.py [--seeds 10] [--genes 240] [--cells 4000] [--scenarios rising both depth]

Three simulated screens with 12 graded and 6 NTC guides in two batches. "rising": half of the genes rise with the
dosage, none fall, so that totals follow it. "both": half respond, up or down. "depth": 30 % respond, and the
real depth of the cells follows the dosage, 0.15 log2 per log2, so that size factors have to. Per way: slope over
dosage of the guides' mean log2 error, its range over guides, sd of the error of cells around it; after the three steps,
with the offsets of guides in the trans step on and off, false discovery proportion at q < 0.05 and the share of null
genes with p < 0.05, and the share of responders that are called.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds

WAYS = {
    "true": "the true ones",
    "total": 'method="total"',
    "median_ratio": 'method="median_ratio"',
    "unlabelled": 'method="stable", guide_key=None, target_key=None',
    "target": 'method="stable", guide_key=None',
    "stable": 'method="stable"',
    "adjusted": "total, then adjust_size_factors",
    "refitted": "total, then refit_size_factors",
}


def simulated(scenario: str, seed: int, n_genes: int, n_cells: int):
    if scenario == "depth":
        adata = ds.datasets.titration(n_cells, n_genes, rng=seed, mean_range=(-3.0, 4.0))
        gen = np.random.default_rng(seed + 1000)
        keep = 2.0 ** (0.15 * (adata.obs["true_log2_dosage"].to_numpy() - 1.5))
        x = adata.X.tocoo()
        thinned = gen.binomial(x.data.astype(int), np.minimum(keep, 1.0)[x.row]).astype(np.float32)
        adata.X = sparse.csr_matrix((thinned, (x.row, x.col)), adata.shape)
        adata.X.eliminate_zeros()
        adata.obs["true_size_factor"] *= np.minimum(keep, 1.0) / np.minimum(keep, 1.0).mean()
        return adata
    if scenario == "both":
        return ds.datasets.titration(
            n_cells, n_genes, rng=seed, single_fraction=0.5, additive_fraction=0.0, mean_range=(-3.0, 4.0)
        )
    adata = ds.datasets.titration(
        n_cells, 2 * n_genes, rng=seed, single_fraction=0.5, additive_fraction=0.0, mean_range=(-3.0, 4.0)
    )
    rising = np.flatnonzero((adata.var["true_hill_n"] > 0).to_numpy())[: n_genes // 2]
    null = np.flatnonzero((adata.var["true_model"] == "null").to_numpy())[: len(rising) + 1]
    return adata[:, np.sort(np.r_[null, rising])].copy()


def give(adata, way: str) -> None:
    """Write the size factors, and run the first two steps on them."""

    def steps() -> None:
        ds.tl.fit_technical(adata, batch_key="batch")
        ds.tl.fit_cis(adata, "GFI1B")

    if way == "true":
        adata.obs["size_factor"] = adata.obs["true_size_factor"]
    elif way in ("total", "adjusted", "refitted"):
        ds.pp.size_factors(adata, exclude=["GFI1B"])
    elif way == "median_ratio":
        ds.pp.size_factors(adata, exclude=["GFI1B"], method="median_ratio")
    else:
        keys = {"unlabelled": {"guide_key": None, "target_key": None}, "target": {"guide_key": None}, "stable": {}}
        ds.pp.size_factors(adata, exclude=["GFI1B"], method="stable", **keys[way])
    if way == "adjusted":
        ds.pp.adjust_size_factors(adata, by="batch")
    steps()
    if way == "refitted":
        ds.pp.refit_size_factors(adata)
        ds.tl.fit_cis(adata, "GFI1B")


def one(scenario: str, seed: int, way: str, n_genes: int, n_cells: int) -> dict[str, float]:
    adata = simulated(scenario, seed, n_genes, n_cells)
    give(adata, way)
    error = np.log2(adata.obs["size_factor"] / adata.obs["true_size_factor"])
    by_guide = error.groupby(adata.obs["guide"], observed=True)
    dosage = adata.obs["true_log2_dosage"].groupby(adata.obs["guide"], observed=True).mean()
    mean = by_guide.mean()
    out = {
        "slope": np.polyfit(dosage[mean.index], mean, 1)[0],
        "range": np.ptp(mean),
        "cell_sd": (error - by_guide.transform("mean")).std(),
    }
    null = (adata.var["true_model"] == "null").to_numpy() & (adata.var_names != "GFI1B")
    responds = (adata.var["true_model"] != "null").to_numpy()
    for offsets in (True, False):
        ds.tl.fit_trans(adata, guide_offsets=offsets, progress=False)
        table = ds.get.trans(adata)
        called, name = (table["qvalue"] < 0.05).to_numpy(), "on" if offsets else "off"
        out[f"fdp_{name}"] = (called & null).sum() / max(called.sum(), 1)
        out[f"p05_{name}"] = (table["pvalue"][null] < 0.05).mean()
        out[f"power_{name}"] = called[responds].mean()
    return out


def report(runs: pd.DataFrame) -> None:
    for scenario, part in runs.groupby("scenario", sort=False):
        print(f"\n{scenario}: means over {part['seed'].nunique()} seeds; range of the FDP over seeds in brackets")
        print("| size factors | slope | range | sd of cells | FDP, nulls p < 0.05, power: offsets on | ... off |")
        print("|---|---|---|---|---|---|")
        for way, rows in part.groupby("way", sort=False):
            m, cells = rows.mean(numeric_only=True), []
            for name in ("on", "off"):
                fdp, p05, power = (f"{m[f'{what}_{name}']:.2f}" for what in ("fdp", "p05", "power"))
                low, high = rows[f"fdp_{name}"].min(), rows[f"fdp_{name}"].max()
                cells.append(f"{fdp} ({low:.2f} to {high:.2f}), {p05}, {power}")
            bias = f"{rows['slope'].abs().mean():.3f} | {m['range']:.2f} | {m['cell_sd']:.2f}"
            print(f"| {WAYS[way]} | {bias} | {cells[0]} | {cells[1]} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--genes", type=int, default=240)
    parser.add_argument("--cells", type=int, default=4000)
    parser.add_argument("--scenarios", nargs="+", default=["rising", "both", "depth"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    options = parser.parse_args()
    runs = []
    for scenario in options.scenarios:
        for seed in range(options.seeds):
            for way in options.ways:
                row = one(scenario, seed, way, options.genes, options.cells)
                runs.append({"scenario": scenario, "seed": seed, "way": way} | row)
                shown = ", ".join(f"{k} {v:.3f}" for k, v in row.items())
                print(f"{scenario}, seed {seed}, {way}: {shown}", flush=True)
    report(pd.DataFrame(runs))


if __name__ == "__main__":
    main()
