"""What other tests find in the same simulated and real screens.

`nb_glm` is a negative binomial regression per gene on single cells: batch as covariate, log size factor as offset, a
likelihood ratio test of targeted against control cells, or of a linear effect of the guides' log2 dosage where guides
are graded; the overdispersion is that of the control cells. `sceptre` is the low-MOI analysis of pysceptre by its
defaults: cells of all guides together against cells with NTC guides, permutations, skew-normal tails.
`sceptre_guides` is the same guide by guide, the smallest p-value times the number of guides. All get one q-value per
gene by Benjamini and Hochberg within a cis gene, and test only genes with 7 non-zero cells on either side.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import store
from real import LEVELS, Q_LEVEL, names_of, posed
from scenarios import CIS_GENE, GRID
from scipy.optimize import minimize_scalar
from scipy.special import gammaln
from scipy.stats import chi2, false_discovery_control
from screens import CONTROL, SCREENS, load
from simulated import axis_of, score_calls, truth_of
from threadpoolctl import threadpool_limits

import dream_sc as ds

PART = "peers"
SIMULATED = ("plain", "all_015", "all_sparse", "shift_015")
SCREEN = "schraivogel"
POSING = 4
NULLS = {"guides": 1000, "cells": 20}  # what is dealt anew, and how often at most
LEAST_NONZERO = 7
ALPHA = (1e-6, 1e2)
MISSING = {
    "statsmodels": "pip install --group bench",
    "pysceptre": "pip install --group bench, or pip install --no-deps --target FOLDER pysceptre and name FOLDER as "
    "--peers or in DREAM_SC_PEERS",
}


def design(adata: ad.AnnData) -> np.ndarray:
    """Intercept and batches, cells x columns."""
    batch = pd.get_dummies(adata.obs["batch"].astype(str), drop_first=True).to_numpy(float)
    return np.column_stack([np.ones(adata.n_obs), batch])


def control_overdispersion(y: np.ndarray, mean: np.ndarray) -> float:
    """Alpha of variance m + alpha m^2 by maximum likelihood, the means given."""

    def loss(log_alpha: float) -> float:
        size = np.exp(-log_alpha)
        terms = gammaln(y + size) - gammaln(size) - y * np.log1p(size / mean) - size * np.log1p(mean / size)
        return -float(terms.sum())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(ALPHA), method="bounded").x))


def nb_glm(adata: ad.AnnData, targeted: np.ndarray, control: np.ndarray, dosage: np.ndarray | None) -> np.ndarray:
    """p-value per gene; `dosage` per cell, or None to compare targeted with control cells."""
    import statsmodels.api as sm

    used = targeted | control
    small, target = design(adata)[used], targeted[used]
    large = np.column_stack([small, target if dosage is None else dosage[used]]).astype(float)
    offset = np.log(adata.obs["size_factor"].to_numpy(float)[used])
    counts, p = sp.csc_matrix(adata.X[np.flatnonzero(used)]), np.full(adata.n_vars, np.nan)
    for gene in np.flatnonzero(enough(adata, targeted, control)):
        y = counts[:, [gene]].toarray().ravel().astype(float)
        poisson = sm.GLM(y[~target], small[~target], family=sm.families.Poisson(), offset=offset[~target]).fit()
        alpha = control_overdispersion(y[~target], np.maximum(poisson.fittedvalues, 1e-10))
        family = sm.families.NegativeBinomial(alpha=alpha)
        llf = [sm.GLM(y, x, family=family, offset=offset).fit().llf for x in (small, large)]
        p[gene] = chi2.sf(2 * max(llf[1] - llf[0], 0.0), 1)
    return p


def enough(adata: ad.AnnData, targeted: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Genes with 7 non-zero cells on either side."""
    seen = sp.csr_matrix(adata.X) != 0
    nonzero = [np.asarray(seen[np.flatnonzero(cells)].sum(0)).ravel() for cells in (targeted, control)]
    return np.minimum(*nonzero) >= LEAST_NONZERO


def guide_cells(adata: ad.AnnData, cells: np.ndarray) -> dict[str, np.ndarray]:
    """Positions of the cells of every guide among `cells`."""
    guide = adata.obs["guide"].astype(str).to_numpy()
    return {g: np.flatnonzero((guide == g) & cells) for g in np.unique(guide[cells]).tolist()}


def sceptre_pairs(adata: ad.AnnData, groups: dict[str, np.ndarray], control: np.ndarray, seed: int) -> pd.DataFrame:
    """p-values of pysceptre, genes x groups of cells, each group against all control cells."""
    import pysceptre

    keep = {name: enough(adata, _mask(adata, cells), control) for name, cells in groups.items()}
    genes = adata.var_names.astype(str)
    pairs = [(gene, name) for name, ok in keep.items() for gene in genes[ok]]
    covariates = np.column_stack([design(adata), np.log(adata.obs["size_factor"].to_numpy(float))])
    result = pysceptre.run_discovery_analysis(
        sp.csr_matrix(adata.X.T),
        list(genes),
        covariates,
        groups,
        pd.DataFrame(pairs, columns=["response_id", "grna_target"]),
        moi="low",
        ntc_grna_cells=guide_cells(adata, control),
        seed=seed,
    )
    return result.pivot(index="response_id", columns="grna_target", values="p_value").reindex(genes)


def _mask(adata: ad.AnnData, cells: np.ndarray) -> np.ndarray:
    mask = np.zeros(adata.n_obs, bool)
    mask[cells] = True
    return mask


def sceptre(adata: ad.AnnData, targeted: np.ndarray, control: np.ndarray, dosage: np.ndarray | None) -> np.ndarray:
    """Cells of all guides together; dosage has no part in it."""
    return sceptre_pairs(adata, {"target": np.flatnonzero(targeted)}, control, 0)["target"].to_numpy()


def sceptre_guides(
    adata: ad.AnnData, targeted: np.ndarray, control: np.ndarray, dosage: np.ndarray | None
) -> np.ndarray:
    """Every guide, Bonferroni over those with enough counts."""
    p = sceptre_pairs(adata, guide_cells(adata, targeted), control, 0)
    return np.minimum(p.min(axis=1) * p.notna().sum(axis=1), 1.0).to_numpy()


PEERS: dict[str, tuple[str, Callable[..., np.ndarray]]] = {
    "nb_glm": ("statsmodels", nb_glm),
    "sceptre": ("pysceptre", sceptre),
    "sceptre_guides": ("pysceptre", sceptre_guides),
}


def installed(folder: str | None) -> list[str]:
    """The peers that can run; says what is missing. `folder` comes after everything that is installed."""
    folder = folder or os.environ.get("DREAM_SC_PEERS")
    if folder and folder not in sys.path:
        sys.path.append(folder)
    missing = {module for module, _ in PEERS.values() if find_spec(module) is None}
    for module in sorted(missing):
        names = ", ".join(name for name, (m, _) in PEERS.items() if m == module)
        print(f"{names}: skipped, {module} is not installed: {MISSING[module]}", flush=True)
    return [name for name, (module, _) in PEERS.items() if module not in missing]


def test(peer: str, cis_gene: str | None, adata: ad.AnnData, *args: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """p-values, q-values (NaN where not tested, and for the cis gene) and seconds of one analysis, on one thread."""
    start = time.perf_counter()
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of genes whose overdispersion is at a bound
        p = np.where(adata.var_names == cis_gene, np.nan, PEERS[peer][1](adata, *args))
    return p, adjusted(p), time.perf_counter() - start


def adjusted(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg over the genes that were tested."""
    q, known = np.full(len(p), np.nan), np.isfinite(p)
    q[known] = false_discovery_control(p[known]) if known.any() else np.nan
    return q


def one_simulated(adata: ad.AnnData, peer: str) -> dict[str, Any]:
    """Counts over genes, as for the fits; `adata` holds a fit of the dosages."""
    guides = ds.get.guides(adata)["log2_dosage"]
    dosage = guides.reindex(adata.obs["guide"].astype(str)).to_numpy(float)
    control = (adata.obs["target"] == CONTROL).to_numpy()
    known = np.isfinite(dosage)
    p, q, seconds = test(peer, CIS_GENE, adata, ~control & known, control & known, dosage)
    return score_calls(q < Q_LEVEL, p, truth_of(adata, axis_of(adata))) | {"seconds": seconds}


def simulated(root: Path, peers: list[str], names: list[str], seeds: range, **override: Any) -> None:
    """The scenarios, a row per peer and seed."""
    for seed in seeds:
        for name in names:
            path = root / PART / f"simulated_{name}.csv"
            left = [p for p in peers if (p, seed) not in pairs_done(path)]
            if not left:
                continue
            adata = GRID[name].simulate(seed, **override)
            ds.tl.fit_technical(adata, batch_key="batch")
            ds.tl.fit_cis(adata, CIS_GENE)
            for peer in left:
                row = one_simulated(adata, peer)
                store.append(path, {"peer": peer, "seed": seed} | row)
                print(f"{name} seed {seed}, {peer}: {row['false']:.0f} false of {row['called']:.0f} calls", flush=True)


def pairs_done(path: Path, column: str = "seed") -> set[tuple[str, Any]]:
    """Peer and seed, or peer and run, of every row."""
    rows = store.read(path)
    return set(zip(rows["peer"], rows[column], strict=True)) if len(rows) else set()


def found(adata: ad.AnnData, peer: str, targeted: np.ndarray, control: np.ndarray, gene: str | None) -> dict[str, Any]:
    """Calls and rejections of one real comparison, the cis gene left out; p-values for quantiles."""
    p, q, seconds = test(peer, gene, adata, targeted, control, None)
    names = np.array(names_of(adata, adata.var_names))
    row = {"peer": peer, "tested": int(np.isfinite(p).sum()), **{k: int((p < v).sum()) for k, v in LEVELS.items()}}
    row |= {"calls": int((q < Q_LEVEL).sum()), "called": ";".join(names[q < Q_LEVEL]), "seconds": seconds}
    row |= {f"{k}_genes": ";".join(names[p < v]) for k, v in LEVELS.items()}
    return row | {"pvalues": " ".join(f"{x:.3g}" for x in p[np.isfinite(p)])}


def targets(root: Path, peers: list[str], adata: ad.AnnData, wanted: list[str]) -> None:
    """Every target of the screen against its NTC cells."""
    target = adata.obs["target"].astype(str).to_numpy()
    path = root / PART / f"{SCREEN}_targets.csv"
    runs = {k: v for k, v in SCREENS[SCREEN].runs(adata).items() if not wanted or k in wanted}
    for run, (gene, label) in runs.items():
        for peer in (p for p in peers if (p, run) not in pairs_done(path, "run")):
            row = found(adata, peer, target == label, target == CONTROL, gene)
            store.append(path, {"run": run, **row})
            print(f"{run}, {peer}: {row['calls']} calls: {row['called'] or 'none'}", flush=True)


def nulls(root: Path, peers: list[str], adata: ad.AnnData, kind: str, n: int) -> None:
    """NTC guides that pose as a target, in the regroupings of `real.refits`.

    With `kind` "cells", the cells are dealt to the guides anew, within batches: no guide differs from another, so
    a test that is right for independent cells keeps its level there.
    """
    path = root / PART / f"{SCREEN}_{kind}.csv"
    controls = adata[(adata.obs["target"] == CONTROL).to_numpy()].copy()
    for seed in range(n):
        left = [p for p in peers if (p, seed) not in pairs_done(path)]
        if not left:
            continue
        rng = np.random.default_rng(seed)
        other, _ = posed(controls, POSING, "posing", rng)
        if kind == "cells":
            frame = other.obs[["guide", "target"]].astype(str)
            for cells in other.obs.groupby("batch", observed=True).indices.values():
                frame.iloc[cells] = frame.iloc[rng.permutation(cells)].to_numpy()
            other.obs[["guide", "target"]] = frame
        targeted = (other.obs["target"] == "posing").to_numpy()
        for peer in left:
            row = found(other, peer, targeted, ~targeted, None)
            store.append(path, {"seed": seed, **row})
            print(f"NTC {kind} posing, {seed}, {peer}: {row['calls']} calls", flush=True)


def run(
    root: Path,
    data: Path | None,
    folder: str | None,
    *,
    seeds: int = 5,
    n: int = 100,
    wanted: list[str] | None = None,
    **override: Any,
) -> None:
    """All that can run here."""
    peers = installed(folder)
    simulated(root, peers, [s for s in SIMULATED if not wanted or s in wanted], range(seeds), **override)
    adata = load(SCREENS[SCREEN], data)
    if adata is not None:
        targets(root, peers, adata, wanted or [])
        for kind, most in NULLS.items() if not wanted else ():
            nulls(root, peers, adata, kind, min(n, most))
