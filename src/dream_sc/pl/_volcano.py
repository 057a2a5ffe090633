"""All features at a glance: how much they change, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import TRANS
from dream_sc.get._names import names_of, trans_fit
from dream_sc.get._symbols import cis_label

from . import _effects
from ._labels import label_points
from ._style import GRAY, MANY, axes, directions, dosage_label, ink, legend_above, paper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

X = ("effect", "log2fc", "delta_p", "delta", _effects.EC50)
HIGHEST = 300.0  # -log10 of the least q-value that is told from 0


def volcano_data(
    data: AnnData | MuData,
    *,
    x: Literal["effect", "log2fc", "delta_p", "delta", "log2_ec50"] = "effect",
    y: Literal["qvalue", "score"] = "qvalue",
    fdr: float = 0.05,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Effect or EC50 of every feature that was tested, and how sure its response is.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    x
        "effect": the change at the strongest knock-down (activation, where nothing was knocked down). "log2fc",
        "delta_p" and "delta" are the same, and refuse fits that have another kind of effect. "log2_ec50": the EC50 of
        called features, where `p_ec50_inside` is above 0.95.
    y
        "qvalue": -log10 q. "score": the score without its sign.
    fdr
        Features with a smaller q-value are called.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names that rows get, as in `get.trans`.

    Returns
    -------
    A row per feature, surest first: x, y, called, direction ("down", "up", "mixed": on knock-down of the cis gene),
    qvalue. Features without a q-value or without `x` are left out. `.attrs` has labels of both axes.

    Raises
    ------
    KeyError, ValueError
        If the fit is not there, or has not this effect.

    Examples
    --------
    >>> ds.pl.volcano_data(adata).columns.tolist()
    ['x', 'y', 'called', 'direction', 'qvalue']
    """
    _validate.one_of("x", x, X)
    _validate.one_of("y", y, ("qvalue", "score"))
    _effects.check_fdr(fdr)
    fit = trans_fit(data, key, mod, gene_symbols)
    if x not in ("effect", _effects.EC50, fit.likelihood.effect):
        raise ValueError(
            f"x={x!r} is not the effect of a fit with {fit.distribution!r}: use x={fit.likelihood.effect!r}"
        )
    frame = _effects.table_of(fit)
    column, label = _effects.effect_of(fit)
    called = _effects.is_called(frame, fdr)
    values = _effects.sure_ec50(frame).where(called) if x == _effects.EC50 else frame[column]
    height = -np.log10(frame["qvalue"].clip(10.0**-HIGHEST)) if y == "qvalue" else frame["score"].abs()
    out = pd.DataFrame({"x": values, "y": height, "called": called})
    out["direction"], out["qvalue"] = _effects.direction(frame, column), frame["qvalue"]
    out = out[out[["x", "y", "qvalue"]].notna().all(axis=1)]
    if x == _effects.EC50:
        label = f"EC50: {dosage_label(cis_label(data, fit.adata, fit.info, gene_symbols))}"
    out.attrs = {"x": label, "y": r"$-\log_{10}\,q$" if y == "qvalue" else "score (without its sign)"}
    return out


def volcano(
    data: AnnData | MuData,
    *,
    x: Literal["effect", "log2fc", "delta_p", "delta", "log2_ec50"] = "effect",
    y: Literal["qvalue", "score"] = "qvalue",
    fdr: float = 0.05,
    label: int | str | Sequence[str] = 10,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Axes:
    """Plot the change of every feature, or its EC50, against how sure its response is.

    Called features are coloured by what they do on knock-down of the cis gene: blue down, orange up, green mixed. The
    dotted line is at `fdr`.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    x
        "effect": the change at the strongest knock-down (activation, where nothing was knocked down); "log2fc",
        "delta_p", "delta" name it. "log2_ec50": the EC50, of called features whose `p_ec50_inside` is above 0.95.
    y
        "qvalue": -log10 q. "score": the score without its sign.
    fdr
        Features with a smaller q-value are called.
    label
        How many of the surest called features to name, or the names of features. Names without room are left out.
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
        Title.

    Returns
    -------
    Axes.

    Raises
    ------
    KeyError, ValueError
        If the fit or a feature to label is not there, or it has not this effect.

    Examples
    --------
    >>> axes = ds.pl.volcano(adata, label=20)
    """
    table = volcano_data(data, x=x, y=y, fdr=fdr, key=key, mod=mod, gene_symbols=gene_symbols)
    fit = trans_fit(data, key, mod, gene_symbols)
    chosen = (
        table[table["called"]].index[: max(label, 0)]
        if isinstance(label, int)
        else table.index.intersection(_effects.table_of(fit, label).index)
        if len(names_of(label))
        else table.index[:0]
    )
    ax = axes(ax, (4.6, 3.8), figsize=figsize, title=title)
    _points(ax, table)
    if y == "qvalue":
        ax.axhline(-np.log10(fdr), color=ink(), lw=0.8, ls=":", zorder=0)
    if x != _effects.EC50:
        ax.axvline(0, color=GRAY, lw=0.8, ls=":", zorder=0)
        most = 1.06 * max(float(table["x"].abs().max()), 1e-9) if len(table) else 1.0
        ax.set_xlim(-most, most)
    ax.set_ylim(0, 1.08 * max(float(table["y"].max()), 1.0) if len(table) else 1.0)
    ax.set_xlabel(table.attrs["x"])
    ax.set_ylabel(table.attrs["y"])
    shown = table.loc[chosen]
    label_points(ax, shown["x"], shown["y"], chosen, table.loc[table["called"], ["x", "y"]].to_numpy(float)[:2000])
    return ax


def _points(ax: Any, table: pd.DataFrame) -> None:
    """Points of features, those called on top, with a legend."""
    many = len(table) >= MANY
    groups = [("not called", ~table["called"], GRAY)]
    words = {"down": "falls on knock-down", "up": "rises on knock-down", "mixed": "mixed"}
    groups += [(words[d], table["called"] & (table["direction"] == d), color) for d, color in directions().items()]
    for name, mask, color in groups:
        part = table[mask]
        if not len(part):
            continue
        quiet = name == "not called"
        ax.plot(
            part["x"],
            part["y"],
            "o",
            ms=2.5 if quiet else 4,
            mew=0 if quiet else 0.4,
            mec=paper(ax),
            color=color,
            alpha=0.35 if quiet and many else 0.8,
            rasterized=many,
            label=f"{name} ({len(part)})",
            zorder=1 if quiet else 2,
        )
    if len(table):
        legend_above(ax, 2)
