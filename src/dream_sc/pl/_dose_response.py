"""Dose-response of features: guides, curve, band, EC50."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import TRANS, ZERO
from dream_sc.get import _points
from dream_sc.get._names import TransFit, trans_fit
from dream_sc.get._symbols import cis_label

from . import _curve, _usage
from ._curve import ALL_CELLS, CONTROLS, EC50, FIT, LEVEL, TARGETING, TRUTH
from ._style import (
    SMALL,
    at_zero,
    axes,
    dosage_label,
    name_panel,
    number,
    one_panel,
    panels,
    plain,
    titled,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

LEGEND = (TARGETING, ALL_CELLS, CONTROLS, LEVEL, FIT, EC50, TRUTH)  # order of the entries
SURE = 0.95  # `p_ec50_inside` above which an EC50 is shown
SCALES = {"log2fc": r"$\log_2$ fold change against NTC", "delta": "difference to NTC"}
WIDE, BESIDE = 5.8, 1.9  # inches, of a panel with names of categories beside it, and of these


def dose_response_data(
    data: AnnData | MuData, feature: str, *, key: str = TRANS, mod: str | None = None, gene_symbols: str | None = None
) -> pd.DataFrame:
    """What was observed of a feature in each guide's cells, corrected for technical groups.

    Counts: the mean, corrected for size factors, with errors by the fitted overdispersion. Shares and usage: of the
    reads of all cells of a guide, as they would be in the reference group (effects of groups are taken off the log
    odds, of a multinomial those of its chain), with Wilson intervals for as many reads as the fitted overdispersion
    leaves; of a category it is that of its binomial in the chain. Scores: the mean of cells that have one, robust for a
    Student t, with errors by the fitted scale.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    feature
        Name of a feature; of a multinomial also of a category.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are asked for, as in `get.trans`.

    Returns
    -------
    A row per guide (and category): guide, is_control, log2_dosage, sd, n_cells, mean (count at size factor 1, share,
    or score), lower, upper (95 % interval); se of counts and scores, n_reads of shares, n_scores of scores, category of
    a multinomial. NaN where a guide has no reads or scores, and for the log2 of dose 0. Then `escaper_fraction`, and
    of the cells in which the guide acts, which the curve is of: log2_dosage_acting, mean_acting, lower_acting,
    upper_acting, where escaping cells at NTC level are taken off.

    Raises
    ------
    KeyError, ValueError
        If the fit or the name is not there, or categories of the feature are not any more.

    Examples
    --------
    >>> ds.pl.dose_response_data(adata, "gene_0002")[["guide", "mean"]].shape
    (18, 2)
    """
    fit = trans_fit(data, key, mod, gene_symbols)
    return _observed(_points.cells(data, fit), fit, feature)


def _observed(cells: _points.Cells, fit: TransFit, name: str) -> pd.DataFrame:
    rows = fit.find(name)
    levels: Any = float(fit.row(int(rows[0]))["baseline"])
    if fit.likelihood.statistics == "shares":
        points = _points.shares(cells, rows)
        if "category" in points:
            levels = pd.Series({fit.labels(r)["category"]: fit.row(r)["baseline"] for r in rows}, dtype=float)
    else:
        of_one = {"counts": _points.counts, "scores": _points.scores}[fit.likelihood.statistics]
        points = of_one(cells, int(rows[0]))
    return _points.with_acting(points, cells, levels)


def dose_response(
    data: AnnData | MuData,
    features: str | Sequence[str],
    *,
    scale: Literal["expected", "log2fc", "delta"] = "expected",
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    ncols: int | None = None,
) -> Axes | NDArray[np.object_]:
    """Plot features against the dosage of the cis gene.

    Points are guides (targeting: blue, NTC: gray) with 95 % intervals in both directions (`dose_response_data`); more
    than 12 NTC guides are dots, with one point at their mean and bars over 95 % of them. The line is the posterior
    median of the best non-null curve with its 95 % band, dotted the NTC level. Orange, for features that respond and
    whose `p_ec50_inside` is above 0.95: the EC50 of each Hill with its 95 % interval; an arrow where it goes on beyond
    the observed dosages. Dashed green: the truth of simulated data.

    The curve is of cells in which guides act. Of a guide with escaping cells the filled point is what its acting cells
    show, at their dosage; open, and joined by a line, the mean of all of its cells.

    Of a fit without dosages: NTC guides beside acting ones, and the level, or usage of categories, that these share.
    Inert guides, which were left out of the fit, stand by themselves.

    A feature with categories is drawn as areas: the posterior median usage of each, made to add up to 1, the one that
    moves most at the bottom; at most eight, of more the rest as one. Points are guides (NTC: gray) at the borders of
    the areas, dotted what these are at NTC dosage. A category by its own name is drawn as a share is.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    features
        One name, or several for a grid of panels.
    scale
        "expected": count at size factor 1, share, or score. "log2fc", of counts: log2 of the ratio to NTC. "delta": the
        difference to NTC.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are asked for and shown, as in `get.trans`.
    legend
        Draw a legend: inside the axes of one feature, below a grid; names of categories right of their axes.
    ax
        Axes to draw one feature on.
    figsize
        Width and height of a new figure, in inches.
    title
        Title of the figure, or in place of that of a single feature.
    ncols
        Panels in a row, 3 by default, 2 of features with categories.

    Returns
    -------
    Axes, or an array of them for several features.

    Raises
    ------
    KeyError, ValueError
        If the fit or a name is not there, a feature was not fitted or has not this scale, or arguments do not go
        together.

    Examples
    --------
    >>> axes = ds.pl.dose_response(adata, ["gene_0002", "gene_0018"], scale="log2fc", ncols=2)
    """
    _validate.one_of("scale", scale, ("expected", "log2fc", "delta"))
    fit = trans_fit(data, key, mod, gene_symbols)
    names = [features] if isinstance(features, str) else list(features)
    if not names:
        raise ValueError("features=[] names nothing to draw: name one feature or several")
    _check_scale(fit, names, scale)
    cells = _points.cells(data, fit)  # sorted once for all panels
    if isinstance(features, str):
        one_panel(ncols)
        ax = axes(ax, (WIDE if features in fit.of_feature else 4.2, 3.2), figsize=figsize)
        _one(data, cells, fit, features, scale, legend, ax)
        titled(ax, title)
        return ax
    if ax is not None:
        raise ValueError("ax= takes one feature; leave it out for a grid of several")
    wide = any(name in fit.of_feature for name in names)
    ncols = ncols or (2 if wide else 3)
    drawn = panels(len(names), (WIDE if wide else 3.9, 3.0), ncols=ncols, figsize=figsize, title=title)
    for name, panel in zip(names, drawn, strict=True):
        categories = _panel(data, cells, fit, name, scale, panel)
        if legend and categories:
            _usage.legend(panel, categories, ([], []))
    if legend:
        n = min(len(names), ncols)
        drawn[0].figure.legend(
            *_handles(drawn), loc="outside lower center", ncols=2 * n, frameon=False, fontsize=SMALL + 1
        )
    return np.array(drawn)


def _check_scale(fit: TransFit, names: list[str], scale: str) -> None:
    """Refuse a scale that the features do not have."""
    if scale == "log2fc" and fit.likelihood.effect != scale:
        raise ValueError(f'scale="log2fc" is of counts, and this fit is with {fit.distribution!r}: use scale="delta"')
    several = [name for name in names if name in fit.of_feature]
    if scale != "expected" and several:
        raise ValueError(f"{several[0]!r} is drawn by its categories, which have no scale={scale!r}: name a category")


def _one(data: Any, cells: _points.Cells, fit: TransFit, name: str, scale: str, legend: bool, ax: Any) -> Any:
    """One feature with its legend."""
    categories = _panel(data, cells, fit, name, scale, ax)
    if not legend:
        return ax
    if categories:
        _usage.legend(ax, categories, _handles([ax]))
    else:
        # the best place above the marks of the EC50, which "best" does not see
        ax.legend(*_handles([ax]), frameon=False, fontsize=SMALL, loc="best", bbox_to_anchor=(0, 0.1, 1, 0.9))
    return ax


def _handles(panels: list[Any]) -> tuple[list[Any], list[str]]:
    """Legend entries of the panels: each label once, with the artists that carry it in the panel that has most."""
    entries: dict[str, tuple[Any, ...]] = {}
    for ax in panels:
        handles, labels = ax.get_legend_handles_labels()
        for label in LEGEND:
            found = tuple(h for h, text in zip(handles, labels, strict=True) if text == label)
            entries[label] = max(entries.get(label, ()), found, key=len)
    labels = [label for label in LEGEND if entries[label]]
    return [entries[label] for label in labels], labels


def _panel(data: Any, cells: _points.Cells, fit: TransFit, name: str, scale: str, ax: Any) -> list[Any]:
    """Draw a feature; gives handles for the names of its categories, if it is drawn by categories."""
    rows = fit.fitted(name)
    points, row = _observed(cells, fit, name), fit.row(int(rows[0]))
    span = fit.info["axis"]["low"], fit.info["axis"]["high"]
    doses, categories = ZERO in fit.info["axis"], []
    if doses:  # controls have no log dose
        for column in ("log2_dosage", "log2_dosage_acting"):
            points[column] = points[column].fillna(at_zero(ax, span[0]))
    if name in fit.of_feature:
        categories = _areas(fit, name, points, ax)
    elif not np.isfinite(span[0]):
        _curve.levels(fit, int(rows[0]), points, row, scale, ax)
    else:
        _curve.draw(fit, int(rows[0]), points, row, scale, ax)
    label = fit.labels(int(rows[0]))
    # the numbers of a feature are those of one of its categories
    leads = name in fit.of_feature or str(row.get("category")) == label.get("category", "None")
    if row["model"] != "null" and leads and row["p_ec50_inside"] > SURE:
        for suffix, height in (("", 0.03), ("_b", 0.08)):
            _curve.ec50(ax, row, suffix, height, span, on_areas=bool(categories))
    if np.isfinite(span[0]):
        ax.set_xlabel(dosage_label(cis_label(data, fit.adata, fit.info, fit.gene_symbols), doses=doses))
    ax.set_ylabel(SCALES.get(scale) or fit.likelihood.words.observed)
    q = f", q = {number(row['qvalue'])}" if np.isfinite(row["qvalue"]) else ""
    text = _in_words(row) if leads else f"part of {plain(label['feature'])}"
    if categories and row["class"] != "null":
        text = f"{plain(row['category'])} {text}"
    name_panel(ax, name, f"{text}{q}", beside=BESIDE if categories else 0.0)
    return categories


def _in_words(row: pd.Series) -> str:
    """What a feature does on knock-down of the cis gene, or with the dose."""
    from dream_sc._core.curves import SWITCH

    way, kind = str(row["on_knockdown"]), str(row["class"])
    if way not in ("down", "up", "mixed") and kind.endswith("creasing"):
        return "falls with the dose" if kind.endswith("decreasing") else "rises with the dose"
    if way not in ("down", "up") and kind == SWITCH.name:
        return "the same change at every dose"
    if way in ("down", "up"):
        return "falls on knock-down" if way == "down" else "rises on knock-down"
    return {"biphasic_min": "trough", "biphasic_max": "peak"}.get(kind, "no response")


def _areas(fit: TransFit, name: str, points: pd.DataFrame, ax: Any) -> list[Any]:
    """Usage of the categories of a feature."""
    by_dosage = bool(np.isfinite(fit.info["axis"]["low"]))
    usage = _usage.areas(fit, name) if by_dosage else _usage.levels(fit, name)
    levels = pd.Series({fit.labels(r)["category"]: fit.row(r)["baseline"] for r in fit.fitted(name)}, dtype=float)
    zero = ZERO in fit.info["axis"]
    points = points if by_dosage else _curve.beside(fit, points, ax)
    points = points.assign(log2_dosage=points["log2_dosage_acting"], mean=points["mean_acting"])
    return _usage.draw(ax, usage, points, levels, (TARGETING, CONTROLS, LEVEL), zero=zero)
