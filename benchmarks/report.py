"""Processor seconds and size of the report of 20,000 features: a small fit, whose features are repeated."""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from pathlib import Path

from plots import repeated

import dream_sc as ds

MEGABYTES = 15.0  # bar


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=20_000)
    parser.add_argument("--cells", type=int, default=3000)
    parser.add_argument("--output", type=Path, help="keep the report there")
    args = parser.parse_args()

    adata = repeated(args.features, args.cells)
    called = int((ds.get.trans(adata)["qvalue"] < 0.05).sum())
    print(f"{adata.n_vars} features of which {called} are called, {adata.n_obs} cells\n")
    with tempfile.TemporaryDirectory() as folder:
        path = args.output or Path(folder) / "report.html"
        start = time.process_time()
        ds.report(adata, path)
        seconds = time.process_time() - start
        size = path.stat().st_size / 1e6
        tracemalloc.start()
        ds.report(adata, path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    print("| processor seconds | peak MB of memory | MB | bar, MB |", "|---|---|---|---|", sep="\n")
    missed = "" if size <= MEGABYTES else ", missed"
    print(f"| {seconds:.1f} | {peak / 1e6:.0f} | {size:.2f} | {MEGABYTES:g}{missed} |")


if __name__ == "__main__":
    main()
