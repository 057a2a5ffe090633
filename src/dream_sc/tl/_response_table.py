"""What the trans step said, by the names of the object: the features asked for, and the table that is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import CATEGORIES, CATEGORY_COLUMNS, trans_columns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dream_sc._core.response.describe import Described

    from ._response_inputs import ResponseInputs

TEXT = ("model", "on_knockdown", "confidence", "class", "category", "status", "note")


PLACES = ("log2_ec50", "inflection", "log2_dosage")  # how columns begin that are places on the axis


def asked_for(inputs: ResponseInputs, features: str | Iterable[str] | None) -> np.ndarray:
    """Which features ``(F,)`` to describe; one with several categories goes by its name or that of a category."""
    ok, adata, sticks = inputs.prepared.fitted, inputs.opened.adata, inputs.sticks
    if features is None:
        return np.ones(len(ok), dtype=bool)
    names = [features] if isinstance(features, str) else list(features)
    if not names:
        raise ValueError("features=[] asks for nothing: name features, or leave it out for all")
    of_links = inputs.prepared.links
    out = np.zeros(len(ok), dtype=bool)
    place = {} if of_links is None or sticks is None else {name: i for i, name in enumerate(sticks.features)}
    for name in names:
        if name in place:
            out[place[name]] = True
        else:
            column = _validate.feature(adata, name, "features")
            out[column if of_links is None else of_links.feature_of_category[column]] = True
    if not (ok & out).any():
        why = "is the cis gene or has too few counts" if of_links is None else "has too few counts or categories"
        raise ValueError(f"none of features={names} can be fitted: each {why}")
    return out


def table_of(inputs: ResponseInputs, found: Described) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A row per feature of the object, and a table of the categories where its features are no categories.

    What could not be computed is NaN; the reason is in `status` and `note`.
    """
    adata, sticks = inputs.opened.adata, inputs.sticks
    columns, names = _of_axis(dict(found.columns), inputs), trans_columns(inputs.prepared.likelihood.effect)
    if found.by_category is None or sticks is None:
        return _tidy(pd.DataFrame(columns, index=adata.var_names), names), {}
    leading = columns["category"]
    columns["category"] = np.full(len(leading), None, dtype=object)
    told = np.isfinite(leading)
    columns["category"][told] = sticks.column_names[leading[told].astype(int)]
    frame, of_categories = pd.DataFrame(columns), {name: found.by_category[name] for name in CATEGORY_COLUMNS}
    if adata.n_vars == len(sticks.column_names):  # a row of .var is a category
        frame = frame.iloc[sticks.column_feature].set_axis(adata.var_names)
        for name, values in of_categories.items():
            frame[name] = values
        frame["mean"] = found.by_category["mean"]
        return _tidy(frame, names), {}
    whose = {"feature": np.array(sticks.features, dtype=object)[sticks.column_feature], "category": sticks.column_names}
    categories = pd.DataFrame(whose | of_categories)
    categories.index = categories.index.astype(str)
    return _tidy(frame.set_axis(adata.var_names), names), {CATEGORIES: categories}


def _of_axis(columns: dict[str, Any], inputs: ResponseInputs) -> dict[str, Any]:
    """Columns with places on the axis in the unit of the user; without dosages there is none."""
    if inputs.opened.no_dosage:
        nothing = {k: np.full(len(columns[k]), np.nan) for k in columns if k.startswith("log2_dosage")}
        return columns | nothing
    return _in_doses(columns, inputs.zero)


def _in_doses(columns: dict[str, Any], zero: float | None) -> dict[str, Any]:
    """Columns with places on the axis as log2 doses, without what is of a knock-down or of the log of dose 0."""
    if zero is None:
        return columns
    moved = {k: v + zero for k, v in columns.items() if k.startswith(PLACES)}
    none = {k: np.full(len(columns[k]), np.nan) for k in columns.keys() & {"slope_ntc"}}
    none |= {k: np.full(len(columns[k]), None, dtype=object) for k in columns.keys() & {"on_knockdown"}}
    return columns | moved | none


def _tidy(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """The columns of the table in their order, texts as categories and all else as numbers."""
    out = {
        name: pd.Categorical(frame[name]) if name in TEXT else frame[name].to_numpy(float)
        for name in names
        if name in frame
    }
    return pd.DataFrame(out, index=frame.index)
