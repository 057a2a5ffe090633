"""What was assumed of EC50, steepness and guide effects before the data, and what is known after them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc._keys import TRANS, ZERO
from dream_sc.get._names import names_of, trans_fit
from dream_sc.get._symbols import cis_label

from . import _effects
from ._style import CATEGORIES, GRAY, LABEL, SMALL, axes, dosage_label, one_panel, panels, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

    from dream_sc.get._names import TransFit

MOST = len(CATEGORIES)
N_GRID = 201
EC50, N, GUIDE_SD = "log2_ec50", "hill_n", "guide_sd"
UNITS = {"log2fc": r"$\log_2$", "delta_p": "log odds", "delta": "sds of cells"}
LOG = (N, GUIDE_SD)  # drawn over a logarithmic axis, as densities of the log2
LN2 = float(np.log(2.0))


def priors_data(
    data: AnnData | MuData,
    features: str | Sequence[str] | None = None,
    *,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Prior and posterior densities of the EC50, the steepness and the sd of guide effects.

    Priors are those of `docs/model.md`: of the EC50 and the steepness before the condition that the response can reach
    the observed dosages, of the sd of guide effects as learned over features. Posteriors are kernel densities of the
    stored draws of `get.posterior`; of the sd of guide effects only the estimate is stored, which has no density.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    features
        Names of features with a single Hill, at most seven; the four surest by default.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are asked for and called, as in `get.trans`.

    Returns
    -------
    Tidy frame: parameter ("log2_ec50", "hill_n" without its sign, "guide_sd"), feature ("prior", or a name), x,
    density (per log2 of `x` for "hill_n" and "guide_sd"; NaN for an estimate). A feature without an EC50 has no rows
    of it.

    Raises
    ------
    KeyError, ValueError
        If the fit or a name is not there, or there are too many.

    Examples
    --------
    >>> ds.pl.priors_data(adata).columns.tolist()
    ['parameter', 'feature', 'x', 'density']
    """
    from dream_sc._core.response import posterior_record as core

    fit = trans_fit(data, key, mod, gene_symbols)
    frame = _chosen(fit, features)
    zero = fit.info["axis"].get(ZERO, 0.0)
    found: dict[str, dict[str, np.ndarray]] = {EC50: {}, N: {}}
    for name, r in frame["row"].items():
        curve, _, draws = core.unpack(fit.records[int(r)])
        if {EC50, "log_n"} <= set(curve.params):
            found[EC50][str(name)] = draws[:, curve.params.index(EC50)] + zero
            found[N][str(name)] = draws[:, curve.params.index("log_n")] / LN2
    prior = _prior(fit)
    parts = []
    for parameter, (mean, sd) in prior.items():
        x = np.linspace(mean - 3 * sd, mean + 3 * sd, N_GRID)
        density = np.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
        parts.append(_part(parameter, "prior", x, density))
        for name, draws in found.get(parameter, {}).items():
            grid, values = _density(draws)
            parts.append(_part(parameter, name, grid, values))
    for name, value, r in zip(frame.index, frame[GUIDE_SD], frame["row"], strict=True):
        if value > 0:
            in_sds = float(value) / fit.unit(int(r))[1]  # 1 but for scores
            parts.append(_part(GUIDE_SD, str(name), np.log2([in_sds]), np.array([np.nan])))
    return pd.concat(parts, ignore_index=True)


def _part(parameter: str, name: str, x: np.ndarray, density: np.ndarray) -> pd.DataFrame:
    value = np.exp2(x) if parameter in LOG else x
    return pd.DataFrame({"parameter": parameter, "feature": name, "x": value, "density": density})


def _chosen(fit: TransFit, features: Any) -> pd.DataFrame:
    """Features to show, in the order asked for."""
    frame = _effects.table_of(fit, features)
    frame = frame[np.isfinite(fit.records[frame["row"].to_numpy(int), 0])]
    if features is None:
        from dream_sc._core.curves import CURVES

        one_step = [curve.name for curve in CURVES if curve.one_step]
        chosen = frame[frame["model"].isin(one_step) & frame[EC50].notna()][:4]
    else:
        labels = [str(fit.feature_labels[fit.find(name)[0]]) for name in names_of(features)]
        chosen = frame.loc[[name for name in dict.fromkeys(labels) if name in frame.index]]
    if len(chosen) > MOST:
        raise ValueError(f"{len(chosen)} features have no colour each: name up to {MOST}")
    return chosen


def _prior(fit: TransFit) -> dict[str, tuple[float, float]]:
    """Mean and sd of the priors: of the EC50, of log2 of the steepness, and of log2 of the sd of guide effects."""
    from dream_sc._core.priors import TransPriors

    priors: Any = TransPriors()
    axis, guides = fit.info["axis"], fit.info["guides"]
    if ZERO in axis:
        doses = guides["log2_dosage"].to_numpy(float)
        own: Any = SimpleNamespace(
            from_zero=True, bottom=axis["low"], high=axis["high"], guides=doses[np.isfinite(doses)]
        )
        priors = priors.over(own, scores=fit.likelihood.statistics == "scores")
    hyper = fit.info["hyper"]
    return {
        EC50: (priors.ec50_mean, priors.ec50_sd),
        N: (priors.n_log_mean / LN2, priors.n_log_sd / LN2),
        GUIDE_SD: (
            (float(hyper["tau_log_mean"]) - np.log(fit.likelihood.effect_unit)) / LN2,
            float(hyper["tau_log_sd"]) / LN2,
        ),
    }


def _density(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normal kernel density of draws."""
    spread = min(draws.std(), np.subtract(*np.quantile(draws, [0.75, 0.25])) / 1.35)
    width = max(0.9 * float(spread) * len(draws) ** -0.2, 1e-3)
    x = np.linspace(draws.min() - 3 * width, draws.max() + 3 * width, N_GRID)
    z = (x[:, None] - draws) / width
    return x, np.exp(-0.5 * z**2).mean(axis=1) / (width * np.sqrt(2 * np.pi))


def priors(
    data: AnnData | MuData,
    features: str | Sequence[str] | None = None,
    *,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    ncols: int | None = None,
) -> Axes | NDArray[np.object_]:
    """Plot what was assumed of EC50, steepness and guide effects (gray), and what is known of some features.

    Each density has its peak at the same height. A posterior as wide as the prior says that the data know nothing of
    the parameter. Of the sd of guide effects only estimates are stored, which are lines.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    features
        Names of features, at most seven; the four surest with a single Hill by default.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are asked for and called, as in `get.trans`.
    ax
        Axes for the EC50 alone.
    figsize
        Width and height of a new figure, in inches.
    title
        Title of the figure, or of `ax`.
    ncols
        Panels in a row, 3 by default.

    Returns
    -------
    The Axes if `ax` was given, else an array of three.

    Raises
    ------
    KeyError, ValueError
        If the fit or a name is not there, or there are too many.

    Examples
    --------
    >>> axes = ds.pl.priors(adata)
    """
    table = priors_data(data, features, key=key, mod=mod, gene_symbols=gene_symbols)
    fit = trans_fit(data, key, mod, gene_symbols)
    if ax is None:
        drawn = panels(3, (3.2, 2.6), ncols=ncols or 3, figsize=figsize, title=title)
    else:
        one_panel(ncols)
        drawn = [axes(ax, figsize=figsize, title=title)]
    names = [name for name in dict.fromkeys(table["feature"]) if name != "prior"]
    colors = dict(zip(names, CATEGORIES, strict=False)) | {"prior": GRAY}
    for panel, (parameter, part) in zip(drawn, table.groupby("parameter", sort=False), strict=False):
        for name, own in part.groupby("feature", sort=False):
            color, label = colors[str(name)], plain(name)
            if own["density"].isna().any():
                panel.axvline(own["x"].iloc[0], color=color, lw=1.4, label=label)
                continue
            height = own["density"] / own["density"].max()
            panel.plot(own["x"], height, color=color, lw=1.4, label=label)
            if name == "prior":
                panel.fill_between(own["x"], height, color=color, alpha=0.25, lw=0)
        if parameter in LOG:
            panel.set_xscale("log", base=4)
            panel.xaxis.set_major_formatter("{x:.2g}")
        panel.set_ylim(0, 1.08)
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
    gene = cis_label(data, fit.adata, fit.info, gene_symbols)
    of_dosage = f"EC50: {dosage_label(gene, doses=ZERO in fit.info['axis'])}"
    labels = (of_dosage, "steepness $|n|$", f"sd of guide effects ({UNITS[fit.likelihood.effect]})")
    for panel, label in zip(drawn, labels, strict=False):
        panel.set_xlabel(label, fontsize=LABEL)
    drawn[0].set_ylabel("density, peaks at one height", fontsize=LABEL)
    drawn[-1].legend(frameon=False, fontsize=SMALL, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return np.array(drawn) if ax is None else ax
