"""Dose-response of features: guides, curve, band, EC50."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _io, _validate, get
from dream_sc._keys import TITRATION, TRANS, Slots

from ._style import BLUE, GRAY, GREEN, INK, ORANGE, SMALL, TITLE, axes, dosage_label, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

TARGETING, CONTROLS, LEVEL, TRUTH = "targeting guides", "NTC guides", "NTC level", "truth"
FIT, EC50 = "fit, 95 % band", "EC50, 95 % interval"
LEGEND = (TARGETING, CONTROLS, LEVEL, FIT, EC50, TRUTH)  # order of the entries


def dose_response_data(data: Any, feature: str, *, key: str = TRANS, mod: str | None = None) -> pd.DataFrame:
    """Mean expression of a feature in each guide's cells, corrected for size factors and technical groups.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    feature
        Name of the feature.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.

    Returns
    -------
    A row per guide: guide, is_control, log2_dosage, sd, n_cells, mean (count at size factor 1), se.
    """
    adata = _validate.readable(data, mod)
    info = _validate.step(adata, key, "fit_trans(data)")
    params = info["params"]
    technical = _validate.step(adata, params["technical_key"], "fit_technical(data)")
    j = _validate.feature(adata, feature, "feature")
    y = _io.one_column(_validate.matrix(adata, params["layer"]), j)
    s = _validate.size_factors(adata, technical["params"]["size_factor_key"])
    batch = technical["params"]["batch_key"]
    if batch is not None:
        effects = np.nan_to_num(adata.varm[Slots(params["technical_key"]).effects][j])
        code = {str(g): i for i, g in enumerate(technical["groups"])}
        s = s * 2.0 ** effects[[code[str(b)] for b in adata.obs[batch]]]
    holder = adata if info["cis_mod"] is None else data.mod[info["cis_mod"]]
    cis = holder.uns[params["cis_key"]]
    labels = pd.Series(_validate.labels(holder, cis["params"]["guide_key"], "guide_key"), holder.obs_names)
    frame = pd.DataFrame({"guide": labels.reindex(adata.obs_names).to_numpy(), "y": y, "s": s, "s2": s**2})
    sums = frame.groupby("guide")[["y", "s", "s2"]].sum()
    table = info["guides"].set_index("guide").join(sums, how="inner").reset_index()
    exposure = table["s"] * 2.0 ** table["offset"]
    o = float(adata.varm[params["technical_key"]]["overdispersion"].iloc[j])
    mean = (table["y"] + 0.5) / exposure
    variance = mean / exposure + o**2 * mean**2 * table["s2"] / table["s"] ** 2
    table["mean"], table["se"] = table["y"] / exposure, np.sqrt(variance)
    return table[["guide", "is_control", "log2_dosage", "sd", "n_cells", "mean", "se"]]


def dose_response(
    data: Any,
    features: str | Sequence[str],
    *,
    key: str = TRANS,
    mod: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Any:
    """Plot features against the dosage of the cis gene.

    Points are guides (targeting: blue, NTC: gray) with 95 % intervals in both directions; the line is the posterior
    median of the best non-null curve with its 95 % band, dotted the NTC level. Orange, for features that respond: the
    EC50 of each Hill with its 95 % interval; an arrow where it goes on beyond the observed dosages. Dashed green: the
    truth of simulated data.

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
    legend
        Draw a legend: inside the axes of one feature, below a grid.
    ax
        Axes to draw one feature on.

    Returns
    -------
    Axes, or an array of them for several features.
    """
    if isinstance(features, str):
        ax = _panel(data, features, key, mod, axes(ax))
        if legend:
            # the best place above the marks of the EC50, which "best" does not see
            ax.legend(*_handles([ax]), frameon=False, fontsize=SMALL, loc="best", bbox_to_anchor=(0, 0.1, 1, 0.9))
        return ax
    import matplotlib.pyplot as plt

    names = list(features)
    if ax is not None:
        raise ValueError("ax= takes one feature; leave it out for a grid of several")
    n_cols = min(len(names), 3)
    n_rows = -(-len(names) // n_cols)
    figure, grid = plt.subplots(
        n_rows, n_cols, figsize=(3.9 * n_cols, 3.0 * n_rows), layout="constrained", squeeze=False
    )
    for panel in grid.ravel()[len(names) :]:
        panel.set_visible(False)
    drawn = [_panel(data, n, key, mod, axes(a)) for n, a in zip(names, grid.ravel(), strict=False)]
    if legend:
        figure.legend(*_handles(drawn), loc="outside lower center", ncols=2 * n_cols, frameon=False, fontsize=SMALL + 1)
    return np.array(drawn)


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


def _panel(data: Any, name: str, key: str, mod: str | None, ax: Any) -> Any:
    adata = _validate.readable(data, mod)
    points = dose_response_data(data, name, key=key, mod=mod)
    curve = get.dose_response(data, name, key=key, mod=mod)
    x = curve["log2_dosage"].to_numpy()
    row = adata.varm[key].loc[name]
    ax.axhline(row["baseline"], color=GRAY, lw=1, ls=":", zorder=0, label=LEVEL)
    ax.fill_between(x, curve["lower"], curve["upper"], color=INK, alpha=0.15, lw=0, label=FIT)
    ax.plot(x, curve["median"], color=INK, lw=1.6, label=FIT)
    if TITRATION in adata.uns and "true_model" in adata.var and pd.notna(adata.var.loc[name, "true_model"]):
        from dream_sc.datasets import true_curve

        ax.plot(x, true_curve(adata, name, x)[0], color=GREEN, lw=1.4, ls="--", zorder=2.5, label=TRUTH)
    for is_control, color, label in ((False, BLUE, TARGETING), (True, GRAY, CONTROLS)):
        p = points[points["is_control"].astype(bool) == is_control]
        ax.errorbar(
            p["log2_dosage"], p["mean"], xerr=1.96 * p["sd"], yerr=1.96 * p["se"], fmt="o", ms=4.5, color=color,
            elinewidth=0.8, mec="white", mew=0.5, label=label, zorder=3,
        )  # fmt: skip
    ax.set_ylim(bottom=0)
    if row["model"] != "null":
        for suffix, height in (("", 0.03), ("_b", 0.08)):
            _ec50(ax, row, suffix, height, (x.min(), x.max()))
    ax.set_xlabel(dosage_label(adata.uns[key]["cis_gene"]))
    ax.set_ylabel("count per cell at size factor 1")
    q = f", q = {number(row['qvalue'])}" if np.isfinite(row["qvalue"]) else ""
    ax.set_title(f"{name}: {str(row['class']).replace('_', ' ')}{q}", fontsize=TITLE)
    return ax


def _ec50(ax: Any, row: pd.Series, suffix: str, height: float, span: tuple[float, float]) -> None:
    """Mark the EC50 of a Hill and its interval just above the axis of dosage, as far as `span` goes."""
    middle, *ends = (row.get(f"log2_ec50{suffix}{q}", np.nan) for q in ("", "_q025", "_q975"))
    if not np.isfinite([middle, *ends]).all() or ends[0] > span[1] or ends[1] < span[0]:
        return
    style: dict[str, Any] = {"color": ORANGE, "transform": ax.get_xaxis_transform(), "zorder": 4}
    ax.plot(np.clip(ends, *span), [height] * 2, lw=3, alpha=0.5, solid_capstyle="butt", label=EC50, **style)
    for end, edge, marker in ((ends[0], span[0], "<"), (ends[1], span[1], ">")):
        if (end < edge) if marker == "<" else (end > edge):
            ax.plot(edge, height, marker, ms=5, mew=0, **style)
    if span[0] <= middle <= span[1]:
        ax.plot(middle, height, "|", ms=9, mew=2, label=EC50, **style)
