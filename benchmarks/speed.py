"""Seconds and memory of the three steps on a simulated titration, and the same for one regression per gene.

A fresh process reads the h5ad and fits, nothing else, so its peak memory is that of a user's session. A small run
before it fills the cache of compiled kernels. Then, in the same process, a negative binomial GLM of the cells is fitted
to some of the genes by statsmodels: overdispersion given, log size factor as offset, an intercept beside either the
log2 dosage of the cell's guide or one indicator per guide of the cis gene. The ratio is of processor seconds, all genes
over the three steps, which machines with other work on them change less than wall time.
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

TIME_BAR, MEMORY_BAR = 10.0, 3e9
N_PERMUTATIONS, CALIBRATE_BAR = 20, 5.0
GLM_BAR = 2.5  # with one column for the dosage
STEPS = ("technical", "cis", "trans")
CIS_GENE = "GFI1B"


def glm_seconds(adata, n_genes: int) -> dict[str, float]:
    """Processor seconds of one regression per gene, by design: mean over some genes times the number of all."""
    import numpy as np
    import statsmodels.api as sm
    from threadpoolctl import threadpool_limits

    guides = adata.uns["cis"]["guides"].set_index("guide")
    guide = adata.obs["guide"].astype(str).to_numpy()
    used = np.isin(guide, guides.index)
    guide, offset = guide[used], np.log(adata.obs["size_factor"].to_numpy(float)[used])
    of_cis = [g for g in guides.index if guides.loc[g, "target"] == CIS_GENE]
    control = guides["target"].to_numpy() != CIS_GENE
    dosage = guides["log2_dosage"].where(~control, 0.0).loc[guide].to_numpy(float)
    designs = {"dosage": dosage[:, None], "guides": (guide[:, None] == np.array(of_cis)).astype(float)}
    table, counts = ds_table(adata), adata.X.tocsc()
    genes = np.unique(np.linspace(1, adata.n_vars - 1, n_genes).round().astype(int))
    out = {}
    for name, columns in designs.items():
        x, spent = sm.add_constant(columns), 0.0
        with threadpool_limits(1, user_api="blas"):
            for gene in genes:
                y = counts[:, [gene]].toarray().ravel()[used]
                family = sm.families.NegativeBinomial(alpha=float(table["overdispersion"].iloc[gene]) ** 2)
                begin = time.process_time()
                sm.GLM(y, x, family=family, offset=offset).fit()
                spent += time.process_time() - begin
        out[name] = spent / len(genes) * (adata.n_vars - 1)
    return out


def ds_table(adata):
    """The table of the trans step, whose overdispersions are those of the technical step."""
    import dream_sc as ds

    return ds.get.trans(adata)


def fit(path: str, function_type: str, profile: bool, calibrate: bool, n_glm: int) -> None:
    """Child process: read, fit, print the seconds of each step and the peak memory."""
    start = time.perf_counter()
    import anndata as ad

    import dream_sc as ds

    seconds, processor = {"import": time.perf_counter() - start}, {"import": time.process_time()}

    def timed(name, call, *args, **kwargs):
        begin, spent = time.perf_counter(), time.process_time()
        result = call(*args, **kwargs)
        seconds[name], processor[name] = time.perf_counter() - begin, time.process_time() - spent
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
    called = int((ds_table(adata)["qvalue"] < 0.05).sum())
    glm = glm_seconds(adata, n_glm) if n_glm else {}
    print(json.dumps({"seconds": seconds, "processor": processor, "peak": peak, "called": called, "glm": glm}))


def child(path: Path, args: argparse.Namespace, n_glm: int = 0) -> dict:
    command = [sys.executable, __file__, "--fit", str(path), "--function-type", args.function_type]
    command += ["--glm-genes", str(n_glm)]
    command += ["--profile"] * args.profile + ["--calibrate"] * args.calibrate
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def held(ok: bool) -> str:
    return "held" if ok else "MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--guides", type=int, default=12)
    parser.add_argument("--function-type", default="auto")
    parser.add_argument("--profile", action="store_true", help="say where the trans step spends its time")
    parser.add_argument("--calibrate", action="store_true", help="also 20 permutations by tl.calibrate")
    parser.add_argument("--glm-genes", type=int, default=40, help="genes to fit a GLM to; 0 for none")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fit:
        fit(args.fit, args.function_type, args.profile, args.calibrate, args.glm_genes)
        return
    import dream_sc as ds

    with tempfile.TemporaryDirectory() as folder:
        small, full = Path(folder) / "small.h5ad", Path(folder) / "full.h5ad"
        ds.datasets.titration(1500, 60, n_guides=args.guides).write_h5ad(small)
        ds.datasets.titration(args.cells, args.genes, n_guides=args.guides).write_h5ad(full)
        first = sum(child(small, args)["seconds"].values())
        load = os.getloadavg()[0]
        result = child(full, args, args.glm_genes)
    seconds = result["seconds"]
    total, spent = (sum(result[kind][k] for k in STEPS) for kind in ("seconds", "processor"))
    print(f"{args.genes} genes, {args.cells} cells, {args.guides} + 6 guides, function_type={args.function_type}")
    for name, value in seconds.items():
        print(f"{name:<10} {value:8.1f} s {result['processor'][name]:8.1f} processor s")
    print(f"three fits {total:8.1f} s {spent:8.1f} processor s, bar {TIME_BAR:.0f} s: {held(total < TIME_BAR)}")
    for name, value in result["glm"].items():
        bar = f", bar {GLM_BAR}: {held(value / spent >= GLM_BAR)}" if name == "dosage" else ""
        print(f"GLM of {name:<7} {value:6.0f} processor s for all genes, {value / spent:.1f} x the three fits{bar}")
    if args.calibrate:
        ratio = seconds["calibrate"] / seconds["trans"]
        print(f"{N_PERMUTATIONS} permutations take {ratio:.1f} times the trans step, bar {CALIBRATE_BAR:.0f}")
    peak = result["peak"]
    print(f"peak       {peak / 1e9:8.2f} GB, bar {MEMORY_BAR / 1e9:.0f} GB: {held(peak < MEMORY_BAR)}")
    print(f"called     {result['called']:8d} genes at q < 0.05")
    print(f"small run that fills the cache of kernels: {first:.1f} s; {os.cpu_count()} cores, load before {load:.2f}")


if __name__ == "__main__":
    main()
