"""Screens with several guides per cell: dosages of guides against what could be known, calls against the truth.

200 guides, 12 of them on the cis gene and 40 NTC; each cell has each with the same probability. Beside it a screen with
one guide per cell and as many cells per guide. The oracle knows everything but one guide's dosage.

    python benchmarks/high_moi.py [--moi 1 5 20] [--seeds 10] [--guide-shift 0.1] [--no-scale]
    python benchmarks/high_moi.py --sets [--seeds 10] [--guide-shift 0.1]

`--sets`: 26 guides at moi 3, half of them on the cis gene, so that most targeted cells carry several of its guides. The
trans step with all of these cells that it can use, and with those alone that carry one guide of the cis gene.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds
from dream_sc._core.dosage.cells import curvatures

SETS = 2000, 120  # cells and genes
N_CELLS, N_ALL, N_CIS, N_NTC, N_GENES = 10_000, 200, 12, 40, 300


def oracle(adata: ad.AnnData) -> np.ndarray:
    """Standard error of each guide's dosage with all else known: overdispersion, spreads, the other guides."""
    truth, gene = adata.uns["titration"]["guides"], adata.var.loc["GFI1B"]
    carried = adata.obsm["guides"][:, :N_CIS]
    sd = np.sqrt(carried @ truth["within_sd"].to_numpy()[:N_CIS] ** 2)
    mean = carried @ truth["log2_dosage"].to_numpy()[:N_CIS]
    batch = adata.obs["batch"].cat.codes.to_numpy()
    exposure = adata.obs["size_factor"].to_numpy() * gene["true_baseline"]
    exposure = exposure * 2.0 ** adata.varm["true_technical_effects"][0][batch]
    y = np.asarray(adata[:, "GFI1B"].X.todense()).ravel().astype(float)
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    mine = np.flatnonzero(np.diff(carried.tocsr().indptr))
    phi = 1 / gene["true_overdispersion"] ** 2
    found = curvatures(y[mine], exposure[mine], phi, mean[mine], sd[mine], nodes, np.log(weights / weights.sum()))
    return np.asarray((carried[mine].T @ found) ** -0.5)


def dosages(adata: ad.AnnData) -> pd.DataFrame:
    """Error of each guide's log2 dosage, and whether its interval holds the truth."""
    table = ds.get.guides(adata)
    table = table[~table["is_control"]]
    truth = adata.uns["titration"]["guides"].set_index("guide")["log2_dosage"].reindex(table.index)
    inside = (truth > table["log2fc_q025"]) & (truth < table["log2fc_q975"])
    return pd.DataFrame({"error": table["log2_dosage"] - truth, "inside": inside})


def calls(adata: ad.AnnData) -> dict[str, float]:
    """False calls, power over large movers, and error and coverage of their EC50."""
    found, var = ds.get.trans(adata).iloc[1:], adata.var.iloc[1:]
    called = found["qvalue"] < 0.05
    movers = (var["true_log2fc_range"] >= 1) & (var["true_baseline"] >= 0.5)
    ec50 = called & movers & (var["true_model"] == "single_hill") & (found["model"] == "single_hill")
    truth = var["true_log2_ec50"]
    inside = (truth > found["log2_ec50_q025"]) & (truth < found["log2_ec50_q975"])
    return {
        "calls": called.sum(),
        "false": (called & (var["true_model"] == "null")).sum(),
        "movers": movers.sum(),
        "found": (called & movers).sum(),
        "ec50_error": (found["log2_ec50"] - truth)[ec50].abs().median(),
        "ec50_inside": inside[ec50].mean(),
    }


def fit(adata: ad.AnnData, **cis: str) -> float:
    """All three steps; seconds of the cis step."""
    many = {"guides": "guides", "use_all_cells": True} if "control_group" in cis else {}
    ds.tl.fit_technical(adata, batch_key="batch", **many)
    start = time.perf_counter()
    ds.tl.fit_cis(adata, "GFI1B", **cis)
    seconds = time.perf_counter() - start
    ds.tl.fit_trans(adata, progress=False)
    return seconds


def compare(moi: float, seeds: int, shift: float) -> pd.DataFrame:
    """Several guides per cell, and one."""
    rows = []
    for seed in range(seeds):
        many = ds.datasets.high_moi(N_CELLS, N_GENES, moi=moi, rng=seed, guide_shift_sd=shift)
        fit(many, control_group="complement")
        d, n = dosages(many), many.uns["cis"]["n_cells"]
        rows.append(
            calls(many)
            | {
                "screen": "several",
                "mse": (d["error"] ** 2).mean(),
                "oracle": (oracle(many) ** 2).mean(),
                "inside": d["inside"].mean(),
                "in_trans": 1 - n["several_guides"] / n["targeting"],
            }
        )
        per_guide = round(N_CELLS * moi / N_ALL)
        one = ds.datasets.titration(
            (N_CIS + N_NTC) * per_guide,
            N_GENES,
            rng=seed,
            n_ntc_guides=N_NTC,
            ntc_fraction=N_NTC / (N_CIS + N_NTC),
            dosage_range=(-3.0, 0.8),
            guide_shift_sd=shift,
        )
        fit(one)
        d = dosages(one)
        rows.append(calls(one) | {"screen": "one", "mse": (d["error"] ** 2).mean(), "inside": d["inside"].mean()})
    frame = pd.DataFrame(rows).assign(fdp=lambda f: f["false"] / f["calls"].clip(1))
    of = frame.groupby("screen", sort=False)
    return pd.DataFrame(
        {
            "moi": moi,
            "guide_rmse": of["mse"].mean() ** 0.5,
            "oracle_se": of["oracle"].mean() ** 0.5,
            "guide_coverage": of["inside"].mean(),
            "targeted_cells_in_trans": of["in_trans"].mean(),
            "fdp": of["fdp"].mean(),
            "fdp_se": of["fdp"].std() / seeds**0.5,
            "calls": of["calls"].mean(),
            "power": of["found"].sum() / of["movers"].sum(),
            "ec50_error": of["ec50_error"].mean(),
            "ec50_coverage": of["ec50_inside"].mean(),
        }
    ).reset_index()


def fold_changes(adata: ad.AnnData) -> np.ndarray:
    """Whether the interval of each feature's fold change at the strongest knock-down holds the truth."""
    found = ds.get.trans(adata)
    at = np.append(found["log2_dosage_full"].dropna().unique(), 0.0)
    of_dose = np.log2(ds.datasets.true_curve(adata, list(found.index), at))
    place = np.abs(found["log2_dosage_full"].fillna(0.0).to_numpy()[:, None] - at).argmin(1)
    truth = of_dose[np.arange(len(found)), place] - of_dose[:, -1]
    return np.asarray((found["log2fc_full_q025"] <= truth) & (truth <= found["log2fc_full_q975"]))


def of_sets(seed: int, shift: float) -> list[dict[str, float]]:
    """The trans step without cells with several guides of the cis gene, and with them."""
    adata = ds.datasets.high_moi(
        *SETS,
        moi=3,
        rng=seed,
        n_guides=13,
        n_ntc_guides=13,
        n_other_guides=0,
        guide_shift_sd=shift,
        mean_range=(-4.0, 3.0),
    )
    ds.tl.fit_technical(adata, batch_key="batch", guides="guides", use_all_cells=True)
    ds.tl.fit_cis(adata, "GFI1B", control_group="complement")
    sets = adata.uns["cis"].pop("guide_sets")
    rows = []
    for name in ("one guide", "all"):
        if name == "all":
            adata.uns["cis"]["guide_sets"] = sets
        start = time.process_time()
        ds.tl.fit_trans(adata, progress=False)
        seconds = time.process_time() - start
        found, var = ds.get.trans(adata).iloc[1:], adata.var.iloc[1:]
        null, moves = var["true_model"] == "null", var["true_log2fc_range"] >= 0.5
        call, graded = found["qvalue"] < 0.05, found["qvalue_graded"] < 0.05
        ec50 = call & (var["true_model"] == "single_hill") & (found["model"] == "single_hill")
        low, high, truth = found["log2_ec50_q025"], found["log2_ec50_q975"], var["true_log2_ec50"]
        right, unsure = fold_changes(adata)[1:], found["pareto_k"] > 0.7
        rows.append(
            {
                "cells": name,
                "seed": seed,
                "n_cells": found["n_cells"].max(),
                "n_sets": len(sets) if name == "all" else 0,
                "calls": call.sum(),
                "fdp": (call & null).sum() / max(call.sum(), 1),
                "fdp_graded": (graded & null).sum() / max(graded.sum(), 1),
                "power": call[moves].mean(),
                "power_graded": graded[moves].mean(),
                "p_below_0.05": (found["pvalue"][null] < 0.05).mean(),
                "ec50_inside": ((low < truth) & (truth < high))[ec50].mean(),
                "ec50_width": (high - low)[ec50].median(),
                "pareto_k": unsure.mean(),
                "log2fc_inside": right[call & ~null].mean(),
                "log2fc_inside_high_k": right[call & ~null & unsure].mean(),
                "n_high_k": (call & ~null & unsure).sum(),
                "guide_sd": found["guide_sd"][null].median(),
                "seconds": seconds,
            }
        )
    return rows


def print_sets(seeds: int, shift: float) -> None:
    rows: list[dict[str, float]] = []
    for seed in range(seeds):
        rows += of_sets(seed, shift)
        print(pd.DataFrame(rows[-2:]).round(3).to_string(index=False), flush=True)
    of = pd.DataFrame(rows).groupby("cells", sort=False)
    print(of.mean().round(3).T.to_string())
    print("standard errors")
    print(of.sem().round(3).T.to_string())


def scale() -> None:
    """200,000 cells x 13,000 guides, 20 a cell; 6 of the guides on the cis gene. Run in a process of its own."""
    rng, n, n_guides = np.random.default_rng(0), 200_000, 13_000
    cells = [rng.choice(n, rng.binomial(n, 20 / n_guides), replace=False) for _ in range(n_guides)]
    guide = np.repeat(np.arange(n_guides), [len(c) for c in cells])
    carried = sparse.csr_matrix((np.ones(len(guide), dtype=np.int8), (np.concatenate(cells), guide)), (n, n_guides))
    effect = np.zeros(n_guides)
    effect[:6] = np.linspace(-2, 0.5, 6)
    x = rng.poisson(rng.gamma(6.0, 3 * 2.0 ** (carried @ effect) / 6.0))
    other = rng.poisson(2.0, (n, 30))
    adata = ad.AnnData(sparse.csr_matrix(np.column_stack([x, other]).astype(np.float32)))
    adata.var_names = ["cis", *(f"gene_{i}" for i in range(30))]
    adata.obs["size_factor"] = 1.0
    adata.obsm["guides"] = carried
    adata.uns["guides_ids"] = np.array([f"g{i}" for i in range(n_guides)])
    adata.uns["guides_target"] = np.array(["cis"] * 6 + ["NTC"] * 100 + [f"t{i // 2}" for i in range(n_guides - 106)])
    del cells, guide, other
    start = time.perf_counter()
    ds.tl.fit_technical(adata, guides="guides", use_all_cells=True)
    technical = time.perf_counter() - start
    start = time.perf_counter()
    ds.tl.fit_cis(adata, "cis", control_group="complement")
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    error = ds.get.guides(adata)["log2_dosage"].iloc[:6] - effect[:6]
    print(f"fit_technical {technical:.1f} s, fit_cis {seconds:.1f} s, peak {peak:.2f} GB with data and imports")
    print(f"largest error of a guide {error.abs().max():.3f} log2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moi", type=float, nargs="+", default=[1, 5, 20])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--guide-shift", type=float, default=0.1)
    parser.add_argument("--scale", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--sets", action="store_true", help="with and without cells of several guides of the gene")
    parser.add_argument("--no-scale", action="store_true", help="leave the large matrix of guides out")
    args = parser.parse_args()
    if args.scale:
        scale()
        return
    if args.sets:
        print_sets(args.seeds, args.guide_shift)
        return
    for moi in args.moi:
        print(compare(moi, args.seeds, args.guide_shift).round(3).to_string(index=False), flush=True)
    if not args.no_scale:
        subprocess.run([sys.executable, __file__, "--scale"], check=True)


if __name__ == "__main__":
    main()
