"""Seconds and memory of the three steps on a simulated titration.

A fresh process reads the h5ad and fits, nothing else, so its peak memory is that of a user's session. A small run
before it fills the cache of compiled kernels.
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
from pathlib import Path

TIME_BAR, MEMORY_BAR = 12.0, 3e9
N_PERMUTATIONS, CALIBRATE_BAR = 20, 5.0
CIS_GENE = "GFI1B"


def fit(path: str, function_type: str, profile: bool, calibrate: bool) -> None:
    """Child process: read, fit, print the seconds of each step and the peak memory."""
    start = time.perf_counter()
    import anndata as ad

    import dream_sc as ds

    seconds = {"import": time.perf_counter() - start}

    def timed(name, call, *args, **kwargs):
        begin = time.perf_counter()
        result = call(*args, **kwargs)
        seconds[name] = time.perf_counter() - begin
        return result

    adata = timed("read", ad.read_h5ad, path)
    timed("technical", ds.tl.fit_technical, adata, batch_key="batch")
    timed("cis", ds.tl.fit_cis, adata, CIS_GENE)
    if profile:
        import cProfile
        import pstats

        with cProfile.Profile() as profiler:
            timed("trans", ds.tl.fit_trans, adata, function_type=function_type)
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats("dream_sc", 30)
    else:
        timed("trans", ds.tl.fit_trans, adata, function_type=function_type)
    if calibrate:
        timed("calibrate", ds.tl.calibrate, adata, null="permutation", n=N_PERMUTATIONS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    called = int((ds.get.trans(adata)["qvalue"] < 0.05).sum())
    print(json.dumps({"seconds": seconds, "peak": peak, "called": called}))


def child(path: Path, args: argparse.Namespace) -> dict:
    command = [sys.executable, __file__, "--fit", str(path), "--function-type", args.function_type]
    command += ["--profile"] * args.profile + ["--calibrate"] * args.calibrate
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--guides", type=int, default=12)
    parser.add_argument("--function-type", default="auto")
    parser.add_argument("--profile", action="store_true", help="say where the trans step spends its time")
    parser.add_argument("--calibrate", action="store_true", help="also 20 permutations by tl.calibrate")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fit:
        fit(args.fit, args.function_type, args.profile, args.calibrate)
        return
    import dream_sc as ds

    with tempfile.TemporaryDirectory() as folder:
        small, full = Path(folder) / "small.h5ad", Path(folder) / "full.h5ad"
        ds.datasets.titration(1500, 60, n_guides=args.guides).write_h5ad(small)
        ds.datasets.titration(args.cells, args.genes, n_guides=args.guides).write_h5ad(full)
        first = sum(child(small, args)["seconds"].values())
        load = os.getloadavg()[0]
        result = child(full, args)
    seconds = result["seconds"]
    total = sum(seconds[k] for k in ("technical", "cis", "trans"))
    print(f"{args.genes} genes, {args.cells} cells, {args.guides} + 6 guides, function_type={args.function_type}")
    for name, value in seconds.items():
        print(f"{name:<10} {value:8.1f} s")
    print(f"three fits {total:8.1f} s, bar {TIME_BAR:.0f} s: {'held' if total < TIME_BAR else 'MISSED'}")
    if args.calibrate:
        ratio = seconds["calibrate"] / seconds["trans"]
        print(f"{N_PERMUTATIONS} permutations take {ratio:.1f} times the trans step, bar {CALIBRATE_BAR:.0f}")
    print(f"peak       {result['peak'] / 1e9:8.2f} GB, bar {MEMORY_BAR / 1e9:.0f} GB: "
          f"{'held' if result['peak'] < MEMORY_BAR else 'MISSED'}")  # fmt: skip
    print(f"called     {result['called']:8d} genes at q < 0.05")
    print(f"small run that fills the cache of kernels: {first:.1f} s; {os.cpu_count()} cores, load before {load:.2f}")


if __name__ == "__main__":
    main()
