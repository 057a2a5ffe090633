"""Curves of all features with their bands, and what was observed of them in each guide, in little room."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._core.stats.intervals import Z95
from dream_sc._keys import ZERO
from dream_sc.get import _points
from dream_sc.get._curves import inert_guides, values_of_many

from ._stored import array, quantised

if TYPE_CHECKING:
    import pandas as pd

    from dream_sc.get._names import TransFit

N_DOSES = 41
QUANTILES = (0.5, 0.025, 0.975)
ROOM = 2_000_000  # numbers of guides in a report
FEW_CONTROLS = 12  # NTC guides that are drawn with intervals
MOST_SLOW = 500  # features of other than counts, whose guides are looked at one feature at a time


def curves(fit: TransFit, rows: np.ndarray) -> dict[str, Any]:
    """Median and 95 % band ``(n, 3, X)`` of those rows of the fit that have a posterior.

    Without dosages there is one place, that of acting guides.
    """
    low, high, zero = (fit.info["axis"].get(name) for name in ("low", "high", ZERO))
    dosages = np.linspace(low, high, N_DOSES) if np.isfinite(low) else np.ones(1)
    found = bands(fit, rows, dosages if zero is None else np.maximum(dosages - zero, 0.0))
    has = np.isfinite(found[:, 0, 0])
    place = np.where(has, np.cumsum(has) - 1, -1)
    return {"x": [round(float(x), 5) for x in dosages], "place": array(place, "i4"), **quantised(found[has])}


def bands(fit: TransFit, rows: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Median, lower and upper end of the band ``(R, 3, X)`` at places of the axis; NaN without a posterior."""
    out = np.full((len(rows), len(QUANTILES), len(x)), np.nan)
    for some, values in values_of_many(fit, rows, x, "expected"):
        out[some] = np.swapaxes(_quantiles(np.asarray(values, np.float32)), 0, 1)
    return out


def _quantiles(values: np.ndarray) -> np.ndarray:
    """Quantiles ``(3, r, X)`` of ``(r, S, X)``; numpy's own sorts along an axis that is not the last one in memory."""
    last = np.ascontiguousarray(np.swapaxes(values, 1, 2))
    at = np.array(QUANTILES) * (last.shape[2] - 1)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, last.shape[2] - 1)
    ordered = np.partition(last, np.unique(np.append(below, above)), axis=2)
    parts = zip(below, above, at % 1, strict=True)
    return np.stack([(1 - w) * ordered[..., b] + w * ordered[..., a] for b, a, w in parts])


def guides(data: Any, fit: TransFit, frame: pd.DataFrame) -> dict[str, Any]:
    """The guides with their dosages, and what was observed in their cells: of called features first, as many as fit in.

    `frame` is the table by feature, the surest first, with the `row` of each in the fit and its `level` at NTC dosage.
    Numbers of a feature are the means of its guides, ends of intervals of the first `bars` guides, and the means of all
    cells where some guide does not act in some of them. Many NTC guides have no intervals.
    """
    cells = _points.cells(data, fit)
    order = np.argsort(cells.table["is_control"].to_numpy(bool), kind="stable")
    table = cells.table.iloc[order]
    escaping = (table["escaper_fraction"] if "escaper_fraction" in table else 0.0 * table["n_cells"]).fillna(0.0)
    shown = table.get("log2_dosage_acting", table["log2_dosage"]).where(escaping > 0, table["log2_dosage"])
    n_controls, inert = int(table["is_control"].sum()), set(inert_guides(fit))
    bars = len(table) - (n_controls if n_controls > FEW_CONTROLS else 0)
    share, rows = escaping.to_numpy(float), frame["row"].to_numpy(int)
    if fit.likelihood.statistics == "counts":
        each = len(table) + 2 * bars + (len(table) if share.any() else 0)
        chosen = rows[: max(1, ROOM // max(1, each))]
        observed = _of_counts(cells, chosen)
    else:
        chosen = rows[np.isfinite(fit.records[rows, 0])][:MOST_SLOW]
        observed = _of_others(cells, chosen)
    mean, lower, upper = (values[:, order] for values in observed)
    level = frame["level"].to_numpy(float)[np.isin(rows, chosen)][:, None]
    acting, low, high = ((value - share * level) / (1 - share) for value in (mean, lower, upper))
    found = np.concatenate([acting, low[:, :bars], high[:, :bars], *([mean] if share.any() else [])], axis=1)
    place = np.full(len(rows), -1)
    place[np.flatnonzero(np.isin(rows, chosen))] = np.arange(len(chosen))
    return {
        "names": [str(name) for name in table["guide"]],
        "targets": [str(name) for name in table["target"]],
        "control": [int(c) for c in table["is_control"]],
        "inert": [int(guide in inert) for guide in table["guide"].astype(str)],
        "cells": [int(n) for n in table["n_cells"]],
        "bars": bars,
        "x": _numbers(shown),
        "x_all": _numbers(table["log2_dosage"]),
        "sd": _numbers(table["sd"]),
        "escaping": _numbers(escaping),
        "place": array(place, "i4"),
        **quantised(found, fine=True),
    }


def _numbers(column: pd.Series) -> list[float | None]:
    return [round(float(v), 5) if np.isfinite(v) else None for v in column]


def _of_counts(cells: _points.Cells, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    technical = cells.fit.adata.varm[cells.fit.info["params"]["technical_key"]]
    known = np.isfinite(technical["overdispersion"].to_numpy(float)[rows])
    mean, se = np.full((2, len(rows), len(cells.table)), np.nan)
    mean[known], se[known] = _points.counts_of_many(cells, rows[known])
    return mean, mean - Z95 * se, mean + Z95 * se


def _of_others(cells: _points.Cells, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares and scores, feature by feature; NaN where a feature has nothing that can be shown."""
    out = np.full((3, len(rows), len(cells.table)), np.nan)
    at = dict(zip(cells.table["guide"], range(len(cells.table)), strict=True))
    few = _in_memory(cells, rows)
    for i, r in enumerate(rows):
        try:
            points = _points.observed(few, np.array([i if few is not cells else r]))
        except ValueError:  # categories that are not in the data any more
            continue
        out[:, i, [at[name] for name in points["guide"]]] = points[["mean", "lower", "upper"]].to_numpy(float).T
    return out[0], out[1], out[2]


def _in_memory(cells: _points.Cells, rows: np.ndarray) -> _points.Cells:
    """The same with these features only, in memory, where rows of the fit are features."""
    fit = cells.fit
    if fit.feature is not None:
        return cells
    part = fit.adata[:, rows].to_memory()
    return replace(cells, fit=replace(fit, adata=part, frame=fit.frame.iloc[rows], names=fit.names[rows]))
