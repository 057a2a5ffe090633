"""Many fits in one process: what they leave behind in memory, threads, open files and temporary folders.

Each round simulates a small screen and runs the technical, cis and trans step on it, three fits. Memory is that of the
process after a collection, from the end of the warm-up on.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import threading
import time
from typing import Any

import psutil

import dream_sc as ds

WARM = 0.2  # share of the rounds in which caches fill


def measured() -> dict[str, Any]:
    gc.collect()
    process = psutil.Process()
    return {
        "memory": process.memory_info().rss,
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
        "temporary": sorted(name for name in os.listdir(tempfile.gettempdir())),
    }


def fits(i: int, hyper: Any) -> Any:
    adata = ds.datasets.titration(200, 6, rng=i % 7, n_guides=6, mean_range=(0.0, 3.0))
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B", guide_offsets=False)
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=20, hyper=hyper, progress=False)
    return adata.uns["trans"]["hyper"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", type=int, default=300, help="fits of a step, a third of them of each")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many seconds")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # of this process alone, so that what is left in it is ours
        tempfile.tempdir = folder
        started, done, hyper, middle = time.perf_counter(), 0, None, None
        rounds = args.fits // 3
        for i in range(rounds):
            hyper = fits(i, hyper if i else None)
            done += 1
            if done == max(int(WARM * rounds), 1):
                middle = measured()
                print(f"after {3 * done} fits: {middle['memory'] / 1e6:.0f} MB", flush=True)
            elif done % max(rounds // 10, 1) == 0:
                print(f"after {3 * done} fits: {measured()['memory'] / 1e6:.0f} MB", flush=True)
            if time.perf_counter() - started > args.seconds:
                break
        end = measured()
        tempfile.tempdir = None
    if middle is None:
        raise SystemExit("stopped before the end of the warm-up: give more --seconds")
    growth = end["memory"] / middle["memory"] - 1
    print(f"{3 * done} fits; from the end of the warm-up: memory {100 * growth:+.1f} %")
    for name in ("threads", "files"):
        print(f"{name}: {middle[name]} then, {end[name]} at the end")
    print(f"left in the temporary folder: {end['temporary'] or 'nothing'}")
    kept = growth < 0.03 and end["threads"] <= middle["threads"] and end["files"] <= middle["files"]
    raise SystemExit(0 if kept and not end["temporary"] else 1)


if __name__ == "__main__":
    main()
