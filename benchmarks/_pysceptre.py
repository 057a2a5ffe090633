"""The pairs that `tl.screen` fitted, by the discovery analysis of pysceptre as well: time, calls, agreement.

pysceptre gets what its defaults ask for: all cells of a target together, against cells with NTC guides and by
permutations where a cell has one guide ("low"), against all other cells and by conditional randomisation where it has
many ("high"). Pairs with less than 7 cells with counts on either side are left out on both sides, as its authors do.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import false_discovery_control

if TYPE_CHECKING:
    from anndata import AnnData

Q = 0.05
LEAST = 7  # cells with counts
HOW = "pip install --group bench, or pip install --no-deps --target FOLDER pysceptre and name FOLDER as --peers"


def installed(folder: str | None) -> bool:
    """Whether it can be imported; says what to do where it cannot. `folder` comes after all that is installed."""
    folder = folder or os.environ.get("DREAM_SC_PEERS")
    if folder and folder not in sys.path:
        sys.path.append(folder)
    there = find_spec("pysceptre") is not None
    if not there:
        print(f"pysceptre: skipped, it is not installed: {HOW}", flush=True)
    return there


def covariates(adata: AnnData, *columns: np.ndarray) -> np.ndarray:
    """Intercept, batches and columns, cells x covariates."""
    batch = pd.get_dummies(adata.obs["batch"].astype(str), drop_first=True).to_numpy(float)
    return np.column_stack([np.ones(adata.n_obs), batch, *columns])


def tested(adata: AnnData, table: pd.DataFrame, cells: dict[str, np.ndarray], control: np.ndarray | None) -> Any:
    """Pairs of a table that have a q-value and enough cells; `control` None stands for all other cells."""
    seen = sparse.csr_matrix(adata.X != 0).astype(np.int64)
    total = np.asarray(seen.sum(0) if control is None else seen[control].sum(0)).ravel()
    pairs = table.loc[table["qvalue"].notna(), ["target", "feature"]].astype(str)
    at = adata.var_names.get_indexer(pairs["feature"])
    enough = np.zeros(len(pairs), dtype=bool)
    for target, some in pairs.reset_index(drop=True).groupby("target").groups.items():
        mine = np.asarray(seen[cells[target]].sum(0)).ravel()
        others = total - mine if control is None else total
        enough[some] = np.minimum(mine, others)[at[some]] >= LEAST
    return pairs[enough].reset_index(drop=True)


def analysed(
    adata: AnnData,
    pairs: pd.DataFrame,
    cells: dict[str, np.ndarray],
    design: np.ndarray,
    ntc: dict[str, np.ndarray] | None,
) -> pd.DataFrame:
    """`pairs` with p- and q-values of pysceptre and log2 fold changes; its time is printed."""
    import pysceptre

    began, used = time.perf_counter(), time.process_time()
    wanted = pairs.rename(columns={"target": "grna_target", "feature": "response_id"})
    how: dict[str, Any] = {"moi": "high"} if ntc is None else {"moi": "low", "ntc_grna_cells": ntc}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of genes whose overdispersion is at a bound
        found = pysceptre.run_discovery_analysis(
            sparse.csr_matrix(adata.X.T), list(adata.var_names.astype(str)), design, cells, wanted, seed=0, **how
        )
    wall, used = time.perf_counter() - began, time.process_time() - used
    print(
        f"pysceptre: {wall:.0f} s by the clock, {used:.0f} s of processor time, {len(pairs)} pairs, "
        f"{1000 * used / len(pairs):.1f} ms a pair"
    )
    found = found.rename(columns={"grna_target": "target", "response_id": "feature"})
    out = pairs.merge(found[["target", "feature", "p_value", "fold_change"]], on=["target", "feature"], how="left")
    known = out["p_value"].notna()
    out.loc[known, "qvalue"] = false_discovery_control(out.loc[known, "p_value"])
    return out.assign(log2fc=np.log2(out["fold_change"]))


def beside(table: pd.DataFrame, other: pd.DataFrame, known: list[tuple[str, str]]) -> None:
    """Print how both agree on the pairs of `other`, and how many of the known pairs each finds falling."""
    key = ["target", "feature"]
    mine = table.astype(dict.fromkeys(key, str)).merge(other, on=key, suffixes=("", "_other"))
    call, called = (mine[c].to_numpy(float) < Q for c in ("qvalue_union", "qvalue_other"))
    both, either = call & called, call | called
    print(
        f"{len(mine)} pairs of both: {call.sum()} called by dream_sc, {called.sum()} by pysceptre, {both.sum()} by both"
    )
    moved = mine.loc[either, ["log2fc_full", "log2fc"]].to_numpy(float)
    moved = moved[np.isfinite(moved).all(1)]
    if len(moved) > 2:
        same = (np.sign(moved[:, 0]) == np.sign(moved[:, 1])).mean()
        print(
            f"fold changes of what either calls: {same:.3f} of one sign, correlation {np.corrcoef(moved.T)[0, 1]:.3f}"
        )
    ranks = mine[["pvalue", "p_value"]].rank().corr().iloc[0, 1]
    print(f"rank correlation of all p-values: {ranks:.3f}")
    for who, calls, change in (("dream_sc", call, "log2fc_full"), ("pysceptre", called, "log2fc")):
        falls = mine[calls & (mine[change].to_numpy(float) < 0)]
        have = set(map(tuple, falls[key].to_numpy()))
        missed = [": ".join(pair) for pair in known if pair not in have]
        print(
            f"{who} finds {len(known) - len(missed)} of {len(known)} known pairs; missed: {', '.join(missed) or 'none'}"
        )
    for who, some in (("dream_sc", call & ~called), ("pysceptre", called & ~call)):
        names = [f"{t}: {f}" for t, f in mine.loc[some, key].to_numpy()]
        print(f"only {who}: {', '.join(names) or 'none'}")
