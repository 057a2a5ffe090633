"""False discoveries and dosages among calls of high, moderate and low confidence, on simulated screens.

    python benchmarks/confidence.py [--seeds 4] [--genes 400] [--cells 4000]

Screens of the calibration study: without nuisance, with guide shifts (in all pairs of guide and gene, or sparse and
large), with errors of size factors and cell states besides, and with four targeting guides. Reported over seeds, for
each level of confidence: calls, false ones among them, the sign of the fold change at the strongest knock-down that is
right, and coverage of its 95 % interval. Besides, "not called": genes that the running mean of the local FDR alone
would call at 0.05, and that are not, since each is more probably null than not (`lfdr` above 0.5).
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from calibration.scenarios import GRID

import dream_sc as ds

SCENARIOS = ("plain", "shift_015", "shift_sparse", "all_sparse", "targeting_4")
LEVELS = ("high", "moderate", "low", "not called")


def one(name: str, seed: int, n_genes: int, n_cells: int) -> pd.DataFrame:
    adata = GRID[name].simulate(seed, n_genes=n_genes, n_cells=n_cells)
    ds.tl.fit_technical(adata, batch_key="batch", progress=False)
    ds.tl.fit_cis(adata, "GFI1B", progress=False)
    ds.tl.fit_trans(adata, progress=False)
    table = ds.get.trans(adata).dropna(subset=["qvalue"]).sort_values("lfdr")
    running = table["lfdr"].expanding().mean()
    called = table[(table["qvalue"] < 0.05) | ((table["lfdr"] > 0.5) & (running < 0.05))]
    strongest = adata.uns["titration"]["guides"]["log2_dosage"].min()
    curves = np.log2(ds.datasets.true_curve(adata, list(called.index), np.array([strongest, 0.0])))
    truth = curves[:, 0] - curves[:, 1]
    false = (adata.var.loc[called.index, "true_model"] == "null").to_numpy()
    return pd.DataFrame(
        {
            "scenario": name,
            "confidence": called["confidence"].astype(object).fillna("not called").to_numpy(),
            "false": false,
            "sign": np.where(false, np.nan, np.sign(called["log2fc_full"].to_numpy()) == np.sign(truth)),
            "covered": np.where(
                false, np.nan, (called["log2fc_full_q025"] <= truth) & (truth <= called["log2fc_full_q975"])
            ),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--genes", type=int, default=400)
    parser.add_argument("--cells", type=int, default=4000)
    options = parser.parse_args()
    parts = [
        one(name, seed, options.genes, options.cells) for name in SCENARIOS for seed in range(1, options.seeds + 1)
    ]
    calls = pd.concat(parts, ignore_index=True)
    groups = calls.groupby(["scenario", "confidence"])
    table = groups.agg(
        calls=("false", "size"), false=("false", "sum"), sign=("sign", "mean"), covered=("covered", "mean")
    )
    order = pd.MultiIndex.from_product([SCENARIOS, LEVELS], names=table.index.names)
    print(table.reindex(order).fillna({"calls": 0, "false": 0}).to_string(float_format="{:.3f}".format))
    total = calls.groupby("confidence").agg(calls=("false", "size"), false=("false", "sum")).reindex(LEVELS)
    print(total.assign(share_false=total["false"] / total["calls"]).to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
