"""Fitted curves of many features, a row each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import GROUP, TRANS
from dream_sc.get._names import trans_fit
from dream_sc.get._symbols import cis_label

from . import _effects
from ._curve import medians
from ._style import LABEL, TICK, axes, dosage_label, name_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from dream_sc.get._names import TransFit

N_DOSES = 61
MOST_NAMED = 60  # rows up to which features are named
MOST_CLUSTERED = 5000  # distances between all pairs of rows are formed
LIMIT = 98  # percentile of the absolute values at which the colours end


def heatmap_data(
    data: AnnData | MuData,
    features: str | Sequence[str] | None = None,
    *,
    order: Literal["ec50", "cluster", "given"] = "ec50",
    groups: str | None = None,
    fdr: float = 0.05,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Fitted curves of features as a matrix: medians of the change against NTC at each dosage.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    features
        Names of features; those called at `fdr` by default. Of a feature with categories, the one that moves most.
    order
        "ec50": features that fall on knock-down, then those that rise, each by the dosage of half their change (the
        EC50 where `p_ec50_inside` is above 0.95). "cluster": neighbours have curves of like shape. "given": as named.
    groups
        `key_added` of `tl.group_responses`: only features that have a group, group by group, each in this order.
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
    Features x 61 log2 dosages over the observed range: log2 fold changes of counts, differences of shares and scores.
    `.attrs["log2_ec50"]` has the EC50 of each row where it may be reported, `.attrs["groups"]` its group, if asked for.

    Raises
    ------
    KeyError, ValueError
        If the fit or a name is not there, nothing is called, or too many features are to be clustered.

    Examples
    --------
    >>> frame = ds.pl.heatmap_data(adata)  # features x dosages
    >>> len(frame) == len(ds.get.responders(adata))
    True
    """
    _validate.one_of("order", order, ("ec50", "cluster", "given"))
    _effects.check_fdr(fdr)
    fit = trans_fit(data, key, mod, gene_symbols)
    frame = _effects.table_of(fit, features)
    if features is None:
        frame = frame[_effects.is_called(frame, fdr)]
    frame = frame[np.isfinite(fit.records[frame["row"].to_numpy(int), 0])]
    if groups is not None:
        frame = frame.assign(**{GROUP: _groups(fit, groups, data, mod)[frame["row"].to_numpy(int)]})
        frame = frame[frame[GROUP].notna()]
    if not len(frame):
        what = "a group" if groups is not None else "a curve"
        raise ValueError(f"no feature has {what} and is called at fdr={fdr}: name some as features=")
    if order == "given":
        frame = frame.loc[_as_given(fit, frame, features)]
    doses = np.linspace(fit.info["axis"]["low"], fit.info["axis"]["high"], N_DOSES)
    values = medians(fit, frame["row"].to_numpy(int), doses, log2fc=fit.likelihood.effect == "log2fc")
    ec50 = _effects.sure_ec50(frame)
    if order != "given":
        rows = _by_ec50(values, doses, ec50.to_numpy(float)) if order == "ec50" else by_shape(values)
        values, frame, ec50 = values[rows], frame.iloc[rows], ec50.iloc[rows]
    if groups is not None:
        rows = np.argsort(frame[GROUP].cat.codes.to_numpy(), kind="stable")
        values, frame, ec50 = values[rows], frame.iloc[rows], ec50.iloc[rows]
    out = pd.DataFrame(values, frame.index, pd.Index(doses, name="log2_dosage"))
    out.attrs["log2_ec50"] = ec50.tolist()
    if groups is not None:
        out.attrs["groups"] = frame[GROUP].astype(str).tolist()
    return out


def _groups(fit: TransFit, key: str, data: Any, mod: str | None) -> pd.Categorical:
    """Groups of the rows of a fit, missing where there is none."""
    if fit.feature is not None:
        raise ValueError(f"groups={key!r}: features with several categories have no groups")
    from dream_sc.get._groups import CALL
    from dream_sc.get._stored import table

    return table(data, mod, "varm", key, CALL)[1][GROUP].array


def _as_given(fit: TransFit, frame: pd.DataFrame, features: Any) -> list[str]:
    """Names of rows in the order in which they were asked for."""
    if features is None:
        return list(frame.index)
    names = [features] if isinstance(features, str) else list(features)
    labels = [str(fit.feature_labels[fit.find(name)[0]]) for name in names]
    return [name for name in dict.fromkeys(labels) if name in frame.index]


def _by_ec50(values: np.ndarray, doses: np.ndarray, ec50: np.ndarray) -> np.ndarray:
    """Order of rows: what falls on knock-down first, then by the dosage at which half of the change is done."""
    ends = values[:, [0, -1]]
    falls = ends[:, 0] < ends[:, 1]
    done = np.abs(values - ends[:, :1]) >= 0.5 * np.abs(ends[:, 1:] - ends[:, :1])
    half = np.where(np.isfinite(ec50), ec50, doses[done.argmax(axis=1)])
    return np.lexsort((half, ~falls))


def by_shape(values: np.ndarray) -> np.ndarray:
    """Order of rows by average linkage of the correlation distance between curves."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(values) > MOST_CLUSTERED:
        raise ValueError(
            f'order="cluster" takes up to {MOST_CLUSTERED:,} features, and here are {len(values):,}: name some as '
            'features=, or use order="ec50"'
        )
    if len(values) < 3:
        return np.arange(len(values))
    centred = values - values.mean(axis=1, keepdims=True)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return np.asarray(leaves_list(linkage(unit, "average")))


def heatmap(
    data: AnnData | MuData,
    features: str | Sequence[str] | None = None,
    *,
    order: Literal["ec50", "cluster", "given"] = "ec50",
    groups: str | None = None,
    fdr: float = 0.05,
    limit: float | None = None,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Axes:
    """Plot the fitted curves of called features as colours, a row each: blue below NTC, red above.

    Up to 60 rows are named, and have a mark at their EC50 where `p_ec50_inside` is above 0.95. The dotted line is the
    dosage of NTC cells.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    features
        Names of features; those called at `fdr` by default. Of a feature with categories, the one that moves most.
    order
        "ec50": features that fall on knock-down, then those that rise, each by the dosage of half their change.
        "cluster": neighbours have curves of like shape. "given": as named.
    groups
        `key_added` of `tl.group_responses`: only features that have a group, group by group, with a line between them.
    fdr
        Features with a smaller q-value are called.
    limit
        Change at which the colours end; by default such that 98 % of the values are within.
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
    Axes; the scale of colours is beside them.

    Raises
    ------
    KeyError, ValueError
        If the fit or a name is not there, nothing is called, or too many features are to be clustered.

    Examples
    --------
    >>> axes = ds.pl.heatmap(adata, order="cluster")
    """
    if limit is not None and not limit > 0:
        raise ValueError(f"limit={limit}: colours end at a change above 0")
    table = heatmap_data(
        data, features, order=order, groups=groups, fdr=fdr, key=key, mod=mod, gene_symbols=gene_symbols
    )
    fit = trans_fit(data, key, mod, gene_symbols)
    named = len(table) <= MOST_NAMED
    width = 4.6 if groups is None else 5.6
    ax = axes(ax, (width, max(1.4 + 0.14 * len(table), 2.6) if named else 5.5), figsize=figsize, title=title)
    doses, values = table.columns.to_numpy(float), table.to_numpy()
    most = limit or max(float(np.nanpercentile(np.abs(values), LIMIT)), 1e-9)
    step = doses[1] - doses[0]
    image = ax.imshow(
        values,
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r",
        vmin=-most,
        vmax=most,
        extent=(doses[0] - step / 2, doses[-1] + step / 2, len(table) - 0.5, -0.5),
        rasterized=True,
    )
    ax.spines[["left", "bottom"]].set_visible(False)
    if doses[0] < 0 < doses[-1]:
        ax.axvline(0, color="black", lw=0.8, ls=":")
    if named:
        ax.plot(table.attrs["log2_ec50"], np.arange(len(table)), "|", ms=6, mew=1.2, color="black")
        name_rows(ax, table.index)
        ax.tick_params(axis="y", length=0)
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{len(table):,} features", fontsize=LABEL)
    if groups is not None:
        _name_groups(ax, table.attrs["groups"])
    ax.set_xlim(doses[0] - step / 2, doses[-1] + step / 2)
    ax.set_xlabel(dosage_label(cis_label(data, fit.adata, fit.info, gene_symbols), doses=_is_dose(fit)))
    shrink = min(1.0, 0.2 + 8 / max(len(table), 10))
    pad = 0.02 if groups is None else 0.24
    bar = ax.figure.colorbar(image, ax=ax, shrink=shrink, aspect=18, extend="both", pad=pad)
    bar.set_label(f"{_effects.WORDS[fit.likelihood.effect]} against NTC", size=LABEL)
    bar.ax.tick_params(labelsize=TICK)
    bar.outline.set_visible(False)
    return ax


def _name_groups(ax: Axes, groups: list[str]) -> None:
    """Lines between the groups of rows, and their names in the middle of each."""
    starts = [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(groups)], strict=True):
        if start:
            ax.axhline(start - 0.5, color="black", lw=0.8)
        at = (start + end - 1) / 2
        name = f"{groups[start]} ({end - start})"
        ax.annotate(name, (1.01, at), xycoords=("axes fraction", "data"), va="center", fontsize=TICK, rotation=0)


def _is_dose(fit: TransFit) -> bool:
    from dream_sc._keys import ZERO

    return ZERO in fit.info["axis"]
