"""`tl.screen` on a library of full size: time, memory, false calls and power, all in one run.

60,000 cells, 400 targets with three guides each, 60 NTC guides and 8,500 genes, 85 % of whose counts are zero. A fifth
of the cells are controls. 2 % of the genes follow the dosage of a target by a Hill curve; 100 of the targets are null:
half of them are knocked down and no gene follows, the guides of the others do nothing. Guides shift every gene by 0.1
log2 for reasons of their own.

    python benchmarks/whole_library.py write library.h5ad     # a minute; --targets 40 writes a smaller one
    python benchmarks/whole_library.py run library.h5ad       # --store FOLDER goes on where it was interrupted
    python benchmarks/whole_library.py finished library.h5ad --store FOLDER    # what is in the store so far
    python benchmarks/whole_library.py workers library.h5ad --only 100         # one worker of Dask, then two
    python benchmarks/whole_library.py write large.h5ad --cells 300000 --targets 40 --null 10 --in-pieces    # 3 GB
    python benchmarks/whole_library.py on_disk large.h5ad --only 4 --memory-limit 1GB    # counts stay in the file
    python benchmarks/whole_library.py permuted --n 10        # guides of cells permuted: every call is false
"""

from __future__ import annotations

import argparse
import logging
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numba as nb
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.optimize import brentq

import dream_sc as ds

Q = 0.05
STRENGTH = (-0.6, -1.6, -2.6)  # log2 dosage of the guides of a target
SHIFT, WITHIN, SLOPE = 0.1, 0.15, 2.0  # log2, log2, Hill coefficient
SPREAD, REACH = 2.0, 5.0  # of log2 means: sd, and largest distance from the centre
PIECE = 2000  # cells that are written at a time


def overdispersion_of(mean: np.ndarray) -> np.ndarray:
    """Of genes with a mean."""
    return np.clip(0.35 + 0.3 / np.sqrt(mean + 0.3), 0.2, 1.0)


def means(n: int, n_targets: int, zeros: float, gen: np.random.Generator) -> np.ndarray:
    """Mean counts of genes with a share of zeros; those of targets, which come first, are at least a half."""
    z = np.clip(gen.normal(0, SPREAD, n), -REACH, REACH)
    of_targets = 2.0 ** gen.uniform(-1, 3, n_targets)

    def at(centre: float) -> np.ndarray:
        return np.append(of_targets, 2.0 ** (centre + z[n_targets:]))

    def excess(centre: float) -> float:
        o2 = overdispersion_of(at(centre)) ** 2
        return float(np.exp(-np.log1p(at(centre) * o2) / o2).mean() - zeros)

    return at(brentq(excess, -15.0, 10.0))


@nb.njit
def _drawn(rate, size_factor, phi, seed):
    """Negative binomial counts of cells by inversion, as the columns and values of a csr matrix."""
    np.random.seed(seed)  # noqa: NPY002  # a Generator cannot be made in a compiled loop
    indptr, column, value = np.zeros(len(rate) + 1, dtype=np.int64), [np.int32(0)], [np.float32(0)]
    for i in range(len(rate)):
        for t in range(rate.shape[1]):
            m, f, u = rate[i, t] * size_factor[i], phi[t], np.random.random()  # noqa: NPY002
            if u < 1.0 - m:  # the probability of a zero is at least that
                continue
            p, q, k = np.exp(-f * np.log1p(m / f)), m / (m + f), 0
            while u >= p and k < 60_000:
                u -= p
                p *= (k + f) / (k + 1.0) * q
                k += 1
            if k:
                column.append(np.int32(t))
                value.append(np.float32(k))
        indptr[i + 1] = len(column) - 1
    return indptr, np.array(column)[1:], np.array(value)[1:]


def library(given: argparse.Namespace) -> ad.AnnData:
    """A library with its truth: `.varm["responds"]`, genes x targets that are not null."""
    gen = np.random.default_rng(given.seed)
    n_all, n_guides, n_genes = given.targets, len(STRENGTH), given.genes
    mean = means(n_genes, n_all, given.zeros, gen)
    phi = 1.0 / overdispersion_of(mean) ** 2
    null = np.arange(n_all) >= n_all - given.null
    idle = np.arange(n_all) >= n_all - given.null // 2  # their guides do nothing
    share = np.r_[np.full(n_all * n_guides, 0.8 / (n_all * n_guides)), np.full(given.ntc, 0.2 / given.ntc)]
    guide = np.sort(gen.choice(len(share), given.cells, p=share))
    size = np.exp(gen.normal(0, 0.25, given.cells))
    size /= size.mean()
    responds = np.zeros((n_genes, n_all), dtype=bool)
    parts = []
    for t in range(n_all + 1):  # controls at last
        low, high = t * n_guides, (t + 1) * n_guides if t < n_all else len(share)
        at = np.flatnonzero((guide >= low) & (guide < high))
        shift = gen.normal(0, SHIFT, (high - low, n_genes)).astype(np.float32)
        shift[:, :n_all] = 0.0
        for some in np.array_split(at, max(1, len(at) // 500)):
            log2 = shift[guide[some] - low]
            if t < n_all and not idle[t]:
                x = np.array(STRENGTH)[guide[some] - low] + gen.normal(0, WITHIN, len(some))
                log2[:, t] += x
                if not null[t]:
                    follow = np.flatnonzero((gen.random(n_genes) < given.responders) & (np.arange(n_genes) != t))
                    responds[follow, t] = True
                    move = gen.uniform(0.5, 2.5, len(follow)) * gen.choice([-1, 1], len(follow))
                    ec50 = gen.uniform(-2.0, -0.3, len(follow))
                    hill, at_ntc = (1 / (1 + 2.0 ** (-SLOPE * (v - ec50))) for v in (x[:, None], 0.0))
                    log2[:, follow] += (move * (hill - at_ntc)).astype(np.float32)
            drawn = _drawn(mean * 2.0**log2, size[some], phi, int(gen.integers(2**31)))
            parts.append(sparse.csr_matrix((drawn[2], drawn[1], drawn[0]), (len(some), n_genes)))
    order, genes = gen.permutation(given.cells), np.array([f"gene_{i:05d}" for i in range(n_genes)])
    obs = observed(guide[order], genes[:n_all], given.ntc, size[order])
    adata = ad.AnnData(sparse.vstack(parts, format="csr")[order], obs, pd.DataFrame(index=genes))
    adata.varm["responds"] = pd.DataFrame(responds[:, ~null], genes, genes[:n_all][~null])
    return adata


def in_pieces(given: argparse.Namespace) -> None:
    """The same kind of library, drawn and written some cells at a time: no more of it is in memory than those."""
    gen = np.random.default_rng(given.seed)
    n_all, n_guides, n = given.targets, len(STRENGTH), given.cells
    mean = means(given.genes, n_all, given.zeros, gen)
    phi = 1.0 / overdispersion_of(mean) ** 2
    n_acting = n_all * n_guides
    share = np.r_[np.full(n_acting, 0.8 / n_acting), np.full(given.ntc, 0.2 / given.ntc)]
    guide, size = gen.choice(len(share), n, p=share), np.exp(gen.normal(0, 0.25, n))
    size /= size.mean()
    shift = gen.normal(0, SHIFT, (len(share), given.genes)).astype(np.float32)
    shift[:, :n_all] = 0.0
    responds = gen.random((given.genes, n_all)) < given.responders
    responds[np.arange(n_all), np.arange(n_all)] = False
    responds[:, n_all - given.null :] = False
    move = (gen.uniform(0.5, 2.5, responds.shape) * gen.choice([-1, 1], responds.shape) * responds).astype(np.float32)
    ec50 = gen.uniform(-2.0, -0.3, responds.shape)
    knocked = np.arange(n_all) < n_all - given.null // 2  # guides of the others do nothing
    genes = np.array([f"gene_{i:05d}" for i in range(given.genes)])
    obs = observed(guide, genes[:n_all], given.ntc, size)
    truth = {"responds": pd.DataFrame(responds[:, : n_all - given.null], genes, genes[: n_all - given.null])}
    nothing = sparse.csr_matrix((n, given.genes), dtype=np.float32)
    ad.AnnData(nothing, obs, pd.DataFrame(index=genes), varm=truth).write_h5ad(given.data)
    with h5py.File(given.data, "a") as file:
        del file["X"]
        for start in range(0, n, PIECE):
            some = slice(start, start + PIECE)
            log2, target = shift[guide[some]], guide[some] // n_guides
            for t in np.unique(target[guide[some] < n_acting]):
                at = np.flatnonzero(target == t)
                x = np.array(STRENGTH)[guide[some][at] % n_guides] + gen.normal(0, WITHIN, len(at))
                follow = np.flatnonzero(responds[:, t])
                hill, at_ntc = (1 / (1 + 2.0 ** (-SLOPE * (v - ec50[follow, t]))) for v in (x[:, None], 0.0))
                log2[np.ix_(at, follow)] += (move[follow, t] * (hill - at_ntc)).astype(np.float32)
                log2[at, t] += x * knocked[t]
            drawn = _drawn(mean.astype(np.float32) * np.exp2(log2), size[some], phi, int(gen.integers(2**31)))
            block = sparse.csr_matrix((drawn[2], drawn[1], drawn[0]), log2.shape)
            if start == 0:
                ad.io.write_elem(file, "X", block)
            else:
                ad.io.sparse_dataset(file["X"]).append(block)


def observed(guide: np.ndarray, targets: np.ndarray, n_ntc: int, size: np.ndarray) -> pd.DataFrame:
    """Columns of cells with these guides, those of the targets first."""
    names = [f"{t}_g{i}" for t in targets for i in range(len(STRENGTH))] + [f"NTC_{i}" for i in range(n_ntc)]
    labels = [*np.repeat(targets, len(STRENGTH)), *["NTC"] * n_ntc]
    of_cells = {"guide": names, "target": labels}
    columns = {name: pd.Categorical(np.array(values)[guide]) for name, values in of_cells.items()}
    return pd.DataFrame(columns | {"size_factor": size}, index=[f"c{i}" for i in range(len(guide))])


class Every(logging.Handler):
    """Says how far a screen is, every so many messages; one interrupted has cost that much."""

    def __init__(self, began: float, used: float, n: int = 10) -> None:
        super().__init__()
        self.began, self.used, self.n, self.seen = began, used, n, 0

    def emit(self, record: logging.LogRecord) -> None:
        self.seen += 1
        if self.seen % self.n == 0:
            wall, used = time.perf_counter() - self.began, time.process_time() - self.used
            print(f"{record.getMessage()}; {wall:.0f} s by the clock, {used:.0f} s of processor time", flush=True)


def run(given: argparse.Namespace) -> None:
    """One screen: time, memory, and its calls against the truth."""
    adata = ad.read_h5ad(given.data)
    zeros = 1 - adata.X.nnz / adata.X.shape[0] / adata.X.shape[1]
    print(f"{adata.n_obs} cells x {adata.n_vars} genes, {adata.obs['target'].nunique() - 1} targets, {zeros:.3f} zeros")
    targets = np.random.default_rng(given.seed).permutation(sorted(set(adata.obs["target"]) - {"NTC"}))
    wanted = list(targets[: given.only])  # null ones among them
    began, used = time.perf_counter(), time.process_time()
    ds.tl.fit_technical(adata, progress=False)
    print(f"technical fit: {time.perf_counter() - began:.0f} s, {time.process_time() - used:.0f} s of processor time")
    ds.settings.verbosity = "info"
    logging.getLogger("dream_sc").addHandler(Every(began, used))
    table = ds.tl.screen(adata, wanted, store=given.store, progress=False)
    wall, used = time.perf_counter() - began, time.process_time() - used
    n = int(table["qvalue"].notna().sum())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"all: {wall:.0f} s by the clock, {used:.0f} s of processor time, peak memory {peak:.2f} GB; "
        f"{n} pairs, {1000 * used / n:.3f} ms of processor time a pair"
    )
    print(ds.get.screen(table, "targets")["status"].value_counts().to_string())
    against_truth(table, adata.varm["responds"])


def workers(given: argparse.Namespace) -> None:
    """Time with one and with two workers of Dask that are warm, and whether the tables agree.

    By the clock, and by processor time: that of the calling thread (others of its process are those of Dask, which
    wait), and of the worker that has most. Their sum is about the time by the clock where nothing else runs.
    """
    from distributed import Client, LocalCluster

    adata = ad.read_h5ad(given.data)
    targets = np.random.default_rng(given.seed).permutation(sorted(set(adata.obs["target"]) - {"NTC"}))
    ds.tl.fit_technical(adata, progress=False)
    tables, seconds, processor = [], [], []
    for n in (1, 2):
        how = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
        with (
            LocalCluster(n_workers=n, **how) as cluster,
            Client(cluster) as client,
            tempfile.TemporaryDirectory() as folder,
        ):
            rest = {"client": client, "progress": False}
            ds.tl.screen(adata, list(targets[: 2 * n]), store=f"{folder}/loaded", **rest)
            began, used, by_worker = time.perf_counter(), time.thread_time(), client.run(time.process_time)
            tables.append(ds.tl.screen(adata, list(targets[: given.only]), store=f"{folder}/all", **rest))
            seconds.append(time.perf_counter() - began)
            calling = time.thread_time() - used
            each = [t - by_worker[name] for name, t in client.run(time.process_time).items()]
            processor.append(calling + max(each))
        print(
            f"{n} worker(s): {seconds[-1]:.1f} s for {tables[-1]['target'].nunique()} targets; processor time of the "
            f"calling thread {calling:.1f} s, of workers {', '.join(f'{t:.1f}' for t in each)} s",
            flush=True,
        )
    same = tables[0].equals(tables[1])
    print(
        f"{seconds[0] / seconds[1]:.2f} times as fast with two by the clock, {processor[0] / processor[1]:.2f} by "
        f"processor time; the same table: {same}"
    )


def on_disk(given: argparse.Namespace) -> None:
    """A screen of counts that stay in their file: bytes that are read, against those of the counts, and memory."""
    with h5py.File(given.data) as file:
        size = sum(file["X"][name].id.get_storage_size() for name in ("data", "indices", "indptr"))
    adata = ad.read_h5ad(given.data, backed="r")
    targets = np.random.default_rng(given.seed).permutation(sorted(set(adata.obs["target"]) - {"NTC"}))[: given.only]
    print(f"{adata.n_obs} cells x {adata.n_vars} genes, counts of {size / 1e9:.2f} GB; limit {given.memory_limit}")
    for what, call in {
        "technical fit": lambda: ds.tl.fit_technical(adata, memory_limit=given.memory_limit, progress=False),
        f"screen of {len(targets)} targets": lambda: ds.tl.screen(
            adata, list(targets), store=given.store, memory_limit=given.memory_limit, progress=False
        ),
    }.items():
        began, used, read = time.perf_counter(), time.process_time(), bytes_read()
        call()
        wall, used, read = time.perf_counter() - began, time.process_time() - used, bytes_read() - read
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{what}: {wall:.0f} s by the clock, {used:.0f} s of processor time, {read / 1e9:.2f} GB read, "
            f"{read / size:.2f} times the counts; peak memory {peak:.2f} GB",
            flush=True,
        )


def bytes_read() -> int:
    """By this process so far, from whatever file."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])


def finished(given: argparse.Namespace) -> None:
    """The targets in a store, also one that is not finished, against the truth."""
    with h5py.File(given.data) as file:
        truth = ad.io.read_elem(file["varm/responds"])
    table = ds.get.screen(given.store)
    n = table["target"].nunique()
    print(f"{n} targets, {(~table['target'].astype(str).isin(truth.columns)).sum() / len(table) * n:.0f} of them null")
    against_truth(table, truth)


def against_truth(table: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Calls that are false, and responding pairs that are called; `truth` is features x targets that are not null."""
    for column in ("qvalue_union", "qvalue"):
        call = table.loc[(table[column] < Q).to_numpy(bool), ["target", "feature"]].astype(str)
        null = ~call["target"].isin(truth.columns)
        true = np.zeros(len(call), dtype=bool)
        at = [truth.index.get_indexer(call["feature"]), truth.columns.get_indexer(call["target"])]
        true[~null.to_numpy()] = truth.to_numpy()[at[0], at[1]][~null.to_numpy()]
        fitted = truth.columns.isin(table["target"].astype(str).unique())
        print(
            f"by {column}: {len(call)} calls, {(~true).sum()} false, FDP {(~true).sum() / max(len(call), 1):.4f}; "
            f"{null.sum()} calls of null targets; {true.sum() / truth.to_numpy()[:, fitted].sum():.3f} of the "
            "responding pairs called"
        )
    p = table["pvalue"][~table["target"].astype(str).isin(truth.columns) & table["qvalue"].notna()].to_numpy()
    if len(p):
        shares = ", ".join(f"{(p < at).mean() / at:.2f} at {at:g}" for at in (0.5, 0.1, 0.05, 0.01, 0.001))
        print(f"p-values of {len(p)} pairs of null targets, share below a level over the level: {shares}")


def permuted(given: argparse.Namespace) -> None:
    """Calls of screens whose guides, with their targets, are dealt out anew to the cells."""
    adata, rows = library(given), []
    for i in range(given.n):
        other = ad.AnnData(adata.X, adata.obs.copy(), adata.var.copy())
        order = np.random.default_rng([given.seed, i]).permutation(adata.n_obs)
        for name in ("guide", "target"):
            other.obs[name] = adata.obs[name].to_numpy()[order]
        used = time.process_time()
        table = ds.tl.screen(other, progress=False)
        calls = {c: int((table[c] < Q).sum()) for c in ("qvalue_union", "qvalue")}
        p = table["pvalue"][table["qvalue"].notna()].to_numpy()
        near = {f"p < {at:g}": round((p < at).mean() / at, 2) for at in (0.5, 0.05, 0.001)}
        rows.append({"pairs": len(p), **calls, **near, "processor s": round(time.process_time() - used)})
        print(rows[-1], flush=True)
    some = pd.DataFrame(rows)
    for name in ("qvalue_union", "qvalue"):
        print(f"by {name}: {int((some[name] > 0).sum())} of {len(some)} permuted screens have any call")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what",
        choices=("write", "run", "on_disk", "finished", "workers", "permuted"),
        nargs="?",
        default="permuted",
    )
    parser.add_argument("data", type=Path, nargs="?", help="h5ad that is written or read")
    for name in ("targets", "null", "genes", "cells"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--ntc", type=int, default=60, help="NTC guides")
    parser.add_argument("--zeros", type=float, default=0.85, help="share of counts that are zero")
    parser.add_argument("--responders", type=float, default=0.02, help="share of genes that follow a target")
    parser.add_argument("--only", type=int, help="fit only so many targets, drawn at random")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--memory-limit", help="such as 1GB")
    parser.add_argument("--in-pieces", action="store_true", help="write some cells at a time")
    parser.add_argument("--n", type=int, default=10, help="permuted screens")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    usual: dict[str, Any] = {"targets": 400, "null": 100, "genes": 8500, "cells": 60_000}
    if given.what == "permuted":
        usual = {"targets": 20, "null": 0, "genes": 400, "cells": 6000}
    for name, value in usual.items():
        setattr(given, name, value if getattr(given, name) is None else getattr(given, name))
    if given.what == "finished" and given.store is None:
        parser.error("finished needs --store")
    if given.what != "permuted" and given.data is None:
        parser.error(f"{given.what} needs the name of a file")
    return given


if __name__ == "__main__":
    given = arguments()
    if given.what == "write":
        in_pieces(given) if given.in_pieces else library(given).write_h5ad(given.data)
    else:
        {"run": run, "on_disk": on_disk, "finished": finished, "workers": workers, "permuted": permuted}[given.what](
            given
        )
