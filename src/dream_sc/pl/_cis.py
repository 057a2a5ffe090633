"""Dosage of guides and of their cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc import _validate, get
from dream_sc._data.guide_matrix import guides_of_cells
from dream_sc._keys import CIS, DOSE, TITRATION

from ._style import GRAY, GREEN, SMALL, at_zero, axes, blue, dosage_label, name_rows, paper

MOST_CONTROLS = 20

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData


def cis_data(
    data: AnnData | MuData, *, key: str = CIS, mod: str | None = None, gene_symbols: str | None = None
) -> pd.DataFrame:
    """Guides sorted by dosage, with 95 % intervals (see `get.guides`).

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_cis` has run.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names of genes, as in `get.guides`.

    Returns
    -------
    The table of guides.

    Raises
    ------
    KeyError
        If the fit is not there.

    Examples
    --------
    >>> len(ds.pl.cis_data(adata)) == len(ds.get.guides(adata))
    True
    """
    return get.guides(data, key=key, mod=mod, gene_symbols=gene_symbols).sort_values("log2_dosage")


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """The guides to draw: of many controls those with most cells."""
    control = table["is_control"].astype(bool)
    most = table[control]["n_cells"].nlargest(MOST_CONTROLS).index
    return table[~control | table.index.isin(most)]


def cis(
    data: AnnData | MuData,
    *,
    key: str = CIS,
    mod: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Axes:
    """Plot guide dosages with 95 % intervals, the dosages of their cells behind, and the truth of simulated data.

    Of the controls, the 20 with most cells are shown.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_cis` has run.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the name of the cis gene.
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
    KeyError
        If the fit is not there.

    Examples
    --------
    >>> ax = ds.pl.cis(adata)
    """
    adata = _validate.readable(data, mod)
    table = _shown(cis_data(data, key=key, mod=mod, gene_symbols=gene_symbols))
    ax = axes(ax, (5.0, 0.22 * len(table) + 1.2), figsize=figsize, title=title)
    doses = adata.uns[key]["params"].get("scale") == DOSE
    if doses:  # controls have no log dose
        table["log2_dosage"] = table["log2_dosage"].fillna(at_zero(ax, table["log2_dosage"].min()))
    labels = guides_of_cells(adata, key).to_numpy()
    x = adata.obsm[key]["log2_x_true"].to_numpy()
    gen = np.random.default_rng(0)
    control = table["is_control"].astype(bool).to_numpy()
    height = np.arange(len(table))
    for i, guide in enumerate(table.index):
        cells = x[(labels == guide) & np.isfinite(x)]
        ax.plot(
            cells,
            i + gen.uniform(-0.32, 0.32, len(cells)),
            ".",
            ms=2.5,
            color=GRAY if control[i] else blue(),
            alpha=0.3,
            mew=0,
            rasterized=True,
            label="cells" if i == 0 else None,
        )
    for mask, color, label in ((~control, blue(), "targeting guide"), (control, GRAY, "NTC guide")):
        rows = table[mask]
        ax.hlines(height[mask], rows["log2fc_q025"], rows["log2fc_q975"], color=color, lw=2)
        ax.plot(rows["log2_dosage"], height[mask], "o", ms=5, color=color, mec=paper(ax), mew=0.6, label=label)
    if TITRATION in adata.uns:
        truth = adata.uns[TITRATION]["guides"].set_index("guide")["log2_dosage"].reindex(table.index)
        ax.plot(truth, height, "|", ms=9, mew=1.6, color=GREEN, zorder=3, label="truth")
    if not doses:
        ax.axvline(0, color=GRAY, lw=1, ls=":", zorder=0)
    name_rows(ax, table.index)
    ax.set_ylim(-0.8, len(table) - 0.2)
    ax.set_xlabel(dosage_label(table.attrs["cis_gene"], doses=doses) + ", 95 % interval")
    legend: Any = ax.legend(frameon=False, fontsize=SMALL, loc="lower right")
    legend.legend_handles[0].set(alpha=0.8, markersize=5)
    return ax
