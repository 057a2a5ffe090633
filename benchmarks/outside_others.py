"""Data that are not as the model says: dream_sc and four tests that people use today, on the same screens.

    python benchmarks/outside_others.py [--seeds 10] [--only base one_guide ...] [--out FILE.csv]

Screens of `outside_model.py`, `flags.py` and `plateau.py`, 240 or 360 genes and 4,000 cells each. Beside the three
steps by their defaults: a regression of each guide's pseudobulk on its dosage, Spearman's correlation of the two over
guides, Wilcoxon's test of targeted against NTC cells, and a negative binomial regression of single cells on the dosage.
This last one sees the first 5 seeds only. The dosages are those of `tl.fit_cis`; q-values of the others are of
Benjamini and Hochberg. Reported over seeds: false discovery proportion at q < 0.05 and its standard error, responders
that are called, which flags of the screen are raised; for dream_sc also the slope of the guides' dosages on the true
ones, and how often 95 % intervals of called responders hold the true fold change at the strongest guide and the true
EC50 (one Hill, EC50 inside the dosages).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flags
import numpy as np
import outside_model
import pandas as pd
import plateau
from scipy.stats import mannwhitneyu, rankdata
from scipy.stats import t as student

import dream_sc as ds

sys.path.append(str(Path(__file__).parent / "calibration"))
import peers

Q_LEVEL = 0.05
OURS = "dream_sc"
SLOW, SEEDS_OF_SLOW = "NB of cells", 5  # which takes longer than all else
PLAIN = ("base", "one_guide", "two_guides", "neighbours", "noisy", "wild_cell", "rising")
SCREENS = ("answer", "lopsided", "weak_batch", "many", "sixty", "size_factors", "few_controls")
CURVES = ("line", "hinge", "step", "bell")
Screen = tuple[Any, np.ndarray]  # AnnData and which genes respond


def simulate(kind: str, seed: int) -> Screen:
    """A screen with size factors."""
    if kind in CURVES:
        adata, responds, _ = plateau.simulate(kind, seed)
        ds.pp.size_factors(adata, method="stable")
        return adata, responds
    if kind in PLAIN:
        adata = outside_model.simulate(kind, seed)
        ds.pp.size_factors(adata, method="stable")
    else:
        adata = flags.simulate(kind, seed)
    return adata, (adata.var["true_model"] != "null").to_numpy() & (adata.var_names != "GFI1B")


def pseudobulk(adata: Any) -> np.ndarray:
    """Log2 counts per size factor, genes x guides."""
    guide = pd.Categorical(adata.obs["guide"])
    each = pd.get_dummies(guide).to_numpy(float)
    total = adata.X.T @ each
    return np.log2((total + 0.5) / (adata.obs["size_factor"].to_numpy(float) @ each))


def _p_of_correlation(r: np.ndarray, n: int) -> np.ndarray:
    """Two-sided p-values of correlation coefficients of `n` pairs; of a slope, too."""
    return 2 * student.sf(np.abs(r) * np.sqrt((n - 2) / np.maximum(1 - r**2, 1e-300)), n - 2)


def _correlation(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    y, x = y - y.mean(1, keepdims=True), x - x.mean()
    return (y @ x) / np.maximum(np.sqrt((y**2).sum(1) * (x**2).sum()), 1e-300)


def regression_of_guides(adata: Any, dosage: pd.Series) -> np.ndarray:
    """Slope of each guide's pseudobulk over its dosage."""
    x = dosage[pd.Categorical(adata.obs["guide"]).categories].to_numpy()
    return _p_of_correlation(_correlation(pseudobulk(adata), x), len(x))


def spearman(adata: Any, dosage: pd.Series) -> np.ndarray:
    """The same of ranks."""
    x = dosage[pd.Categorical(adata.obs["guide"]).categories].to_numpy()
    return _p_of_correlation(_correlation(rankdata(pseudobulk(adata), axis=1), rankdata(x)), len(x))


def wilcoxon(adata: Any, dosage: pd.Series) -> np.ndarray:
    """Log-normalised counts of targeted against those of NTC cells."""
    counts = adata.X.toarray() / adata.obs["size_factor"].to_numpy(float)[:, None]
    control = (adata.obs["target"] == "NTC").to_numpy()
    return mannwhitneyu(np.log1p(counts[~control]), np.log1p(counts[control]), axis=0).pvalue


def nb_cells(adata: Any, dosage: pd.Series) -> np.ndarray:
    """Negative binomial regression of cells on the dosage of their guide, batch as covariate."""
    control = (adata.obs["target"] == "NTC").to_numpy()
    return peers.nb_glm(adata, ~control, control, adata.obs["guide"].map(dosage).to_numpy(float))


OTHERS: dict[str, Callable[[Any, pd.Series], np.ndarray]] = {
    "regression of guides": regression_of_guides,
    "Spearman": spearman,
    "Wilcoxon": wilcoxon,
    SLOW: nb_cells,
}


def calls_row(called: np.ndarray, responds: np.ndarray, cis: np.ndarray) -> dict[str, float]:
    """False discovery proportion and power."""
    called = called & ~cis
    return {
        "called": called.sum(),
        "fdp": (called & ~responds).sum() / max(called.sum(), 1),
        "power": (called & responds).sum() / responds.sum(),
    }


def described(adata: Any, table: pd.DataFrame, responds: np.ndarray) -> dict[str, float]:
    """Dosages, fold changes and EC50s of called responders against the truth of `datasets.titration`."""
    guides, true = adata.uns["cis"]["guides"], adata.uns["titration"]["guides"].set_index("guide")["log2_dosage"]
    acts = ~guides["is_control"].to_numpy(bool)
    x = true[guides["guide"][acts].astype(str)].to_numpy()
    level = np.log2(ds.datasets.true_curve(adata, list(adata.var_names), np.array([x.min(), 0.0])))
    ec50 = adata.var["true_log2_ec50"].to_numpy(float)
    right = responds & (table["qvalue"] < Q_LEVEL).to_numpy()
    inside = right & (adata.var["true_model"] == "single_hill").to_numpy() & (ec50 > x.min()) & (ec50 < max(x.max(), 0))
    out = {"slope": np.polyfit(x, guides["log2_dosage_acting"].to_numpy()[acts], 1)[0]}
    strongest = {"log2fc_full": (level[:, 0] - level[:, 1], right), "log2_ec50": (ec50, inside)}
    for name, (truth, which) in strongest.items():
        low, high = (table[f"{name}_{q}"].to_numpy(float) for q in ("q025", "q975"))
        known = which & np.isfinite(low) & np.isfinite(high)
        out[f"in_{name}"] = ((low <= truth) & (truth <= high) & known).sum()
        out[f"of_{name}"] = known.sum()
    return out


def one(kind: str, seed: int) -> list[dict[str, Any]]:
    """A row of each method."""
    adata, responds = simulate(kind, seed)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, progress=False)
    table, cis = ds.get.trans(adata), (adata.var_names == "GFI1B")
    row: dict[str, Any] = {"kind": kind, "seed": seed, "method": OURS}
    row |= calls_row((table["qvalue"] < Q_LEVEL).to_numpy(), responds, cis)
    raised = adata.uns["trans"]["flags"]
    row["flags"] = ";".join(raised.loc[raised["raised"].astype(bool), "flag"])
    row["graded_fdp"] = calls_row((table["qvalue_graded"] < Q_LEVEL).to_numpy(), responds, cis)["fdp"]
    if "titration" in adata.uns:
        row |= described(adata, table, responds)
    called = responds & (table["qvalue"] < Q_LEVEL).to_numpy()
    row["claimed"] = (called & (table["p_ec50_inside"] > 0.95).to_numpy()).sum()
    row["biphasic"] = (called & table["class"].astype(str).str.startswith("biphasic").to_numpy()).sum()
    rows = [row]
    dosage = adata.uns["cis"]["guides"].set_index("guide")["log2_dosage"]
    for name, test in OTHERS.items():
        if name == SLOW and seed >= SEEDS_OF_SLOW:
            continue
        p = np.where(cis, np.nan, test(adata, dosage))
        rows.append(
            {"kind": kind, "seed": seed, "method": name} | calls_row(peers.adjusted(p) < Q_LEVEL, responds, cis)
        )
    return rows


def with_error(values: pd.Series) -> str:
    """Mean and standard error over seeds."""
    return f"{values.mean():.3f} +- {values.std() / np.sqrt(len(values)):.3f}"


def summary(runs: pd.DataFrame) -> str:
    """A line of each kind and method."""
    lines = []
    for (kind, method), rows in runs.groupby(["kind", "method"], sort=False):
        text = f"{kind:<13}{method:<21} FDP {with_error(rows['fdp'])}, power {rows['power'].mean():.3f}"
        if method == OURS:
            text += f"; graded FDP {with_error(rows['graded_fdp'])}; claims {rows['claimed'].sum():.0f}"
            text += f", biphasic {rows['biphasic'].sum():.0f}, of {rows['called'].sum():.0f} called"
            if "slope" in rows and rows["slope"].notna().any():
                hits = {n: (rows[f"in_{n}"].sum(), rows[f"of_{n}"].sum()) for n in ("log2fc_full", "log2_ec50")}
                text += f"; slope {with_error(rows['slope'])}" + "".join(
                    f", {name} {inside / max(of, 1):.3f} of {of:.0f}" for name, (inside, of) in hits.items()
                )
            raised = rows["flags"].fillna("").str.split(";").explode()
            text += "; flags: " + ", ".join(f"{k} {v}" for k, v in raised[raised != ""].value_counts().items())
        lines.append(text)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = (*PLAIN, *SCREENS, *CURVES)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", nargs="+", default=list(kinds), choices=kinds)
    parser.add_argument("--out", type=Path, help="csv file with a row per screen and method")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for kind in options.only:
            of_kind = one(kind, seed)
            rows += of_kind
            print(f"{kind} {seed}: " + ", ".join(f"{r['method']} {r['fdp']:.3f}" for r in of_kind), flush=True)
            if options.out:
                pd.DataFrame(rows).to_csv(options.out, index=False)
    print(summary(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
