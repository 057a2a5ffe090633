"""Overdispersion and group effects of the technical step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dream_sc import _validate, get
from dream_sc._keys import TECHNICAL

from ._style import BLUE, GRAY, axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MANY = 1000  # features from which on points are drawn fainter, as pixels


def technical_data(data: Any, *, key: str = TECHNICAL, mod: str | None = None) -> pd.DataFrame:
    """The fitted features of `get.technical`.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_technical` has run.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    """
    table = get.technical(data, key=key, mod=mod)
    return table[table["mu"].notna()]


def technical(
    data: Any, *, key: str = TECHNICAL, mod: str | None = None, group: str | None = None, ax: Axes | None = None
) -> Any:
    """Plot the overdispersion of every feature, or the effect of a group, against its mean count in control cells.

    Points are features; bars are one posterior sd to either side.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_technical` has run.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    group
        Technical group whose effects to draw; overdispersion by default.
    ax
        Axes to draw on.

    Raises
    ------
    ValueError
        If there is no such group.
    """
    table = technical_data(data, key=key, mod=mod)
    groups = list(_validate.readable(data, mod).uns[key]["groups"])
    if group is not None:
        _validate.one_of("group", group, groups)
    y, sd = ("overdispersion", "overdispersion_sd") if group is None else (f"effect_{group}", f"effect_sd_{group}")
    ax = axes(ax)
    faint = 1.0 if len(table) < MANY else 0.3
    ax.errorbar(
        table["mu"], table[y], yerr=table[sd], fmt="o", ms=3, color=(BLUE, 0.8 * faint), ecolor=(BLUE, 0.3 * faint),
        elinewidth=0.8, mew=0, rasterized=len(table) >= MANY,
    )  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("mean count of control cells at size factor 1")
    if group is None:
        ax.set_ylim(bottom=0)
        ax.set_ylabel("overdispersion $o$ ± sd\n(variance $m + o^2 m^2$)")
    else:
        ax.axhline(0, color=GRAY, lw=1, ls=":", zorder=0)
        ax.set_ylabel(rf"$\log_2$ effect of {group} ± sd")
    return ax
