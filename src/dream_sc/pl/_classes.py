"""How many features respond in which way, with an example of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dream_sc._keys import TRANS
from dream_sc.get._names import trans_fit

from . import _effects
from ._curve import medians
from ._style import GRAY, SMALL, axes, blue, ink, plain

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

NOT_CALLED = "not called"
N_DOSES = 41
WIDTH = 1.95  # of the axes, in lengths of the longest bar


def classes_data(
    data: AnnData | MuData,
    *,
    fdr: float = 0.05,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Number of called features of each class, with the surest one as an example.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    fdr
        Features with a smaller q-value are called.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are called, as in `get.trans`.

    Returns
    -------
    A row per class, the most frequent first, then "not called": n, share (of the features that have a q-value),
    example.

    Raises
    ------
    KeyError
        If the fit is not there.

    Examples
    --------
    >>> ds.pl.classes_data(adata).columns.tolist()
    ['n', 'share', 'example']
    """
    _effects.check_fdr(fdr)
    frame = _effects.table_of(trans_fit(data, key, mod, gene_symbols))
    frame = frame[frame["qvalue"].notna()]
    called = frame[_effects.is_called(frame, fdr)]
    groups = called.groupby(called["class"].astype(str), sort=False)
    out = pd.DataFrame({"n": groups.size(), "example": groups["class"].apply(lambda part: str(part.index[0]))})
    out = out.sort_values("n", ascending=False, kind="stable")
    out.loc[NOT_CALLED] = [len(frame) - len(called), ""]
    out["n"] = out["n"].astype(int)
    out.insert(1, "share", out["n"] / max(len(frame), 1))
    return out.rename_axis("class")


def classes(
    data: AnnData | MuData,
    *,
    fdr: float = 0.05,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Axes:
    """Plot how many called features each class has, beside the fitted curve of the surest one.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    fdr
        Features with a smaller q-value are called.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are called, as in `get.trans`.
    ax
        Axes to draw on.
    figsize
        Width and height of a new figure, in inches.
    title
        Title; how many features respond by default.

    Returns
    -------
    Axes of the counts.

    Raises
    ------
    KeyError
        If the fit is not there.

    Examples
    --------
    >>> axes = ds.pl.classes(adata)
    """
    table = classes_data(data, fdr=fdr, key=key, mod=mod, gene_symbols=gene_symbols)
    total, shown = int(table["n"].sum()), table.drop(index=NOT_CALLED)
    if title is None:
        title = f"{int(shown['n'].sum()):,} of {total:,} features respond (q < {fdr:g})"
    ax = axes(ax, (5.2, 0.55 * max(len(shown), 2) + 0.9), figsize=figsize, title=title)
    place = np.arange(len(shown))
    ax.barh(place, shown["n"], height=0.62, color=blue())
    most = max(int(shown["n"].max()), 1) if len(shown) else 1
    for y, n in enumerate(shown["n"]):
        ax.text(n + 0.02 * most, y, f"{n:,}", va="center", fontsize=SMALL, color=ink())
    ax.set_yticks(place, [str(name).replace("_", " ") for name in shown.index], fontsize=SMALL + 0.5)
    ax.set_ylim(max(len(shown), 1) - 0.5, -0.5)
    ax.set_xlim(0, WIDTH * most)  # the right half is for the curves
    ax.set_xticks([tick for tick in ax.get_xticks() if 0 <= tick <= most and float(tick).is_integer()])
    ax.spines["bottom"].set_bounds(0, most)
    ax.set_xlabel("called features", loc="left")
    _examples(data, shown, ax, key, mod, gene_symbols)
    return ax


def _examples(
    data: AnnData | MuData, shown: pd.DataFrame, ax: Axes, key: str, mod: str | None, gene_symbols: str | None
) -> None:
    """The curve of the example of each class, right of its bar."""
    fit = trans_fit(data, key, mod, gene_symbols)
    low, high = fit.info["axis"]["low"], fit.info["axis"]["high"]
    if not len(shown) or not np.isfinite(low):
        return
    rows = _effects.table_of(fit).loc[shown["example"], "row"].to_numpy(int)
    doses = np.linspace(low, high, N_DOSES)
    values = medians(fit, rows, doses, log2fc=fit.likelihood.effect == "log2fc")
    n = len(shown)
    for i, (name, curve) in enumerate(zip(shown["example"], values, strict=True)):
        inset = ax.inset_axes((0.6, 1 - (i + 0.88) / n, 0.18, 0.76 / n))
        inset.axhline(0, color=GRAY, lw=0.7, ls=":")
        inset.plot(doses, curve, color=ink(), lw=1.4)
        inset.set_xticks([])
        inset.set_yticks([])
        inset.set_facecolor("none")
        inset.spines[:].set_visible(False)
        span = float(np.ptp(curve)) or 1.0
        inset.set_ylim(min(curve.min(), 0.0) - 0.1 * span, max(curve.max(), 0.0) + 0.1 * span)
        ax.text(0.8, 1 - (i + 0.5) / n, plain(name, 20), va="center", fontsize=SMALL, transform=ax.transAxes)
