"""Real cells divided at random into time points, which have no trend: how often does `tl.compare(order=)` call one?

Cells of a low-MOI CRISPRi screen (Schraivogel et al. 2020) with the guides of one target, and NTC cells, keep their
guides and counts. Three and four time points are drawn for each cell at random; in "lanes" the cells of the first lane
are divided into the first two of four time points, those of the second lane into the others, so that what differs
between lanes lies along the order. The steps of every time point run on its own cells. The data are not part of the
project: give their folder as --data or in the environment variable DREAM_SC_DATA.

    python benchmarks/ordered_cells.py --data FOLDER [--divisions 10] [--targets UBR5,HS2] [--null 100] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
import pandas as pd
from real_schraivogel import CONTROL, RUNS, load

import dream_sc as ds

LANES = "lanes"
WAYS = ("3", "4", LANES)  # number of time points, or the lanes in an order


def of_target(adata: object, label: str, gene: str) -> object:
    """The cells of a target and NTC cells, fitted."""
    own = adata[adata.obs["target"].isin([label, CONTROL]).to_numpy()].copy()
    ds.tl.fit_technical(own, batch_key="batch", control=CONTROL)
    ds.tl.fit_cis(own, gene, cis_targets=label)
    ds.tl.fit_trans(own, progress=False)
    return own


def divided(adata: object, way: str, rng: np.random.Generator) -> np.ndarray:
    """The time point of each cell."""
    if way != LANES:
        return rng.integers(0, int(way), adata.n_obs)
    lane = pd.factorize(adata.obs["batch"].astype(str), sort=True)[0]
    return 2 * lane + rng.integers(0, 2, adata.n_obs)


def one(adata: object, way: str, seed: int, n_null: int) -> dict[str, float]:
    """Trends and differences that are called in one division, and small p-values."""
    adata.obs["time"] = divided(adata, way, np.random.default_rng([seed, WAYS.index(way)]))
    started = time.process_time()
    ds.tl.compare(adata, "time", order=True, n_null=n_null, rng=seed, progress=False)
    table = ds.get.compare(adata)
    table = table[table["status"] == "compared"]
    p = table["pvalue_trend"]
    return {
        "features": len(table),
        "trends": (table["qvalue_trend"] < 0.05).sum(),
        "differs": (table["qvalue_differs"] < 0.05).sum(),
        "responds": (table["hypothesis"] != "null").sum(),
        "p_005": (p < 0.05).mean(),
        "p_02": (p < 0.2).mean(),
        "seconds": time.process_time() - started,
    }


def line(name: str, rows: pd.DataFrame) -> str:
    """A row of the table."""
    p, se = rows[["p_005", "p_02"]].mean(), rows[["p_005", "p_02"]].std() / len(rows) ** 0.5
    return (
        f"| {name} | {len(rows)} | {rows['features'].mean():.0f}, {rows['responds'].mean():.1f} | "
        f"{(rows['trends'] > 0).sum()}, {rows['trends'].sum()} | {(rows['differs'] > 0).sum()}, "
        f"{rows['differs'].sum()} | {p['p_005']:.3f} ± {se['p_005']:.3f} | {p['p_02']:.3f} ± {se['p_02']:.3f} | "
        f"{rows['seconds'].mean():.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("DREAM_SC_DATA"))
    parser.add_argument("--divisions", type=int, default=10, help="of each target and way")
    parser.add_argument("--targets", default="UBR5,HS2")
    parser.add_argument("--null", type=int, default=100, help="simulated features for p-values")
    parser.add_argument("--seed", type=int, default=0, help="of the first division")
    args = parser.parse_args()
    ds.settings.verbosity = "error"
    adata = load(args.data)
    if adata is None:
        print("no real screen: give its folder as --data")
        return
    print("| target, time points | divisions | features, of which respond | divisions with a trend, trends ", end="")
    print("| divisions with a difference, differences | p < 0.05 | p < 0.2 | seconds of a division |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    every = []
    for label in args.targets.split(","):
        gene = next(gene for gene, of in RUNS.values() if of == label)
        own = of_target(adata, label, gene)
        for way in WAYS:
            rows = [one(own, way, args.seed + i, args.null) for i in range(args.divisions)]
            every.append(pd.DataFrame(rows))
            print(line(f"{label}, {way}", every[-1]), flush=True)
    print(line("all", pd.concat(every)))


if __name__ == "__main__":
    main()
