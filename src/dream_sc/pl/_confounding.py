"""What goes with the dosage beside it: all checks at a glance, or one of them guide by guide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate, get
from dream_sc._core.stats.intervals import Z95
from dream_sc._keys import CONFOUNDING

from ._style import CATEGORIES, GRAY, ORANGE, SMALL, TITLE, axes, blue, dosage_label, ink, paper, plain

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

LEAST_P = 1e-6  # smaller ones are drawn at it
SHORT = (("slope", "over dosage"), ("targeting", "controls, targeting"), ("Cramér", "controls, targeting"))


def confounding_data(
    data: AnnData | MuData,
    *,
    what: str | None = None,
    key: str = CONFOUNDING,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """The checks of `tl.check_confounding`, or the means of guides behind one of them.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.check_confounding` has run.
    what
        Name of what was checked (column "what"); all checks by default.
    key
        `key_added` of the checks.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the name of the cis gene.

    Returns
    -------
    Without `what`: the table of checks, with a short `label` and `height` (-log10 of the adjusted p-value). With it: a
    row per guide (and group of a categorical covariate, `level`): guide, is_control, log2_dosage, mean, se, n_cells.
    `.attrs["cis_gene"]` names the cis gene.

    Raises
    ------
    KeyError, ValueError
        If there are no checks, or none of that name has means of guides.

    Examples
    --------
    >>> checks = ds.tl.check_confounding(adata)
    >>> len(ds.pl.confounding_data(adata)) > 0
    True
    """
    out = get.confounding(data, what, key=key, mod=mod, gene_symbols=gene_symbols)
    if what is None:
        short = [next((s for start, s in SHORT if t.startswith(start)), "") for t in out["statistic"]]
        out["label"] = [f"{w}: {s}" if s else w for w, s in zip(out["what"], short, strict=True)]
        out["height"] = -np.log10(np.maximum(out["pvalue_adjusted"].to_numpy(float), LEAST_P))
    return out


def confounding(
    data: AnnData | MuData,
    *,
    what: str | None = None,
    key: str = CONFOUNDING,
    mod: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Axes:
    """Plot all checks for confounding, or one of them guide by guide.

    All: the adjusted p-value of each check, orange where it is flagged (a check may be flagged without a p-value, drawn
    open at 0), with its estimate; dotted the level of flags. Those below 1e-6 are triangles at 1e-6. One: the mean of
    each guide's cells with its 95 % interval over the dosage (NTC guides gray); fractions of the groups of a
    categorical covariate in a colour each (NTC guides open).

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.check_confounding` has run.
    what
        Name of what was checked, such as "size factor" or a covariate; all checks by default.
    key
        `key_added` of the checks.
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
    KeyError, ValueError
        If there are no checks, or none of that name has means of guides.

    Examples
    --------
    >>> checks = ds.tl.check_confounding(adata)
    >>> axes = ds.pl.confounding(adata)
    """
    table = confounding_data(data, what=what, key=key, mod=mod, gene_symbols=gene_symbols)
    if what is not None:
        return _guides(axes(ax, figsize=figsize, title=title), table, what)
    ax = axes(ax, (5.4, 0.26 * len(table) + 1.0), figsize=figsize)
    level = _validate.readable(data, mod).uns[key]["params"]["level"]
    place = np.arange(len(table))[::-1]
    flag, known = table["flag"].to_numpy(bool), table["pvalue_adjusted"].notna().to_numpy()
    x = np.where(known, table["height"], 0.0)
    beyond = (table["pvalue_adjusted"] < LEAST_P).to_numpy()
    for mask, color, label in ((~flag, GRAY, "not flagged"), (flag, ORANGE, "flagged")):
        ax.hlines(place[mask], 0, x[mask], color=color, lw=1.5)
        for marker, some in (("o", mask & known & ~beyond), (">", mask & beyond)):
            here = label if marker == "o" else None
            ax.plot(x[some], place[some], marker, ms=6, color=color, mec=paper(ax), mew=0.6, label=here)
        ax.plot(x[mask & ~known], place[mask & ~known], "o", ms=6, mfc=paper(ax), mec=color, clip_on=False, zorder=3)
    limit = max(1.25 * x.max(), 2.0)
    for at, y, estimate in zip(x, place, table["estimate"], strict=True):
        text = "not tested" if np.isnan(estimate) else f"{estimate:.2g}"
        ax.text(
            at + 0.025 * limit,
            y,
            text,
            va="center",
            fontsize=SMALL,
            color=ink(),
            bbox={"color": paper(ax), "pad": 0.6},
            zorder=2,
        )
    ax.axvline(-np.log10(level), color=ink(), lw=1, ls=":", zorder=0, label=f"adjusted p = {level:g}")
    ax.set_yticks(place, [plain(name, None) for name in table["label"]], fontsize=SMALL)
    ax.set_xlim(0, limit)
    ax.set_ylim(-0.7, len(table) - 0.3)
    cut = f"; triangles: above {-np.log10(LEAST_P):.0f}" if beyond.any() else ""
    of = plain(table.attrs["cis_gene"])
    ax.set_xlabel(rf"dosage of {of}: $-\log_{{10}}$ adjusted $p$" f"\n(numbers: estimates{cut})")
    ax.legend(frameon=False, fontsize=SMALL, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2)
    if title is not None:
        ax.set_title(title, fontsize=TITLE, pad=18)  # above the legend
    return ax


def _guides(ax: Any, table: pd.DataFrame, what: str) -> Any:
    """Means of guides over the dosage."""
    levels = list(dict.fromkeys(table["level"]))
    several = levels != [""]
    for i, level in enumerate(levels):
        for control in (False, True):
            part = table[(table["level"] == level) & (table["is_control"] == control)]
            color = CATEGORIES[i % len(CATEGORIES)] if several else GRAY if control else blue()
            name = "NTC guides" if control else "targeting guides"
            if several:
                name = f"{plain(level)}, NTC guides" if control else plain(level)
            ax.errorbar(
                part["log2_dosage"],
                part["mean"],
                yerr=Z95 * part["se"],
                fmt="o",
                ms=4.5,
                color=color,
                elinewidth=0.8,
                mfc=paper(ax) if several and control else color,
                mec=color if several else paper(ax),
                mew=1.0 if several and control else 0.5,
                label=name,
            )
    ax.axvline(0, color=GRAY, lw=1, ls=":", zorder=0)
    ax.set_xlabel(dosage_label(table.attrs["cis_gene"]))
    units = {"size factor": r" ($\log_2$)", "depth": r" ($\log_2$ counts)", "offset of stable features": r" ($\log_2$)"}
    ax.set_ylabel(f"{'fraction of cells by ' if several else ''}{plain(what)}{units.get(what, '')}")
    handles, names = ax.get_legend_handles_labels()
    inside = len(names) <= 2
    place: dict[str, Any] = {"loc": "best"} if inside else {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}
    ax.legend(handles, names, frameon=False, fontsize=SMALL, **place)
    return ax
