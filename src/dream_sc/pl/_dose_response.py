"""Dose-response of features: guides, curve, band, EC50."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc._keys import TITRATION, TRANS, ZERO
from dream_sc.get import _points
from dream_sc.get._curves import acting_level, curves
from dream_sc.get._names import TransFit, trans_fit
from dream_sc.get._symbols import cis_label

from . import _usage
from ._style import BLUE, GRAY, GREEN, INK, ORANGE, SMALL, TITLE, at_zero, axes, dosage_label, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

TARGETING, CONTROLS, LEVEL, TRUTH = "targeting guides", "NTC guides", "NTC level", "truth"
FIT, EC50 = "fit, 95 % band", "EC50, 95 % interval"
LEGEND = (TARGETING, CONTROLS, LEVEL, FIT, EC50, TRUTH)  # order of the entries
ONE_LINE = 32  # characters of a title
BESIDE = 0.4  # half the width of a group of guides without dosages
WIDE = 5.8  # inches, of a panel with names of categories beside it


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
    a multinomial. NaN where a guide has no reads or scores, and for the log2 of dose 0.

    Raises
    ------
    KeyError, ValueError
        If the fit or the name is not there, or categories of the feature are not any more.

    Examples
    --------
    >>> ds.pl.dose_response_data(adata, "gene_0002")[["guide", "mean"]].shape
    (18, 2)
    """
    return _observed(data, trans_fit(data, key, mod, gene_symbols), feature)


def _observed(data: Any, fit: TransFit, name: str) -> pd.DataFrame:
    return _points.observed(_points.cells(data, fit), fit.find(name))


def dose_response(
    data: AnnData | MuData,
    features: str | Sequence[str],
    *,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes | NDArray[np.object_]:
    """Plot features against the dosage of the cis gene.

    Points are guides (targeting: blue, NTC: gray) with 95 % intervals in both directions (`dose_response_data`); the
    line is the posterior median of the best non-null curve with its 95 % band, dotted the NTC level. Orange, for
    features that respond: the EC50 of each Hill with its 95 % interval; an arrow where it goes on beyond the observed
    dosages. Dashed green: the truth of simulated data.

    Of a fit without dosages: NTC guides beside acting ones, and the level that these share.

    A feature with categories is drawn as areas: the posterior median usage of each, made to add up to 1, the one that
    moves most at the bottom; at most eight, of more the rest as one. Points are guides (NTC: gray) at the borders of
    the areas, dotted what these are at NTC dosage. A category by its own name is drawn as a share is.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    features
        One name, or several for a grid of panels.
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

    Returns
    -------
    Axes, or an array of them for several features.

    Examples
    --------
    >>> ax = ds.pl.dose_response(adata, "gene_0002")
    >>> ax.get_title().startswith("gene_0002: falls on knock-down")
    True
    >>> axes = ds.pl.dose_response(adata, ["gene_0002", "gene_0018"])
    """
    fit = trans_fit(data, key, mod, gene_symbols)
    if isinstance(features, str):
        return _one(data, fit, features, legend, ax)
    import matplotlib.pyplot as plt

    names = list(features)
    if ax is not None:
        raise ValueError("ax= takes one feature; leave it out for a grid of several")
    wide = any(name in fit.of_feature for name in names)
    n_cols = min(len(names), 2 if wide else 3)
    n_rows = -(-len(names) // n_cols)
    size = (WIDE if wide else 3.9) * n_cols, 3.0 * n_rows
    figure, grid = plt.subplots(n_rows, n_cols, figsize=size, layout="constrained", squeeze=False)
    for panel in grid.ravel()[len(names) :]:
        panel.set_visible(False)
    drawn = []
    for name, panel in zip(names, grid.ravel(), strict=False):
        categories = _panel(data, fit, name, axes(panel))
        if legend and categories:
            _usage.legend(panel, categories, ([], []))
        drawn.append(panel)
    if legend:
        figure.legend(*_handles(drawn), loc="outside lower center", ncols=2 * n_cols, frameon=False, fontsize=SMALL + 1)
    return np.array(drawn)


def _one(data: Any, fit: TransFit, name: str, legend: bool, ax: Any) -> Any:
    """One feature with its legend."""
    ax = axes(ax, (WIDE if name in fit.of_feature else 4.2, 3.2))
    categories = _panel(data, fit, name, ax)
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


def _panel(data: Any, fit: TransFit, name: str, ax: Any) -> list[Any]:
    """Draw a feature; gives handles for the names of its categories, if it is drawn by categories."""
    rows = fit.fitted(name)
    points, row = _observed(data, fit, name), fit.row(int(rows[0]))
    span = fit.info["axis"]["low"], fit.info["axis"]["high"]
    doses, categories = ZERO in fit.info["axis"], []
    if doses:  # controls have no log dose
        points["log2_dosage"] = points["log2_dosage"].fillna(at_zero(ax, span[0]))
    if name in fit.of_feature:
        categories = _areas(fit, name, points, ax)
    elif not np.isfinite(span[0]):
        _levels(fit, int(rows[0]), points, row, ax)
    else:
        _curve(fit, int(rows[0]), points, row, ax)
    label = fit.labels(int(rows[0]))
    # the numbers of a feature are those of one of its categories
    leads = name in fit.of_feature or str(row.get("category")) == label.get("category", "None")
    if row["model"] != "null" and leads:
        for suffix, height in (("", 0.03), ("_b", 0.08)):
            _ec50(ax, row, suffix, height, span, on_areas=bool(categories))
    if np.isfinite(span[0]):
        ax.set_xlabel(dosage_label(cis_label(data, fit.adata, fit.info, fit.gene_symbols), doses=doses))
    ax.set_ylabel(fit.likelihood.words.observed)
    q = f", q = {number(row['qvalue'])}" if np.isfinite(row["qvalue"]) else ""
    text = _in_words(row) if leads else f"part of {label['feature']}"
    if categories and row["class"] != "null":
        text = f"{row['category']} {text}"
        if len(name) + len(text) > ONE_LINE:
            text = f"\n{text}"
    ax.set_title(f"{name}: {text}{q}", fontsize=TITLE)
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
    usage = _usage.areas(fit, name)
    levels = pd.Series({fit.labels(r)["category"]: fit.row(r)["baseline"] for r in fit.fitted(name)}, dtype=float)
    zero = ZERO in fit.info["axis"]
    return _usage.draw(ax, usage, points, levels, (TARGETING, CONTROLS, LEVEL), zero=zero)


def _curve(fit: TransFit, r: int, points: pd.DataFrame, row: pd.Series, ax: Any) -> None:
    """Curve of a row of the fit with its band, and guides."""
    curve, name = curves(fit, [r]), str(fit.names[r])
    x = curve["log2_dosage"].to_numpy()
    ax.axhline(row["baseline"], color=GRAY, lw=1, ls=":", zorder=0, label=LEVEL)
    ax.fill_between(x, curve["lower"], curve["upper"], color=INK, alpha=0.15, lw=0, label=FIT)
    ax.plot(x, curve["median"], color=INK, lw=1.6, label=FIT)
    var = fit.adata.var
    if TITRATION in fit.adata.uns and "true_model" in var and pd.notna(var.loc[name, "true_model"]):
        from dream_sc.datasets import true_curve

        ax.plot(x, true_curve(fit.adata, name, x)[0], color=GREEN, lw=1.4, ls="--", zorder=2.5, label=TRUTH)
    _guides(fit, points, ax)


def _levels(fit: TransFit, r: int, points: pd.DataFrame, row: pd.Series, ax: Any) -> None:
    """A row of a fit without dosages: NTC guides beside acting ones, and the level that these share with its band."""
    low, median, high = np.quantile(acting_level(fit, r), [0.025, 0.5, 0.975])
    ax.axhline(row["baseline"], color=GRAY, lw=1, ls=":", zorder=0, label=LEVEL)
    ax.fill_between([1 - BESIDE, 1 + BESIDE], low, high, color=INK, alpha=0.15, lw=0, label=FIT)
    ax.plot([1 - BESIDE, 1 + BESIDE], [median] * 2, color=INK, lw=1.6, label=FIT)
    control = points["is_control"].astype(bool).to_numpy()
    at = np.empty(len(points))
    for place, some in ((0.0, control), (1.0, ~control)):
        at[some] = place + np.linspace(-0.7 * BESIDE, 0.7 * BESIDE, int(some.sum()))
    _guides(fit, points.assign(log2_dosage=at, sd=0.0), ax)
    ax.set_xticks([0, 1], ["NTC guides", "acting guides"])


def _guides(fit: TransFit, points: pd.DataFrame, ax: Any) -> None:
    """Guides with their intervals, and limits of the axis."""
    for is_control, color, label in ((False, BLUE, TARGETING), (True, GRAY, CONTROLS)):
        p = points[(points["is_control"].astype(bool) == is_control) & points["mean"].notna()]
        ax.errorbar(
            p["log2_dosage"],
            p["mean"],
            xerr=1.96 * p["sd"],
            yerr=(p["mean"] - p["lower"], p["upper"] - p["mean"]),
            fmt="o",
            ms=4.5,
            color=color,
            elinewidth=0.8,
            mec="white",
            mew=0.5,
            label=label,
            zorder=3,
        )
    if fit.likelihood.statistics == "counts":
        ax.set_ylim(bottom=0)
    elif fit.likelihood.statistics == "scores":
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.1 * (high - low), high)  # room for the marks of the EC50
    else:
        ax.set_ylim(-0.03, 1.03)


def _ec50(ax: Any, row: pd.Series, suffix: str, height: float, span: tuple[float, float], *, on_areas: bool) -> None:
    """Mark the EC50 of a Hill and its interval just above the axis of dosage, as far as `span` goes."""
    middle, *ends = (row.get(f"log2_ec50{suffix}{q}", np.nan) for q in ("", "_q025", "_q975"))
    if not np.isfinite([middle, *ends]).all() or ends[0] > span[1] or ends[1] < span[0]:
        return
    style: dict[str, Any] = {"color": ORANGE, "transform": ax.get_xaxis_transform(), "zorder": 4}
    if on_areas:
        ax.plot(np.clip(ends, *span), [height] * 2, lw=9, solid_capstyle="projecting", **style | {"color": "white"})
    ax.plot(np.clip(ends, *span), [height] * 2, lw=3, alpha=0.5, solid_capstyle="butt", label=EC50, **style)
    for end, edge, marker in ((ends[0], span[0], "<"), (ends[1], span[1], ">")):
        if (end < edge) if marker == "<" else (end > edge):
            ax.plot(edge, height, marker, ms=5, mew=0, **style)
    if span[0] <= middle <= span[1]:
        ax.plot(middle, height, "|", ms=9, mew=2, label=EC50, **style)
