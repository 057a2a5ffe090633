"""EC50s or effects of many features with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import TRANS, ZERO
from dream_sc.get._names import trans_fit
from dream_sc.get._symbols import cis_label

from . import _effects
from ._style import GRAY, axes, directions, dosage_label, legend_above, name_rows, paper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData


def forest_data(
    data: AnnData | MuData,
    features: str | Sequence[str] | None = None,
    *,
    value: Literal["log2_ec50", "effect"] = "log2_ec50",
    n: int = 40,
    fdr: float = 0.05,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """EC50 or effect of features with 95 % intervals, sorted.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    features
        Names of features; by default the surest called ones, with "log2_ec50" those whose `p_ec50_inside` is above
        0.95.
    value
        "log2_ec50", or "effect": the change at the strongest knock-down (activation, where nothing was knocked down).
    n
        How many features are taken where none are named.
    fdr
        Features with a smaller q-value are called.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are asked for and called, as in `get.trans`.

    Returns
    -------
    A row per feature: estimate, q025, q975, direction ("down", "up", "mixed": on knock-down), sure (False for an EC50
    with `p_ec50_inside` of 0.95 or less). Features without an estimate, such as the EC50 of a switch, are left out.

    Raises
    ------
    KeyError, ValueError
        If the fit or a name is not there.

    Examples
    --------
    >>> ds.pl.forest_data(adata).columns.tolist()
    ['estimate', 'q025', 'q975', 'direction', 'sure']
    """
    _validate.one_of("value", value, (_effects.EC50, "effect"))
    _effects.check_fdr(fdr)
    _validate.whole("n", n)
    fit = trans_fit(data, key, mod, gene_symbols)
    frame = _effects.table_of(fit, features)
    effect = _effects.effect_of(fit)[0]
    column = effect if value == "effect" else _effects.EC50
    sure = (frame["p_ec50_inside"] > _effects.SURE).to_numpy(bool) if value != "effect" else np.ones(len(frame), bool)
    out = pd.DataFrame({"estimate": frame[column], "q025": frame[f"{column}_q025"], "q975": frame[f"{column}_q975"]})
    out["direction"], out["sure"] = _effects.direction(frame, effect), sure
    if features is None:
        out = out[_effects.is_called(frame, fdr) & sure & out["estimate"].notna().to_numpy()][: max(n, 0)]
    return out[out["estimate"].notna()].sort_values("estimate", kind="stable")


def forest(
    data: AnnData | MuData,
    features: str | Sequence[str] | None = None,
    *,
    value: Literal["log2_ec50", "effect"] = "log2_ec50",
    n: int = 40,
    fdr: float = 0.05,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Axes:
    """Plot EC50s or effects of features with 95 % intervals, sorted, coloured by what they do on knock-down.

    With EC50s the observed dosages are shaded; an arrow where an interval goes on beyond them, and open what has a
    `p_ec50_inside` of 0.95 or less.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    features
        Names of features; by default the surest called ones, with "log2_ec50" those whose `p_ec50_inside` is above
        0.95.
    value
        "log2_ec50", or "effect": the change at the strongest knock-down (activation, where nothing was knocked down).
    n
        How many features are taken where none are named.
    fdr
        Features with a smaller q-value are called.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are asked for and called, as in `get.trans`.
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
        If the fit or a name is not there, or no feature has an estimate.

    Examples
    --------
    >>> axes = ds.pl.forest(adata, n=20)
    """
    table = forest_data(data, features, value=value, n=n, fdr=fdr, key=key, mod=mod, gene_symbols=gene_symbols)
    if not len(table):
        what = "an effect" if value == "effect" else f"a {value}"
        raise ValueError(f"no feature has {what} to show: name some as features=, or use another value=")
    fit = trans_fit(data, key, mod, gene_symbols)
    ax = axes(ax, (4.4, 0.17 * len(table) + 1.1), figsize=figsize, title=title)
    span = (-np.inf, np.inf)
    if value == _effects.EC50:
        span = fit.info["axis"]["low"], fit.info["axis"]["high"]
        ax.axvspan(*span, color=GRAY, alpha=0.12, lw=0, zorder=0)
    ax.axvline(0, color=GRAY, lw=0.8, ls=":", zorder=0)
    _rows(ax, table, span)
    name_rows(ax, table.index)
    ax.set_ylim(len(table) - 0.4, -0.6)
    if value == _effects.EC50:
        gene = cis_label(data, fit.adata, fit.info, gene_symbols)
        ax.set_xlabel(f"EC50 with 95 % interval\n{dosage_label(gene, doses=ZERO in fit.info['axis'])}")
    else:
        ax.set_xlabel(f"{_effects.effect_of(fit)[1]},\n95 % interval")
    legend_above(ax, 2)
    return ax


def _rows(ax: Any, table: pd.DataFrame, span: tuple[float, float]) -> None:
    """Estimates and intervals, cut where the observed dosages end."""
    place = np.arange(len(table))
    low, high = table["q025"].to_numpy(float), table["q975"].to_numpy(float)
    # the margin shows an estimate that is just outside
    edge = (0.0, 0.0) if not np.isfinite(span).all() else (0.08 * (span[1] - span[0]),) * 2
    left, right = span[0] - edge[0], span[1] + edge[1]
    for name, color in directions().items():
        mask = (table["direction"] == name).to_numpy(bool)
        if not mask.any():
            continue
        ax.hlines(place[mask], np.clip(low[mask], left, right), np.clip(high[mask], left, right), color=color, lw=1.4)
        for marker, cut, at in (("<", low < left, left), (">", high > right, right)):
            ax.plot(np.full((mask & cut).sum(), at), place[mask & cut], marker, ms=4, mew=0, color=color)
        estimate, sure = table["estimate"].to_numpy(float), table["sure"].to_numpy(bool)
        inside = (estimate >= left) & (estimate <= right)
        for which, face, edge_color in ((sure, color, paper(ax)), (~sure, paper(ax), color)):
            some = mask & which & inside
            label = {"down": "falls on knock-down", "up": "rises on knock-down", "mixed": "mixed"}[name]
            ax.plot(
                estimate[some],
                place[some],
                "o",
                ms=4.5,
                mfc=face,
                mec=edge_color,
                mew=0.8,
                zorder=3,
                label=label if which is sure else None,
            )
