"""The fast engine and SVI against the No-U-Turn sampler on the cell-level model.

    python benchmarks/engines.py [--genes 20] [--cells 3000] [--draws 1500] [--warmup 600]

A simulated titration with guide shifts; the guides' dosages are given. The reference samples the counts of single
cells with latent guide effects and dosages (`cell_level`), gene by gene; the fast engine works on sums per guide and
group with guide effects integrated. All genes respond (where one does not, the posterior has two modes, one for
either sign, and a single chain stays in one). Compared are the EC50, the Hill coefficient and two fold changes:
difference of medians in posterior sds, and ratio of the widths of the 95 % intervals.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from simulated_fdp import movers

import dream_sc as ds
from dream_sc._core.curves import curve
from dream_sc._core.engines import engine
from dream_sc._core.likelihoods import likelihood
from dream_sc._core.priors import TransPriors
from dream_sc._core.response import summary
from dream_sc._core.types import Axis, GuideStats, RowDosage

COLUMNS = ("log2_ec50", "hill_n", "log2fc_full", "log2fc_half")


def fitted(n_cells: int, n_genes: int):
    """A fit with the guides' true dosages, and its first movers."""
    adata = ds.datasets.titration(n_cells, 200, rng=7, guide_shift_sd=0.1, additive_fraction=0.0, single_fraction=0.4)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    guides = adata.uns["cis"]["guides"]
    truth = adata.uns["titration"]["guides"].set_index("guide").loc[guides["guide"]]
    guides["log2_dosage"], guides["sd"] = truth["log2_dosage"].to_numpy(), 1e-6
    guides["within_sd"], guides["escaper_fraction"] = truth["within_sd"].to_numpy(), 0.0
    adata.uns["cis"]["diagnostics"]["ntc_level_sd"] = 0.0
    adata.uns["cis"]["made_from"].pop("results")  # what an edited table is told by
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=4000, progress=False)
    return adata, adata.var_names[np.flatnonzero(movers(adata))[:n_genes]]


def reference(adata, genes, *, draws: int, warmup: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Table of the cell-level NUTS posterior."""
    axis = Axis(**adata.uns["trans"]["axis"], guides=np.array([]))
    guides, technical = adata.uns["cis"]["guides"], adata.uns["technical"]
    axis = Axis(axis.low, axis.high, np.sort(guides.loc[~guides["is_control"], "log2_dosage"]))
    used = adata.obs["guide"].isin(guides["guide"]).to_numpy()
    code = pd.Index(guides["guide"]).get_indexer(adata.obs["guide"][used])
    group = pd.Index(technical["groups"]).get_indexer(adata.obs["batch"][used])
    offset = adata.uns["trans"]["guides"]["offset"].to_numpy()
    s = adata.obs["size_factor"].to_numpy()[used] * 2.0 ** offset[code]
    counts = adata[:, genes].X.toarray()[used].T.astype(float)
    cells = GuideStats(counts, s, s**2, code, group, len(guides), 2)
    spread = np.where(guides["is_control"], 0.0, guides["within_sd"])
    dosage = RowDosage(guides["log2_dosage"].to_numpy()[code], spread[code], guides["sd"].to_numpy())
    hyper = adata.uns["trans"]["hyper"]
    start = ds.get.posterior(adata, list(genes), nsamples=500)
    c = curve("single_hill")
    init = np.stack([start[p].to_numpy() for p in c.params], -1)
    out, info = engine("nuts").trans(
        cells,
        dosage,
        overdispersion=ds.get.technical(adata).loc[genes, "overdispersion"].to_numpy(),
        curve="single_hill",
        axis=axis,
        priors=TransPriors(),
        consts=np.zeros((len(genes), 2)),
        init=init,
        hyper={
            "tau_log_mean": hyper["tau_log_mean"],
            "tau_log_sd": hyper["tau_log_sd"],
            "wide_weight": hyper["wide_weight"],
            "wide_sd": hyper["wide_sd"],
            "group_effect_sd": technical["effect_scale"] * np.log(2),
        },
        nsamples=draws,
        niters=warmup,
        device="cpu",
        rng=0,
        level="cell",
    )
    columns = summary.summarise(out, c, np.zeros((len(genes), 2)), axis, likelihood("negbinom"))
    return pd.DataFrame({k: v for k, v in columns.items() if k.startswith(COLUMNS)}, index=genes), info["converged"]


def compare(table: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    rows = {}
    for name in COLUMNS:
        width = truth[f"{name}_q975"] - truth[f"{name}_q025"]
        shift = (table.loc[truth.index, name] - truth[name]) / (width / 3.92)
        ratio = (table.loc[truth.index, f"{name}_q975"] - table.loc[truth.index, f"{name}_q025"]) / width
        rows[name] = {
            "median shift (sd)": shift.abs().median(),
            "largest": shift.abs().max(),
            "within 0.15": (shift.abs() < 0.15).mean(),
            "width ratio": ratio.median(),
            "least ratio": ratio.min(),
            "greatest": ratio.max(),
            "within 15 %": ((ratio - 1).abs() < 0.15).mean(),
        }
    return pd.DataFrame(rows).T.round(3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=20)
    parser.add_argument("--cells", type=int, default=3000)
    parser.add_argument("--draws", type=int, default=1500)
    parser.add_argument("--warmup", type=int, default=600)
    parser.add_argument("--output", help="file for the table of the reference")
    options = parser.parse_args()
    pd.set_option("display.width", 200)
    adata, genes = fitted(options.cells, options.genes)
    fast = ds.get.trans(adata)
    ds.tl.fit_trans(
        adata,
        function_type="single_hill",
        features=genes,
        inference="svi",
        hyper=adata.uns["trans"]["hyper"],
        key_added="svi",
        progress=False,
    )
    start = time.perf_counter()
    nuts, ok = reference(adata, genes, draws=options.draws, warmup=options.warmup)
    print(f"{len(genes)} genes that respond, NUTS converged in {ok.sum()}, {time.perf_counter() - start:.0f} s")
    if options.output:
        nuts.assign(converged=ok).to_csv(options.output)
    for engine_name, table in (("laplace", fast), ("svi", ds.get.trans(adata, key="svi"))):
        print(f"\n{engine_name} against NUTS\n{compare(table, nuts).to_string()}", flush=True)


if __name__ == "__main__":
    main()
