"""Formats of other tools: how far the p-values of single guides hold, and how long reading and writing take.

"null": simulated titrations in which no gene responds, the table of guides of `io.to_igvf`. "time": a screen of the
size named, read by `io.read_cellranger`, and tables written from a fit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds

NULLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "guide shifts 0.1": {"guide_shift_sd": 0.1},
    "guide shifts 0.3 of 5 % of pairs": {"guide_shift_sd": 0.3, "guide_shift_fraction": 0.05},
    "50 control cells": {"ntc_fraction": 50 / 3000},
}
LEVELS = (0.05, 0.005, 0.0005)


def null_p(seed: int, **scenario: Any) -> pd.DataFrame:
    """The table of guides where nothing responds, with the mean of each gene."""
    data = ds.datasets.titration(3000, 300, rng=seed, single_fraction=0.0, additive_fraction=0.0, **scenario)
    ds.tl.fit_technical(data, batch_key="batch")
    ds.tl.fit_cis(data, "GFI1B")
    ds.tl.fit_trans(data, function_type="single_hill")
    with tempfile.TemporaryDirectory() as folder:
        table = pd.read_csv(ds.io.to_igvf(data, folder)["guide"], sep="\t")
    mean = ds.get.trans(data)["mean"]
    return table.assign(mean=mean[table["gene_id"]].to_numpy(), seed=seed).dropna(subset=["p_value"])


def made_h5(path: Path, n_cells: int, n_genes: int, n_guides: int, share: float) -> None:
    """A matrix of Cell Ranger with random counts."""
    rng = np.random.default_rng(0)
    n = rng.binomial(n_genes, share, n_cells)
    genes = np.concatenate([np.sort(rng.choice(n_genes, k, replace=False)) for k in n])
    x = sparse.csr_matrix((rng.geometric(0.6, len(genes)), genes, np.append(0, np.cumsum(n))), (n_cells, n_genes))
    guides = sparse.csr_matrix((np.full(n_cells, 9), (np.arange(n_cells), rng.integers(0, n_guides, n_cells))))
    whole = sparse.hstack([x, guides], format="csr")
    names = [f"gene_{i}" for i in range(n_genes)] + [f"g_{i}" for i in range(n_guides)]
    targets = [""] * n_genes + ["gene_0"] * (n_guides - 5) + ["Non-Targeting"] * 5
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array([f"cell_{i}" for i in range(n_cells)], dtype="S18")
        for name in ("data", "indices", "indptr"):
            group.create_dataset(name, data=getattr(whole, name), compression="gzip", compression_opts=1)
        group["shape"] = np.array(whole.shape[::-1])
        features = group.create_group("features")
        for name, values in {
            "id": names,
            "name": names,
            "target_gene_id": targets,
            "target_gene_name": targets,
        }.items():
            features[name] = np.array(values, dtype="S32")
        kinds = ["Gene Expression"] * n_genes + ["CRISPR Guide Capture"] * n_guides
        features["feature_type"] = np.array(kinds, dtype="S24")


def timed(what: str, call: Callable[[], Any]) -> Any:
    """Run it and say how long it took."""
    started, used = time.perf_counter(), time.process_time()
    out = call()
    used = time.process_time() - used
    print(f"{what:32s} {time.perf_counter() - started:7.1f} s, {used:7.1f} s of processor time", flush=True)
    return out


def nulls(seeds: int) -> pd.DataFrame:
    """Shares of p-values below each level."""
    rows = []
    for name, scenario in NULLS.items():
        table = pd.concat([null_p(seed, **scenario) for seed in range(seeds)])
        for expression, part in {"all": table, "mean below 0.1": table[table["mean"] < 0.1]}.items():
            rates = {f"p < {level}": (part["p_value"] < level).mean() for level in LEVELS}
            rows.append({"nulls": name, "genes": expression, "pairs": len(part), **rates})
    return pd.DataFrame(rows)


def times(n_cells: int, n_genes: int) -> None:
    """Reading a screen of this size, and writing what was fitted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.h5"
        made_h5(path, n_cells, n_genes, 100, 0.12)
        size = path.stat().st_size / 1e6
        data = timed(f"read_cellranger, {size:.0f} MB", lambda: ds.io.read_cellranger(path, min_umis=1))
        ds.pp.assign_guides(data, "guides")
        ds.pp.size_factors(data)
        ds.tl.fit_technical(data)
        ds.tl.fit_cis(data, "gene_0")
        timed("tl.fit_trans, for comparison", lambda: ds.tl.fit_trans(data))
        timed("to_tsv", lambda: ds.io.to_tsv(data, Path(folder) / "t.tsv"))
        timed("to_sceptre", lambda: ds.io.to_sceptre(data))
        timed("to_igvf", lambda: ds.io.to_igvf(data, folder))
        timed("to_excel", lambda: ds.io.to_excel(data, Path(folder) / "t.xlsx"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=["null", "time"], default=["null", "time"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=20_000)
    given = parser.parse_args()
    if "null" in given.parts:
        print(nulls(given.seeds).to_string(index=False, float_format="%.4f"), flush=True)
    if "time" in given.parts:
        times(given.cells, given.genes)


if __name__ == "__main__":
    main()
