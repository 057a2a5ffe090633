"""Dosages that a user gives: a table or a mapping of labels, or a column of cells, as numbers of labels and cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import GUIDE
from dream_sc._logging import logger

if TYPE_CHECKING:
    from anndata import AnnData

SHOWN = 12
DOSAGE, LOG2_DOSAGE, SD = "dosage", "log2_dosage", "sd"


@dataclass(frozen=True)
class Given:
    """A number of each cell, NaN where none is given, and whether cells of a label differ in it."""

    value: np.ndarray  # (N,)
    sd: np.ndarray  # (N,) 0 where none is given, or no dosage
    by_cell: bool


def read(adata: AnnData, dosage: Any, sd: Any, label: np.ndarray, scale: str, label_key: str) -> Given:
    """The dosages of cells with these labels ``(N,)``, in the user's unit.

    Raises
    ------
    KeyError, ValueError, TypeError
        If there is no such column, none of the labels, or a value is no number.
    """
    if isinstance(dosage, str):
        value = _column(adata, dosage, "dosage")
        by_cell = bool((pd.Series(value).groupby(label).nunique().drop("", errors="ignore") > 1).any())
    else:
        table = _table(dosage, scale, label_key)
        if sd is None and SD in table:
            sd = table[SD]
        value, by_cell = _of_labels(table[DOSAGE], label, "dosage"), False
    errors = _sd(adata, sd, label)
    lacking = np.isfinite(value) & np.isnan(errors) & (label != "") & (value != (1.0 if scale == "relative" else 0.0))
    if lacking.any():
        names = sorted(set(label[lacking]))[:SHOWN]
        logger.warning("tl.set_dosage: sd lacks the labels %s: their dosages are taken to be exact", names)
    return Given(value, np.nan_to_num(errors, nan=0.0), by_cell)


def _table(dosage: Any, scale: str, label_key: str) -> pd.DataFrame:
    """A table with the labels as index, the dosages as "dosage", and their errors as "sd" where it has any."""
    if isinstance(dosage, pd.Series):
        return _named(dosage.rename(DOSAGE).to_frame())
    if isinstance(dosage, pd.DataFrame):
        key = next((k for k in (label_key, GUIDE) if k in dosage), None)
        if key is None and isinstance(dosage.index, pd.RangeIndex) and dosage.index.name is None:
            raise ValueError(
                f"dosage is a table whose rows are numbered: have the labels as index, or in a column {label_key!r}; "
                f"it has {list(dosage.columns)}"
            )
        table = dosage if key is None else dosage.set_index(key)
        name = LOG2_DOSAGE if scale == "log2" and LOG2_DOSAGE in table else DOSAGE
        if name not in table:
            raise ValueError(
                f"dosage is a table without a column {name!r}; it has {list(table.columns)}: name the dosages "
                f"{DOSAGE!r}, their errors {SD!r}, and have the labels as index"
            )
        return _named(table[[name, *([SD] if SD in table else [])]].rename(columns={name: DOSAGE}))
    if isinstance(dosage, Mapping):
        return _named(pd.Series(dict(dosage), name=DOSAGE).to_frame())
    raise TypeError(
        f"dosage is a {type(dosage).__name__}: give a mapping or a table of labels to dosages, or the name of a column "
        "of .obs"
    )


def _named(table: pd.DataFrame) -> pd.DataFrame:
    table = table.set_axis(table.index.astype(str))
    if not table.index.is_unique:
        raise ValueError(f"dosage names {table.index[table.index.duplicated()][0]!r} twice")
    return table


def _of_labels(given: pd.Series, label: np.ndarray, what: str) -> np.ndarray:
    """Numbers of labels, for each cell."""
    numbers = pd.to_numeric(given, errors="coerce").astype(float)
    bad = ~np.isfinite(numbers)
    if bad.any():
        raise ValueError(f"{what} of {numbers.index[bad].tolist()[:SHOWN]} is no number")
    known = sorted(set(label) - {""})
    if not set(numbers.index) & set(known):
        raise ValueError(
            f"{what} names none of the labels of the cells: it names {list(numbers.index)[:SHOWN]}, cells have "
            f"{known[:SHOWN]}; see label_key="
        )
    unknown = sorted(set(numbers.index) - set(known))
    if unknown:
        logger.warning("tl.set_dosage: no cell has the labels %s, which %s names", unknown[:SHOWN], what)
    return numbers.reindex(label).to_numpy()


def _column(adata: AnnData, key: str, what: str) -> np.ndarray:
    """A column of numbers; missing ones are NaN."""
    column = _validate.column(adata, key, what)
    text = column.astype(object)
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(float)
    bad = (~np.isfinite(numbers)) & column.notna().to_numpy()
    if bad.any():
        raise ValueError(f"{what}: .obs[{key!r}] holds {text[bad].iloc[0]!r}, which is no number")
    return np.asarray(numbers)


def _sd(adata: AnnData, sd: Any, label: np.ndarray) -> np.ndarray:
    """Errors of cells' dosages: one number for all, numbers of labels, or a column; NaN where it lacks one."""
    n = len(label)
    if sd is None:
        return np.zeros(n)
    if isinstance(sd, str):
        values = _column(adata, sd, "sd")
    elif isinstance(sd, Mapping | pd.Series):
        series = sd if isinstance(sd, pd.Series) else pd.Series(dict(sd))
        values = _of_labels(_named(series.rename(SD).to_frame())[SD], label, "sd")
    elif isinstance(sd, int | float | np.integer | np.floating) and not isinstance(sd, bool):
        values = np.full(n, float(sd))
    else:
        raise TypeError(f"sd is a {type(sd).__name__}: give a number, a mapping of labels, or a column of .obs")
    if (values < 0).any() or np.isinf(values).any():
        raise ValueError("sd holds numbers below 0, or infinite ones: errors of dosages are 0 or more")
    return values
