"""Dose-response of features: guides, curve, band, EC50."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _io, _validate, get
from dream_sc._keys import TITRATION, TRANS, Slots

from ._style import BLUE, GRAY, GREEN, INK, ORANGE, axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes


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
    ax: Axes | None = None,
) -> Any:
    """Plot features against the dosage of the cis gene.

    Points are guides (targeting: blue, NTC: gray) with 95 % intervals in both directions; the line is the posterior
    median with its 95 % band, dashed the NTC level, orange the EC50 with its interval, green the truth of simulated
    data.

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
    ax
        Axes to draw one feature on.

    Returns
    -------
    Axes, or an array of them for several features.
    """
    if isinstance(features, str):
        return _panel(data, features, key, mod, axes(ax))
    import matplotlib.pyplot as plt

    names = list(features)
    if ax is not None:
        raise ValueError("ax= takes one feature; leave it out for a grid of several")
    n_cols = min(len(names), 3)
    n_rows = -(-len(names) // n_cols)
    _, grid = plt.subplots(
        n_rows, n_cols, figsize=(3.9 * n_cols, 3.0 * n_rows), layout="constrained", squeeze=False
    )
    for panel in grid.ravel()[len(names) :]:
        panel.set_visible(False)
    return np.array([_panel(data, n, key, mod, axes(a)) for n, a in zip(names, grid.ravel(), strict=False)])


def _panel(data: Any, name: str, key: str, mod: str | None, ax: Any) -> Any:
    adata = _validate.readable(data, mod)
    points = dose_response_data(data, name, key=key, mod=mod)
    curve = get.dose_response(data, name, key=key, mod=mod)
    row = adata.varm[key].loc[name]
    ax.axhline(row["baseline"], color=GRAY, lw=0.8, ls="--", zorder=0)
    ax.fill_between(curve["log2_dosage"], curve["lower"], curve["upper"], color=INK, alpha=0.15, lw=0)
    ax.plot(curve["log2_dosage"], curve["median"], color=INK, lw=1.6, label="fit, 95 % band")
    for is_control, color, label in ((False, BLUE, "targeting guides"), (True, GRAY, "NTC guides")):
        p = points[points["is_control"].astype(bool) == is_control]
        ax.errorbar(
            p["log2_dosage"], p["mean"], xerr=1.96 * p["sd"], yerr=1.96 * p["se"], fmt="o", ms=4, color=color,
            elinewidth=0.8, mec="white", mew=0.5, label=label,
        )  # fmt: skip
    if (
        TITRATION in adata.uns
        and "true_model" in adata.var
        and adata.var["true_model"].notna().get(name, False)
    ):
        from dream_sc.datasets import true_curve

        x = curve["log2_dosage"].to_numpy()
        ax.plot(x, true_curve(adata, name, x)[0], color=GREEN, lw=1.2, ls=":", label="truth")
    ax.set_ylim(bottom=0)
    if np.isfinite(row["log2_ec50"]) and row["model"] != "null":
        low, high = curve["log2_dosage"].min(), curve["log2_dosage"].max()
        ends = np.clip([row["log2_ec50_q025"], row["log2_ec50_q975"]], low, high)
        ax.plot(ends, [0.03, 0.03], color=ORANGE, lw=3, alpha=0.5, transform=ax.get_xaxis_transform())
        if low <= row["log2_ec50"] <= high:
            ax.plot(
                row["log2_ec50"],
                0.03,
                "|",
                color=ORANGE,
                ms=9,
                mew=2,
                transform=ax.get_xaxis_transform(),
                label="EC50",
            )
    ax.set_xlabel(f"log2 dosage of {adata.uns[key]['cis_gene']} relative to NTC")
    ax.set_ylabel("counts per cell at size factor 1")
    ax.set_title(f"{name}: {row['class']}, q = {row['qvalue']:.1e}", fontsize=10)
    ax.legend(frameon=False, fontsize=7)
    return ax
