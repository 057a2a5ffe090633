"""A newcomer's minutes: README's lines on a file of their own, with an empty cache of compiled code.

From the start of Python to the first curve in a file and to the report. `--install` makes a fresh environment before by
README's `pip install ".[report]"`; else the environment is that of this program. `--shell` takes README's command in
place of its lines.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
MINUTES = {"first curve": 5.0, "report": 10.0}  # bars
LINES = """
import time, resource
def now(what):
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"SEEN {what}|{time.time()}|{sum(u.ru_utime + u.ru_stime for u in used)}", flush=True)

import anndata as ad
import dream_sc as ds

adata = ad.read_h5ad("screen.h5ad")
ds.pp.size_factors(adata, method="stable")
ds.tl.fit_technical(adata, batch_key="batch")
ds.tl.fit_cis(adata, "GFI1B")
ds.tl.fit_trans(adata)
table = ds.get.responders(adata, columns="main")
ds.pl.dose_response(adata, table.index[0]).figure.savefig("curve.png")
now("first curve")
ds.pl.dose_response(adata, table.index[:4])
ds.report(adata, "report.html")
now("report")
"""
SHELL = "dream-sc fit screen.h5ad --cis GFI1B --batch-key batch -o results".split()


def write_screen(path: Path, n_cells: int, n_genes: int) -> None:
    """A file as a newcomer has it: raw counts, guide, target and batch of each cell, and nothing else."""
    import anndata as ad
    import pandas as pd

    import dream_sc as ds

    made = ds.datasets.titration(n_cells, n_genes, rng=0)
    ad.AnnData(made.X, made.obs[["guide", "target", "batch"]], pd.DataFrame(index=made.var_names)).write_h5ad(path)


def install(folder: Path) -> Path:
    """A fresh environment with the package; its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{ROOT}[report]"], check=True)
    return python


def ran(command: list[str], folder: Path) -> dict[str, tuple[float, float]]:
    """Wall and processor seconds until each thing was seen, and until the end."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache"), "MPLBACKEND": "Agg"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    done = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    wall, after = time.time() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith("SEEN "):
            what, when, used = line.removeprefix("SEEN ").split("|")
            found[what] = float(when) - start, float(used)
    found["the end"] = wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--install", action="store_true", help="in a fresh environment")
    parser.add_argument("--shell", action="store_true", help="by README's command")
    args = parser.parse_args()
    print(f"{args.cells} cells, {args.genes} genes; {len(os.sched_getaffinity(0))} core(s)\n")
    print("| until | minutes | processor seconds | bar, minutes |", "|---|---|---|---|", sep="\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_screen(folder / "screen.h5ad", args.cells, args.genes)
        python, waited = Path(sys.executable), 0.0
        if args.install:
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
            python = install(folder / "environment")
            after, waited = resource.getrusage(resource.RUSAGE_CHILDREN), time.time() - start
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(f"| installed | {waited / 60:.1f} | {used:.0f} | |", flush=True)
        lines = [str(python), "-m", "dream_sc", *SHELL[1:]] if args.shell else [str(python), "-c", LINES]
        found = ran(lines, folder)
        if args.shell:
            found["report"] = found.pop("the end")
            assert (folder / "results" / "report.html").exists()
        for what, (wall, used) in found.items():
            bar = MINUTES.get(what)
            said = "" if bar is None else f"{bar:g}{'' if wall / 60 <= bar else ', missed'}"
            print(f"| {what} | {wall / 60:.1f} | {used:.0f} | {said} |")
    print(f"\n{os.getloadavg()[0]:.1f} programs ran at a time")


if __name__ == "__main__":
    main()
