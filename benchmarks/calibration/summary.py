"""From rows of results to rates with errors."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import store
from scenarios import GRID, Scenario

FDP_BAR, SINGLE_BAR, TWO_BAR, EC50_BAR, COVERAGE_BAR = 0.05, 0.95, 0.85, 1.2, (0.93, 0.97)
INTERVALS = {"log2_ec50": "EC50", "hill_n": "Hill coefficient", "log2fc_full": "log2FC at strongest knock-down"}


class Rate(NamedTuple):
    """A share or a mean, its standard error, and over how many it is."""

    value: float
    se: float
    n: int

    @property
    def known(self) -> bool:
        return self.n > 0 and bool(np.isfinite(self.value))


NONE = Rate(np.nan, np.nan, 0)


def scenario_rows(root: Path, group: str) -> list[tuple[Scenario, pd.DataFrame]]:
    """Rows of the scenarios of a group, in the order of the grid; those without rows are left out."""
    read = [(s, store.read(root / "simulated" / f"{s.name}.csv")) for s in GRID.values() if s.group == group]
    return [(s, rows) for s, rows in read if len(rows)]


def pooled(rows: pd.DataFrame, hits: str, of: str) -> Rate:
    """Share over all genes of all seeds; the larger of the binomial error and the one between seeds."""
    if hits not in rows or of not in rows:
        return NONE
    rows = rows[[hits, of]].dropna()
    total = rows[of].sum()
    if not total:
        return NONE
    share, n = float(rows[hits].sum() / total), len(rows)
    binomial = share * (1 - share) / total
    between = ((rows[hits] - share * rows[of]) ** 2).sum() * n / (n - 1) / total**2 if n > 1 else 0.0
    return Rate(share, float(np.sqrt(max(binomial, between))), int(total))


def mean(values: pd.Series) -> Rate:
    """Mean over seeds."""
    values = values.dropna()
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return Rate(float(values.mean()), float(error), len(values)) if len(values) else NONE


def proportions(rows: pd.DataFrame, prefix: str = "") -> pd.Series:
    """False discovery proportion of every seed; 0 without calls."""
    return rows[f"{prefix}false"] / np.maximum(rows[f"{prefix}called"], 1)


def fdp(rows: pd.DataFrame) -> Rate:
    return mean(proportions(rows))


def worst(rows: pd.DataFrame) -> float:
    return float(proportions(rows).max())


def null_rate(rows: pd.DataFrame, level: str = "p05") -> Rate:
    return pooled(rows, level, "nulls")


def power(rows: pd.DataFrame, kind: str, prefix: str = "") -> Rate:
    """`kind` is single, two or responders."""
    return pooled(rows, f"{prefix}{kind}_called", f"{prefix}{kind}")


def coverage(rows: pd.DataFrame, name: str, prefix: str = "") -> Rate:
    return pooled(rows, f"{prefix}in_{name}", f"{prefix}of_{name}")


def ec50_error(rows: pd.DataFrame, prefix: str = "") -> Rate:
    """Mean over seeds of the median error."""
    name = f"{prefix}ec50_error"
    return mean(rows[name]) if name in rows else NONE


def ec50_ratio(rows: pd.DataFrame) -> float:
    """Median error over that of the fit given the true dosages, same seeds."""
    if "oracle_ec50_error" not in rows:
        return np.nan
    both = rows[["ec50_error", "oracle_ec50_error"]].dropna()
    return float(both["ec50_error"].mean() / both["oracle_ec50_error"].mean()) if len(both) else np.nan


def strata_rows(root: Path, name: str, stratum: str) -> list[tuple[str, pd.DataFrame]]:
    """Rows of every bin of a stratum of a scenario, in the order in which they were written."""
    rows = store.read(root / "simulated_strata" / f"{name}.csv")
    if not len(rows):
        return []
    return [(str(label), part) for label, part in rows[rows["stratum"] == stratum].groupby("bin", sort=False)]


def real_rows(root: Path, screen: str, table: str) -> pd.DataFrame:
    """Rows of the fits of a real screen: controls, nulls, qq or refits."""
    return store.read(root / "real" / f"{screen}_{table}.csv")


def peer_rows(root: Path, name: str) -> pd.DataFrame:
    """Rows of the other tests."""
    return store.read(root / "peers" / f"{name}.csv")


def any_call(rows: pd.DataFrame) -> Rate:
    """Share of regroupings in which anything is called, with its binomial error."""
    share, n = float((rows["calls"] > 0).mean()), len(rows)
    return Rate(share, float(np.sqrt(share * (1 - share) / n)), n)


def pvalues(rows: pd.DataFrame) -> np.ndarray:
    """All p-values of all rows, sorted."""
    text = " ".join(rows["pvalues"].dropna()) if "pvalues" in rows else ""
    return np.sort(np.array(text.split(), float))
