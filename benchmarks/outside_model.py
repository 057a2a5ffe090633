"""Error rate and power where screens are not as the model says: guides with programmes of their own, wild cells.

    python benchmarks/outside_model.py [--seeds 10] [--only base one_guide ...] [--out FILE.csv]

Each screen has 360 genes, 4,000 cells, 13 graded guides, 6 NTC guides and two batches; its counts are drawn anew from
the truth of `datasets.titration`, with what the scenario adds. Reported over seeds: the realised false discovery
proportion at q < 0.05 and its standard error, the power over movers (at least 0.5 counts per cell, and a movement of at
least 1 log2 at two guides) and over all responders, the same for calls that do not rest on one guide
(`log_bf_loo` > 0), and the seconds of the trans step.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds

N_GENES, N_CELLS, N_GUIDES, N_NTC = 360, 4000, 13, 6
SHARE, PROGRAMME_SD, NOISE_SD, WILD, RISE = 0.2, 1.0, 0.3, 50, 0.25
GAP = 0.8  # log2 that the strongest guide is further off than the others are from each other
SCENARIOS = {
    "base": "as the model says, no guide effects",
    "one_guide": "strongest guide with a programme: sd 1 log2 on 20 % of genes",
    "two_guides": "strongest guide and the third share such a programme",
    "neighbours": "the two strongest guides share it",
    "ntc_guide": "an NTC guide has it",
    "noisy": "targeting guides shift all genes, sd 0.3; NTC guides do not",
    "wild_cell": "one cell has 50 times its total in one gene",
    "rising": "overdispersion rises with the knock-down",
}


def shifts(name: str, guides: pd.DataFrame, n_genes: int, gen: np.random.Generator) -> np.ndarray:
    """Log2 shift ``(G, T)`` of each guide and gene."""
    out = np.zeros((len(guides), n_genes))
    order = np.argsort(guides["log2_dosage"].to_numpy(), kind="stable")
    programme = gen.normal(0, PROGRAMME_SD, n_genes) * (gen.random(n_genes) < SHARE)
    who = {"one_guide": order[:1], "two_guides": order[[0, 2]], "neighbours": order[:2], "ntc_guide": [len(out) - 1]}
    if name in who:
        out[who[name]] = programme
    if name == "noisy":
        targeting = (guides["target"] != "NTC").to_numpy()
        out[targeting] = gen.normal(0, NOISE_SD, (targeting.sum(), n_genes))
    out[:, 0] = 0.0  # the cis gene
    return out


def simulate(name: str, seed: int) -> Any:
    """A screen of this kind, with its truth as `datasets.titration` stores it."""
    adata = ds.datasets.titration(20, N_GENES, rng=seed, n_guides=N_GUIDES, n_ntc_guides=N_NTC)
    cells = ds.datasets.titration(N_CELLS, 1, rng=seed, n_guides=N_GUIDES, n_ntc_guides=N_NTC)
    gen, guides = np.random.default_rng([seed, 1]), cells.uns["titration"]["guides"]
    strongest = int(guides["log2_dosage"].argmin())
    code = cells.obs["guide"].map({g: i for i, g in enumerate(guides["guide"])}).to_numpy(int)
    guides.loc[strongest, "log2_dosage"] -= GAP
    cells.obs.loc[code == strongest, "true_log2_dosage"] -= GAP
    batch = (cells.obs["batch"].to_numpy() == "batch_2").astype(int)
    dose, var = cells.obs["true_log2_dosage"].to_numpy(), adata.var
    mean = ds.datasets.true_curve(adata, list(adata.var_names), dose).T
    mean *= cells.obs["true_size_factor"].to_numpy()[:, None] * 2.0 ** adata.varm["true_technical_effects"].T[batch]
    mean *= 2.0 ** shifts(name, guides, N_GENES, gen)[code]
    overdispersion = np.broadcast_to(var["true_overdispersion"].to_numpy(), mean.shape)
    if name == "rising":
        overdispersion = overdispersion * 2.0 ** (-RISE * dose)[:, None]
    y = gen.poisson(mean * gen.gamma(overdispersion**-2.0) * overdispersion**2.0).astype(np.float32)
    if name == "wild_cell":
        cell = np.flatnonzero(code == strongest)[0]
        y[cell, np.flatnonzero(var["true_model"] == "null")[5]] = WILD * y[cell].sum()
    out = type(adata)(sparse.csr_matrix(y), obs=cells.obs, var=var)
    out.uns["titration"] = cells.uns["titration"]
    return out


def movers(adata: Any) -> np.ndarray:
    """Genes that respond by enough to be found."""
    guides = adata.uns["titration"]["guides"]
    doses = guides.loc[guides["target"] != "NTC", "log2_dosage"].to_numpy()
    curves = np.log2(ds.datasets.true_curve(adata, list(adata.var_names), np.append(doses, 0.0)))
    moved = np.sort(np.abs(curves[:, :-1] - curves[:, -1:]), axis=1)[:, -2] >= 1.0
    enough = np.asarray(adata.X.mean(0)).ravel() >= 0.5
    return moved & enough & (adata.var["true_model"] != "null").to_numpy() & (adata.var_names != "GFI1B")


def one(name: str, seed: int) -> dict[str, Any]:
    """One screen fitted by the defaults, and its scores."""
    adata = simulate(name, seed)
    ds.pp.size_factors(adata, method="stable")
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    start = time.perf_counter(), time.process_time()
    ds.tl.fit_trans(adata, progress=False)
    seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    table, mover = ds.get.trans(adata), movers(adata)
    called = (table["qvalue"] < 0.05).to_numpy()
    alone = called & (table["log_bf_loo"] > 0).to_numpy()
    null = (adata.var["true_model"] == "null").to_numpy() & (adata.var_names != "GFI1B")
    out = {"scenario": name, "seed": seed, "called": called.sum(), "false": (called & null).sum()}
    responds = (adata.var["true_model"] != "null").to_numpy()
    out |= {"fdp": out["false"] / max(called.sum(), 1), "power": (called & mover).sum() / mover.sum()}
    out |= {"fdp_loo": (alone & null).sum() / max(alone.sum(), 1), "power_loo": (alone & mover).sum() / mover.sum()}
    out |= {"power_all": (called & responds).sum() / responds.sum()}
    out |= {"p001": (table["pvalue"].to_numpy()[null] < 0.001).mean(), "seconds": seconds, "cpu_seconds": cpu}
    guides = adata.uns["trans"]["guides"]
    if "departs" in guides:
        most = guides.sort_values("departs", ascending=False, kind="stable").head(3)
        named = zip(most["guide"], most["departs"], most["departs_with"], strict=True)
        text = [f"{g} {d:.2f} {w}".strip() for g, d, w in named]
        out["departing"] = "; ".join(text)
    return out


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, and the standard error of the false discovery proportion."""
    by = runs.groupby("scenario", sort=False)
    out = by[["fdp", "power", "power_all", "fdp_loo", "power_loo", "p001", "seconds", "cpu_seconds"]].mean()
    out.insert(1, "fdp_se", by["fdp"].std() / np.sqrt(by.size()))
    out.insert(0, "seeds", by.size())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=list(SCENARIOS), choices=list(SCENARIOS))
    parser.add_argument("--out", type=Path, help="csv file with a row per screen")
    options = parser.parse_args()
    rows = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in options.only:
            rows.append(one(name, seed))
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
            if options.out:
                pd.DataFrame(rows).to_csv(options.out, index=False)
    print(summary(pd.DataFrame(rows)).round(3).to_string())


if __name__ == "__main__":
    main()
