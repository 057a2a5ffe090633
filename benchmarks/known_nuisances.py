"""What becomes of a screen whose cells leak RNA, whose guides are few clones, or whose guides fail in some cells.

    python benchmarks/known_nuisances.py [--seeds 10] [--only base clones_10 ...] [--out FILE.csv]

Each screen has 360 genes, 4,000 cells, 13 graded guides, 6 NTC guides and two batches. A kind of data with something
that the user can name (the clone of a cell, its ambient share) is fitted without and with it. Reported over seeds:
false discovery proportion at q < 0.05 with its standard error, power over movers (at least 0.5 counts per cell, and a
movement of at least 1 log2 at two guides) and over all responders; the slope of the guides' dosages on the true ones;
how often the 95 % interval of `log2fc_full` of a true call holds the true fold change at the lowest true dosage; and by
how much `log2_dosage_full` is off from that.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from outside_model import N_CELLS, N_GENES, N_GUIDES, N_NTC, movers
from scipy import sparse

import dream_sc as ds

N_CLONES, SIZES = 8, 0.3  # of a guide; of a Dirichlet distribution: one clone is often half of the cells
N_ESCAPING, ESCAPING, LOW_COUNTS = 4, 0.35, 0.3  # guides; of their cells; of the counts of the cis gene


class Kind(NamedTuple):
    """What a screen is like, and what the technical step can be told."""

    text: str
    clone_sd: float = 0.0  # log2, of each clone and gene
    guide_sd: float = 0.0  # log2, of each guide and gene
    ambient: float = 0.0
    escaping: bool = False
    weaker: float = 1.0  # log2 dosages of the cells of the second batch, as a multiple
    told: dict[str, Any] | None = None
    told_cis: dict[str, Any] | None = None  # the cis step, in place of the technical one


KINDS = {
    "base": Kind("as the model says"),
    "clones_05": Kind("clones within guides, sd 0.5 log2", clone_sd=0.5, told={"unit_key": "clone"}),
    "clones_10": Kind("clones within guides, sd 1 log2", clone_sd=1.0, told={"unit_key": "clone"}),
    "clones_guides": Kind("the same, guides differ by 0.1", clone_sd=1.0, guide_sd=0.1, told={"unit_key": "clone"}),
    "ambient_10": Kind("10 % ambient counts", ambient=0.1, told={"ambient": 0.1}),
    "ambient_30": Kind("30 % ambient counts", ambient=0.3, told={"ambient": 0.3}),
    "batches": Kind("knock-down of 40 % in one batch", weaker=0.4, told_cis={"guide_covariate_key": "batch"}),
    "escaping": Kind("four guides with 35 % escaping cells, few cis counts", escaping=True),
}


def simulate(kind: Kind, seed: int) -> Any:
    """A screen of this kind, with its truth as `datasets.titration` stores it."""
    adata = ds.datasets.titration(20, N_GENES, rng=seed, n_guides=N_GUIDES, n_ntc_guides=N_NTC)
    cells = ds.datasets.titration(N_CELLS, 1, rng=seed, n_guides=N_GUIDES, n_ntc_guides=N_NTC)
    gen, guides = np.random.default_rng([seed, 11]), cells.uns["titration"]["guides"]
    code = cells.obs["guide"].map({g: i for i, g in enumerate(guides["guide"])}).to_numpy(int)
    batch = (cells.obs["batch"].to_numpy() == "batch_2").astype(int)
    dose = cells.obs["true_log2_dosage"].to_numpy(copy=True)
    dose[batch == 1] *= kind.weaker
    if kind.escaping:
        strong = np.flatnonzero((guides["target"] != "NTC") & (guides["log2_dosage"] < -1))
        failing = gen.choice(strong, min(N_ESCAPING, len(strong)), replace=False)
        dose[np.isin(code, failing) & (gen.random(len(code)) < ESCAPING)] = 0.0
    mean = ds.datasets.true_curve(adata, list(adata.var_names), dose).T
    mean *= cells.obs["true_size_factor"].to_numpy()[:, None] * 2.0 ** adata.varm["true_technical_effects"].T[batch]
    if kind.escaping:
        mean[:, 0] *= LOW_COUNTS
    clone = (gen.random(len(code))[:, None] > _sizes(gen, len(guides))[code].cumsum(1)[:, :-1]).sum(1)
    shift = gen.normal(0, 1, (len(guides), N_CLONES, N_GENES)) * kind.clone_sd
    shift += gen.normal(0, 1, (len(guides), 1, N_GENES)) * kind.guide_sd
    shift[:, :, 0] = 0.0  # the cis gene
    mean *= 2.0 ** shift[code, clone]
    o = np.broadcast_to(adata.var["true_overdispersion"].to_numpy(), mean.shape)
    leaked = np.zeros_like(mean)
    for b in (0, 1):
        profile = mean[batch == b].sum(0)
        leaked[batch == b] = kind.ambient * mean[batch == b].sum(1, keepdims=True) * profile / profile.sum()
    own = (1 - kind.ambient) * mean * gen.gamma(o**-2.0) * o**2.0
    out = type(adata)(
        sparse.csr_matrix(gen.poisson(own + leaked).astype(np.float32)),
        obs=cells.obs.assign(clone=clone),
        var=adata.var,
    )
    out.uns["titration"] = cells.uns["titration"]
    return out


def _sizes(gen: np.random.Generator, n: int) -> np.ndarray:
    """Shares of the clones among the cells of each of `n` guides."""
    return gen.dirichlet(np.full(N_CLONES, SIZES), n)


def scores(adata: Any) -> dict[str, float]:
    """How calls, dosages and fold changes compare with the truth."""
    table, guides = ds.get.trans(adata), adata.uns["cis"]["guides"]
    called, mover = (table["qvalue"] < 0.05).to_numpy(), movers(adata)
    other = adata.var_names != "GFI1B"
    null = (adata.var["true_model"] == "null").to_numpy() & other
    responds = ~null & other
    truth = adata.uns["titration"]["guides"].set_index("guide")["log2_dosage"]
    acts = ~guides["is_control"].to_numpy(bool)
    names = guides["guide"][acts].astype(str).map(lambda name: next(g for g in truth.index if name.startswith(g)))
    x, found = truth[names].to_numpy(), guides["log2_dosage_acting"].to_numpy()[acts]
    level = np.log2(ds.datasets.true_curve(adata, list(adata.var_names), np.array([x.min(), 0.0])))
    fold = level[:, 0] - level[:, 1]
    low, high = (table[f"log2fc_full_{q}"].to_numpy() for q in ("q025", "q975"))
    right = called & responds & np.isfinite(low)
    at = table["log2_dosage_full"].to_numpy()
    return {
        "called": called.sum(),
        "fdp": (called & null).sum() / max(called.sum(), 1),
        "power": (called & mover).sum() / mover.sum(),
        "power_all": (called & responds).sum() / responds.sum(),
        "p001": (table["pvalue"].to_numpy()[null] < 0.001).mean(),
        "slope": np.polyfit(x, found, 1)[0],
        "covers": ((low <= fold) & (fold <= high))[right].mean(),
        "end_off": np.nanmedian(at) - x.min(),
    }


def one(name: str, seed: int) -> list[dict[str, Any]]:
    """A screen fitted by the defaults and, where there is something to tell, told of it."""
    kind, rows = KINDS[name], []
    for some in (False, True):
        told, told_cis = (kind.told or {}, kind.told_cis or {}) if some else ({}, {})
        if some and not (told or told_cis):
            continue
        adata = simulate(kind, seed)
        ds.pp.size_factors(adata, method="stable")
        ds.tl.fit_technical(adata, batch_key="batch", **told)
        ds.tl.fit_cis(adata, "GFI1B", **told_cis)
        start = time.process_time()
        ds.tl.fit_trans(adata, progress=False)
        seconds = time.process_time() - start
        rows.append({"kind": name, "told": some, "seed": seed, **scores(adata), "cpu_seconds": seconds})
    return rows


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, and the standard error of the false discovery proportion."""
    by = runs.groupby(["kind", "told"], sort=False)
    out = by.mean(numeric_only=True).drop(columns="seed")
    out.insert(2, "fdp_se", by["fdp"].std() / np.sqrt(by.size()))
    out.insert(0, "seeds", by.size())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--out", type=Path, help="csv file with a row per fit")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in options.only:
            rows += one(name, seed)
            if options.out:
                pd.DataFrame(rows).to_csv(options.out, index=False)
    print(summary(pd.DataFrame(rows)).round(3).to_string())


if __name__ == "__main__":
    main()
