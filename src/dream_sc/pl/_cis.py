"""Dosage of guides and of their cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc import _validate, get
from dream_sc._keys import CIS

from ._style import BLUE, GRAY, axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def cis_data(data: Any, *, key: str = CIS, mod: str | None = None) -> pd.DataFrame:
    """Guides sorted by dosage, with 95 % intervals (see `get.guides`).

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_cis` has run.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    """
    return get.guides(data, key=key, mod=mod).sort_values("log2_dosage")


def cis(data: Any, *, key: str = CIS, mod: str | None = None, ax: Axes | None = None) -> Any:
    """Plot guide dosages with 95 % intervals, the dosages of their cells behind.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_cis` has run.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    ax
        Axes to draw on.
    """
    adata = _validate.readable(data, mod)
    table = cis_data(data, key=key, mod=mod)
    ax = axes(ax, (5.0, 0.22 * len(table) + 1.2))
    labels = _validate.labels(adata, adata.uns[key]["params"]["guide_key"], "guide_key")
    x = adata.obsm[key]["log2_x_true"].to_numpy()
    gen = np.random.default_rng(0)
    for i, (guide, row) in enumerate(table.iterrows()):
        color = GRAY if row["is_control"] else BLUE
        cells = x[(labels == guide) & np.isfinite(x)]
        ax.plot(
            cells,
            i + gen.uniform(-0.3, 0.3, len(cells)),
            ".",
            ms=2,
            color=color,
            alpha=0.15,
            mew=0,
            rasterized=True,
        )
        ax.plot([row["log2fc_q025"], row["log2fc_q975"]], [i, i], color=color, lw=2)
        ax.plot(row["log2_dosage"], i, "o", ms=4.5, color=color, mec="white", mew=0.6)
    ax.axvline(0, color=GRAY, lw=0.8, ls="--", zorder=0)
    ax.set_yticks(range(len(table)), table.index, fontsize=7)
    ax.set_xlabel(f"log2 dosage of {adata.uns[key]['cis_gene']} relative to NTC")
    return ax
