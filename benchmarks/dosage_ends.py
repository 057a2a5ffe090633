"""Dosages of guides at their ends, and whether their 95 % intervals hold the truth.

"few": guides with hardly any count. "control": the level of many NTC guides with few counts each. "coverage": simulated
titrations in which something is hard: size factors that are totals of genes of which many respond, guide shifts, few
control cells, guides that are all strong, cells in which a guide does nothing. "escapers": guides of -1.5 to -0.6 log2,
whose acting and escaping cells overlap: the share of escaping cells, the level of the best responders in NTC cells.
"""

from __future__ import annotations

import argparse
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds

CIS_GENE = "GFI1B"
SCENARIOS: dict[str, dict[str, Any]] = {
    "plain": {},
    "guide shifts 0.15": {"guide_shift_sd": 0.15},
    "50 control cells": {"ntc_fraction": 50 / 3000},
    "all guides strong": {"dosage_range": (-4.0, -2.0)},
    "30 % escapers": {"escaper_fraction": 0.3},
    "50 % escapers": {"escaper_fraction": 0.5},
}
OVERLAPPING, BEST = (-1.5, -0.6), 20  # log2 dosages; responders whose level is looked at
COVERAGE_BAR, SLOPE_BAR = 0.92, (0.95, 1.05)


def intervals(adata: Any) -> pd.DataFrame:
    """Truth, estimate and interval of each targeting guide, of the cells in which it acts."""
    table = ds.get.guides(adata)
    table = table[table["target"] == CIS_GENE]
    truth = adata.uns["titration"]["guides"].set_index("guide")["log2_dosage"][table.index]
    level = adata.uns["cis"]["diagnostics"]["ntc_level_sd"]
    half = 1.959964 * np.hypot(table["sd_acting"], level)
    return pd.DataFrame(
        {
            "truth": truth,
            "estimate": table["log2_dosage_acting"],
            "low": table["log2_dosage_acting"] - half,
            "high": table["log2_dosage_acting"] + half,
            "sd": table["sd_acting"],
            "level": level,
            "escape": table["escaper_fraction"],
        }
    )


def coverage(name: str, seeds: int, size_factors: str) -> dict[str, Any]:
    """Share of the intervals that hold the truth, slope of the estimate on the truth, bias."""
    frames = []
    for seed in range(seeds):
        adata = ds.datasets.titration(3000, 300, rng=seed, **SCENARIOS[name])
        if size_factors != "true":
            ds.pp.size_factors(adata, method=size_factors)
        ds.tl.fit_technical(adata, batch_key="batch")
        ds.tl.fit_cis(adata, CIS_GENE)
        frames.append(intervals(adata).assign(seed=seed))
    t = pd.concat(frames)
    each = ((t["low"] <= t["truth"]) & (t["truth"] <= t["high"])).groupby(t["seed"]).mean()
    error = t["estimate"] - t["truth"]
    return {
        "scenario": name,
        "size factors": size_factors,
        "coverage": each.mean(),
        "+-": each.std() / len(each) ** 0.5,
        "slope": np.polyfit(t["truth"], t["estimate"], 1)[0],
        "bias": error.mean(),
        "rmse": (error**2).mean() ** 0.5,
        "common": error.groupby(t["seed"]).mean().std(),
        "mean sd": t["sd"].mean(),
        "level sd": t["level"].mean(),
        "escape": t["escape"].mean(),
    }


def escapers(share: float, seeds: int) -> dict[str, Any]:
    """Share of escaping cells and its interval; level of the best responders over that of the technical step."""
    frames, level = [], []
    for seed in range(seeds):
        adata = ds.datasets.titration(3000, 300, rng=seed, dosage_range=OVERLAPPING, escaper_fraction=share)
        ds.tl.fit_technical(adata, batch_key="batch")
        ds.tl.fit_cis(adata, CIS_GENE)
        ds.tl.fit_trans(adata, progress=False)
        table = ds.get.guides(adata).query("target == @CIS_GENE")
        cells = adata.obs[adata.obs["target"] == CIS_GENE]
        escaped = cells["true_log2_dosage"] == 0.0
        table = table.assign(seed=seed, truth=escaped.groupby(cells["guide"].astype(str)).mean()[table.index])
        frames.append(table.join(intervals(adata)[["low", "high"]]).assign(dosage=intervals(adata)["truth"]))
        best = ds.get.trans(adata, sort=True).query("qvalue < 0.05").head(BEST)
        level.append(np.median(np.log2(best["baseline"] / ds.get.technical(adata)["mu"][best.index])))
    t = pd.concat(frames)
    inside = (t["escaper_fraction_q025"] <= t["truth"]) & (t["truth"] <= t["escaper_fraction_q975"])
    held = (t["low"] <= t["dosage"]) & (t["dosage"] <= t["high"])
    by, n = t["seed"], seeds**0.5
    each = {"share": t["escaper_fraction"].groupby(by).mean(), "covered": inside.groupby(by).mean()}
    each |= {"dosage covered": held.groupby(by).mean(), "level of best": pd.Series(2.0 ** np.array(level))}
    return {"true share": share} | {k: f"{v.mean():.3f} +- {v.std() / n:.3f}" for k, v in each.items()}


def screen(
    seed: int, dosages: np.ndarray, cells: int, mean: float, ntc: tuple[int, int], *, overdispersion: float = 0.3
) -> ad.AnnData:
    """One guide per cell, `ntc` guides of so many cells; the first gene follows the dosage, 30 do not."""
    gen, n = np.random.default_rng(seed), len(dosages)
    guide = np.append(np.repeat(np.arange(n), cells), n + np.repeat(np.arange(ntc[0]), ntc[1]))
    x = np.append(dosages, np.zeros(ntc[0]))[guide]
    shape = 1 / overdispersion**2
    cis = gen.poisson(mean * 2.0**x * gen.gamma(shape, 1 / shape, len(x)))
    counts = sparse.csr_matrix(np.column_stack([cis, gen.poisson(5, (len(x), 30))]).astype(np.float32))
    target = np.where(guide < n, "CIS", "NTC")
    obs = pd.DataFrame({"guide": [f"g{i}" for i in guide], "target": target, "size_factor": 1.0})
    obs.index = [f"c{i}" for i in range(len(x))]
    return ad.AnnData(counts, obs, pd.DataFrame(index=["CIS", *(f"gene{i}" for i in range(30))]))


def dosages_of(adata: Any, **kwargs: Any) -> pd.DataFrame:
    """The targeting guides of a screen."""
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "CIS", **kwargs)
    table = ds.get.guides(adata)
    return table[table["target"] == "CIS"]


def few_counts(expected: float, n_counts: list[int], seeds: int, *, matrix: bool) -> pd.DataFrame:
    """Dosage of a guide of 60 cells by the number of its counts, labels or a matrix of guides.

    Means over seeds, the range of the upper end, and in how many seeds fewer counts have the lower dosage.
    """
    found = pd.concat([_few_counts(expected, n_counts, seed, matrix=matrix) for seed in range(seeds)])
    found["ordered"] = found.groupby("seed")["log2_dosage"].diff().fillna(1.0) > 0
    by = found.groupby(["expected", "counts", "matrix"], sort=False)
    out = by[["log2_dosage", "sd", "q025", "q975"]].mean()
    upper = by["q975"]
    return out.assign(least_q975=upper.min(), most_q975=upper.max(), ordered=by["ordered"].sum()).reset_index()


def _few_counts(expected: float, n_counts: list[int], seed: int, *, matrix: bool) -> pd.DataFrame:
    rows = []
    for n in n_counts:
        adata = screen(seed, np.array([0.0, -1.8, -1.2, -0.8, -0.5, -0.2]), 60, expected / 60, (8, 60))
        x = adata.X.toarray()
        x[:60, 0] = 0
        x[:n, 0] = 1
        adata.X = sparse.csr_matrix(x)
        kwargs = {}
        if matrix:
            names, code = np.unique(adata.obs["guide"], return_inverse=True)
            adata.obsm["guides"] = pd.DataFrame(np.eye(len(names), dtype=int)[code], adata.obs_names, names)
            adata.uns["guides_target"] = ["CIS" if int(g[1:]) < 6 else "NTC" for g in names]
            kwargs = {"guides": "guides"}
        t = dosages_of(adata, **kwargs).loc["g0"]
        q = {k: t[f"log2fc_{k}"] for k in ("q025", "q975")}
        at = {"expected": expected, "counts": n, "matrix": matrix, "seed": seed}
        rows.append(at | {"log2_dosage": t["log2_dosage"], "sd": t["sd"]} | q)
    return pd.DataFrame(rows)


def control_level(mean: float, ntc: tuple[int, int], seeds: int) -> dict[str, Any]:
    """How far the dosages lie below those of the same cells with all NTC guides under one label."""
    shift, bias = [], []
    truth = np.array([-2.0, -1.5, -1.0, -0.5, 0.0, 0.0])
    for seed in range(seeds):
        many = screen(seed, truth, 100, mean, ntc)
        one = many.copy()
        one.obs.loc[one.obs["target"] == "NTC", "guide"] = "ntc"
        found = [dosages_of(a)["log2_dosage"].to_numpy() for a in (many, one)]
        shift.append(np.mean(found[0] - found[1]))
        bias.append(np.mean(found[0] - truth))
    n = seeds**0.5
    return {
        "NTC guides": ntc[0],
        "cells each": ntc[1],
        "mean count": mean,
        "against one label": np.mean(shift),
        "+-": np.std(shift, ddof=1) / n,
        "bias": np.mean(bias),
        "+-of bias": np.std(bias, ddof=1) / n,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--parts", nargs="+", default=["few", "control", "coverage", "escapers"])
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS))
    parser.add_argument("--size-factors", nargs="+", default=["total"], help="total, stable, or true: as simulated")
    args = parser.parse_args()
    tables = {
        "few": lambda: pd.concat(
            [few_counts(e, [0, 1, 2, 3, 5], args.seeds, matrix=m) for m in (False, True) for e in (300.0, 12.0)]
        ),
        "control": lambda: [
            control_level(mean, ntc, args.seeds) for ntc in ((40, 6), (40, 20), (200, 10)) for mean in (0.15, 0.3, 1.0)
        ],
        "escapers": lambda: [escapers(share, args.seeds) for share in (0.0, 0.3)],
        "coverage": lambda: [coverage(n, args.seeds, s) for n in args.scenarios for s in args.size_factors],
    }
    for part in args.parts:
        print(pd.DataFrame(tables[part]()).to_string(index=False, float_format="{:.3f}".format), end="\n\n")


if __name__ == "__main__":
    main()
