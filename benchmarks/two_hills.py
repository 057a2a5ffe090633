"""Intervals of fold changes where the truth is two Hills: described by two, or by one.

    python benchmarks/two_hills.py [--seeds 3] [--genes 300] [--cells 4000]

Simulated titrations in which three genes of ten are sums of two Hills, one of ten is a single Hill. For genes that are
called, by the truth and by the model that describes them: how many, coverage of the 95 % intervals of the fold changes,
each at the dosage at which the table has it, and how far these are off (median).
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

import dream_sc as ds

ENDS = {"log2fc_full": "log2_dosage_full", "log2fc_max": "log2_dosage_max"}


def one(seed: int, n_genes: int, n_cells: int) -> pd.DataFrame:
    adata = ds.datasets.titration(n_cells, n_genes, rng=seed, single_fraction=0.1, additive_fraction=0.3)
    ds.tl.fit_technical(adata, batch_key="batch", progress=False)
    ds.tl.fit_cis(adata, "GFI1B", progress=False)
    ds.tl.fit_trans(adata, progress=False)
    called = ds.get.responders(adata)
    out = pd.DataFrame({"truth": adata.var.loc[called.index, "true_model"].astype(str), "model": called["model"]})
    for name, at in ENDS.items():
        dosages = np.append(called[at].dropna().unique(), 0.0)
        curve = np.log2(ds.datasets.true_curve(adata, list(called.index), dosages))
        truth = (curve[:, :-1] - curve[:, -1:])[:, 0]
        out[name] = (called[f"{name}_q025"] <= truth) & (truth <= called[f"{name}_q975"])
        out[f"{name} off"] = (called[name] - truth).abs()
        assert len(dosages) == 2
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--cells", type=int, default=4000)
    given = parser.parse_args()
    every = pd.concat([one(seed, given.genes, given.cells) for seed in range(1, given.seeds + 1)])
    every["model"] = every["model"].astype(str)
    groups = every[every["truth"] != "null"].groupby(["truth", "model"])
    table = groups[list(ENDS)].mean().add_suffix(": coverage")
    table.insert(0, "calls", groups.size())
    print(table.join(groups[[f"{name} off" for name in ENDS]].median()).to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
