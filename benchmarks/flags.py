"""How often a trans fit flags a screen as a whole: sound ones, and ones in which something goes with the dosage.

    python benchmarks/flags.py [--seeds 10] [--clean 40] [--only clean many ...]
    python benchmarks/flags.py --cis [--seeds 10] [--clean 20]

Simulated screens of 360 genes and 4,000 cells, 13 graded and 6 NTC guides, two batches, guide shifts of sd 0.05 log2;
counts are drawn anew from the truth of `datasets.titration`, with what the scenario adds. Given is the share of screens
in which each flag of `.uns["trans"]["flags"]` is raised, and its median value.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds

SCENARIOS = {
    "clean": ("as the model says, 30 % of genes respond", ""),
    "clean_totals": ("the same, size factors are totals", ""),
    "uneven": ("three quarters of all cells in one batch, whatever their guide", ""),
    "many": ("90 % of genes respond", "many_responders"),
    "lopsided": ("strong guides mostly in one batch", "batches_follow_dosage"),
    "weak_batch": ("40 % of the knock-down (log2) in one batch", "knock_down_by_batch"),
    "weak_guides": ("half of the knock-down (log2) of every third guide in one batch", "dosages_by_group"),
    "size_factors": ("size factors wrong by 2^(0.3 dosage)", "size_factors_follow_dosage"),
    "few_controls": ("one NTC guide, three targeting guides", "few_ntc_guides"),
    "sixty": ("60 % of genes respond, size factors are totals", "size_factors_follow_dosage"),
    "answer": ("perturbed cells answer to the batch, strong guides mostly in one", "batches_follow_dosage"),
}
ANSWER_SD = 0.3  # log2, of each gene, in perturbed cells of the second batch


def simulate(name: str, seed: int) -> Any:
    """A screen of this kind."""
    n_guides, n_ntc = (3, 1) if name == "few_controls" else (13, 6)
    single = {"many": 0.85, "sixty": 0.55}.get(name)
    fractions = {"single_fraction": single, "additive_fraction": 0.05} if single else {}
    shape = {"n_guides": n_guides, "n_ntc_guides": n_ntc}
    adata = ds.datasets.titration(20, 360, rng=seed, **shape, **fractions)
    cells = ds.datasets.titration(4000, 1, rng=seed, **shape)
    gen, guides = np.random.default_rng([seed, 1]), cells.uns["titration"]["guides"]
    code = cells.obs["guide"].map({g: i for i, g in enumerate(guides["guide"])}).to_numpy(int)
    dose = cells.obs["true_log2_dosage"].to_numpy().copy()
    batch = (cells.obs["batch"].to_numpy() == "batch_2").astype(int)
    if name == "uneven":
        batch = (gen.random(len(dose)) < 0.75).astype(int)
    elif name in ("lopsided", "answer"):
        strong = guides["log2_dosage"].to_numpy()[code] < -1.5
        batch = np.where(gen.random(len(dose)) < np.where(strong, 0.85, 0.35), 1, 0)
    if name == "weak_batch":
        dose = np.where(batch == 1, 0.4, 1.0) * dose
    elif name == "weak_guides":
        dose = np.where((batch == 1) & (code % 3 == 0), 0.5, 1.0) * dose
    cells.obs["batch"] = pd.Categorical.from_codes(batch, ["batch_1", "batch_2"])
    mean = ds.datasets.true_curve(adata, list(adata.var_names), dose).T
    mean *= cells.obs["true_size_factor"].to_numpy()[:, None] * 2.0 ** adata.varm["true_technical_effects"].T[batch]
    mean *= 2.0 ** (gen.normal(0, 0.05, (len(guides), 360)) * (np.arange(360) > 0))[code]
    if name == "answer":
        answer = gen.normal(0, ANSWER_SD, 360) * (np.arange(360) > 0)
        perturbed = (guides["target"] != "NTC").to_numpy()[code]
        mean *= 2.0 ** (answer * (perturbed & (batch == 1))[:, None])
    noise = np.broadcast_to(adata.var["true_overdispersion"].to_numpy(), mean.shape)
    y = gen.poisson(mean * gen.gamma(noise**-2.0) * noise**2.0).astype(np.float32)
    out = type(adata)(sparse.csr_matrix(y), obs=cells.obs, var=adata.var)
    out.uns["titration"] = cells.uns["titration"]
    if name == "size_factors":
        out.obs["size_factor"] = cells.obs["true_size_factor"] * 2.0 ** (0.3 * dose)
    else:
        ds.pp.size_factors(out, method="total" if name in ("clean_totals", "sixty") else "stable")
    return out


def one(name: str, seed: int) -> dict[str, Any]:
    """The flags of one screen."""
    adata = simulate(name, seed)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, progress=False)
    found = adata.uns["trans"]["flags"]
    out = {"scenario": name, "seed": seed, "any": found["raised"].any()}
    for row in found.itertuples():
        out |= {row.flag: row.raised, f"{row.flag}_value": row.value}
    return out


OF_CIS = ("clean", "clean_totals", "uneven", "lopsided", "few_controls", "weak_batch", "weak_guides")


def of_cis(name: str, seed: int) -> tuple[bool, float]:
    """Whether the cis step says that dosages differ between batches, and by how much, log2."""
    from dream_sc._core.dosage.group_dosages import Differs

    adata = simulate(name, seed)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    said = adata.uns["cis"]["diagnostics"]
    found = Differs(said["dosage_sd_between_groups"], said["dosage_sd_between_groups_p"])
    return found.clear, found.sd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--clean", type=int, default=40)
    parser.add_argument("--only", nargs="+", default=list(SCENARIOS), choices=list(SCENARIOS))
    parser.add_argument("--cis", action="store_true", help="dosages that differ between batches, by the cis step")
    options = parser.parse_args()
    if options.cis:
        for name in OF_CIS:
            n = options.seeds if name.startswith("weak") else options.clean
            raised, sd = np.array([of_cis(name, seed) for seed in range(n)]).T
            print(
                f"{name} ({n}): said in {raised.mean():.2f}; sd {np.median(sd):.3f}, largest {sd.max():.3f}", flush=True
            )
        return
    for name in options.only:
        n = options.clean if name.startswith(("clean", "uneven")) else options.seeds
        runs = pd.DataFrame([one(name, seed) for seed in range(n)])
        names = [c for c in runs if f"{c}_value" in runs]
        shares = ", ".join(f"{c} {runs[c].mean():.2f} ({runs[f'{c}_value'].median():.3f})" for c in names)
        print(
            f"{name} ({n}; to be flagged: {SCENARIOS[name][1] or 'none'}): any {runs['any'].mean():.2f}; {shares}",
            flush=True,
        )


if __name__ == "__main__":
    main()
