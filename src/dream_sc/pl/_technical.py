"""Overdispersion or sigma, and group effects, of the technical step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from dream_sc import _validate, get
from dream_sc._data import stored
from dream_sc._keys import TECHNICAL
from dream_sc.get import _symbols
from dream_sc.get._names import names_of

from ._labels import label_points
from ._style import GRAY, MANY, ORANGE, axes, blue, log_counts, name_panel, paper, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

ALL = "all"  # features
MOST_LABELS, FEW_LABELS = 200, 40  # with few features, and with many


def technical_data(
    data: AnnData | MuData, *, key: str = TECHNICAL, mod: str | None = None, gene_symbols: str | None = None
) -> pd.DataFrame:
    """The fitted features of `get.technical`; with layers of categories, a row per feature and layer.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_technical` has run.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names that rows get, as in `get.trans`.

    Examples
    --------
    >>> len(ds.pl.technical_data(adata)) > 0
    True
    """
    table = get.technical(data, key=key, mod=mod, gene_symbols=gene_symbols)
    entry = _validate.readable(data, mod).uns[key]
    layers = entry["params"].get("category_layers")
    if layers is None:
        return table[table["mu"].notna()]
    names = ["mu", "mu_sd", *(f"{e}_{g}" for g in entry["groups"] for e in ("effect", "effect_sd"))]
    shared = table.drop(columns=[f"{name}_{layer}" for name in names for layer in layers])
    parts = [
        shared.assign(category=str(layer), **{name: table[f"{name}_{layer}"] for name in names}) for layer in layers
    ]
    long = pd.concat(parts)
    return long[long["mu"].notna()]


def technical(
    data: AnnData | MuData,
    *,
    features: str | Sequence[str] | None = None,
    key: str = TECHNICAL,
    mod: str | None = None,
    gene_symbols: str | None = None,
    group: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Axes:
    """Plot the noise of every feature, or the effect of a group, against its mean in control cells.

    Points are features (categories of a multinomial); bars are one posterior sd to either side. The noise is the
    overdispersion of counts and of shares, and sigma of scores.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_technical` has run.
    features
        Names of features to mark and label; "all" labels every one. Labels without room are left out.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are asked for and labelled, as in `get.trans`.
    group
        Technical group whose effects to draw; the noise by default. Those of the reference are 0, as the title says.
    ax
        Axes to draw on.
    figsize
        Width and height of a new figure, in inches.
    title
        Title.

    Raises
    ------
    KeyError, ValueError
        If there is no such group or feature, or a symbol is that of several features.

    Examples
    --------
    >>> ax = ds.pl.technical(adata)
    >>> ax = ds.pl.technical(adata, group="batch_2")
    """
    adata = _validate.readable(data, mod)
    table = technical_data(data, key=key, mod=mod, gene_symbols=gene_symbols)
    every = isinstance(features, str) and features == ALL and ALL not in table.index
    asked = list(table.index) if every else [] if features is None else names_of(features)
    marked = _symbols.labels_of(adata, asked, gene_symbols)
    entry = adata.uns[key]
    if group is not None:
        _validate.one_of("group", group, list(entry["groups"]))
    like = stored.likelihood_of(entry)
    y, sd = (like.noise, f"{like.noise}_sd") if group is None else (f"effect_{group}", f"effect_sd_{group}")
    ax = axes(ax, figsize=figsize, title=title)
    faint = 1.0 if len(table) < MANY else 0.3
    ax.errorbar(
        table["mu"],
        table[y],
        yerr=table[sd],
        fmt="o",
        ms=3,
        color=(blue(), 0.8 * faint),
        ecolor=(blue(), 0.3 * faint),
        elinewidth=0.8,
        mew=0,
        rasterized=len(table) >= MANY,
    )
    shown = table[table.index.isin(marked)]
    if not every:
        ax.plot(shown["mu"], shown[y], "o", ms=4.5, color=ORANGE, mec=paper(ax), mew=0.5, zorder=3)
    if like.statistics == "counts":
        log_counts(ax)
    elif like.statistics == "shares":
        ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel(like.words.level)
    if group is not None and str(group) == str(entry["groups"][0]) and title is None:
        name_panel(ax, group, "the reference, 0 by definition")
    if group is None:
        ax.set_ylim(bottom=0)
        ax.set_ylabel(like.words.noise)
    else:
        ax.axhline(0, color=GRAY, lw=1, ls=":", zorder=0)
        ax.set_ylabel(like.words.effect.format(plain(group)))
    order = shown[y].sub(shown[y].median()).abs().sort_values(ascending=False, kind="stable").index if every else marked
    shown = shown.loc[list(dict.fromkeys(order))][: MOST_LABELS if len(table) < MANY else FEW_LABELS]
    label_points(ax, shown["mu"], shown[y], shown.index, table[["mu", y]].to_numpy(float))
    return ax
