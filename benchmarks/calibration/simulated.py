"""Error rates, power, EC50 error and coverage on simulated titrations, scenario by scenario.

A row of results per scenario and seed: counts, from which `summary` makes rates. A mover has at least 0.5 counts per
cell and moves by at least 1 log2 at two guides (at one, where there is only one).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import store
from scenarios import CIS_GENE, GRID, Scenario

import dream_sc as ds

PART, STRATA = "simulated", "simulated_strata"
Q_LEVEL, LEAST_MOVE, LEAST_MEAN, MOST_PARETO_K = 0.05, 1.0, 0.5, 0.7
LEVELS = {"p05": 0.05, "p005": 0.005}
INTERVALS = ("log2_ec50", "hill_n", "log2fc_full")
BINS = {
    "mean": ("true_baseline", (-np.inf, -2.0, 0.0, 2.0, np.inf)),
    "hill_n": ("true_hill_n", (0.0, 1.0, 1.5, 2.5, np.inf)),
}


@dataclass(frozen=True)
class Truth:
    """Which genes are what, and the numbers that intervals should hold; arrays over genes."""

    null: np.ndarray
    single: np.ndarray
    two: np.ndarray
    moving: np.ndarray
    mover: np.ndarray
    inside: np.ndarray
    values: dict[str, np.ndarray]

    @property
    def responder(self) -> np.ndarray:
        return self.single | self.two


def truth_of(adata: Any, axis: tuple[float, float]) -> Truth:
    """The truth of a simulated screen whose guides were found to lie on `axis` (lowest, highest log2 dosage)."""
    guides, var = adata.uns["titration"]["guides"], adata.var
    doses = guides.loc[guides["target"] != "NTC", "log2_dosage"].to_numpy()
    curves = np.log2(ds.datasets.true_curve(adata, list(adata.var_names), np.append(doses, 0.0)))
    move = np.sort(np.abs(curves[:, :-1] - curves[:, -1:]), axis=1)[:, -min(2, len(doses))]
    kind = var["true_model"].astype(str).to_numpy()
    cis = (adata.var_names == CIS_GENE) | (adata.var_names == adata.uns["titration"]["cis_gene"])
    single, two = (kind == "single_hill") & ~cis, (kind == "additive_hill") & ~cis
    moving = (move >= LEAST_MOVE) & (single | two)
    ec50 = var["true_log2_ec50"].to_numpy()
    strongest = curves[:, np.argmin(doses)] - curves[:, -1]
    return Truth(
        (kind == "null") & ~cis,
        single,
        two,
        moving,
        moving & (np.asarray(adata.X.mean(0)).ravel() >= LEAST_MEAN),
        (ec50 > axis[0]) & (ec50 < axis[1]),
        {"log2_ec50": ec50, "hill_n": var["true_hill_n"].to_numpy(), "log2fc_full": strongest},
    )


def fit(adata: Any, dosage: str = "guide") -> dict[str, float]:
    """The three steps by their defaults; seconds of the trans step on the clock and on the processor."""
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, CIS_GENE)
    start = time.perf_counter(), time.process_time()
    ds.tl.fit_trans(adata, dosage=dosage, progress=False)
    return {"seconds": time.perf_counter() - start[0], "cpu_seconds": time.process_time() - start[1]}


def axis_of(adata: Any) -> tuple[float, float]:
    """Lowest and highest fitted log2 dosage of the cells in which a guide acts, NTC (0) among them."""
    dosage = adata.uns["cis"]["guides"]["log2_dosage_acting"].to_numpy()
    return float(min(dosage.min(), 0.0)), float(max(dosage.max(), 0.0))


def with_true_dosages(adata: Any) -> pd.DataFrame:
    """Table of the same fit, the dosages of the guides and the learned numbers given."""
    other = adata.copy()
    guides = other.uns["cis"]["guides"].copy()
    known = other.uns["titration"]["guides"].set_index("guide").loc[guides["guide"]]
    guides["log2_dosage"], guides["sd"] = known["log2_dosage"].to_numpy(), 1e-3
    guides["within_sd"], guides["escaper_fraction"] = known["within_sd"].to_numpy(), 0.0
    other.uns["cis"]["diagnostics"]["ntc_level_sd"] = 0.0
    other.uns["cis"]["guides"] = guides
    other.uns["cis"]["made_from"].pop("results")  # what an edited table is told by
    ds.tl.fit_trans(other, hyper=adata.uns["trans"]["hyper"], progress=False)
    return ds.get.trans(other)


def covered(table: pd.DataFrame, truth: Truth) -> dict[str, np.ndarray]:
    """For every interval: 1 where it holds the truth, 0 where not, NaN where there is none."""
    out = {}
    for name in INTERVALS:
        lower, upper = (table[f"{name}_{q}"].to_numpy(float) for q in ("q025", "q975"))
        value = truth.values[name]
        known = np.isfinite(lower) & np.isfinite(upper) & np.isfinite(value)
        out[name] = np.where(known, (lower <= value) & (value <= upper), np.nan)
    return out


def score_calls(called: np.ndarray, p: np.ndarray, truth: Truth) -> dict[str, float]:
    """Counts over genes that any method can be asked for: its calls and its p-values, NaN where not tested."""
    tested = truth.null & np.isfinite(p)
    single, two = truth.single & truth.mover, truth.two & truth.mover
    out = {
        "called": called.sum(),
        "false": (called & truth.null).sum(),
        "nulls": tested.sum(),
        **{name: (p[tested] < level).sum() for name, level in LEVELS.items()},
        "single": single.sum(),
        "single_called": (called & single).sum(),
        "two": two.sum(),
        "two_called": (called & two).sum(),
        "responders": truth.responder.sum(),
        "responders_called": (called & truth.responder).sum(),
    }
    return {k: float(v) for k, v in out.items()}


def score(table: pd.DataFrame, truth: Truth) -> dict[str, float]:
    """Counts over genes of one fit."""
    called, model = (table["qvalue"] < Q_LEVEL).to_numpy(), table["model"].astype(str).to_numpy()
    out: dict[str, Any] = score_calls(called, table["pvalue"].to_numpy(float), truth)
    single, two = truth.single & truth.mover, truth.two & truth.mover
    inside = single & truth.inside
    error = np.abs(table["log2_ec50"].to_numpy(float) - truth.values["log2_ec50"])[inside]
    error = error[np.isfinite(error)]
    out |= {
        "single_as_two": (model[single] == "additive_hill").sum(),
        "two_as_two": (model[two] == "additive_hill").sum(),
        "ec50_error": np.median(error) if error.size else np.nan,
        "ec50_n": error.size,
    }
    hits = covered(table, truth)
    for name, which in zip(INTERVALS, (inside, single, single | two), strict=True):
        out[f"in_{name}"], out[f"of_{name}"] = np.nansum(hits[name][which]), np.isfinite(hits[name][which]).sum()
    if "pareto_k" in table:
        k = table["pareto_k"].to_numpy(float)[called]
        out["pareto_ok"], out["pareto_of"] = (k < MOST_PARETO_K).sum(), np.isfinite(k).sum()
    return {k: float(v) for k, v in out.items()}


def strata_of(adata: Any, truth: Truth, axis: tuple[float, float]) -> dict[tuple[str, str], np.ndarray]:
    """Genes of every stratum: gene mean, Hill coefficient, place of the EC50 on the observed axis."""
    out = {}
    for name, (column, edges) in BINS.items():
        value = np.abs(adata.var[column].to_numpy(float))
        value = np.log2(value) if name == "mean" else value
        for low, high in pairwise(edges):
            out[name, f"{low:g} to {high:g}"] = (value >= low) & (value < high)
    ec50 = truth.values["log2_ec50"]
    margin = 0.15 * (axis[1] - axis[0])
    middle = (ec50 > axis[0] + margin) & (ec50 < axis[1] - margin)
    out["ec50", "middle of the range"] = truth.inside & middle
    out["ec50", "near an end"] = truth.inside & ~middle
    out["ec50", "outside"] = ~truth.inside & np.isfinite(ec50)
    return out


def score_strata(adata: Any, table: pd.DataFrame, truth: Truth, axis: tuple[float, float]) -> list[dict[str, Any]]:
    """A row per stratum; the genes that move by 1 log2, whatever their mean, and the nulls."""
    called, p = (table["qvalue"] < Q_LEVEL).to_numpy(), table["pvalue"].to_numpy(float)
    error = np.abs(table["log2_ec50"].to_numpy(float) - truth.values["log2_ec50"])
    hits, rows = covered(table, truth), []
    for (kind, label), inside in strata_of(adata, truth, axis).items():
        which = inside & truth.moving & (truth.mover | (kind == "mean"))
        one, null = which & truth.single, inside & truth.null & np.isfinite(p)
        finite = one & np.isfinite(error) & (truth.inside | (kind == "ec50"))
        row = {
            "stratum": kind,
            "bin": label,
            "movers": which.sum(),
            "called": (called & which).sum(),
            "nulls": null.sum(),
            "ec50_error": np.median(error[finite]) if finite.any() else np.nan,
            "ec50_n": finite.sum(),
        }
        row |= {name: (p[null] < level).sum() for name, level in LEVELS.items()}
        for name, genes in zip(INTERVALS, (finite, one, which), strict=True):
            row[f"in_{name}"], row[f"of_{name}"] = np.nansum(hits[name][genes]), np.isfinite(hits[name][genes]).sum()
        rows.append(row)
    return rows


def one(scenario: Scenario, seed: int, oracle: bool, **override: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Simulate, fit and score: the row of the seed and its strata."""
    adata = scenario.simulate(seed, **override)
    seconds = fit(adata, scenario.dosage)
    axis, table = axis_of(adata), ds.get.trans(adata)
    truth = truth_of(adata, axis)
    row = {"seed": seed} | score(table, truth) | seconds
    if oracle and scenario.oracle:
        row |= {f"oracle_{k}": v for k, v in score(with_true_dosages(adata), truth).items()}
    strata = score_strata(adata, table, truth, axis) if scenario.strata else []
    return row, [{"seed": seed} | r for r in strata]


def run(root: Path, names: list[str], seeds: range, *, oracle: bool = True, **override: Any) -> None:
    """Fit the seeds that have no row yet, seed by seed, so that an early end leaves every scenario with some."""
    for seed in seeds:
        for name in names:
            path = root / PART / f"{name}.csv"
            if seed in store.done(path):
                continue
            row, strata = one(GRID[name], seed, oracle, **override)
            if strata:
                store.append(root / STRATA / f"{name}.csv", strata)
            store.append(path, row)
            print(
                f"{name:<14} seed {seed}: {row['false']:.0f} false of {row['called']:.0f} calls, "
                f"{row['single_called']:.0f} of {row['single']:.0f} and {row['two_called']:.0f} of "
                f"{row['two']:.0f} movers, {row['seconds']:.0f} s",
                flush=True,
            )
