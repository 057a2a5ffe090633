"""What each step takes under `memory_limit`, with counts in a file: kept to, or refused before it starts.

    python benchmarks/memory_limit.py [--folder FOLDER] [--steps fit_trans ...] [--limits 200MB ...]

30,000 cells x 10,001 features with 36 million counts are written once. Each step and limit has a fresh process, which
opens the file with the results of the earlier steps. What imports and compiled code take is the peak of a process that
runs the same step on a small data set; the peak of the step, less this, is held against the limit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _memory_data as sim
import numpy as np

LARGE = sim.Cell(n_features=10_001, n_cells=30_000, storage="backed", sparsity=0.88)
SMALL = sim.Cell(n_features=240, n_cells=1200, storage="backed", sparsity=0.6)
LIMITS = ("100MB", "150MB", "200MB", "300MB", "500MB", "1GB", "2GB")
STEPS = ("fit_technical", "fit_cis", "fit_trans", "compare", "screen")
ALLOWED = 1.1  # of the limit


def write(cell: sim.Cell, folder: Path) -> None:
    """The file with the counts and what the three steps find in them, by another process."""
    import anndata as ad

    import dream_sc as ds

    obs = sim.cells_of(cell)
    obs["line"] = np.where(np.arange(len(obs)) % 2, "one", "two")  # contexts that do not differ
    path = folder / "counts.h5ad"
    sim.write_counts(cell, obs, path, cell.n_features)
    adata = ad.read_h5ad(path, backed="r")
    ds.tl.fit_technical(adata, batch_key="batch", progress=False)
    ds.tl.fit_cis(adata, sim.CIS, progress=False)
    ds.tl.fit_trans(adata, progress=False)
    adata.write_h5ad(folder / "fitted.h5ad")
    adata.file.close()
    path.unlink()


def measured(step: str, limit: str | None, path: Path) -> dict:
    """Run one step in this process: its peak, or what it said."""
    import anndata as ad

    import dream_sc as ds

    adata, more = ad.read_h5ad(path, backed="r"), {"progress": False, "memory_limit": limit}
    calls = {
        "fit_technical": lambda: ds.tl.fit_technical(adata, batch_key="batch", key_added="t", **more),
        "fit_cis": lambda: ds.tl.fit_cis(adata, sim.CIS, key_added="c", **more),
        "fit_trans": lambda: ds.tl.fit_trans(adata, key_added="r", **more),
        "compare": lambda: ds.tl.compare(adata, "line", n_null=0, **more),
        "screen": lambda: ds.tl.screen(adata, **more),
    }
    begin = time.perf_counter()
    try:
        table = calls[step]()
    except ValueError as error:
        return {"refused": str(error), "seconds": time.perf_counter() - begin, "peak": _peak()}
    if table is None:
        key = {"fit_technical": "t", "fit_trans": "r", "compare": "compare"}.get(step)
        table = adata.varm[key] if key else adata.obsm["c"]
    numbers = table.select_dtypes("number").to_numpy(float)
    mark = hashlib.sha256(numbers[np.isfinite(numbers)].tobytes()).hexdigest()[:12]
    return {"peak": _peak(), "seconds": time.perf_counter() - begin, "mark": mark}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(*args: str) -> dict:
    """Run this script again, and read what it prints."""
    done = subprocess.run([sys.executable, __file__, *args], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def verdict(found: dict, base: int, limit: str | None) -> str:
    """Whether a limit was kept."""
    from dream_sc._memory.budget import memory_budget

    if "refused" in found:
        return f"refused: {found['refused']}"
    if limit is None:
        return ""
    over = (found["peak"] - base) / memory_budget(limit)
    return "kept" if over <= ALLOWED else f"MISSED, {over:.2f} times the limit"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the data are, or are written; a temporary folder by default")
    parser.add_argument("--steps", nargs="+", default=STEPS, choices=STEPS)
    parser.add_argument("--limits", nargs="+", default=("none", *LIMITS))
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        write({"large": LARGE, "small": SMALL}[args.write], args.folder)
        print("{}")
        return
    if args.one:
        step, limit, path = args.one
        print(json.dumps(measured(step, None if limit == "none" else limit, Path(path))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        for size in ("small", "large"):
            (folder / size).mkdir(parents=True, exist_ok=True)
            if not (folder / size / "fitted.h5ad").exists():
                child("--write", size, "--folder", str(folder / size))
        small, large = (str(folder / size / "fitted.h5ad") for size in ("small", "large"))
        for step in args.steps:
            base, first = child("--one", step, "none", small)["peak"], None
            print(f"{step}: imports and compiled code {base / 1e6:.0f} MB", flush=True)
            for limit in args.limits:
                found = child("--one", step, limit, large)
                first = first or found.get("mark")
                same = "" if found.get("mark") in (None, first) else "; OTHER RESULTS"
                said = verdict(found, base, None if limit == "none" else limit)
                print(
                    f"  limit {limit}: peak {found['peak'] / 1e6:.0f} MB, added {(found['peak'] - base) / 1e6:.0f} MB, "
                    f"{found['seconds']:.0f} s  {said}{same}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
