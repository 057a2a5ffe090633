"""`tl.screen` on simulated libraries: processor time per pair, and false calls over the union of all targets.

Each target has six guides of graded strength. Some genes follow the dosage of a target by a Hill curve; guides also
shift every gene for reasons of their own. Null targets are of two kinds: those that are knocked down and that no gene
follows, and those whose guides do nothing.

    python benchmarks/screen.py --speed            # 20 targets x 500 genes, 10,000 cells
    python benchmarks/screen.py --fdp --seeds 3    # 10 targets and 5 null ones x 200 genes
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds

N_GUIDES, N_NTC = 6, 20
Q = 0.05


def library(
    n_targets: int,
    n_null: int,
    n_genes: int,
    n_cells: int,
    *,
    seed: int,
    responders: float = 0.1,
    shift_sd: float = 0.1,
) -> ad.AnnData:
    """A screen with its truth: `.varm["responds"]`, genes x targets."""
    gen = np.random.default_rng(seed)
    n_all = n_targets + n_null
    mean = 2.0 ** np.clip(gen.normal(0.5, 2.0, n_genes), -4, 5)
    mean[:n_all] = 2.0 ** gen.uniform(0, 3, n_all)  # genes that are targets
    overdispersion = np.clip(0.35 + 0.3 / np.sqrt(mean + 0.3), 0.2, 1.0)
    responds = gen.random((n_genes, n_all)) < responders
    responds[:, n_targets:] = False
    responds[np.arange(n_all), np.arange(n_all)] = False
    move = gen.uniform(0.5, 2.5, (n_genes, n_all)) * gen.choice([-1, 1], (n_genes, n_all)) * responds
    ec50 = gen.uniform(-2.0, -0.3, (n_genes, n_all))
    strength = np.linspace(-0.3, -3.0, N_GUIDES)[None, :] + gen.normal(0, 0.1, (n_all, N_GUIDES))
    strength[n_targets + (n_null + 1) // 2 :] = 0.0  # guides that do nothing
    n_guides = n_all * N_GUIDES + N_NTC
    control = 0.2
    weight = np.r_[np.full(n_all * N_GUIDES, (1 - control) / (n_all * N_GUIDES)), np.full(N_NTC, control / N_NTC)]
    guide = gen.choice(n_guides, n_cells, p=weight / weight.sum())
    shift = gen.normal(0, shift_sd, (n_guides, n_genes))
    shift[:, :n_all] = 0.0
    size = np.exp(gen.normal(0, 0.25, n_cells))
    log2 = shift[guide]
    for t in range(n_all):
        at = np.flatnonzero((guide >= t * N_GUIDES) & (guide < (t + 1) * N_GUIDES))
        x = strength[t, guide[at] - t * N_GUIDES][:, None] + gen.normal(0, 0.15, (len(at), 1)) * (strength[t].any())
        hill, at_ntc = (1 / (1 + 2.0 ** (-2 * (value - ec50[:, t]))) for value in (x, 0.0))
        log2[at] += move[:, t] * (hill - at_ntc)
        log2[at, t] += x[:, 0]
    rate = mean * 2.0**log2 * size[:, None] / size.mean()
    counts = gen.poisson(gen.standard_gamma(1 / overdispersion**2, rate.shape) * rate * overdispersion**2)
    genes = [f"gene_{i:04d}" for i in range(n_genes)]
    labels = [f"{genes[t]}_g{i}" for t in range(n_all) for i in range(N_GUIDES)] + [f"NTC_{i}" for i in range(N_NTC)]
    targets = [genes[t] for t in range(n_all) for _ in range(N_GUIDES)] + ["NTC"] * N_NTC
    obs = pd.DataFrame(
        {
            "guide": pd.Categorical(np.array(labels)[guide]),
            "target": pd.Categorical(np.array(targets)[guide]),
            "size_factor": size / size.mean(),
        },
        index=[f"c{i}" for i in range(n_cells)],
    )
    adata = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs, pd.DataFrame(index=genes))
    adata.varm["responds"] = pd.DataFrame(responds, genes, genes[:n_all])
    return adata


def speed(n_jobs: int | None) -> None:
    """Processor time per pair, and where it goes."""
    adata = library(20, 0, 500, 10_000, seed=0)
    ds.tl.fit_technical(adata, progress=False)
    ds.tl.screen(adata, ["gene_0000"], progress=False)  # compiled and loaded
    started, used = time.perf_counter(), time.process_time()
    profile = cProfile.Profile()
    if n_jobs in (None, 1):
        profile.enable()
    table = ds.tl.screen(adata, n_jobs=n_jobs, progress=False)
    profile.disable()
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    n = int(table["qvalue"].notna().sum())
    print(f"{n} pairs: {seconds:.0f} s by the clock, {1000 * processor / n:.1f} ms of processor time per pair")
    if n_jobs in (None, 1):
        pstats.Stats(profile).sort_stats("cumulative").print_stats(r"dream_sc", 40)


def fdp(seeds: int) -> None:
    """False discovery proportion over the union, with null targets mixed in."""
    rows = []
    for seed in range(seeds):
        adata = library(10, 5, 200, 4500, seed=seed)
        table = ds.tl.screen(adata, progress=False)
        truth = adata.varm["responds"].stack()
        true = truth.loc[list(zip(table["feature"].astype(str), table["target"].astype(str), strict=True))].to_numpy()
        null = table["target"].astype(str).isin(adata.varm["responds"].columns[10:]).to_numpy()
        for column in ("qvalue_union", "qvalue"):
            call = (table[column] < Q).to_numpy(bool)
            rows.append(
                {
                    "seed": seed,
                    "by": column,
                    "calls": int(call.sum()),
                    "false": int((call & ~true).sum()),
                    "FDP": (call & ~true).sum() / max(call.sum(), 1),
                    "power": (call & true).sum() / true.sum(),
                    "calls of null targets": int((call & null).sum()),
                    "pairs of null targets": int((null & table["qvalue"].notna()).sum()),
                }
            )
        print(pd.DataFrame(rows[-2:]).to_string(index=False), flush=True)
    out = pd.DataFrame(rows).groupby("by").agg({"calls": "sum", "false": "sum", "FDP": "mean", "power": "mean"})
    print(out.to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--fdp", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n-jobs", type=int, default=None)
    given = parser.parse_args()
    if given.speed or not given.fdp:
        speed(given.n_jobs)
    if given.fdp or not given.speed:
        fdp(given.seeds)
