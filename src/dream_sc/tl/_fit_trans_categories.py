"""The trans step of features with several categories: one test and one shape for all, a usage curve for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import CATEGORY_COLUMNS, trans_columns

from ._rows import OF_EC50, means

if TYPE_CHECKING:
    from anndata import AnnData

    from ._rows import TransInputs

MOST_PARETO_K = 0.7


class Written(NamedTuple):
    """What a trans fit writes."""

    frame: pd.DataFrame  # (T, ...)
    records: np.ndarray  # (T, 512), or (T, 512 L) of L layers of categories
    hyper: dict[str, Any]
    categories: pd.DataFrame | None = None


def fit(
    adata: AnnData,
    inputs: TransInputs,
    options: Any,
    hyper: dict[str, Any] | None,
    features: Any,
    progress: Any,
    kept: Any,
) -> Written:
    """Fit all features, and report those asked for."""
    from dream_sc._core.response.categories import describe
    from dream_sc._core.response.categories import evidence as chains

    if options.inference == "nuts":
        raise ValueError('inference="nuts" is not offered for distribution="multinomial": use "laplace" or "svi"')
    if options.inference == "svi" and options.function_type not in ("auto", "single_hill"):
        raise ValueError(
            f'inference="svi" of a multinomial is of one Hill, not function_type={options.function_type!r}: leave it '
            'out, or use inference="laplace"'
        )
    s = inputs.sticks
    asked = _asked(adata, s, features, inputs.ok)
    use = inputs.ok[s.feature]
    found = chains.fit(
        inputs.stats.take(use),
        inputs.dosage,
        inputs.overdispersion[use],
        s.feature[use],
        axis=inputs.axis,
        priors=inputs.priors,
        alpha_sd=inputs.alpha_sd,
        options=options,
        hyper=hyper,
        progress=progress,
        kept=kept,
    )
    rows = describe.describe(found, options, progress, kept, asked[inputs.ok])
    of_column = _columns_of(s, use)
    of_features = _by_feature(found, rows, inputs, asked, of_column)
    of_categories = _by_category(s, rows, of_column, asked)
    names = trans_columns(inputs.likelihood.effect)
    if adata.n_vars == len(s.column_names):  # a row of .var is a category
        frame = of_features.iloc[s.column_feature].set_axis(adata.var_names)
        for name in CATEGORY_COLUMNS:
            frame[name] = of_categories[name].to_numpy()
        frame["mean"] = _shares(s, inputs, use)
        records = _records(rows, of_column, len(s.column_names), asked[s.column_feature])
        return Written(_tidy(frame, names), records, found.hyper)
    frame = of_features.set_axis(adata.var_names)
    of_categories.insert(0, "feature", np.array(s.features, dtype=object)[s.column_feature])
    of_categories.insert(1, "category", s.column_names)
    records = _records(rows, of_column, len(s.column_names), asked[s.column_feature])
    of_categories.index = of_categories.index.astype(str)
    return Written(_tidy(frame, names), records.reshape(adata.n_vars, -1), found.hyper, of_categories)


def _tidy(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    out = frame[[name for name in names if name in frame]].copy()
    for name in ("model", "class", "category", "status"):
        out[name] = pd.Categorical(out[name])
    return out


def _asked(adata: AnnData, sticks: Any, features: Any, ok: np.ndarray) -> np.ndarray:
    """Which features ``(F,)`` to report: named by themselves, or by one of their categories."""
    if features is None:
        return np.ones(len(sticks.features), dtype=bool)
    place = {name: i for i, name in enumerate(sticks.features)}
    out = np.zeros(len(sticks.features), dtype=bool)
    names = [features] if isinstance(features, str) else list(features)
    for name in names:
        if name in place:
            out[place[name]] = True
        else:
            out[sticks.column_feature[_validate.feature(adata, name, "features")]] = True
    if not (ok & out).any():
        raise ValueError(f"none of features={names} can be fitted: each has too few counts or categories")
    return out


def _columns_of(sticks: Any, use: np.ndarray) -> np.ndarray:
    """Column of each category of the fitted features, in the order of their sticks, the one that ends a chain last."""
    last = np.append(sticks.feature[1:] != sticks.feature[:-1], True)
    out = []
    for k in np.flatnonzero(use):
        out.append(sticks.category[k])
        if last[k]:
            out.append(sticks.following[k])
    return np.array(out, dtype=np.int64)


def _by_feature(found: Any, rows: Any, inputs: TransInputs, asked: np.ndarray, of_column: np.ndarray) -> pd.DataFrame:
    """A row per feature: calls, numbers of the category that moves most, what single guides say."""
    s, ok = inputs.sticks, inputs.ok
    fitted = ok & asked
    reported = asked[ok]
    lfdr = found.columns["lfdr"]
    leading = {name: values[rows.leading] for name, values in rows.by_category.items()}
    columns = leading | rows.by_feature | found.columns
    columns["class"] = np.where(lfdr > 0.5, "null", columns["class"])
    columns["p_class"] = np.where(lfdr > 0.5, lfdr, columns["p_class"] * (1 - lfdr))
    columns["category"] = s.column_names[of_column[rows.leading]]
    out: dict[str, Any] = {}
    no_ec50 = inputs.few_guides | inputs.one_dosage
    for name, values in columns.items():
        text = np.asarray(values).dtype.kind in "UO"
        out[name] = np.full(len(ok), None if text else np.nan, dtype=object if text else float)
        out[name][fitted] = values[reported]
        if name.startswith(OF_EC50):
            out[name][no_ec50] = np.nan
    status = inputs.reason.copy()
    status[ok] = "not asked for"
    gap = (leading["single_gap"] > 0) | inputs.one_dosage
    done = np.where(inputs.few_guides[ok], "few_guides", np.where(gap, "single_gap", "converged")).astype(object)
    doubtful = (done == "converged") & (rows.by_feature["pareto_k"] > MOST_PARETO_K)
    done[doubtful] = "pareto_k above 0.7: intervals are rough"
    done[rows.by_feature["converged"] == 0] = "not converged: raise niters"
    status[fitted] = done[reported]
    first = np.full(len(ok), np.nan)
    first[s.feature[::-1]] = inputs.overdispersion[::-1]
    out |= {"overdispersion": first, "n_cells": np.full(len(ok), inputs.n_cells), "status": status}
    return pd.DataFrame(out)


def _by_category(sticks: Any, rows: Any, of_column: np.ndarray, asked: np.ndarray) -> pd.DataFrame:
    """What each category does by itself."""
    n = len(sticks.column_names)
    out = {name: np.full(n, np.nan) for name in CATEGORY_COLUMNS}
    mine = asked[sticks.column_feature[of_column]]
    for name in CATEGORY_COLUMNS:
        out[name][of_column[mine]] = np.asarray(rows.by_category[name], dtype=float)[mine]
    return pd.DataFrame(out)


def _shares(sticks: Any, inputs: TransInputs, use: np.ndarray) -> np.ndarray:
    """Share ``(K,)`` of each category in the cells used."""
    share, out = means(inputs), np.full(len(sticks.column_names), np.nan)
    left = np.ones(len(sticks.features))
    for k in np.flatnonzero(use):
        f = sticks.feature[k]
        out[sticks.category[k]] = left[f] * share[k]
        left[f] *= 1.0 - share[k]
        out[sticks.following[k]] = left[f]
    return out


def _records(rows: Any, of_column: np.ndarray, n: int, asked: np.ndarray) -> np.ndarray:
    out = np.full((n, rows.records.shape[1]), np.nan, dtype=rows.records.dtype)
    out[of_column] = rows.records
    out[~asked] = np.nan
    return out
