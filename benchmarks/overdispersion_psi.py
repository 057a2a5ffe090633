"""Beta-binomial against binomial shares on real splice junctions: what the marginal likelihoods say.

Junctions of CD47, LMO7, MYL6 and RPS24 in cells of the human lung, in the file named below, in a folder named as --data
or in the environment variable DREAM_SC_DATA. Without it the program says so and ends. The sticks of each donor (or
acceptor) are fitted with and without overdispersion between cells, with no groups, with compartments, and with cell
types in samples as groups: what groups explain is not noise.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

FILE = "spliz_human_lung_junctions.h5ad"
LEAST_CELLS = 50  # of a group
GROUPS = {"none": [], "compartment": ["compartment"], "cell type and sample": ["cell_type", "sample"]}
KEYS = ("donor_group", "acceptor_group")


def compare(adata: ad.AnnData, key: str, columns: list[str]) -> pd.DataFrame:
    """A row per stick: both log evidences, overdispersion."""
    from dream_sc._core.likelihoods import likelihood
    from dream_sc._core.priors import SharePriors
    from dream_sc._core.sums.share_sums import share_stats
    from dream_sc._core.technical.shares import technical_shares
    from dream_sc._data.shares import open_pairs

    group = pd.Series("all", adata.obs_names)
    for column in columns:
        group = group + "|" + adata.obs[column].astype(str)
    size = group.map(group.value_counts())
    code = np.where(size >= LEAST_CELLS, pd.factorize(group.where(size >= LEAST_CELLS))[0], -1)
    pairs = open_pairs(adata, likelihood("multinomial"), category_key=key)
    stats = share_stats(pairs.blocks(), code, int(code.max()) + 1, pairs.n_sticks, pairs.largest())
    reads = (stats.numerator + stats.rest).sum(1)
    some = reads >= 3
    over, plain = (technical_shares(stats.take(some), SharePriors(), o) for o in (True, False))
    table = pairs.sticks.table()[some].assign(
        reads=reads[some],
        reads_twice=stats.tail_total[some].sum(1),
        rho=over.overdispersion,
        log_bf=over.log_evidence - plain.log_evidence,
        sd_ratio=over.level_sd / plain.level_sd,
    )
    names = " and ".join(columns) or "none"
    print(f"\n{key}, groups: {names} ({code.max() + 1}), {len(table)} sticks, beta_o {over.beta_o:.1f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("DREAM_SC_DATA"), help="folder of the data [DREAM_SC_DATA]")
    args = parser.parse_args()
    path = Path(args.data or ".") / FILE
    if not path.exists():
        print(f"skipped: {FILE} is not there; name its folder as --data or in DREAM_SC_DATA")
        return
    adata = ad.read_h5ad(path)
    rows = []
    for key in KEYS:
        for name, columns in GROUPS.items():
            start = time.perf_counter()
            table = compare(adata, key, columns)
            seconds = time.perf_counter() - start
            print(table.sort_values("reads", ascending=False).head(8).round(3).to_string(index=False))
            rows.append(
                {
                    "categories share": key.removesuffix("_group"),
                    "groups": name,
                    "sticks": len(table),
                    "total log Bayes factor": table["log_bf"].sum(),
                    "sticks above 3": (table["log_bf"] > 3).sum(),
                    "below -3": (table["log_bf"] < -3).sum(),
                    "least": table["log_bf"].min(),
                    "median rho": table["rho"].median(),
                    "median rho, 500 reads": table.loc[table["reads"] >= 500, "rho"].median(),
                    "seconds": seconds,
                }
            )
    print("\nbeta-binomial over binomial (natural log):")
    print(pd.DataFrame(rows).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
