"""Whether the results of a step are as it wrote them, by digests of what it stored, in whatever order it is now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc._keys import GUIDE, GUIDES, MADE_FROM, RESULTS

if TYPE_CHECKING:
    from anndata import AnnData

SAMPLE = 256  # cells
WIDEST = 100  # columns; posterior records are wider, and nobody edits these
RTOL = 1e-6  # of numbers, which files may hold in single precision
FEATURES, TABLES, COLUMNS, OF_GUIDES, OF_CELLS, DOSAGE = "features", "tables", "columns", "guides", "cells", "dosage"


def noted(adata: AnnData, key: str, slots: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """What `.uns` holds of the results in `slots`, which are of `adata`."""
    tables = {k: v for (attribute, k), v in slots.items() if attribute == "varm" and _narrow(v)}
    out: dict[str, Any] = {FEATURES: of_names(adata.var_names)}
    out[TABLES] = {k: _digest(v, adata.var_names, _numeric(v)) for k, v in tables.items()}
    out[COLUMNS] = {k: _numeric(v) for k, v in tables.items() if isinstance(v, pd.DataFrame)}
    table = slots.get(("uns", key), {}).get(GUIDES)
    if isinstance(table, pd.DataFrame) and GUIDE in table:
        out[OF_GUIDES] = _of_guides(table)
    cells = slots.get(("obsm", key))
    if isinstance(cells, pd.DataFrame):
        known = np.flatnonzero(np.isfinite(cells.iloc[:, 0].to_numpy(float)))
        at = known[np.linspace(0, len(known) - 1, min(SAMPLE, len(known))).astype(int)] if len(known) else known
        names = adata.obs_names[at].astype(str)
        out[OF_CELLS] = pd.DataFrame({DOSAGE: cells.iloc[at, 0].to_numpy(float)}, index=names)
    return out


def edited(adata: AnnData, key: str) -> list[str]:
    """Results under this key that are not as they were written, as texts for a message."""
    entry = adata.uns.get(key)
    made = entry.get(MADE_FROM, {}).get(RESULTS) if isinstance(entry, Mapping) else None
    if not isinstance(made, Mapping):  # of an earlier version
        return []
    out = []
    # what is empty is left out by anndata where objects are put together
    if str(made.get(FEATURES)) == of_names(adata.var_names):
        for name, before in made.get(TABLES, {}).items():
            now = adata.varm.get(name)
            columns = list(map(str, made.get(COLUMNS, {}).get(name, ())))
            if now is not None and _digest(now, adata.var_names, columns) != str(before):
                out.append(f".varm[{name!r}]")
    if OF_GUIDES in made and _of_guides(entry[GUIDES]) != str(made[OF_GUIDES]):
        out.append(f".uns[{key!r}][{GUIDES!r}]")
    if OF_CELLS in made and key in adata.obsm:
        before = made[OF_CELLS]
        at = adata.obs_names.get_indexer(before.index.astype(str))
        now, then = adata.obsm[key].iloc[at[at >= 0], 0].to_numpy(float), before[DOSAGE].to_numpy(float)[at >= 0]
        if not np.allclose(now, then, rtol=RTOL, atol=0.0, equal_nan=True):
            out.append(f".obsm[{key!r}]")
    return out


def of_names(names: Iterable[Any]) -> str:
    """A digest of names, in whatever order."""
    text = sorted(map(str, names))
    return f"{len(text)} {hashlib.sha256(chr(10).join(text).encode()).hexdigest()[:16]}"


def of_column(column: pd.Series, names: pd.Index) -> str:
    """A digest of a column of labels of features, in whatever order."""
    return of_names(f"{name}\t{value}" for name, value in zip(names, column.astype(str), strict=True))


def _narrow(values: Any) -> bool:
    shape = getattr(values, "shape", ())
    return len(shape) > 1 and int(np.prod(shape[1:])) <= WIDEST


def _numeric(values: Any) -> list[str]:
    """Columns of a table that hold numbers."""
    return list(map(str, values.select_dtypes("number").columns)) if isinstance(values, pd.DataFrame) else []


def _digest(values: Any, names: pd.Index, columns: list[str]) -> str:
    """A digest of numbers of features, in single precision, by the order of their names."""
    if isinstance(values, pd.DataFrame):
        if not set(columns) <= set(values):
            return "lacks columns"
        values = values[columns].to_numpy(float)
    order = np.argsort(names.astype(str).to_numpy(), kind="stable")
    numbers = np.asarray(values, dtype=np.float32)[order]
    return hashlib.sha256(np.where(np.isnan(numbers), np.float32(np.nan), numbers).tobytes()).hexdigest()[:16]


def _of_guides(table: pd.DataFrame) -> str:
    numbers = table.select_dtypes("number")
    return _digest(numbers, pd.Index(table[GUIDE].astype(str)), list(map(str, numbers.columns)))
