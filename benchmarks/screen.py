"""`tl.screen` on simulated libraries: processor time per pair, false calls, and agreement with full fits.

Each target has guides of graded strength. Some genes follow the dosage of a target by a Hill curve; guides also shift
every gene for reasons of their own. Null targets are of two kinds: those that are knocked down and that no gene
follows, and those whose guides do nothing.

    python benchmarks/screen.py --speed            # 30 targets x 2,000 genes, 10,000 cells
    python benchmarks/screen.py --fdp --seeds 3    # 10 targets and 5 null ones x 300 genes
    python benchmarks/screen.py --agree            # 20 targets x 400 genes, each also by a full fit
    python benchmarks/screen.py --workers          # two workers of Dask against one, and the same table
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds

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
    n_guides: int = 6,
    n_ntc: int = 20,
    departs: float = 0.0,
) -> ad.AnnData:
    """A screen with its truth: `.varm["responds"]`, genes x targets.

    `departs`: the first guide of each target shifts this share of the genes for reasons of its own.
    """
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
    strength = np.linspace(-0.3, -3.0, n_guides)[None, :] + gen.normal(0, 0.1, (n_all, n_guides))
    strength[n_targets + (n_null + 1) // 2 :] = 0.0  # guides that do nothing
    n_labels = n_all * n_guides + n_ntc
    control = 0.2
    weight = np.r_[np.full(n_all * n_guides, (1 - control) / (n_all * n_guides)), np.full(n_ntc, control / n_ntc)]
    guide = gen.choice(n_labels, n_cells, p=weight / weight.sum())
    shift = gen.normal(0, shift_sd, (n_labels, n_genes))
    if departs:
        mine = np.arange(n_all) * n_guides
        shift[mine] += gen.normal(0, 1.0, (n_all, n_genes)) * (gen.random((n_all, n_genes)) < departs)
    shift[:, :n_all] = 0.0
    size = np.exp(gen.normal(0, 0.25, n_cells))
    log2 = shift[guide]
    for t in range(n_all):
        at = np.flatnonzero((guide >= t * n_guides) & (guide < (t + 1) * n_guides))
        x = strength[t, guide[at] - t * n_guides][:, None] + gen.normal(0, 0.15, (len(at), 1)) * (strength[t].any())
        hill, at_ntc = (1 / (1 + 2.0 ** (-2 * (value - ec50[:, t]))) for value in (x, 0.0))
        log2[at] += move[:, t] * (hill - at_ntc)
        log2[at, t] += x[:, 0]
    rate = mean * 2.0**log2 * size[:, None] / size.mean()
    counts = gen.poisson(gen.standard_gamma(1 / overdispersion**2, rate.shape) * rate * overdispersion**2)
    genes = [f"gene_{i:04d}" for i in range(n_genes)]
    labels = [f"{genes[t]}_g{i}" for t in range(n_all) for i in range(n_guides)] + [f"NTC_{i}" for i in range(n_ntc)]
    targets = [genes[t] for t in range(n_all) for _ in range(n_guides)] + ["NTC"] * n_ntc
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


def speed(given: argparse.Namespace) -> None:
    """Processor time per pair, and where it goes."""
    adata = library(given.targets, 0, given.genes, given.cells, seed=0, **design(given))
    ds.tl.fit_technical(adata, progress=False)
    ds.tl.screen(adata, ["gene_0000"], effort=given.effort, progress=False)  # compiled and loaded
    started, used = time.perf_counter(), time.process_time()
    profile = cProfile.Profile()
    if given.profile:
        profile.enable()
    table = ds.tl.screen(adata, n_jobs=given.n_jobs, effort=given.effort, progress=False)
    profile.disable()
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    n, called = int(table["qvalue"].notna().sum()), int((table["qvalue"] < Q).sum())
    print(
        f"{n} pairs, {called} called: {seconds:.0f} s by the clock, {1000 * processor / n:.2f} ms of processor a pair"
    )
    if given.profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(r"dream_sc", 40)


def workers(given: argparse.Namespace) -> None:
    """Time by the clock with one and with two workers of Dask, in turns, and whether the tables are the same."""
    from distributed import Client, LocalCluster

    adata = library(given.targets, 0, given.genes, given.cells, seed=0, **design(given))
    ds.tl.fit_technical(adata, progress=False)
    tables, seconds = [], {1: [], 2: []}
    for n in (1, 2, 1, 2):
        how = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
        with (
            LocalCluster(n_workers=n, **how) as cluster,
            Client(cluster) as client,
            tempfile.TemporaryDirectory() as folder,
        ):
            rest = {"effort": given.effort, "client": client, "progress": False}
            ds.tl.screen(adata, ["gene_0000", "gene_0001"], store=f"{folder}/loaded", **rest)
            started = time.perf_counter()
            tables.append(ds.tl.screen(adata, store=f"{folder}/all", **rest))
            seconds[n].append(time.perf_counter() - started)
        print(f"{n} worker(s): {seconds[n][-1]:.1f} s", flush=True)
    same = all(table.equals(tables[0]) for table in tables)
    print(f"{np.mean(seconds[1]) / np.mean(seconds[2]):.2f} times as fast with two; the same table: {same}")


def design(given: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `library` that were given."""
    return {"responders": given.responders, "n_guides": given.guides, "n_ntc": given.ntc, "departs": given.departs}


def agree(given: argparse.Namespace) -> None:
    """Calls after a first pass beside those of a full fit of each target."""
    adata = library(given.targets, 0, given.genes, given.cells, seed=given.seed, **design(given))
    ds.tl.fit_technical(adata, progress=False)
    both = {}
    for effort in ("first_pass", "full"):
        used = time.process_time()
        table = ds.tl.screen(adata, effort=effort, progress=False)
        both[effort] = table.set_index(["target", "feature"])
        ms = 1000 * (time.process_time() - used) / table["qvalue"].notna().sum()
        print(f"{effort}: {ms:.2f} ms of processor time a pair", flush=True)
    one, other = both["full"], both["first_pass"].loc[both["full"].index]
    for column in ("qvalue", "qvalue_union"):
        here, there = (x[column][one["qvalue"].notna()].to_numpy() < Q for x in (one, other))
        high = one["confidence"][one["qvalue"].notna()].astype(str).to_numpy() == "high"
        print(
            f"{column}: {here.sum()} of {len(here)} pairs called by full fits, {there.sum()} after a first pass; "
            f"{(here & ~there).sum()} lost, {(there & ~here).sum()} gained, same side {(here == there).mean():.4f}; "
            f"lost of high confidence {(here & ~there & high).sum()} of {(here & high).sum()}"
        )
    apart = one["qvalue"].notna() & ((one["qvalue"] < Q) != (other["qvalue"] < Q))
    shown = ["lfdr", "qvalue", "log_bf", "confidence"]
    print(one.loc[apart, shown].join(other.loc[apart, shown], rsuffix="_first_pass").to_string())
    called = (one["qvalue"] < Q) & (other["qvalue"] < Q)
    for name in ("log2fc_full", "log2_ec50"):
        width, mine = (x[f"{name}_q975"] - x[f"{name}_q025"] for x in (one, other))
        off = (abs(other[name] - one[name]) / width)[called].quantile([0.5, 0.95]).round(3).tolist()
        ratio = (mine / width)[called].median()
        print(f"{name} of the calls: apart by {off} widths (50, 95 %), ratio of widths {ratio:.3f}")


def fdp(given: argparse.Namespace) -> None:
    """False discovery proportion over the union, with null targets mixed in, and p-values of the null targets."""
    rows, p_values = [], []
    for seed in range(given.seed, given.seed + given.seeds):
        adata = library(10, 5, given.genes, given.cells, seed=seed, **design(given))
        table = ds.tl.screen(adata, effort=given.effort, progress=False)
        truth = adata.varm["responds"].stack()
        true = truth.loc[list(zip(table["feature"].astype(str), table["target"].astype(str), strict=True))].to_numpy()
        null = table["target"].astype(str).isin(adata.varm["responds"].columns[10:]).to_numpy()
        p_values.append(table["pvalue"].to_numpy()[null & table["qvalue"].notna().to_numpy()])
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
    p = np.concatenate(p_values)
    shares = ", ".join(f"{(p < at).mean() / at:.2f} at {at:g}" for at in (0.5, 0.1, 0.05, 0.01, 0.001))
    print(f"p-values of {len(p)} null pairs, share below a level over the level: {shares}")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("speed", "fdp", "agree", "workers", "profile"):
        parser.add_argument(f"--{name}", action="store_true")
    for name in ("targets", "genes", "cells"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--guides", type=int, default=6, help="of each target")
    parser.add_argument("--ntc", type=int, default=20, help="NTC guides")
    parser.add_argument("--responders", type=float, default=0.1, help="share of genes that follow a target")
    parser.add_argument("--departs", type=float, default=0.0, help="share of genes that one guide of a target shifts")
    parser.add_argument("--effort", default="auto")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--n-jobs", type=int)
    given = parser.parse_args()
    usual = (20, 400, 8000) if given.agree else (10, 300, 4500) if given.fdp else (30, 2000, 10_000)
    for name, value in zip(("targets", "genes", "cells"), usual, strict=True):
        setattr(given, name, value if getattr(given, name) is None else getattr(given, name))
    return given


if __name__ == "__main__":
    given = arguments()
    chosen = [
        run
        for name, run in (("speed", speed), ("fdp", fdp), ("agree", agree), ("workers", workers))
        if getattr(given, name)
    ]
    for run in chosen or [speed, fdp]:
        run(given)
