"""Real screens: NTC guides that pose as targeting ones, permuted dosages, and responses that are known.

Two ways to the negative controls. `tl.calibrate` refits the evidence of several hundred regroupings on what the fit has
learned. `refits` does all three steps anew for each of a few regroupings, as an analysis of its own would, so that
the quick way is not its only witness.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import store
from screens import CONTROL, LEAST_CELLS, SCREENS, Screen, load

import dream_sc as ds

PART = "real"
Q_LEVEL = 0.05
LEVELS = {"p05": 0.05, "p001": 1e-3}
NULLS = ("ntc_guides", "permutation")
TABLES = ("controls", "nulls", "qq", "refits")
DOSAGE = [
    "log2_dosage",
    "sd",
    "log2fc",
    "log2fc_q025",
    "log2fc_q975",
    "within_sd",
    "escaper_fraction",
    "log2_dosage_acting",
    "sd_acting",
]


def names_of(adata: ad.AnnData, genes: Any) -> list[str]:
    """Symbols, where there are some beside the names of the features."""
    return [str(s) for s in (adata.var.loc[list(genes), "symbol"] if "symbol" in adata.var else genes)]


def controls_row(adata: ad.AnnData, screen: Screen, run: str, gene: str, label: str) -> dict[str, Any]:
    """What the fit of one cis gene found; `adata` holds the fit."""
    guides = ds.get.guides(adata)
    mine = guides[guides["target"] == label]
    dosage = np.sort(mine["log2_dosage"].to_numpy())[::-1]
    table = ds.get.trans(adata, sort=True).drop(index=gene)
    table.index = names_of(adata, table.index)
    hits = table[table["qvalue"] < Q_LEVEL]
    row = {
        "run": run,
        "cis_gene": names_of(adata, [gene])[0],
        "guides": len(mine),
        "cells": int(mine["n_cells"].sum()),
        "log2_dosages": " ".join(f"{d:+.2f}" for d in dosage),
        "tested": int(table["pvalue"].notna().sum()),
        "p05": float((table["pvalue"] < 0.05).mean()),
        "calls": len(hits),
        "called": "; ".join(f"{g} ({r.log2fc_full:+.2f})" for g, r in hits.iterrows()),
        "quiet": run in screen.quiet,
        "expected": screen.expected.get(run, ""),
    }
    if row["expected"]:
        known = table.loc[row["expected"]]
        row |= {"expected_q": float(known["qvalue"]), "expected_log2fc": float(known["log2fc_full"])}
    return row


def null_row(adata: ad.AnnData, run: str, null: str, n: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Regroupings of the fit that `adata` holds, by `tl.calibrate`, and the quantiles of their p-values."""
    start = time.perf_counter()
    ds.tl.calibrate(adata, null=null, n=n, progress=False)
    seconds = time.perf_counter() - start
    info, rates = adata.uns["calibration"], ds.get.calibration(adata).set_index("level")
    top = ds.get.calibration(adata, "features").query("n_calls > 0").head(5)
    genes = names_of(adata, top["feature"])
    row = {
        "run": run,
        "null": null,
        "n": int(info["n_regroupings"]),
        "genes": int(info["n_features"]),
        "posing": int(info["n_posing"]),
        **{f"{k}{e}": float(rates.loc[v, c]) for k, v in LEVELS.items() for e, c in (("", "fpr"), ("_se", "se"))},
        "any_call": float(info["any_call"]),
        "any_call_se": float(info["any_call_se"]),
        "mean_calls": float(info["mean_calls"]),
        "most_called": "; ".join(f"{g} ({c})" for g, c in zip(genes, top["n_calls"], strict=True)),
        "seconds": seconds,
    }
    quantiles = ds.get.calibration(adata, "qq").assign(run=run, null=null)
    return row, quantiles.to_dict("records")


def posed(controls: ad.AnnData, n: int, label: str, rng: np.random.Generator) -> tuple[ad.AnnData, list[str]]:
    """All cells of `controls`, `n` random guides of which have the target `label`; the names of these guides."""
    adata = controls.copy()
    guide = adata.obs["guide"].astype(str)
    counts = guide.value_counts()
    chosen = rng.choice(np.sort(counts.index[counts >= LEAST_CELLS]), n, replace=False).tolist()
    adata.obs["target"] = np.where(guide.isin(chosen), label, CONTROL)
    return adata, chosen


def refit(adata: ad.AnnData, chosen: list[str], real: pd.DataFrame, gene: str, label: str) -> pd.DataFrame:
    """All three steps, the dosages of the posing guides in place of what their cells show."""
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, gene, cis_targets=label)
    table, cells = adata.uns["cis"]["guides"].set_index("guide"), adata.obsm["cis"].copy()
    for name, (_, row) in zip(chosen, real.iterrows(), strict=True):
        shift = row["log2_dosage"] - table.loc[name, "log2_dosage"]
        mine = (adata.obs["guide"] == name).to_numpy()
        cells.loc[mine, ["log2_x_true", "log2_q025", "log2_q975"]] += shift
        cells.loc[mine, "x_true"] *= 2.0**shift
        table.loc[name, DOSAGE] = row[DOSAGE].to_numpy(float)
    adata.obsm["cis"], adata.uns["cis"]["guides"] = cells, table.reset_index()
    adata.uns["cis"]["made_from"].pop("results")  # what edited tables are told by
    ds.tl.fit_trans(adata, progress=False)
    return ds.get.trans(adata).drop(index=gene)


def seeds_left(path: Path, run: str, n: int) -> list[int]:
    """Regroupings of a run without a row yet."""
    have = store.read(path)
    return sorted(set(range(n)) - (set(have.loc[have["run"] == run, "seed"]) if len(have) else set()))


def refits(adata: ad.AnnData, path: Path, run: str, gene: str, label: str, n: int) -> None:
    """Regroupings with all steps anew, a row each; `adata` holds the fit of the real guides."""
    guides = ds.get.guides(adata)
    real = guides[guides["target"] == label]
    controls = adata[(adata.obs["target"] == CONTROL).to_numpy()].copy()
    del controls.obsm, controls.uns, controls.varm  # no trace of the fit to the real guides
    controls.obs = controls.obs.drop(columns="cis_guide", errors="ignore")
    for seed in seeds_left(path, run, n):
        other, chosen = posed(controls, len(real), label, np.random.default_rng(seed))
        table = refit(other, chosen, real, gene, label)
        p = table["pvalue"].dropna()
        called = names_of(adata, table.index[table["qvalue"] < Q_LEVEL])
        low = {f"{name}_genes": ";".join(names_of(adata, p.index[p < level])) for name, level in LEVELS.items()}
        row = {"run": run, "seed": seed, "tested": len(p), **{k: int((p < v).sum()) for k, v in LEVELS.items()}}
        row |= {"calls": len(called), "called": ";".join(called), "pvalues": " ".join(f"{x:.3g}" for x in p)}
        store.append(path, row | low)
        print(f"{run}: NTC guides posing, all steps anew, {seed}: {len(called)} calls", flush=True)


def clustered(rows: pd.DataFrame, level: str) -> tuple[float, float]:
    """Rate of rejections over regroupings and genes, and its standard error.

    Rejections of one regrouping share guides, those of one gene share that gene's guide effects, so the variance is
    that between regroupings plus that between genes less what both count.
    """
    n, genes = len(rows), rows["tested"].mean()
    rate = float(rows[level].sum() / rows["tested"].sum())
    names = Counter(g for text in rows[f"{level}_genes"].fillna("") for g in text.split(";") if g)
    by_gene = np.zeros(max(round(genes), len(names)))
    by_gene[: len(names)] = np.array(list(names.values()), float) / n
    by_run = (rows[level] / rows["tested"]).to_numpy()
    alone = rate * (1 - rate) / (n * genes)
    between = [x.var(ddof=1) / len(x) if len(x) > 1 else 0.0 for x in (by_run, by_gene)]
    return rate, float(np.sqrt(max(sum(between) - alone, max(between), alone)))


def one_run(
    screen: Screen, adata: ad.AnnData, paths: dict[str, Path], run: str, gene: str, label: str, n: int, n_refits: int
) -> None:
    """One cis gene, then its negative controls; what has a row is not done again."""
    nulls, known = store.read(paths["nulls"]), run in store.done(paths["controls"], "run")
    have = set(nulls.loc[nulls["run"] == run, "null"]) if len(nulls) else set()
    missing = [k for k in NULLS if n and run in screen.nulls and k not in have]
    again = run in screen.nulls and bool(seeds_left(paths["refits"], run, n_refits))
    if known and not missing and not again:
        return
    try:
        ds.tl.fit_cis(adata, gene, cis_targets=label)
        start = time.perf_counter()
        ds.tl.fit_trans(adata, progress=False)
        seconds = time.perf_counter() - start
    except ValueError as error:
        if not known:
            store.append(paths["controls"], {"run": run, "cis_gene": names_of(adata, [gene])[0], "refused": str(error)})
        print(f"{run}: refused, {error}", flush=True)
        return
    if not known:
        row = controls_row(adata, screen, run, gene, label) | {"seconds": seconds}
        store.append(paths["controls"], row)
        print(f"{run}: {row['calls']} calls: {row['called'] or 'none'}", flush=True)
    for null in missing:
        row, quantiles = null_row(adata, run, null, n)
        store.append(paths["qq"], quantiles)
        store.append(paths["nulls"], row | {"fit_seconds": seconds})
        print(f"{run}, {null}: {row['p05']:.4f} at 0.05, any call {row['any_call']:.3f}", flush=True)
    if again:
        refits(adata, paths["refits"], run, gene, label, n_refits)


def run(root: Path, data: Path | None, *, n: int = 200, n_refits: int = 20, wanted: list[str] | None = None) -> None:
    """Both screens, those that are there."""
    for screen in SCREENS.values():
        adata = load(screen, data)
        if adata is None:
            continue
        runs = {k: v for k, v in screen.runs(adata).items() if not wanted or k in wanted}
        print(f"{screen.name}: {adata.n_obs} cells with one guide, {adata.n_vars} genes, {len(runs)} runs", flush=True)
        if runs:
            ds.tl.fit_technical(adata, batch_key="batch")
        paths = {k: root / PART / f"{screen.name}_{k}.csv" for k in TABLES}
        for name, (gene, label) in runs.items():
            one_run(screen, adata, paths, name, gene, label, n, n_refits)
