"""EC50 and steepness of published dose-response tables, against the fits published with them.

``python benchmarks/dose_response.py FOLDER`` prints a row per table, with and without guide effects, and the widths of
the posterior on a grid, and of profile likelihoods, beside the reference's. The folder holds a table per experiment and
``reference_fits.csv`` (table, dose, response, distribution, log2_ed50, log2_ed50_se, slope, slope_se).
"""

from __future__ import annotations

import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.stats import chi2
from scipy.stats import f as f_distribution

import dream_sc as ds

Z95 = 1.959963984540054


def opened(folder: Path, reference: pd.Series) -> ad.AnnData:
    """A row of the table is a well or a group of animals, with a label of its own."""
    table = pd.read_csv(folder / f"{reference.name}.csv")
    obs = pd.DataFrame({"dose": table[reference["dose"]].to_numpy(float)})
    obs.index = obs["well"] = [f"w{i}" for i in range(len(table))]
    obs["target"] = np.where(obs["dose"] == 0, "NTC", "drug")
    column = reference["response"].split(" of ")[0]
    adata = ad.AnnData(table[[column]].to_numpy(float), obs, pd.DataFrame(index=[column]))
    if reference["distribution"] == "binomial":
        adata.layers["n"] = table[[reference["response"].split(" of ")[1]]].to_numpy(float)
        how = {"distribution": "binomial", "denominator_layer": "n", "overdispersed": False}
    else:
        how = {"distribution": "normal"}
    ds.tl.fit_technical(adata, **how)
    ds.tl.set_dosage(adata, "dose", label_key="well", scale="dose")
    return adata


def compared(adata: ad.AnnData, reference: pd.Series, *, guide_effects: bool) -> dict[str, object]:
    """Distance from the reference in its standard errors, whether intervals cover it, and the ratio of widths."""
    ds.tl.fit_trans(adata, function_type="single_hill", guide_effects=guide_effects)
    row = ds.get.trans(adata).iloc[0]
    out: dict[str, object] = {"table": reference.name, "guide_effects": guide_effects, "guide_sd": row["guide_sd"]}
    for name, theirs, se in (
        ("log2_ec50", reference["log2_ed50"], reference["log2_ed50_se"]),
        ("hill_n", abs(reference["slope"]), reference["slope_se"]),
    ):
        low, high = sorted(
            abs(row[f"{name}{q}"]) if name == "hill_n" else row[f"{name}{q}"] for q in ("_q025", "_q975")
        )
        found = abs(row[name]) if name == "hill_n" else row[name]
        out |= {name: found, f"{name}_z": (found - theirs) / se, f"{name}_covered": low < theirs < high}
        out[f"{name}_width"] = (high - low) / (2 * Z95 * se)
    return out


def on_a_grid(folder: Path, reference: pd.Series) -> dict[str, object]:
    """Widths of the posterior of a four-parameter Hill over the reference's, plateaus and noise integrated exactly.

    Flat in the log dose from 2.5 log2 below to 2.5 above those tested, log-normal in the steepness as in the package.
    """
    table = pd.read_csv(folder / f"{reference.name}.csv")
    x, y = table[reference["dose"]].to_numpy(float), table[reference["response"]].to_numpy(float)
    dose = np.log2(x, out=np.full(len(x), -np.inf), where=x > 0)
    at = np.linspace(dose[x > 0].min() - 2.5, dose.max() + 2.5, 81)
    log_n = np.linspace(np.log(0.3), np.log(15.0), 61)
    log_p = np.zeros((len(at), len(log_n)))
    for i, k in enumerate(at):
        for j, n in enumerate(np.exp(log_n)):
            design = np.stack([np.ones(len(x)), 1 / (1 + np.exp2(-n * (dose - k)))], 1)
            rest = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
            span = design[x == x.max(), 1].mean()  # flat in the movement over the doses, not in the plateaus
            log_p[i, j] = np.log(span) - 0.5 * np.log(np.linalg.det(design.T @ design) + 1e-9)
            log_p[i, j] -= 0.5 * (len(x) - 2) * np.log(rest @ rest) + 0.5 * ((log_n[j] - np.log(2.0)) / 0.8) ** 2
    p = np.exp(log_p - log_p.max())
    out: dict[str, object] = {"table": reference.name}
    for name, values, mass, se in (
        ("log2_ec50", at, p.sum(1), reference["log2_ed50_se"]),
        ("hill_n", np.exp(log_n), p.sum(0), reference["slope_se"]),
    ):
        low, high = np.interp([0.025, 0.975], mass.cumsum() / mass.sum(), values)
        out[f"{name}_width"] = (high - low) / (2 * Z95 * se)
    return out


def deviances(x: np.ndarray, y: np.ndarray, n: np.ndarray | None, at: np.ndarray, log_n: np.ndarray) -> np.ndarray:
    """Twice the log likelihood ``(K, N)`` that a four-parameter Hill loses to its best, for EC50s and steepnesses.

    Its plateaus are those that fit best, of scores with normal noise or of `y` of `n` trials, between 0 and 1. Of
    scores it is the F statistic, whose limit is that of a small sample.
    """
    dose = np.log2(x, out=np.full(len(x), -np.inf), where=x > 0)
    out = np.zeros((len(at), len(log_n)))
    for i, k in enumerate(at):
        for j, slope in enumerate(np.exp(log_n)):
            design = np.stack([np.ones(len(x)), 1 / (1 + np.exp2(-slope * (dose - k)))], 1)
            if n is None:
                rest = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
                out[i, j] = rest @ rest
            else:
                out[i, j] = _binomial_deviance(design[:, 1], y, n)
    best = out.min()
    return out - best if n is not None else (out / best - 1) * (len(x) - 4)


def _binomial_deviance(hill: np.ndarray, y: np.ndarray, n: np.ndarray) -> float:
    """Of the best plateaus."""

    def deviance(ends: np.ndarray) -> float:
        p = np.clip(ends[0] + (ends[1] - ends[0]) * hill, 1e-9, 1 - 1e-9)
        return float(-2 * (y * np.log(p) + (n - y) * np.log1p(-p)).sum())

    return float(minimize(deviance, [0.1, 0.9], bounds=[(0, 1), (0, 1)]).fun)


def profile_interval(values: np.ndarray, lost: np.ndarray, limit: float) -> tuple[float, float]:
    """Where a profile ``(K,)`` crosses its limit on either side of the best value, or the ends of the grid."""
    best = int(lost.argmin())
    low, high = values[0], values[-1]
    if (lost[:best] > limit).any():
        a = int(np.flatnonzero(lost[:best] > limit)[-1])
        low = np.interp(-limit, -lost[a : a + 2], values[a : a + 2])
    if (lost[best:] > limit).any():
        b = best + int(np.flatnonzero(lost[best:] > limit)[0])
        high = np.interp(limit, lost[b - 1 : b + 1], values[b - 1 : b + 1])
    return float(low), float(high)


def by_profile(folder: Path, reference: pd.Series) -> dict[str, object]:
    """Widths of 95 % intervals of profile likelihood over the reference's, which are of standard errors."""
    table = pd.read_csv(folder / f"{reference.name}.csv")
    columns = reference["response"].split(" of ")
    x, y = table[reference["dose"]].to_numpy(float), table[columns[0]].to_numpy(float)
    n = table[columns[1]].to_numpy(float) if len(columns) > 1 else None
    dose = np.log2(x[x > 0])
    at, log_n = np.linspace(dose.min() - 2.5, dose.max() + 2.5, 121), np.linspace(np.log(0.3), np.log(15.0), 61)
    lost = deviances(x, y, n, at, log_n)
    limit = chi2.ppf(0.95, 1) if n is not None else f_distribution.ppf(0.95, 1, len(x) - 4)
    out: dict[str, object] = {"table": reference.name}
    for name, values, profile, se in (
        ("log2_ec50", at, lost.min(1), reference["log2_ed50_se"]),
        ("hill_n", np.exp(log_n), lost.min(0), reference["slope_se"]),
    ):
        low, high = profile_interval(values, profile, float(limit))
        out |= {f"{name}_low": low, f"{name}_high": high, f"{name}_width": (high - low) / (2 * Z95 * se)}
    return out


def main() -> None:
    """Print the table."""
    folder = Path(sys.argv[1])
    references = pd.read_csv(folder / "reference_fits.csv").set_index("table")
    rows = [
        compared(opened(folder, reference), reference, guide_effects=effects)
        for effects in (True, False)
        for _, reference in references.iterrows()
    ]
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    scores = references[references["distribution"] == "normal"]
    print(pd.DataFrame([on_a_grid(folder, row) for _, row in scores.iterrows()]).round(2).to_string(index=False))
    print(pd.DataFrame([by_profile(folder, row) for _, row in references.iterrows()]).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
