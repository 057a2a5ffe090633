"""Memory of the three steps: stacked bars of components, against what a machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dream_sc._memory.table import GB, TOTAL, Estimate, this_machine

from ._style import CATEGORIES, REST, SMALL, axes, ink

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

SHOWN = len(CATEGORIES)  # components with a colour of their own


def memory_data(
    data: Estimate | AnnData | MuData | str | PathLike[str], *, kind: Literal["RAM", "VRAM"] = "RAM"
) -> pd.DataFrame:
    """GB of each component, steps x components, largest first; small ones are summed up as "other".

    Parameters
    ----------
    data
        An estimate of `memory.estimate` or `memory.estimate_for`; AnnData, MuData or a path, which are estimated first.
    kind
        "RAM" or "VRAM".

    Raises
    ------
    ValueError
        If `kind` is not known.

    Examples
    --------
    >>> estimate = ds.memory.estimate(30_000, 50_000)
    >>> len(ds.pl.memory_data(estimate)) > 0
    True
    """
    from dream_sc import _validate
    from dream_sc.memory import estimate_for

    _validate.one_of("kind", kind, ("RAM", "VRAM"))
    estimate = data if isinstance(data, Estimate) else estimate_for(data)
    parts = estimate[estimate["component"] != TOTAL]
    wide = parts.pivot(index="step", columns="component", values=kind).fillna(0) / GB
    wide = wide.reindex(parts["step"].unique())
    order = wide.max().sort_values(ascending=False, kind="stable").index
    out = wide[order[:SHOWN]]
    return out.assign(other=wide[order[SHOWN:]].sum(axis=1)) if len(order) > SHOWN else out


def memory(
    data: Estimate | AnnData | MuData | str | PathLike[str],
    *,
    kind: Literal["RAM", "VRAM"] = "RAM",
    limit: int | str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Axes:
    """Draw what each step takes at its peak, stacked by component, and what the machine has as a line.

    Parameters
    ----------
    data
        An estimate of `memory.estimate` or `memory.estimate_for`; AnnData, MuData or a path, which are estimated first.
    kind
        "RAM" or "VRAM".
    limit
        Memory of the machine (or of its GPU): bytes, or a text such as "32GB"; what this one has by default.
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
    ValueError
        If `kind` is not known or `limit` is no amount of memory.

    Examples
    --------
    >>> ax = ds.pl.memory(ds.memory.estimate(30_000, 50_000))
    """
    table, ax = memory_data(data, kind=kind), axes(ax, figsize=figsize, title=title)
    ram, vram = (limit, None) if kind == "RAM" else (None, limit)
    have = this_machine(ram, vram, need_gpu=kind == "VRAM")[kind == "VRAM"] / GB
    bottom = table.iloc[:, 0] * 0.0
    for name, color in zip(table.columns, [*CATEGORIES, REST], strict=False):
        ax.bar(table.index, table[name], bottom=bottom, color=color, width=0.6, label=name)
        bottom = bottom + table[name]
    ax.axhline(have, color=ink(), lw=1.0, ls="--", label=f"limit, {have:.3g} GB")
    ax.set_ylabel(f"{kind} (GB)")
    ax.legend(frameon=False, fontsize=SMALL, loc="center left", bbox_to_anchor=(1.02, 0.5), borderaxespad=0.0)
    return ax
