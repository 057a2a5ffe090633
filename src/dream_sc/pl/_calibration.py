"""p-values where nothing responds: quantiles by expression, and error rates against what they should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc import _validate, get
from dream_sc._keys import CALIBRATION
from dream_sc.get._symbols import cis_label

from ._style import (
    GRAY,
    GREEN,
    LABEL,
    ORANGE,
    SMALL,
    TITLE,
    axes,
    blue,
    ink,
    number,
    one_panel,
    panels,
    paper,
    plain,
    titled,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

COLORS = {"low": ORANGE, "middle": GREEN}  # of thirds of expression; others are blue
NULLS = {"ntc_guides": "NTC guides regrouped", "permutation": "dosages permuted", "simulation": "features simulated"}
NONE = 0.6  # height of a rate of 0, in units of one call among all tests


def calibration_data(
    data: AnnData | MuData, *, key: str = CALIBRATION, mod: str | None = None, gene_symbols: str | None = None
) -> pd.DataFrame:
    """Quantiles of the null p-values on the -log10 scale, in thirds of expression.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.calibrate` has run.
    key
        `key_added` of the calibration.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the name of the cis gene.

    Returns
    -------
    A row per stratum and quantile: stratum, mean_low, mean_high, n_tests, expected, observed, lower, upper (95 % over
    resampled regroupings); the last four as -log10 p, with lower below upper. `.attrs["cis_gene"]` names the cis gene.

    Examples
    --------
    >>> ds.tl.calibrate(adata, n=5)
    >>> {"expected", "observed"} <= set(ds.pl.calibration_data(adata))
    True
    """
    table = get.calibration(data, "qq", key=key, mod=mod, gene_symbols=gene_symbols)
    adata = _validate.readable(data, mod)
    info = adata.uns[key]
    fit = adata.uns.get(info["params"].get("key"), {})
    table.attrs["cis_gene"] = cis_label(data, adata, {"cis_mod": fit.get("cis_mod"), **info}, gene_symbols)
    columns = ["expected", "observed", "lower", "upper"]
    table[columns] = -np.log10(np.maximum(table[columns], np.finfo(float).tiny))
    return table.rename(columns={"lower": "upper", "upper": "lower"})


def calibration(
    data: AnnData | MuData,
    *,
    key: str = CALIBRATION,
    mod: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    ncols: int | None = None,
) -> Axes | NDArray[np.object_]:
    """Plot null p-values against uniform ones, beside the false-positive rates at three levels.

    Left: quantiles of the p-values by expression, shaded where 95 % of resampled regroupings lie; they should follow
    the diagonal, where gray is what as many independent tests would do. Right: the share of null tests below each
    level with twice its standard error over regroupings, and the level (bar); an open triangle where there is none.
    After `tl.calibrate(replace=True)`, the rates before and after on NTC guides held out.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.calibrate` has run.
    key
        `key_added` of the calibration.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the name of the cis gene, which is in a label.
    ax
        Axes for the quantiles alone.
    figsize
        Width and height of a new figure, in inches.
    title
        Title of the figure, or of `ax`.
    ncols
        Panels in a row, 2 by default.

    Returns
    -------
    The Axes if `ax` was given, else an array of two.

    Examples
    --------
    >>> ds.tl.calibrate(adata, n=5)
    >>> axes = ds.pl.calibration(adata)
    """
    table = calibration_data(data, key=key, mod=mod, gene_symbols=gene_symbols)
    info = _validate.readable(data, mod).uns[key]
    if ax is not None:
        one_panel(ncols)
        ax = _quantiles(axes(ax, figsize=figsize), table, info)
        titled(ax, title)
        return ax
    pair = panels(2, (3.8, 3.4), ncols=ncols or 2, figsize=figsize, title=title, ratios=(1.15, 1))
    _quantiles(pair[0], table, info)
    _rates(pair[1], info)
    return np.array(pair)


def _quantiles(ax: Any, table: pd.DataFrame, info: Any) -> Any:
    from dream_sc._core.response.calibration import independent_band

    limit = float(table["expected"].max())
    top = max(1.05 * float(table["observed"].max()), limit)
    grid = np.geomspace(10.0**-limit, 1.0, 200)
    band = -np.log10(independent_band(grid, int(table["n_tests"].max())))
    ax.fill_between(-np.log10(grid), band[1], np.minimum(band[0], 2 * top), color=GRAY, alpha=0.2, lw=0, zorder=0)
    ax.plot([0, limit], [0, limit], color=ink(), lw=1, ls=":", zorder=1)
    for name, part in table.groupby("stratum", sort=False):
        color, mean = COLORS.get(str(name)) or blue(), (part["mean_low"].iloc[0], part["mean_high"].iloc[0])
        ax.fill_between(part["expected"], part["lower"], part["upper"], color=color, alpha=0.12, lw=0)
        label = f"{name}: {number(mean[0])} to {number(mean[1])}"
        ax.plot(part["expected"], part["observed"], "o-", ms=3, lw=1, mew=0, color=color, label=label)
    ax.set_xlim(0, limit)
    ax.set_ylim(0, 1.08 * top)
    ax.set_xlabel(rf"expected $-\log_{{10}}\,p$ (dosage of {plain(table.attrs['cis_gene'])})")
    ax.set_ylabel(r"observed $-\log_{10}\,p$")
    legend = ax.legend(frameon=False, fontsize=SMALL, title="mean count", title_fontsize=SMALL, loc="upper left")
    legend.set_alignment("left")
    ax.set_title(f"{NULLS[info['params']['null']]}, {info['n_regroupings']} times", fontsize=TITLE)
    return ax


def _rates(ax: Any, info: Any) -> None:
    """Rates at the levels, each with its level as a bar; before and after where the null was replaced."""
    series = [("", "fpr", "se", blue())]
    rates = info["fpr"]
    if "held_out" in info:
        rates = info["held_out"]
        series = [("theoretical", "fpr_theory", "se_theory", GRAY), ("replaced, held out", "fpr", "se", blue())]
    x, level = np.arange(len(rates)), rates["level"].to_numpy(float)
    floor = NONE / float(rates["n_tests"].max())
    ax.hlines(level, x - 0.32, x + 0.32, color=ink(), lw=1.6, zorder=1, label="level")
    for i, (label, name, se, color) in enumerate(series):
        at = x + 0.22 * (i - (len(series) - 1) / 2)
        fpr, error = rates[name].to_numpy(float), 2 * np.nan_to_num(rates[se].to_numpy(float))
        some = fpr > 0
        low = np.maximum(fpr - error, floor)
        ax.vlines(at[some], low[some], (fpr + error)[some], color=color, lw=1.4)
        ax.plot(at[some], fpr[some], "o", ms=6, mec=paper(ax), mew=0.6, color=color, label=label or "observed")
        none = "none" if i == 0 else None
        ax.plot(at[~some], np.full((~some).sum(), floor), "v", ms=5.5, mfc=paper(ax), mec=color, label=none)
    ax.set_yscale("log")
    most = max(float(rates[name].max()) for _, name, _, _ in series)
    ax.set_ylim(min(level.min(), floor) / 2, max(0.5, min(1.3 * most, 1.0)))
    ax.set_xlim(-0.6, len(x) - 0.4)
    ax.set_xticks(x, [number(v) for v in level])
    ax.set_xlabel("level of $p$")
    ax.set_ylabel("share of null tests below it")
    ax.legend(frameon=False, fontsize=SMALL, loc="upper right")
    ax.set_title(f"any call at q < 0.05 in {100 * info['any_call']:.0f} % of them", fontsize=TITLE)
    ax.yaxis.label.set_size(LABEL)
