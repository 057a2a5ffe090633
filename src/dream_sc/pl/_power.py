"""Forecast power of plans, as lines over what differs between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from dream_sc import _validate

from ._style import CATEGORIES, axes, ink, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORDS = {
    "n_cells_per_guide": "cells per guide",
    "n_guides": "guides",
    "n_ntc_cells": "control cells",
    "n_cells": "cells",
    "depth": "depth relative to the pilot",
    "log2fc": r"$\log_2$ fold change",
    "mean": "mean count",
    "power": "power",
    "ec50_width": r"width of the 95 % interval of the EC50 ($\log_2$)",
}
OVER = ("n_cells_per_guide", "n_guides", "depth", "n_ntc_cells", "log2fc", "n_cells")  # the first that differs
LOG = ("n_cells_per_guide", "n_cells", "n_ntc_cells", "depth")
STYLES = ("-", "--", ":", "-.")
GOAL = 0.8


def power_data(
    table: pd.DataFrame, *, x: str | None = None, y: Literal["power", "ec50_width"] = "power"
) -> pd.DataFrame:
    """Power of plans as lines: a row per point, with what tells its line from the others.

    Parameters
    ----------
    table
        That of `design.power`, or some of its rows.
    x
        Column on the horizontal axis; by default the first of n_cells_per_guide, n_guides, depth, n_ntc_cells and
        log2fc that has several values.
    y
        "power", or "ec50_width".

    Returns
    -------
    Columns: `x`, mean, another column if one more differs (log2fc, where it is not `x`), and `y`, sorted.

    Raises
    ------
    TypeError, KeyError, ValueError
        If the table is no such table, lacks a column, or more differs than a figure can show.

    Examples
    --------
    >>> plan = {"n_cells_per_guide": [50, 200], "log2_dosages": [-3, -2, -1]}
    >>> frame = ds.pl.power_data(ds.design.power(None, plan))
    >>> list(frame.columns)
    ['n_cells_per_guide', 'mean', 'log2fc', 'power']
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"table={type(table).__name__} is not allowed: give the table of dream_sc.design.power")
    _validate.one_of("y", y, ("power", "ec50_width"))
    missing = [name for name in ("mean", "log2fc", y) if name not in table]
    if missing:
        raise KeyError(f"the table lacks {missing}: give that of dream_sc.design.power")
    differ = [name for name in OVER if name in table and table[name].nunique() > 1]
    if x is None:
        x = differ[0] if differ else OVER[0]
    if x not in table:
        raise KeyError(f"x={x!r} is no column of the table{_validate.close(x, OVER)}")
    follow = {"n_cells", *(name for name in ("n_ntc_cells",) if _follows(table, name, x))}
    other = [name for name in differ if name != x and name not in follow]
    if len(other) > 1:
        raise ValueError(f"besides {x}, {other} differ: plot rows of one value of all but one of them")
    if other and table[other[0]].nunique() > len(STYLES):
        raise ValueError(f"{other[0]} has {table[other[0]].nunique()} values: plot rows of up to {len(STYLES)} of them")
    by = ["mean", *other]
    return table[[x, *by, y]].sort_values([*by, x], ignore_index=True)


def _follows(table: pd.DataFrame, name: str, x: str) -> bool:
    """Whether one column is known from another."""
    return name in table and bool((table.groupby(x)[name].nunique() <= 1).all())


def power(
    table: pd.DataFrame,
    *,
    x: str | None = None,
    y: Literal["power", "ec50_width"] = "power",
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Axes:
    """Plot the forecast power of plans: a line per expression level, in another style for each fold change.

    Parameters
    ----------
    table
        That of `design.power`, or some of its rows.
    x
        Column on the horizontal axis; by default the first of n_cells_per_guide, n_guides, depth, n_ntc_cells and
        log2fc that has several values.
    y
        "power", with a line at 0.8, or "ec50_width".
    ax
        Axes to draw in.
    figsize
        Width and height of a new figure, in inches.
    title
        Title.

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError, KeyError, ValueError
        If the table is no such table, lacks a column, or more differs than a figure can show.

    Examples
    --------
    >>> plan = {"n_cells_per_guide": [25, 50, 100, 200], "log2_dosages": [-3, -2, -1]}
    >>> ax = ds.pl.power(ds.design.power(None, plan, log2fc=[0.5, 1]))
    """
    frame = power_data(table, x=x, y=y)
    at, *by, _ = frame.columns
    ax = axes(ax, figsize=figsize, title=title)
    if y == "power":
        ax.axhline(GOAL, color=ink(), lw=0.8, ls=":")
        ax.set_ylim(-0.03, 1.03)
    means = frame["mean"].unique()
    others = frame[by[1]].unique() if len(by) > 1 else [None]
    for i, mean in enumerate(means):
        for style, other in zip(STYLES, others, strict=False):
            line = frame[(frame["mean"] == mean) & (True if other is None else frame[by[1]] == other)]
            label = f"mean {mean:.3g}" if style == STYLES[0] else None
            ax.plot(line[at], line[y], style, marker="o", ms=3, color=CATEGORIES[i % len(CATEGORIES)], label=label)
    for style, other in zip(STYLES, others, strict=False):
        if other is not None:
            ax.plot([], [], style, color=ink(), label=f"{WORDS.get(by[1], by[1])} {other:.3g}")
    if at in LOG and frame[at].nunique() > 1:
        ticks = np.sort(frame[at].unique())
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        ax.minorticks_off()
    ax.set_xlabel(WORDS.get(at, at))
    ax.set_ylabel(WORDS[y])
    legend_above(ax, 3)
    return ax
