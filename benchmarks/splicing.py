"""Seconds and peak memory of the splice modalities at the size of a whole screen.

A genome is simulated in which one exon in five is a cassette; counts fall on junctions by the genes' log-normal
expression. Every function runs in a fresh process that reads the h5ad first. What takes memory are the denominators of
`junction_psi`: 8 bytes for every junction of every gene that a cell has, so it grows with the junctions of a gene.
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

import numpy as np

BAR_SECONDS, BAR_BYTES = 60.0, 3e9
CALLS = {
    "donor_usage": {},
    "acceptor_usage": {},
    "exon_skipping (min)": {"inclusion": "min"},
    "exon_skipping (mean)": {"inclusion": "mean"},
    "isoform_usage": {},
    "junction_psi": {},
    "junction_psi (min_counts=100)": {"min_counts": 100},
}


def genome(n_junctions: int, most: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Junctions of neighbouring exons, and of some exons with the next but one."""
    rows, gene, at = [], 0, 1000
    while len(rows) < n_junctions:
        n = int(rng.integers(4, most + 1))
        bounds = at + np.cumsum(rng.integers(80, 3000, 2 * n))
        first, last, strand = bounds[0::2], bounds[1::2], "+-"[gene % 2]
        rows += [(last[k] + 1, first[k + 1] - 1, strand, gene) for k in range(n - 1)]
        skipped = np.flatnonzero(rng.random(n - 2) < 0.2)
        rows += [(last[k] + 1, first[k + 2] - 1, strand, gene) for k in skipped]
        at, gene = int(bounds[-1]) + 10_000, gene + 1
    start, end, strand, gene = zip(*rows[:n_junctions], strict=True)
    gene = np.array(gene)
    return {
        "chrom": np.array([f"chr{g % 22 + 1}" for g in gene]),
        "start": np.array(start),
        "end": np.array(end),
        "strand": np.array(strand),
        "gene": np.array([f"gene{g}" for g in gene]),
    }


def write(path: Path, n_junctions: int, n_cells: int, depth: int, most: int) -> tuple[int, int]:
    """Simulate and write; gives the numbers of stored values and of genes."""
    import anndata as ad
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(0)
    var = pd.DataFrame(genome(n_junctions, most, rng))
    var.index = [f"{c}:{a}-{b}" for c, a, b in zip(var["chrom"], var["start"], var["end"], strict=True)]
    _, gene = np.unique(var["gene"], return_inverse=True)
    weight = np.exp(rng.normal(0, 2.0, gene.max() + 1))[gene] * rng.gamma(1.0, 1.0, n_junctions)
    bounds = np.cumsum(weight / weight.sum())
    parts = []
    for low in range(0, n_cells, 1000):
        n = min(1000, n_cells - low)
        total = rng.poisson(depth, n)
        drawn = np.searchsorted(bounds, rng.random(total.sum()) * bounds[-1])
        one = np.ones(len(drawn), dtype=np.int32)
        parts.append(sparse.csr_matrix((one, (np.repeat(np.arange(n), total), drawn)), (n, n_junctions)))
    x = sparse.vstack(parts, format="csr")
    obs = pd.DataFrame(index=[f"cell{k}" for k in range(n_cells)])
    ad.AnnData(x, obs, var).write_h5ad(path)
    return x.nnz, int(gene.max()) + 1


def run(path: str, name: str) -> None:
    """Child process: read, call, print what was measured."""
    import anndata as ad

    import dream_sc as ds

    adata = ad.read_h5ad(path)
    begin = time.perf_counter()
    out = getattr(ds.pp, name.split()[0])(adata, **CALLS[name])
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    stored = out.X.nnz + sum(layer.nnz for layer in out.layers.values())
    print(json.dumps({"seconds": seconds, "peak": peak, "rows": out.n_vars, "stored": stored}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--junctions", type=int, default=100_000)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--depth", type=int, default=1500, help="mean number of junction counts of a cell")
    parser.add_argument("--exons", type=int, default=20, help="most exons of a gene, 4 or more; the least is 4")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run(*args.run)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "junctions.h5ad"
        stored, genes = write(path, args.junctions, args.cells, args.depth, args.exons)
        print(
            f"{args.junctions:,} junctions of {genes:,} genes x {args.cells:,} cells, {stored:,} stored values; bars "
            f"{BAR_SECONDS:.0f} s and {BAR_BYTES / 1e9:.0f} GB; load {os.getloadavg()[0]:.1f}"
        )
        for name in CALLS:
            command = [sys.executable, __file__, "--run", str(path), name]
            child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            r = json.loads(child.stdout.splitlines()[-1])
            held = r["seconds"] <= BAR_SECONDS and r["peak"] <= BAR_BYTES
            print(
                f"{name:<30} {r['seconds']:6.1f} s   peak {r['peak'] / 1e9:5.2f} GB   {r['rows']:7,} rows   "
                f"{r['stored']:12,} stored values   {'held' if held else 'MISSED'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
