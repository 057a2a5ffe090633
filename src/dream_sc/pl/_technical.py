"""Overdispersion and group effects of the technical step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dream_sc import get
from dream_sc._keys import TECHNICAL

from ._style import BLUE, axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


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


def technical(data: Any, *, key: str = TECHNICAL, mod: str | None = None, ax: Axes | None = None) -> Any:
    """Plot the overdispersion of every feature against its mean count in control cells.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_technical` has run.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    ax
        Axes to draw on.
    """
    table = technical_data(data, key=key, mod=mod)
    ax = axes(ax)
    ax.errorbar(
        table["mu"], table["overdispersion"], yerr=table["overdispersion_sd"], fmt="o", ms=3, color=BLUE, alpha=0.6,
        elinewidth=0.5, mew=0,
    )  # fmt: skip
    ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ax.set_xlabel("mean count of control cells at size factor 1")
    ax.set_ylabel("overdispersion o (Var = m + o² m²)")
    return ax
