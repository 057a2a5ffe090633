"""Seconds, memory and features per second of the three steps at the size of whole screens.

Counts are simulated and written block by block; a fresh process reads the h5ad, or leaves it on disk with `--backed`,
and fits. The last line is one plain pass over the same matrix, ``W.T @ X`` with the indicator of guides and groups.
`--sweep` varies one size after another.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

BARS = {"3": (150.0, 6e9, 3e9), "4": (None, 24e9, 24e9)}  # seconds, bytes in memory, bytes backed
SWEEP = {
    "n_genes": (1000, 2000, 4000),
    "n_cells": (10_000, 20_000, 40_000),
    "n_groups": (1, 2, 4),
    "n_cis": (18, 60, 200),
    "zeros": (0.7, 0.85, 0.95),
}
LABELS = {
    "n_genes": "genes",
    "n_cells": "cells",
    "n_groups": "technical groups",
    "n_cis": "guides on the cis gene",
    "zeros": "fraction of zeros",
}
OPTIONS = ("n_genes", "n_cells", "n_groups", "n_guides", "n_cis", "n_ntc", "zeros", "single_fraction")


def peak() -> int:
    """Peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def plain_pass(adata) -> float:
    """Seconds of the sums over the cells of each guide and group by scipy alone."""
    import numpy as np
    from scipy import sparse

    label = adata.obs["guide"].astype(str) + adata.obs["batch"].astype(str)
    names, row = np.unique(label, return_inverse=True)
    n = adata.n_obs
    w = sparse.csr_matrix((np.ones(n, dtype=np.float32), (row, np.arange(n))), shape=(len(names), n))
    begin = time.perf_counter()
    (w @ adata.X).sum()
    return time.perf_counter() - begin


def fit(path: str, args: argparse.Namespace) -> None:
    """Child process: read, fit, print what was measured."""
    begin = time.perf_counter()
    import anndata as ad

    import dream_sc as ds

    steps = {"import": (time.perf_counter() - begin, peak(), 0.0)}

    def timed(name, call, *values, **keys):
        begin, cpu = time.perf_counter(), time.process_time()
        out = call(*values, **keys)
        steps[name] = (time.perf_counter() - begin, peak(), time.process_time() - cpu)
        return out

    adata = timed("read", ad.read_h5ad, path, backed="r" if args.backed else None)
    limit = {"memory_limit": args.memory_limit}
    timed("technical", ds.tl.fit_technical, adata, batch_key="batch", use_all_cells=args.example == "5", **limit)
    timed("cis", ds.tl.fit_cis, adata, "GFI1B", **limit)
    timed("trans", ds.tl.fit_trans, adata, function_type=args.function_type, progress=False, **limit)
    table = ds.get.trans(adata)
    truth = adata.var["true_model"].loc[table.index]
    called, null = table["qvalue"] < 0.05, truth == "null"
    out = {
        "steps": steps,
        "called": int(called.sum()),
        "false": int((called & null).sum()),
        "responders": int((~null & table["lfdr"].notna()).sum()),
        "fitted": int(table["lfdr"].notna().sum()),
        "p05": float((table.loc[null, "pvalue"] < 0.05).mean()),
        "threads": _threads(),
        "pareto": float((table["pareto_k"] < 0.7).mean()),
    }
    if args.table:
        table.to_parquet(args.table) if args.table.endswith(".parquet") else table.to_csv(args.table)
    if not args.backed:
        out["plain"] = plain_pass(adata)
    print(json.dumps(out))


def _threads() -> int:
    from dream_sc._core.parallel import n_threads

    return n_threads()


def child(path: Path, args: argparse.Namespace) -> dict:
    command = [sys.executable, __file__, "--fit", str(path), "--function-type", args.function_type]
    command += ["--example", args.example]
    command += ["--backed"] * args.backed
    command += ["--memory-limit", args.memory_limit] if args.memory_limit else []
    command += ["--table", args.table] if args.table else []
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def sweep(args: argparse.Namespace) -> None:
    """One size after another around a base: processor seconds, which other work on the machine hardly changes."""
    import _screens

    base = _screens.Screen(n_genes=2000, n_cells=20_000, n_guides=520, n_ntc=400)
    rows = []
    for name, values in SWEEP.items():
        for value in values:
            more = {"n_guides": 500 + value} if name == "n_cis" else {}
            screen = replace(base, **{name: value}, **more)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "screen.h5ad"
                _screens.write(screen, path)
                result = child(path, args)
            cpu = {k: result["steps"][k][2] for k in ("technical", "cis", "trans")}
            rows.append((name, value, cpu, result["called"], result["steps"]["trans"][1]))
            print(
                f"{name:<10} {value:8g}   technical {cpu['technical']:6.1f}   cis {cpu['cis']:5.1f}   "
                f"trans {cpu['trans']:6.1f} processor seconds; {result['called']} called",
                flush=True,
            )
    if args.output:
        _plot(rows, Path(args.output))


def _plot(rows: list, folder: Path) -> None:
    """Cost of each step against each size."""
    import matplotlib.pyplot as plt

    names = list(SWEEP)
    figure, axes = plt.subplots(1, len(names), figsize=(3 * len(names), 3), sharey=True, layout="constrained")
    for ax, name in zip(axes, names, strict=True):
        here = [row for row in rows if row[0] == name]
        for step in ("technical", "cis", "trans"):
            ax.plot([row[1] for row in here], [row[2][step] for row in here], "o-", label=step)
        ax.set(xlabel=LABELS[name], yscale="log", xscale="linear" if name == "zeros" else "log")
        ax.set_xticks(SWEEP[name], [f"{value:,g}" for value in SWEEP[name]])
        ax.set_xticks([], minor=True)
    axes[0].set_ylabel("processor seconds")
    axes[0].legend(frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "scaling.png", dpi=110)


def report(screen, result: dict, args: argparse.Namespace) -> None:
    """Print the table."""
    steps = result["steps"]
    print(
        f"{screen.n_genes:,} genes x {screen.n_cells:,} cells, {screen.zeros:.0%} zeros, {screen.n_groups} groups, "
        f"{screen.n_guides:,} guides: {screen.n_cis} cis, {screen.n_ntc} NTC; {result['threads']} threads; "
        f"{'backed' if args.backed else 'in memory'}"
    )
    for name, (seconds, memory, cpu) in steps.items():
        busy = f"{cpu / seconds:.2f} cores" if cpu and seconds > 1 else ""
        print(f"{name:<10} {seconds:8.1f} s   peak so far {memory / 1e9:5.2f} GB   {busy}")
    total = sum(steps[k][0] for k in ("technical", "cis", "trans"))
    print(f"three fits {total:8.1f} s   {result['fitted'] / total:,.0f} features per second")
    if "plain" in result:
        print(f"plain pass {result['plain']:8.2f} s   the fits take {total / result['plain']:,.0f} times that")
    print(
        f"{result['called']} called at q < 0.05, {result['false']} of them false, of {result['responders']} "
        f"responders; nulls with p < 0.05: {result['p05']:.4f}; pareto_k < 0.7: {result['pareto']:.3f}"
    )
    if args.example in BARS:
        seconds, in_memory, backed = BARS[args.example]
        memory = backed if args.backed else in_memory
        used = max(m for _, m, _ in steps.values())
        if seconds:
            print(f"bar {seconds:.0f} s: {'held' if total <= seconds else 'MISSED'}")
        print(f"bar {memory / 1e9:.0f} GB: {'held' if used <= memory else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--example", choices=("1", "2", "3", "4", "5", "small"), default="small")
    for name in OPTIONS:
        kind = float if name in ("zeros", "single_fraction") else int
        parser.add_argument(f"--{name.replace('_', '-').removeprefix('n-')}", dest=name, type=kind)
    parser.add_argument("--backed", action="store_true", help="leave the counts on disk")
    parser.add_argument("--memory-limit", help="as of the functions, such as 500MB")
    parser.add_argument("--function-type", default="auto")
    parser.add_argument("--keep", help="h5ad to write, or to use if it is there; a temporary one by default")
    parser.add_argument("--table", help="csv or parquet to write the table of features to")
    parser.add_argument("--sweep", action="store_true", help="vary one size after another")
    parser.add_argument("--output", help="folder for the picture of the sweep")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fit:
        fit(args.fit, args)
        return
    if args.sweep:
        sweep(args)
        return
    import _screens

    screen = _screens.EXAMPLES.get(args.example, _screens.Screen(n_genes=1000, n_cells=10_000, n_guides=200, n_ntc=80))
    screen = replace(screen, **{n: getattr(args, n) for n in OPTIONS if getattr(args, n) is not None})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(args.keep) if args.keep else Path(folder) / "screen.h5ad"
        if not path.exists():
            begin = time.perf_counter()
            _screens.write(screen, path)
            print(f"written in {time.perf_counter() - begin:.0f} s, {path.stat().st_size / 1e9:.2f} GB")
        load = os.getloadavg()[0]
        result = child(path, args)
    report(screen, result, args)
    print(f"{os.cpu_count()} cores, load before {load:.2f}")


if __name__ == "__main__":
    main()
