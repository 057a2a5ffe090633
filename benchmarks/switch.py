"""Perturbations whose effects do not follow the dosage: knock-outs, simulated and real.

    python benchmarks/switch.py knockout [--seeds 10] [--guides 6] [--ntc 12] [--moving 0.1]
    python benchmarks/switch.py titration [--seeds 3]
    python benchmarks/switch.py regroupings [--n 600] [--data FOLDER]
    python benchmarks/switch.py renge [--data FOLDER]

knockout: Cas9 leaves the mRNA, so that the estimated dosages of its guides are noise. Six guides, of which five move a
tenth of the genes by at least 1 log2, each gene by as much in all of them, and twelve NTC guides; guides differ by 0.05
log2 in every gene besides (with `--guides`, `--ntc` and `--moving` other numbers, such as more guides than controls).
Three fits: with the dosages of `tl.fit_cis`, with `dosage="none"`, and with one Hill alone.
Power is over genes that move, of at least 0.5 counts per cell.

titration: graded guides of `datasets.titration`. How many of the calls follow the dosage, by `qvalue_graded`.

regroupings: NTC guides of real cells (Schraivogel et al. 2020) pose as the targeting guides of three targets, as in
`tl.calibrate`, the prior relearned in each. How many regroupings have a call, by either q-value.

renge: real knock-outs (Renge et al. 2023): SOX2, which keeps its mRNA, POU5F1, whose four labels are graded, and two
targets that should do nothing.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from real_schraivogel import CONTROL, load
from scipy import sparse

import dream_sc as ds
from dream_sc._core.response import calibration, decision, graded, learned
from dream_sc.tl._null_refits import ntc_guides, read_fit

GENE, CELLS, SHIFT = "TARGET", 150, 0.05
FDR = 0.05
RENGE = "renge2023_hipsc_crispko.h5ad"


def knockout(seed: int, n_genes: int = 400, n_guides: int = 6, n_ntc: int = 12, moving: float = 0.1) -> ad.AnnData:
    """A knock-out of `TARGET`, whose mRNA stays as it is; the last guide does nothing."""
    rng = np.random.default_rng(seed)
    guide = np.repeat(np.arange(n_guides + n_ntc), CELLS)
    mean = 2.0 ** rng.uniform(-3, 5, n_genes)
    moves = rng.random(n_genes) < moving
    mean[0], moves[0] = 5.0, False
    change = np.where(moves, rng.choice([-1, 1], n_genes) * rng.uniform(1.0, 2.5, n_genes), 0.0)
    acts = (np.arange(n_guides + n_ntc) < n_guides - 1).astype(float)
    log2 = rng.normal(0, SHIFT, (len(acts), n_genes)) + acts[:, None] * change
    size = rng.lognormal(0, 0.3, len(guide))
    rate = mean * 2.0 ** log2[guide] * size[:, None]
    o2 = rng.uniform(0.2, 0.8, n_genes) ** 2
    x = rng.poisson(rng.gamma(1 / o2, o2 * rate)).astype(np.float32)
    names = [f"ko_{g}" if g < n_guides else f"ntc_{g}" for g in range(len(acts))]
    obs = pd.DataFrame({"guide": np.array(names)[guide]}, index=[f"c{i}" for i in range(len(guide))])
    obs["target"] = np.where(guide < n_guides, GENE, "NTC")
    obs["size_factor"] = size
    var = pd.DataFrame({"moves": moves, "mean": mean}, index=[GENE, *(f"g{i}" for i in range(1, n_genes))])
    return ad.AnnData(sparse.csr_matrix(x), obs=obs, var=var)


def of_knockout(seed: int, n_guides: int, n_ntc: int, moving: float) -> list[dict[str, float]]:
    adata = knockout(seed, 400, n_guides, n_ntc, moving)
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, GENE)
    fits = {"auto": {}, 'dosage="none"': {"dosage": "none"}, "one Hill": {"function_type": "single_hill"}}
    moves, enough = adata.var["moves"].to_numpy(), adata.var["mean"].to_numpy() >= 0.5
    out = []
    for name, given in fits.items():
        ds.tl.fit_trans(adata, progress=False, **given)
        table = ds.get.trans(adata)
        call = (table["qvalue"] < FDR).to_numpy()
        follows = (table["qvalue_graded"] < FDR).to_numpy()
        out.append(
            {
                "fit": name,
                "power": float(call[moves & enough].mean()),
                "fdp": float((call & ~moves).sum() / max(call.sum(), 1)),
                "graded": float((call & follows).sum() / max(call.sum(), 1)),
                "calls": int(call.sum()),
            }
        )
    return out


def print_knockouts(seeds: int, n_guides: int, n_ntc: int, moving: float) -> None:
    table = pd.DataFrame([row for seed in range(seeds) for row in of_knockout(seed, n_guides, n_ntc, moving)])
    print("| fit | power | FDP | se | calls that follow the dosage | calls |\n|---|---|---|---|---|---|")
    for name, rows in table.groupby("fit", sort=False):
        se = rows["fdp"].std() / np.sqrt(len(rows))
        print(
            f"| {name} | {rows['power'].mean():.3f} | {rows['fdp'].mean():.3f} | {se:.3f} "
            f"| {rows['graded'].mean():.3f} | {rows['calls'].mean():.0f} |"
        )


def print_titrations(seeds: int) -> None:
    found = []
    for seed in range(seeds):
        adata = ds.datasets.titration(5000, 500, rng=seed)
        ds.tl.fit_technical(adata, batch_key="batch")
        ds.tl.fit_cis(adata, "GFI1B")
        ds.tl.fit_trans(adata, progress=False)
        table = ds.get.trans(adata)
        call = table["qvalue"] < FDR
        true = (adata.var["true_model"] != "null").to_numpy()
        follows = call & (table["qvalue_graded"] < FDR)
        found.append((int(call.sum()), int((call & true).sum()), int(follows.sum()), int((follows & true).sum())))
        print(f"seed {seed}: {found[-1][0]} calls, {found[-1][2]} of them follow the dosage", flush=True)
    calls, true, follow, follow_true = np.sum(found, 0)
    print(f"{calls} calls, {true} true; {follow} follow the dosage, {follow_true} of these true")


def print_regroupings(folder: str | None, n: int) -> None:
    """Regroupings of each of three targets, a third of `n` each."""
    adata = load(folder)
    if adata is None:
        print("no data: skipped")
        return
    ds.tl.fit_technical(adata, batch_key="batch", control=CONTROL)
    any_call, any_graded, total = 0, 0, 0
    for gene, label in (("UBR5", "UBR5"), ("GATA1", "GATA1"), ("HBE1", "HS2")):
        ds.tl.fit_cis(adata, gene, cis_targets=label)
        ds.tl.fit_trans(adata, progress=False)
        fit = read_fit(adata, adata, "trans")
        f = fit.fitted
        wide = f.prior.wide_weight, f.prior.wide_sd
        for source in calibration.posing_sources(f.guide_mean, f.control, ntc_guides(fit), -(-n // 3), 0):
            e = calibration.refit(f, fit.stats, source)
            prior = learned.learn(e.values, e.comparison.grid, f.priors, wide=wide)
            marginal = decision.marginals(e.values, e.comparison.grid, prior)
            lfdr = decision.local_fdr(decision.log_bayes_factor(marginal, prior), prior)
            of_curves = graded.graded_of(marginal, prior, e.comparison.curves).lfdr
            q, q_graded = decision.q_values(lfdr), decision.q_values(of_curves)
            any_call += bool((q < FDR).any())
            any_graded += bool((np.maximum(q, q_graded) < FDR).any())
            total += 1
            if total % 20 == 0:
                print(f"{total} regroupings: {any_call} with a call, {any_graded} with a graded one", flush=True)
    print(f"{total} regroupings: {any_call} with a call, {any_graded} with a graded one")


def print_renge(folder: str | None) -> None:
    path = None if folder is None else Path(folder) / RENGE
    if path is None or not path.exists():
        print("no data: skipped")
        return
    adata = ad.read_h5ad(path)
    adata.obs["size_factor"] = 1.0
    ds.tl.fit_technical(adata, batch_key="day")
    print("| target | fit | called | switch | follow the dosage | which |\n|---|---|---|---|---|---|")
    for gene in ("SOX2", "POU5F1", "PRDM14", "TRIM25", "ZNF649"):
        if gene in adata.var_names:
            ds.tl.fit_cis(adata, gene)
        for dosage in ("guide", "none"):
            if dosage == "guide" and gene not in adata.var_names:
                continue
            ds.tl.fit_trans(adata, dosage=dosage, cis_targets=None if dosage == "guide" else gene, progress=False)
            table = ds.get.trans(adata, sort=True)
            call = table[table["qvalue"] < FDR]
            which = ", ".join(f"{g} {r.log2fc_full:+.1f}" for g, r in call.head(8).iterrows())
            n_switch, n_graded = int((call["class"] == "switch").sum()), int((call["qvalue_graded"] < FDR).sum())
            print(f"| {gene} | {dosage} | {len(call)} | {n_switch} | {n_graded} | {which} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", nargs="?", default="knockout", choices=["knockout", "titration", "regroupings", "renge"]
    )
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--guides", type=int, default=6)
    parser.add_argument("--ntc", type=int, default=12)
    parser.add_argument("--moving", type=float, default=0.1)
    parser.add_argument("--n", type=int, default=600)
    parser.add_argument("--data", default=os.environ.get("DREAM_SC_DATA"))
    given = parser.parse_args()
    if given.what == "knockout":
        print_knockouts(given.seeds or 10, given.guides, given.ntc, given.moving)
    elif given.what == "titration":
        print_titrations(given.seeds or 3)
    elif given.what == "regroupings":
        print_regroupings(given.data, given.n)
    else:
        print_renge(given.data)
