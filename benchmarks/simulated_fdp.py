"""Error rate, power, EC50 error and interval coverage on simulated titrations.

    python benchmarks/simulated_fdp.py [--seeds 10] [--shifts 0 0.1] [--genes 500] [--cells 5000]

For every seed and sd of the guide shifts: 12 graded guides and 6 NTC guides, 2 groups, the three steps by their
defaults, then the trans step once more with the true dosages of the guides in place of the estimated ones. Reported
over seeds: realised false discovery proportion at q < 0.05, power over movers, median EC50 error, coverage of the
95 % intervals over all movers, called or not. A mover has at least 0.5 counts per cell and moves by at least 1 log2 at
two guides or more.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd

import dream_sc as ds


def movers(adata) -> np.ndarray:
    guides = adata.uns["titration"]["guides"]
    doses = guides.loc[guides["target"] != "NTC", "log2_dosage"].to_numpy()
    curves = np.log2(ds.datasets.true_curve(adata, list(adata.var_names), np.append(doses, 0.0)))
    moved = np.sort(np.abs(curves[:, :-1] - curves[:, -1:]), axis=1)[:, -2] >= 1.0
    enough = np.asarray(adata.X.mean(0)).ravel() >= 0.5
    return moved & enough & (adata.var["true_model"] != "null").to_numpy() & (adata.var_names != "GFI1B")


def with_true_dosages(adata, keep: np.ndarray) -> pd.DataFrame:
    """The rows of some genes in the same fit, the guides' dosages known."""
    other = adata[:, keep].copy()
    guides = other.uns["cis"]["guides"]
    truth = other.uns["titration"]["guides"].set_index("guide").loc[guides["guide"]]
    guides["log2_dosage"], guides["sd"] = truth["log2_dosage"].to_numpy(), 1e-3
    guides["within_sd"], guides["escaper_fraction"] = truth["within_sd"].to_numpy(), 0.0
    other.uns["cis"]["diagnostics"]["ntc_level_sd"] = 0.0
    other.uns["cis"]["made_from"].pop("results")  # what an edited table is told by
    ds.tl.fit_trans(other, hyper=adata.uns["trans"]["hyper"], progress=False)
    return ds.get.trans(other)


def one(seed: int, shift: float, n_genes: int, n_cells: int) -> dict[str, float]:
    adata = ds.datasets.titration(n_cells, n_genes, rng=seed, guide_shift_sd=shift)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    start = time.perf_counter()
    ds.tl.fit_trans(adata, progress=False)
    seconds = time.perf_counter() - start
    table, var = ds.get.trans(adata), adata.var
    called = (table["qvalue"] < 0.05).to_numpy()
    null = (var["true_model"] == "null").to_numpy() & (adata.var_names != "GFI1B")
    single, two = ((var["true_model"] == m).to_numpy() & movers(adata) for m in ("single_hill", "additive_hill"))
    low, high = adata.uns["trans"]["axis"]["low"], adata.uns["trans"]["axis"]["high"]
    inside = single & ((var["true_log2_ec50"] > low) & (var["true_log2_ec50"] < high)).to_numpy()
    everyone = single | two
    known = with_true_dosages(adata, inside)
    strongest = adata.uns["titration"]["guides"]["log2_dosage"].min()
    full = np.log2(ds.datasets.true_curve(adata, list(adata.var_names), np.array([strongest, 0.0])))
    truth = {
        "log2_ec50": var["true_log2_ec50"].to_numpy(),
        "hill_n": var["true_hill_n"].to_numpy(),
        "log2fc_full": full[:, 0] - full[:, 1],
    }
    out = {
        "false": (called & null).sum(),
        "called": called.sum(),
        "seconds": seconds,
        "single_called": (called & single).sum(),
        "single": single.sum(),
        "two_called": (called & two).sum(),
        "two": two.sum(),
        "p05": (table["pvalue"][null] < 0.05).mean(),
        "p005": (table["pvalue"][null] < 0.005).mean(),
        "responders": (~null).sum() - 1,
        "as_two_hills": (table["model"][single] == "additive_hill").sum(),
        "two_as_two": (table["model"][two] == "additive_hill").sum(),
        "ec50_error": np.median(np.abs(table["log2_ec50"] - truth["log2_ec50"])[inside]),
        "ec50_error_known": np.median(np.abs(known["log2_ec50"] - truth["log2_ec50"][inside])),
    }
    for name, which in (("log2_ec50", inside), ("hill_n", single), ("log2fc_full", everyone)):
        lower, upper = table[f"{name}_q025"].to_numpy(), table[f"{name}_q975"].to_numpy()
        ok = which & np.isfinite(truth[name])
        out[f"in_{name}"] = ((lower <= truth[name]) & (truth[name] <= upper))[ok].sum()
        out[f"of_{name}"] = ok.sum()
    return out


def report(shift: float, runs: pd.DataFrame) -> None:
    fdp = runs["false"] / runs["called"].clip(lower=1)
    total = runs.sum()
    error = fdp.std(ddof=1) / np.sqrt(len(fdp)) if len(fdp) > 1 else np.nan
    print(f"\nguide shifts of sd {shift} log2, {len(runs)} seeds")
    print(f"  FDP at q < 0.05        {fdp.mean():.3f} +- {error:.3f} (worst seed {fdp.max():.3f})")
    print(f"  power, single Hill     {total['single_called'] / total['single']:.3f} of {total['single']:.0f}")
    print(f"  power, two Hills       {total['two_called'] / total['two']:.3f} of {total['two']:.0f}")
    print(f"  calls of responders    {(total['called'] - total['false']) / total['responders']:.3f}")
    print(f"  nulls with p < 0.05    {runs['p05'].mean():.4f}; p < 0.005 {runs['p005'].mean():.4f}")
    print(f"  single Hills taken for two {total['as_two_hills'] / total['single']:.3f}; ", end="")
    print(f"two Hills taken for two {total['two_as_two'] / total['two']:.3f}")
    ratio = runs["ec50_error"].mean() / runs["ec50_error_known"].mean()
    print(f"  EC50 median error      {runs['ec50_error'].mean():.3f} log2, {ratio:.2f} x that at the true dosages")
    for name in ("log2_ec50", "hill_n", "log2fc_full"):
        print(f"  coverage, {name:<12} {total[f'in_{name}'] / total[f'of_{name}']:.3f} of {total[f'of_{name}']:.0f}")
    print(f"  trans step             {runs['seconds'].mean():.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--shifts", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--cells", type=int, default=5000)
    options = parser.parse_args()
    for shift in options.shifts:
        runs = []
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            runs.append(one(seed, shift, options.genes, options.cells))
            row = runs[-1]
            print(f"seed {seed}: {row['false']} false of {row['called']} calls", flush=True)
        report(shift, pd.DataFrame(runs))


if __name__ == "__main__":
    main()
