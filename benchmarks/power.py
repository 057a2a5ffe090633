"""Is the forecast of power right? Plans of screens are forecast, then simulated cell by cell and fitted.

Each plan has its own guides, dosages, cells, depth and guide effects. A screen has features of three levels, a third of
them with one of two fold changes; its observed power is the share of those that `fit_trans` calls, at q < 0.05 and a
local FDR below 0.5. Of the levels 0.1, 0.5 and 2 counts in a cell, the first two are low. Run
``python benchmarks/power.py [number of plans] [features of each kind] [screens of each plan]``. Several screens of a
plan average what is one screen's own: its features and what was learned from them.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import expit

import dream_sc as ds

N_PLANS, N_EACH = 30, 50
MEANS = (0.1, 0.5, 2.0)
NOISE = 0.5  # overdispersion of all features
CIS_MEAN, CIS_NOISE, WITHIN_SD, SIZE_FACTOR_SD = 6.0, 0.4, 0.2, 0.25
LN2 = np.log(2.0)


def some_plan(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any], tuple[float, float]]:
    """A plan, what is known before it, and the two fold changes."""
    n = int(rng.integers(5, 19))
    dosages = np.sort(rng.uniform(rng.uniform(-3.5, -1.5), rng.uniform(-0.3, 1.0), n))
    plan = {
        "n_guides": n,
        "n_cells_per_guide": int(np.exp(rng.uniform(np.log(15), np.log(150)))),
        "n_ntc_guides": int(rng.integers(4, 10)),
        "log2_dosages": dosages.tolist(),
        "depth": float(np.exp(rng.uniform(-0.7, 0.7))),
    }
    plan["n_ntc_cells"] = int(rng.uniform(0.3, 1.0) * n * plan["n_cells_per_guide"]) + 10 * plan["n_ntc_guides"]
    changes = -float(rng.uniform(0.4, 2.0)), float(rng.uniform(0.4, 2.0))
    known = {"level": MEANS, "overdispersion": NOISE, "guide_sd": float(rng.choice([0.05, 0.1, 0.2]))}
    known |= {"cis_mean": CIS_MEAN, "responders": 1 / 3, "log2fc": [abs(c) for c in changes]}
    return plan, known, changes


def simulate(rng: np.random.Generator, plan: dict[str, Any], known: dict[str, Any], changes: Any, n_each: int) -> Any:
    """Cells of a plan; `.var` has the kind of each feature."""
    n, per, h = plan["n_guides"], plan["n_cells_per_guide"], plan["n_ntc_guides"]
    ntc = np.diff(np.linspace(0, plan["n_ntc_cells"], h + 1).astype(int))
    guide = np.repeat(np.arange(n + h), [per] * n + ntc.tolist())
    x = np.append(plan["log2_dosages"], np.zeros(h))
    dose = x[guide] + np.where(guide < n, WITHIN_SD, 0.0) * rng.normal(size=len(guide))
    s = np.exp(rng.normal(0, SIZE_FACTOR_SD, len(guide)))
    s /= s.mean()
    grid = np.linspace(dose.min() - 0.01, dose.max() + 0.01, 300)
    kinds, names, blocks = [], [], []
    for mean in MEANS:
        for change, times in ((0.0, 4 * n_each), *((c, n_each) for c in changes)):
            tables, ec50 = np.zeros((times, len(grid))), np.full(times, np.nan)
            if change:
                ends = np.array(plan["log2_dosages"])
                both = np.concatenate([ends, grid])
                table, ec50 = curves_over(rng, times, change, ends, both)
                tables = table[:, len(ends) :]
            log_mean = np.stack([np.interp(dose, grid, t) for t in tables])
            log_mean += (known["guide_sd"] * LN2 * rng.normal(size=(times, n + h)))[:, guide]
            rate = mean * plan["depth"] * s * np.exp(log_mean)
            counts = rng.poisson(rate * rng.standard_gamma(NOISE**-2, rate.shape) * NOISE**2)
            blocks.append(sparse.csr_matrix(counts.astype(np.float32).T))
            kinds += [(mean, change, k) for k in ec50]
    cis = CIS_MEAN * plan["depth"] * s * 2.0**dose
    cis = rng.poisson(cis * rng.standard_gamma(CIS_NOISE**-2, len(cis)) * CIS_NOISE**2)
    counts = sparse.hstack([sparse.csr_matrix(cis[:, None].astype(np.float32)), *blocks], format="csr")
    names = ["cis", *(f"g{i}" for i in range(len(kinds)))]
    var = pd.DataFrame([(np.nan, np.nan, np.nan), *kinds], names, ["mean", "log2fc", "log2_ec50"])
    labels = [f"c{g}" if g < n else f"NTC{g}" for g in guide]
    obs = pd.DataFrame({"guide": labels, "target": np.where(guide < n, "cis", "NTC"), "size_factor": s})
    obs.index = [f"cell{i}" for i in range(len(guide))]
    return ad.AnnData(counts, obs, var)


def curves_over(rng: np.random.Generator, n: int, change: float, ends: np.ndarray, x: np.ndarray) -> Any:
    """Curves at `x` that change between the ends of other dosages."""
    low, high = min(ends.min(), -0.05), max(ends.max(), 0.05)
    margin, out, ec50 = 0.1 * (high - low), [], []
    while len(out) < n:
        k, steep = rng.uniform(low + margin, high - margin), np.exp(rng.normal(np.log(2.0), 0.5))
        bottom, top = (expit(steep * LN2 * (end - k)) for end in (low, high))
        ratio = 2.0**-change
        factor = ((1 - top) - ratio * (1 - bottom)) / (ratio * bottom - top)
        if not factor > 0:
            continue
        at = np.append(x, 0.0)
        h = expit(steep * LN2 * (at - k))
        curve = np.log(factor * h + 1 - h)
        out.append(curve[:-1] - curve[-1])
        ec50.append(k)
    return np.array(out), np.array(ec50)


def observed(adata: Any) -> pd.DataFrame:
    """Share of features of each kind that are called, and the widths of the intervals of their EC50."""
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "cis")
    ds.tl.fit_trans(adata, nsamples=300)
    table = ds.get.trans(adata).join(adata.var.add_prefix("true_")).iloc[1:]
    table["called"] = (table["qvalue"] < 0.05) & (table["lfdr"] < 0.5)
    table["width"] = (table["log2_ec50_q975"] - table["log2_ec50_q025"]).where(table["called"])
    found = table.groupby(["true_mean", "true_log2fc"]).agg(
        called=("called", "mean"), n=("called", "size"), width=("width", "mean")
    )
    return found.reset_index().rename(columns=lambda name: name.removeprefix("true_"))


def over_screens(found: list[pd.DataFrame]) -> pd.DataFrame:
    """The same for several screens of one plan together."""
    together = pd.concat(found).groupby(["mean", "log2fc"])
    return together.agg(called=("called", "mean"), n=("n", "sum"), width=("width", "mean")).reset_index()


def main(n_plans: int = N_PLANS, n_each: int = N_EACH, n_screens: int = 1) -> None:
    """Print the comparison."""
    ds.settings.verbosity = "error"
    rows, seconds, spent = [], 0.0, 0.0
    for i in range(n_plans):
        rng = np.random.default_rng([7, i])
        plan, known, changes = some_plan(rng)
        start = time.process_time()
        table = ds.design.power(known, plan, log2fc=[0.0, *changes], means=MEANS)
        seconds += time.process_time() - start
        start = time.process_time()
        found = over_screens([observed(simulate(rng, plan, known, changes, n_each)) for _ in range(n_screens)])
        spent += time.process_time() - start
        both = _joined(table, found)
        rows.append(both.assign(plan=i, guide_sd=known["guide_sd"]))
        print(rows[-1][SHOWN].to_string(index=False, header=i == 0, float_format="%.3f"), flush=True)
    every = pd.concat(rows)
    report(every[every["log2fc"] != 0], every[every["log2fc"] == 0])
    print(f"forecasts {seconds:.1f} s, simulations and fits {spent:.0f} s (processor time)")


SHOWN = ["plan", "n_guides", "n_cells_per_guide", "mean", "log2fc", "power", "called", "ec50_width", "width"]


def _joined(table: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    a = table.sort_values(["mean", "log2fc"]).reset_index(drop=True)
    b = found.sort_values(["mean", "log2fc"]).reset_index(drop=True)
    return pd.concat([a, b[["called", "n", "width"]]], axis=1)


def by_counting(some: pd.DataFrame) -> float:
    """Mean absolute error of a forecast that is right, as so few features are counted."""
    p = some["power"].clip(0.001, 0.999)
    return float(np.sqrt(2 / np.pi * p * (1 - p) / some["n"]).mean())


def report(some: pd.DataFrame, null: pd.DataFrame) -> None:
    """Errors of the forecast, beside what counting so few features adds to them."""
    error, noise = some["power"] - some["called"], by_counting(some)
    print(
        f"{len(some)} kinds of response: mean absolute error {error.abs().mean():.3f} ({noise:.3f} by counting alone)"
    )
    print(f"bias {error.mean():+.3f}, correlation {np.corrcoef(some['power'], some['called'])[0, 1]:.3f}")
    by_plan = some.groupby("plan")[["power", "called"]].mean()
    print(f"by plan: mean absolute error {(by_plan['power'] - by_plan['called']).abs().mean():.3f}", end=", ")
    print(f"correlation {by_plan.corr().iloc[0, 1]:.3f}")
    print(f"called without a response: forecast {null['power'].mean():.4f}, observed {null['called'].mean():.4f}")
    for mean, at in some.groupby("mean"):
        off, r = at["power"] - at["called"], np.corrcoef(at["power"], at["called"])[0, 1]
        print(
            f"mean {mean}: mean absolute error {off.abs().mean():.3f} ({by_counting(at):.3f} by counting alone), "
            f"bias {off.mean():+.3f}, correlation {r:.3f}"
        )
    clear = some[(some["called"] > 0.5) & some["width"].notna()]
    ratio = np.log2(clear["ec50_width"] / clear["width"])
    print(f"width of the EC50's interval, forecast over observed: median {2 ** ratio.median():.2f}, ", end="")
    print(f"correlation of logs {np.corrcoef(np.log(clear['ec50_width']), np.log(clear['width']))[0, 1]:.2f}")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
