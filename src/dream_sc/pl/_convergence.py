"""How well the posterior of each feature was found, and why numbers are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._keys import TRANS
from dream_sc.get._names import trans_fit

from . import _effects
from ._labels import label_points
from ._style import GRAY, MANY, ORANGE, SMALL, axes, blue, ink, log_counts, one_panel, panels, plain, titled

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

TRUSTED = 0.7  # `pareto_k` up to which intervals are
MOST_NAMED = 12
LONGEST = 44  # characters of a status


def convergence_data(
    data: AnnData | MuData, *, key: str = TRANS, mod: str | None = None, gene_symbols: str | None = None
) -> pd.DataFrame:
    """Diagnostics of every feature: mean, pareto_k, trusted (pareto_k of at most 0.7, NaN left out), status.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names that rows get, as in `get.trans`.

    Returns
    -------
    A row per feature, the largest pareto_k first; NaN where no draws were weighted.

    Raises
    ------
    KeyError
        If the fit is not there.

    Examples
    --------
    >>> ds.pl.convergence_data(adata).columns.tolist()
    ['mean', 'pareto_k', 'trusted', 'status']
    """
    frame = _effects.table_of(trans_fit(data, key, mod, gene_symbols))
    out = frame[["mean", "pareto_k", "status"]].copy()
    out.insert(2, "trusted", ~(out["pareto_k"] > TRUSTED))
    out["status"] = out["status"].astype(str)
    return out.sort_values("pareto_k", ascending=False, kind="stable")


def convergence(
    data: AnnData | MuData,
    *,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    ncols: int | None = None,
) -> Axes | NDArray[np.object_]:
    """Plot the Pareto shape of the draws of each feature over its mean, and how many features have each status.

    Intervals of features above the dotted line at 0.7, orange, are not to be trusted.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are called, as in `get.trans`.
    ax
        Axes for the Pareto shapes alone.
    figsize
        Width and height of a new figure, in inches.
    title
        Title of the figure, or of `ax`.
    ncols
        Panels in a row, 2 by default.

    Returns
    -------
    The Axes if `ax` was given, else an array of two.

    Raises
    ------
    KeyError
        If the fit is not there.

    Examples
    --------
    >>> axes = ds.pl.convergence(adata)
    """
    table = convergence_data(data, key=key, mod=mod, gene_symbols=gene_symbols)
    counts = trans_fit(data, key, mod).likelihood.statistics == "counts"
    if ax is not None:
        one_panel(ncols)
        ax = axes(ax, figsize=figsize)
        _shapes(ax, table, counts)
        titled(ax, title)
        return ax
    pair = panels(2, (4.2, 3.2), ncols=ncols or 2, figsize=figsize, title=title)
    _statuses(pair[1], table)
    _shapes(pair[0], table, counts)
    return np.array(pair)


def _shapes(ax: Any, table: pd.DataFrame, counts: bool) -> None:
    known = table[table["pareto_k"].notna()]
    many = len(known) >= MANY
    for mask, color in ((known["trusted"], blue()), (~known["trusted"], ORANGE)):
        part = known[mask]
        ax.plot(
            part["mean"],
            part["pareto_k"],
            "o",
            ms=3,
            mew=0,
            color=color,
            alpha=0.35 if many else 0.8,
            rasterized=many,
        )
    ax.axhline(TRUSTED, color=ink(), lw=0.8, ls=":", zorder=0)
    if counts and (known["mean"] > 0).any():
        log_counts(ax)
    ax.set_ylim(top=max(1.0, 1.05 * float(known["pareto_k"].max()) if len(known) else 1.0))
    ax.set_xlabel("mean count per cell" if counts else "mean")
    ax.set_ylabel(r"Pareto $\hat{k}$")
    beyond = known[~known["trusted"]][:MOST_NAMED]
    label_points(ax, beyond["mean"], beyond["pareto_k"], beyond.index)


def _statuses(ax: Any, table: pd.DataFrame) -> None:
    count = table["status"].value_counts()
    place = np.arange(len(count))
    fine = count.index.str.startswith("converged")
    ax.barh(place, count, height=0.62, color=[blue() if one else GRAY for one in fine])
    for y, n in zip(place, count, strict=True):
        ax.text(n + 0.02 * count.max(), y, f"{n:,}", va="center", fontsize=SMALL, color=ink())
    ax.set_yticks(place, [plain(name, LONGEST).replace("_", " ") for name in count.index], fontsize=SMALL)
    ax.set_ylim(max(len(count), 3) - 0.4, -0.6)
    ax.set_xlim(0, 1.2 * max(int(count.max()), 1))
    ax.set_xlabel("features")
