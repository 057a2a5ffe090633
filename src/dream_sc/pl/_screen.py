"""Pictures of a whole library: fold changes, responders, what targets share, EC50s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc import _validate

from . import _effects
from ._heatmap import LIMIT
from ._screen_data import WAYS, screen_data
from ._style import GRAY, LABEL, SMALL, TICK, axes, directions, ink, legend_above, name_rows, plain

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    import pandas as pd
    from matplotlib.axes import Axes

    from ._screen_data import Order, Show

MOST_NAMED = 60  # rows or columns up to which they are named
PALE = 0.35  # opacity of pairs that are not called
STEPS = 10  # of an index, at one of which colours end
ROW = 0.16  # inches


def screen(
    data: pd.DataFrame | str | PathLike[str],
    show: Show = "fold_changes",
    *,
    targets: str | Iterable[str] | None = None,
    features: str | Iterable[str] | None = None,
    n_features: int | None = None,
    order: Order | None = None,
    fdr: float = 0.05,
    limit: float | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Axes:
    """Plot the results of a whole library: what responds to which target, and how.

    Up to 60 targets, and features, are named.

    Parameters
    ----------
    data
        What `tl.screen` returned, a parquet file of it, or the folder of its store.
    show
        "fold_changes": targets x features, blue below NTC and red above; pairs that are not called are pale, and those
        without a fold change gray. "responders": how many features respond to each target, by direction. "shared":
        targets x targets, red where the same features respond in the same direction, blue in opposite ones: the index
        of `screen_data`, from 1 to -1. A target with itself is gray. "ec50": the EC50s of the features that respond to
        each target, with their median.
    targets, features
        Only these. By default the targets that anything responds to; with "fold_changes" the features that respond to
        most targets, else all features.
    n_features
        How many features are taken for "fold_changes" where none are named; 100 by default.
    order
        Of "fold_changes" and "shared". "cluster", the default: neighbours have like values. "calls": those with most
        calls come first. "given": as in the screen, or as named.
    fdr
        Pairs with a smaller `qvalue_union` are called.
    limit
        Value at which the colours of "fold_changes" and "shared" end; by default such that 98 % of the calls, or of the
        values of two targets, are within, with "shared" at a tenth of the index.
    ax
        Axes to draw on.
    figsize
        Width and height of a new figure, in inches.
    title
        Title.

    Returns
    -------
    Axes; a scale of colours is beside them.

    Raises
    ------
    FileNotFoundError, KeyError, ValueError
        If there is no such file, a target, feature or column is not there, a pair is there twice, nothing is called, or
        an argument has no effect.

    Examples
    --------
    >>> table = ds.tl.screen(adata, progress=False)
    >>> axes = ds.pl.screen(table, "responders")
    """
    if limit is not None and not limit > 0:
        raise ValueError(f"limit={limit}: colours end at a change above 0")
    if show not in ("fold_changes", "shared"):
        _validate.without_effect({"limit": limit}, f"with show={show!r}, only with 'fold_changes' and 'shared'")
    table = screen_data(data, show, targets=targets, features=features, n_features=n_features, order=order, fdr=fdr)
    if show == "responders":
        return _responders(table, ax, figsize, title)
    if show == "ec50":
        return _ec50s(table, ax, figsize, title)
    ax = axes(ax, _size(*table.shape), figsize=figsize, title=title)
    if show == "shared":
        itself = np.eye(len(table), dtype=bool)
        image = _map(ax, table.mask(itself), np.ones(table.shape), limit or _round(_end(table.to_numpy()[~itself])))
        _bar(ax, image, "index of shared responders\n(1: the same, -1: opposite)")
        return ax
    called = np.array(table.attrs["called"], dtype=bool).reshape(table.shape)
    image = _map(ax, table, np.where(called, 1.0, PALE), limit or _end(table.to_numpy()[called]))
    ax.set_xlabel(f"{table.shape[1]:,} features", fontsize=LABEL)
    _bar(ax, image, r"$\log_2$ fold change on knock-down")
    return ax


def _end(values: np.ndarray) -> float:
    """Value at which colours end, such that most are within."""
    known = np.abs(values[np.isfinite(values)])
    return float(np.percentile(known, LIMIT)) or 1.0 if len(known) else 1.0


def _round(value: float) -> float:
    """The next value of the scale of an index, which ends at 1."""
    return float(min(np.ceil(value * STEPS - 1e-9) / STEPS, 1.0))


def _size(n_rows: int, n_columns: int) -> tuple[float, float]:
    """Width and height of a map with its names and its scale."""
    width = 2.4 + (ROW * n_columns if n_columns <= MOST_NAMED else 5.0)
    return max(width, 4.0), max(1.6 + (ROW * n_rows if n_rows <= MOST_NAMED else 5.0), 2.6)


def _map(ax: Axes, table: pd.DataFrame, opacity: np.ndarray, most: float) -> Any:
    """Values as colours, rows and columns named where they are few."""
    import matplotlib as mpl

    colours = mpl.colormaps["RdBu_r"].with_extremes(bad=GRAY)
    values = np.ma.masked_invalid(table.to_numpy(float))
    opacity = np.where(values.mask, 1.0, opacity)
    image = ax.imshow(
        values,
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        vmin=-most,
        vmax=most,
        alpha=opacity,
        rasterized=True,
    )
    ax.spines[["left", "bottom"]].set_visible(False)
    if len(table) <= MOST_NAMED:
        name_rows(ax, table.index)
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{len(table):,} targets", fontsize=LABEL)
    names = [plain(name) for name in table.columns] if table.shape[1] <= MOST_NAMED else []
    ax.set_xticks(range(len(names)), names, fontsize=SMALL - 1, rotation=90)
    ax.tick_params(length=0)
    return image


def _bar(ax: Axes, image: Any, label: str) -> None:
    """The scale of colours."""
    from matplotlib.cm import ScalarMappable

    scale = ScalarMappable(image.norm, image.cmap)  # opaque, whatever the map
    bar = ax.figure.colorbar(scale, ax=ax, shrink=0.6, aspect=18, extend="both", pad=0.02)
    bar.set_label(label, size=LABEL)
    bar.ax.tick_params(labelsize=TICK)
    bar.outline.set_visible(False)


def _responders(table: pd.DataFrame, ax: Axes | None, figsize: tuple[float, float] | None, title: str | None) -> Axes:
    """Bars of each target, most responders on top; many targets side by side."""
    from matplotlib.ticker import MaxNLocator

    few = len(table) <= MOST_NAMED
    size = (4.6, max(1.2 + ROW * len(table), 2.0)) if few else (5.6, 3.2)
    ax = axes(ax, size, figsize=figsize, title=title)
    place, done = np.arange(len(table)), np.zeros(len(table))
    for way, color in directions().items():
        n = table[way].to_numpy(float)
        if n.any():
            draw: dict[str, Any] = {"color": color, "label": f"{way} on knock-down", "lw": 0}
            ax.barh(place, n, 0.8, left=done, **draw) if few else ax.bar(place, n, 1.0, bottom=done, **draw)
        done += n
    if few:
        name_rows(ax, table.index)
        ax.set_ylim(len(table) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("responders", fontsize=LABEL)
    else:
        ax.set_xlim(-0.5, len(table) - 0.5)
        ax.set_xlabel(f"{len(table):,} targets, by number of responders", fontsize=LABEL)
        ax.set_ylabel("responders", fontsize=LABEL)
    (ax.xaxis if few else ax.yaxis).set_major_locator(MaxNLocator("auto", integer=True))
    if done.any():
        legend_above(ax, len(WAYS))
    return ax


def _ec50s(table: pd.DataFrame, ax: Axes | None, figsize: tuple[float, float] | None, title: str | None) -> Axes:
    """EC50s of each target and their median."""
    names = list(dict.fromkeys(table["target"]))
    few = len(names) <= MOST_NAMED
    ax = axes(ax, (4.6, max(1.2 + ROW * len(names), 2.0) if few else 6.0), figsize=figsize, title=title)
    place = table["target"].map({name: i for i, name in enumerate(names)}).to_numpy()
    way, size = table["on_knockdown"].to_numpy(object), 3.5 if few else 2.0
    for name, color in directions().items():
        here = way == name
        if here.any():
            x = table[_effects.EC50].to_numpy()[here]
            ax.plot(x, place[here], "o", ms=size, mew=0, alpha=0.6, color=color, label=f"{name} on knock-down")
    middle = table.groupby("target")[_effects.EC50].median()[names]
    mark, label = ("|", "median") if few else (",", None)
    ax.plot(middle, range(len(names)), mark, ms=9, mew=1.5, color=ink(), zorder=1.9, label=label)  # behind the points
    ax.set_ylim(len(names) - 0.4, -0.6)
    if few:
        name_rows(ax, names)
        ax.tick_params(axis="y", length=0)
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{len(names):,} targets, by median EC50", fontsize=LABEL)
    ax.axvline(0, color=ink(), lw=0.8, ls=":")
    ax.set_xlabel(r"EC50: $\log_2$ dosage of the target relative to NTC", fontsize=LABEL)
    legend_above(ax, 2)
    return ax
