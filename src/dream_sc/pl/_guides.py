"""Which guides depart from the curves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc._core.stats.intervals import Z95
from dream_sc._keys import DEPARTS, DEPARTS_WITH, TRANS
from dream_sc.get import _points
from dream_sc.get._names import trans_fit
from dream_sc.get._symbols import gene_label

from . import _effects
from ._curve import medians
from ._labels import label_points
from ._style import GRAY, ORANGE, axes, blue, ink, legend_above, paper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from dream_sc.get._names import TransFit

N_FEATURES = 100
BEYOND = 2.0  # standard errors
CHANCE = 0.05  # about the share of features beyond them where nothing departs
STEP = 0.1  # log2 of dosage, for the slope of the curve
LN2 = float(np.log(2.0))


def guides_data(
    data: AnnData | MuData,
    *,
    features: str | Sequence[str] | None = None,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Guides by the share of features in which they are off the curves, the largest share first.

    The residual of a guide in a feature is what its acting cells show (`dose_response_data`) less the curve at their
    dosage. Its standard error has the counts, the `guide_sd` of the feature and the error of the dosage in it, so that
    about 5 % of the residuals are beyond two of them where no guide departs. The curve is fitted to the same guides, so
    that residuals are a little too small, the more so with few guides.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    features
        Names of features; the 100 of highest mean among those fitted by default.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features and targets are called, as in `get.trans`.

    Returns
    -------
    A row per guide: target, is_control, n_cells, log2_dosage, offset (log2, of the exposures), n_features, share_beyond
    (of the features, those with a residual beyond two standard errors), median_residual (log2 of counts; else in the
    unit of the feature). Then, where the fit learned them, departs (share of features in which the guide departs) and
    departs_with (the guide that departs with it, or ""); with these the table is sorted by `departs`.

    Raises
    ------
    KeyError, ValueError
        If the fit or a feature is not there, or no feature has a curve.

    Examples
    --------
    >>> bool(ds.pl.guides_data(adata)["share_beyond"].between(0, 1).all())
    True
    """
    fit = trans_fit(data, key, mod, gene_symbols)
    frame = _effects.table_of(fit, features)
    frame = frame[np.isfinite(fit.records[frame["row"].to_numpy(int), 0])]
    if features is None:
        order = frame["mean"].to_numpy(float).argsort(kind="stable")[::-1][:N_FEATURES]
        frame = frame.iloc[np.sort(order)]
    if not len(frame):
        raise ValueError("no feature has a curve, so that there is nothing for guides to depart from")
    z, residual = _residuals(data, fit, frame)
    guides = fit.info["guides"].set_index("guide")
    seen = np.isfinite(z)
    out = guides[["target", "is_control", "n_cells", "log2_dosage", "offset"]].copy()
    out["target"] = [gene_label(fit.adata, str(t), gene_symbols) for t in out["target"]]
    out["n_features"] = seen.sum(axis=0)
    with np.errstate(invalid="ignore"):
        out["share_beyond"] = (np.abs(np.where(seen, z, 0.0)) > BEYOND).sum(axis=0) / out["n_features"]
    out["median_residual"] = pd.DataFrame(residual).median().to_numpy()
    own = [name for name in (DEPARTS, DEPARTS_WITH) if name in guides]
    out[own] = guides[own]
    by = DEPARTS if DEPARTS in out and out[DEPARTS].notna().any() else "share_beyond"
    return out.sort_values(by, ascending=False, kind="stable", na_position="last")


def _residuals(data: Any, fit: TransFit, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Residuals ``(F, G)`` of guides from curves over their standard errors, and by themselves; NaN where not seen."""
    rows, names = frame["row"].to_numpy(int), fit.info["guides"]["guide"].astype(str).tolist()
    part, own = _with_columns(fit, rows)
    cells = _points.cells(data, part)
    at = pd.Index(cells.table["guide"]).get_indexer(names)
    table = fit.info["guides"]
    escaping = table["escaper_fraction"].fillna(0.0).to_numpy(float)
    acting = np.where(escaping > 0, table["log2_dosage_acting"], table["log2_dosage"])
    acting, sd = np.nan_to_num(acting.astype(float)), np.nan_to_num(table["sd"].to_numpy(float))
    counts = fit.likelihood.effect == "log2fc"
    curve = medians(fit, rows, acting, log2fc=counts)
    slope = (medians(fit, rows, acting + STEP, log2fc=counts) - medians(fit, rows, acting - STEP, log2fc=counts)) / (
        2 * STEP
    )
    z, residual = np.full((2, len(rows), len(names)), np.nan)
    for i, r in enumerate(own):
        points, level = _observed(part, cells, int(r)), float(fit.row(int(rows[i]))["baseline"])
        mean, lower, upper = (points[name].to_numpy(float)[at] for name in ("mean", "lower", "upper"))
        # escaping cells are at NTC level; guides without cells have no place
        mean = np.where(at >= 0, (mean - escaping * level) / (1 - escaping), np.nan)
        se = (upper - lower) / (2 * Z95 * (1 - escaping))
        with np.errstate(divide="ignore", invalid="ignore"):
            if counts:
                seen, se = np.log2(np.maximum(mean, 1e-12) / level), se / (mean * LN2)
                se = np.where(mean > 2 * LN2 * se * mean, se, np.nan)  # a log of few counts is not normal
            else:
                seen = mean - level
            between = float(frame["guide_sd"].iloc[i]) if counts else 0.0
            error = np.sqrt(se**2 + np.nan_to_num(between) ** 2 + (slope[i] * sd) ** 2)
            residual[i] = np.where(np.isfinite(error), seen - curve[i], np.nan)
            z[i] = residual[i] / error
    return z, residual


def _with_columns(fit: TransFit, rows: np.ndarray) -> tuple[TransFit, np.ndarray]:
    """The fit with few features in memory, as one column at a time is slow to read; and where they are in it."""
    if fit.feature is not None:
        return fit, rows
    adata = fit.adata[:, rows]
    adata = adata.to_memory() if fit.adata.isbacked else adata.copy()
    small = replace(fit, adata=adata, frame=fit.frame.iloc[rows], names=fit.names[rows], shown=fit.row_labels[rows])
    return small, np.arange(len(rows))


def _observed(fit: TransFit, cells: _points.Cells, r: int) -> pd.DataFrame:
    kind = fit.likelihood.statistics
    if kind == "shares":
        return _points.shares(cells, np.array([r]))
    return {"counts": _points.counts, "scores": _points.scores}[kind](cells, r)


def guides(
    data: AnnData | MuData,
    *,
    features: str | Sequence[str] | None = None,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Axes:
    """Plot in which share of features each guide departs from the curves, over its dosage (NTC guides gray).

    Where the fit learned it, the share is `departs`; else that of residuals beyond two standard errors, of which about
    5 % (dotted) are so where no guide departs. Guides in twice as many features are orange and named.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    features
        Names of features; the 100 of highest mean among those fitted by default.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features and targets are called, as in `get.trans`.
    ax
        Axes to draw on.
    figsize
        Width and height of a new figure, in inches.
    title
        Title.

    Returns
    -------
    Axes.

    Raises
    ------
    KeyError, ValueError
        If the fit or a feature is not there, or no feature has a curve.

    Examples
    --------
    >>> axes = ds.pl.guides(adata)
    """
    table = guides_data(data, features=features, key=key, mod=mod, gene_symbols=gene_symbols)
    learned = DEPARTS in table and bool(table[DEPARTS].notna().any())
    column = DEPARTS if learned else "share_beyond"
    ax = axes(ax, (4.6, 3.4), figsize=figsize, title=title)
    high = (table[column] > 2 * CHANCE).to_numpy(bool)
    control = table["is_control"].to_numpy(bool)
    for mask, color, label in (
        (control & ~high, GRAY, "NTC guides"),
        (~control & ~high, blue(), "targeting guides"),
        (high, ORANGE, f"in more than {2 * CHANCE:.0%} of features"),
    ):
        part = table[mask]
        if not len(part):
            continue
        ax.plot(part["log2_dosage"], part[column], "o", ms=5, color=color, mec=paper(ax), mew=0.5, label=label)
    if not learned:
        ax.axhline(CHANCE, color=ink(), lw=0.8, ls=":", zorder=0)
    ax.set_ylim(0, max(1.15 * float(table[column].max()), 3 * CHANCE))
    ax.set_xlabel(r"$\log_2$ dosage of the guide")
    n = int(table["n_features"].max())
    ax.set_ylabel("share of features\nin which the guide departs" if learned else f"share of {n} features\nbeyond 2 se")
    legend_above(ax, 2)
    named = table[high]
    label_points(ax, named["log2_dosage"], named[column], named.index, table[["log2_dosage", column]].to_numpy(float))
    return ax
