"""Does the fit find back what it says? Counts simulated again from fits (`datasets.from_fit`), and fitted again.

    python benchmarks/recapitulation.py [--seeds 3] [--data FOLDER]

The first data are a simulated titration, the second the UBR5 guides of a real screen (Schraivogel et al. 2020), which
is looked for in --data or in the environment variable DREAM_SC_DATA and left out where it is not. For each seed: how
many features respond in the truth, how many are called, false ones, and how often intervals hold the truth.
"""

from __future__ import annotations

import argparse
import os

import anndata as ad
import numpy as np
import pandas as pd
import real_schraivogel

import dream_sc as ds

Q = 0.05
CLEAR = 0.5  # log2


def simulated() -> tuple[ad.AnnData, dict[str, str], dict[str, str]]:
    adata = ds.datasets.titration(4000, 400, rng=0, guide_shift_sd=0.1)
    return adata, {}, {"cis_gene": "GFI1B"}


def real(folder: str | None) -> tuple[ad.AnnData, dict[str, str], dict[str, str]] | None:
    adata = real_schraivogel.load(folder)
    if adata is None:
        return None
    technical = {"batch_key": "batch", "control": real_schraivogel.CONTROL}
    return adata, technical, {"cis_gene": "UBR5", "cis_targets": "UBR5"}


def fit(adata: ad.AnnData, technical: dict[str, str], cis: dict[str, str]) -> pd.DataFrame:
    ds.tl.fit_technical(adata, **technical, progress=False)
    ds.tl.fit_cis(adata, **cis, progress=False)
    ds.tl.fit_trans(adata, progress=False)
    return ds.get.trans(adata)


def compare(table: pd.DataFrame, again: ad.AnnData) -> dict[str, float]:
    """The table of simulated counts against their truth."""
    truth = again.var.loc[table.index]
    responds = ~truth["true_model"].isin(["null", "cis_gene"])
    called = (table["qvalue"] < Q) & (table["lfdr"] < 0.5)
    clear = responds & (truth["true_log2fc_full"].abs() > CLEAR)

    def holds(name: str, rows: pd.Series) -> float:
        of = truth[f"true_{name}"]
        return float(((table[f"{name}_q025"] <= of) & (of <= table[f"{name}_q975"]))[rows].mean())

    guides = again.uns["cis"]["guides"].set_index("guide")
    guides = guides[~guides["is_control"]]
    dosage = again.uns["from_fit"]["guides"].set_index("guide")["log2_dosage"].reindex(guides.index)
    within = (guides["log2fc_q025"] <= dosage) & (dosage <= guides["log2fc_q975"])
    found = called & responds
    hills = found & truth["true_log2_ec50"].notna() & table["log2_ec50_q025"].notna()
    return {
        "respond": int(responds.sum()),
        f"of these beyond {CLEAR} log2": int(clear.sum()),
        "called": int(called.sum()),
        "false": int((called & ~responds).sum()),
        f"found beyond {CLEAR} log2": float(called[clear].mean()),
        "coverage log2fc_full": holds("log2fc_full", found),
        "coverage log2_ec50": holds("log2_ec50", hills),
        "coverage of guides": float(within.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", default=os.environ.get("DREAM_SC_DATA"))
    given = parser.parse_args()
    for name, found in (("titration", simulated()), ("Schraivogel, UBR5", real(given.data))):
        if found is None:
            print(f"{name}: {real_schraivogel.FILE} is not in {given.data}")
            continue
        adata, technical, cis = found
        fit(adata, technical, cis)
        rows = []
        for seed in range(given.seeds):
            again = ds.datasets.from_fit(adata, rng=seed)
            rows.append(compare(fit(again, technical, cis), again))
        table = pd.DataFrame(rows)
        n = len(table)
        print(f"{name}: {again.n_obs} cells, {again.n_vars} features, {n} seeds")
        se = table.std(ddof=1) / np.sqrt(n)
        print(pd.DataFrame({"mean": table.mean(), "se": se}).round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()
