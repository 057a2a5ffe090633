"""Doubtful guides: what is lost by a threshold on the UMIs of guides, against cells whose guides are known.

Each cell has UMIs of its own guide and of others that leaked. In some cells the own guide is hardly captured, in some a
neighbour's guide leaked in a lump, and some are doublets. Guides are assigned by thresholds (`min_umis` of
`pp.assign_guides`, which takes cells with exactly one guide), and by the likeliest guide of each cell, by a mixture per
guide (Poisson of what leaks, negative binomial of guides that are there). "Known" has the true guide of all cells that
are no doublets: no weights of doubtful cells could do better.

    python benchmarks/doubtful_guides.py [--seeds 10] [--cells 1500] [--genes 100]
"""

from __future__ import annotations

import argparse
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import expit, logit, softmax
from scipy.stats import nbinom, poisson

import dream_sc as ds

CIS_GENE = "GFI1B"
MEAN, SIZE = 30.0, 2.0  # UMIs of the own guide, negative binomial
MEAN_DOUBTFUL = 2.0  # the same in doubtful cells
LUMP, MEAN_LUMP = 0.05, 4.0  # share of cells with a neighbour's guide, and its UMIs
DOUBLETS = 0.04
DOUBTFUL, AMBIENT = (0.05, 0.2), 1.0  # share of cells; UMIs that leak per cell, of all guides
THRESHOLDS = (1, 3, 5)
SURE = 0.9


def umis_of(adata: ad.AnnData, doubtful: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """UMIs ``(cells, guides)`` and which cells are doublets."""
    gen = np.random.default_rng([seed, 7])
    own = adata.obs["guide"].cat.codes.to_numpy()
    n, n_guides = len(own), len(adata.obs["guide"].cat.categories)
    share = np.bincount(own, minlength=n_guides) / n
    x = gen.poisson(AMBIENT * share, (n, n_guides))
    mean = np.where(gen.random(n) < doubtful, MEAN_DOUBTFUL, MEAN)
    x[np.arange(n), own] += gen.poisson(mean * gen.gamma(SIZE, 1 / SIZE, n))
    lump = np.flatnonzero(gen.random(n) < LUMP)
    np.add.at(x, (lump, gen.choice(n_guides, len(lump), p=share)), gen.geometric(1 / MEAN_LUMP, len(lump)))
    doublet = gen.random(n) < DOUBLETS
    two = np.flatnonzero(doublet)
    other = gen.choice(n_guides, len(two), p=share)
    np.add.at(x, (two, other), gen.poisson(MEAN * gen.gamma(SIZE, 1 / SIZE, len(two))))
    return x, doublet


def odds(x: np.ndarray) -> np.ndarray:
    """Log odds ``(cells, guides)`` that a guide is there, by a mixture per guide whose parameters EM finds."""
    present = expit(2.0 * (x - 4.0))
    for _ in range(50):
        share = present.mean(0)
        leak = np.maximum(((1 - present) * x).sum(0) / (1 - present).sum(0), 1e-3)
        mean = (present * x).sum() / present.sum()
        var = (present * (x - mean) ** 2).sum() / present.sum()
        size = mean**2 / max(var - mean, 1e-3)
        out = logit(share) + nbinom.logpmf(x, size, size / (size + mean)) - poisson.logpmf(x, leak)
        present = expit(out)
    return np.asarray(out)


def assigned(x: np.ndarray) -> dict[str, np.ndarray]:
    """Guide of each cell by each rule, -1 for none."""
    at = odds(x)
    found = {f"min_umis={k}": x >= k for k in THRESHOLDS}
    out = {name: np.where(there.sum(1) == 1, there.argmax(1), -1) for name, there in found.items()}
    likely = softmax(at, axis=1)
    out["likeliest guide"] = np.where((likely.max(1) > SURE) & ((at > 0).sum(1) <= 1), likely.argmax(1), -1)
    return out


def fitted(adata: ad.AnnData, guide: np.ndarray) -> dict[str, float]:
    """The three steps with these guides, against the truth."""
    some = adata[guide >= 0].copy()
    names, truth = adata.obs["guide"].cat.categories, some.obs["guide"].astype(str)
    target = adata.obs.drop_duplicates("guide").set_index("guide")["target"].astype(str)
    some.obs["guide"] = names[guide[guide >= 0]].astype(str)
    some.obs["target"] = some.obs["guide"].map(target)
    ds.tl.fit_technical(some, batch_key="batch")
    ds.tl.fit_cis(some, CIS_GENE)
    ds.tl.fit_trans(some, progress=False)
    guides = ds.get.guides(some).query("target == @CIS_GENE")
    dosage = adata.uns["titration"]["guides"].set_index("guide")["log2_dosage"][guides.index]
    table, var = ds.get.trans(some), adata.var
    call, responds = table["qvalue"] < 0.05, (var["true_model"] != "null") & (var.index != CIS_GENE)
    small = responds & var["true_log2fc_range"].between(0.3, 1.0) & (var["true_baseline"] >= 0.5)
    half = 1.96 * np.hypot(guides["sd_acting"], some.uns["cis"]["diagnostics"]["ntc_level_sd"])
    error = guides["log2_dosage_acting"] - dosage
    return {
        "cells": len(some) / len(adata),
        "wrong guide": float((some.obs["guide"] != truth).mean()),
        "power": call[responds].mean(),
        "power, small": call[small].mean(),
        "fdp": (call & ~responds).sum() / max(call.sum(), 1),
        "slope": np.polyfit(dosage, guides["log2_dosage_acting"], 1)[0],
        "rmse": float(np.sqrt((error**2).mean())),
        "coverage": float((error.abs() <= half).mean()),
    }


def doublets(adata: ad.AnnData, which: np.ndarray, seed: int) -> None:
    """Add the counts of another cell to those of each doublet."""
    gen, two = np.random.default_rng([seed, 8]), np.flatnonzero(which)
    x = adata.X.tolil()
    x[two] = adata.X[two] + adata.X[gen.choice(len(which), len(two))]
    adata.X = sparse.csr_matrix(x)
    adata.obs.loc[which, "size_factor"] *= 2


def one_seed(seed: int, n_cells: int, n_genes: int) -> list[dict[str, Any]]:
    rows = []
    for doubtful in DOUBTFUL:
        adata = ds.datasets.titration(n_cells, n_genes, rng=seed, guide_shift_sd=0.05)
        adata.obs["guide"] = adata.obs["guide"].astype("category")
        x, doublet = umis_of(adata, doubtful, seed)
        doublets(adata, doublet, seed)
        known = np.where(doublet, -1, adata.obs["guide"].cat.codes.to_numpy())
        for rule, guide in ({"known": known} | assigned(x)).items():
            rows.append({"doubtful": doubtful, "rule": rule, "seed": seed} | fitted(adata, guide))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--cells", type=int, default=1500)
    parser.add_argument("--genes", type=int, default=100)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(given.seeds):
        rows += one_seed(seed, given.cells, given.genes)
        by = pd.DataFrame(rows).drop(columns="seed").groupby(["doubtful", "rule"], sort=False)
        print(f"{seed + 1} seeds", by.mean().to_string(float_format="{:.3f}".format), sep="\n", flush=True)
    print("standard errors", (by.std() / given.seeds**0.5).to_string(float_format="{:.3f}".format), sep="\n")


if __name__ == "__main__":
    main()
