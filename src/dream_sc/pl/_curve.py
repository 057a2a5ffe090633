"""A curve with its band, the guides around it and the marks of its EC50."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc._keys import TITRATION, ZERO
from dream_sc.get._curves import acting_level, curves, inert_guides, values_of_many

from ._style import GRAY, GREEN, MANY, ORANGE, blue, ink, paper

if TYPE_CHECKING:
    from collections.abc import Callable

    from dream_sc.get._names import TransFit

TARGETING, CONTROLS, LEVEL, TRUTH = "targeting guides", "NTC guides", "NTC level", "truth"
ALL_CELLS = "with escaping cells"
FIT, EC50 = "fit, 95 % band", "EC50, 95 % interval"
MOST_CONTROLS = 12  # drawn with an interval each
BESIDE = 0.4  # half the width of a group of guides without dosages


def draw(fit: TransFit, r: int, points: pd.DataFrame, row: pd.Series, scale: str, ax: Any) -> None:
    """Curve of a row of the fit with its band, and guides."""
    curve, name, level = curves(fit, [r], scale=scale), str(fit.names[r]), float(row["baseline"])
    x = curve["log2_dosage"].to_numpy()
    shown = on_scale(points, level, scale, float(curve["lower"].min()))
    ax.axhline(shown(level), color=GRAY, lw=1, ls=":", zorder=0, label=LEVEL)
    ax.fill_between(x, curve["lower"], curve["upper"], color=ink(), alpha=0.15, lw=0, label=FIT)
    ax.plot(x, curve["median"], color=ink(), lw=1.6, label=FIT)
    var = fit.adata.var
    if TITRATION in fit.adata.uns and "true_model" in var and pd.notna(var.loc[name, "true_model"]):
        from dream_sc.datasets import true_curve

        truth = true_curve(fit.adata, name, np.append(x, 0.0))[0]
        level_there = level if scale == "expected" else truth[-1]
        ax.plot(x, shown(truth[:-1] * level / level_there), color=GREEN, lw=1.4, ls="--", zorder=2.5, label=TRUTH)
    guides(fit, points, shown, scale, ax)


def on_scale(points: pd.DataFrame, level: float, scale: str, lowest: float) -> Callable[[Any], Any]:
    """What takes observed values to the scale, on which the fit goes down to `lowest`."""
    if scale == "expected":
        return lambda values: values
    if scale == "delta":
        return lambda values: values - level
    # no count at all is below the least of the rest
    seen = points[["mean", "mean_acting"]].to_numpy(float)
    floor = min(np.log2(seen[seen > 0] / level).min(initial=0.0), lowest) - 0.5
    return lambda values: np.maximum(np.log2(np.maximum(values, np.finfo(float).tiny) / level), floor)


def levels(fit: TransFit, r: int, points: pd.DataFrame, row: pd.Series, scale: str, ax: Any) -> None:
    """A row of a fit without dosages: NTC guides beside acting ones, and the level that these share with its band."""
    draws, level = acting_level(fit, r), float(row["baseline"])
    low = float(np.quantile(draws, 0.025))
    lowest = float(np.log2(low / level)) if scale == "log2fc" and low > 0 else 0.0
    shown = on_scale(points, level, scale, lowest)
    low, median, high = shown(np.quantile(draws, [0.025, 0.5, 0.975]))
    ax.axhline(shown(level), color=GRAY, lw=1, ls=":", zorder=0, label=LEVEL)
    ax.fill_between([1 - BESIDE, 1 + BESIDE], low, high, color=ink(), alpha=0.15, lw=0, label=FIT)
    ax.plot([1 - BESIDE, 1 + BESIDE], [median] * 2, color=ink(), lw=1.6, label=FIT)
    guides(fit, beside(fit, points, ax), shown, scale, ax)


def beside(fit: TransFit, points: pd.DataFrame, ax: Any) -> pd.DataFrame:
    """Guides of a fit without dosages at places instead: NTC guides around 0, acting ones around 1, inert ones at 2."""
    control, inert = points["is_control"].astype(bool), points["guide"].isin(inert_guides(fit))
    groups = {"NTC guides": control, "acting guides": ~control & ~inert, "inert guides": ~control & inert}
    names_of_places = [*groups][: 3 if inert.any() else 2]
    at = pd.Series(0.0, points.index)
    for place, group in enumerate(names_of_places):
        some = points[groups[group]]
        names = some["guide"].unique()  # a guide has a row in each category
        where = place + np.linspace(-0.7 * BESIDE, 0.7 * BESIDE, len(names))
        at[some.index] = some["guide"].map(dict(zip(names, where, strict=True))).to_numpy(float)
    ax.set_xticks(range(len(names_of_places)), names_of_places)
    return points.assign(log2_dosage=at, log2_dosage_acting=at, sd=0.0)


def guides(fit: TransFit, points: pd.DataFrame, shown: Any, scale: str, ax: Any) -> None:
    """Guides with their intervals, and limits of the axis; `shown` takes observed values to the scale."""
    points = points[points["mean"].notna()]
    control = points["is_control"].to_numpy(bool)
    _guides(ax, points[~control], shown, blue(), TARGETING)
    if control.sum() <= MOST_CONTROLS:
        _guides(ax, points[control], shown, GRAY, CONTROLS)
    else:
        _many_controls(ax, points[control], shown)
    if fit.likelihood.statistics == "scores" or scale != "expected":
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.1 * (high - low), high)  # room for the marks of the EC50
    elif fit.likelihood.statistics == "counts":
        ax.set_ylim(bottom=0)
    else:
        ax.set_ylim(-0.03, 1.03)


def _guides(ax: Any, p: pd.DataFrame, shown: Any, color: str, label: str) -> None:
    """Guides with their intervals: acting cells, and open the mean of all cells where some escape."""
    mean, lower, upper = (shown(p[f"{name}_acting"].to_numpy(float)) for name in ("mean", "lower", "upper"))
    ax.errorbar(
        p["log2_dosage_acting"],
        mean,
        xerr=1.96 * p["sd"],
        yerr=(mean - lower, upper - mean),
        fmt="o",
        ms=4.5,
        color=color,
        elinewidth=0.8,
        mec=paper(ax),
        mew=0.5,
        label=label,
        zorder=3,
    )
    escaping = (p["escaper_fraction"] > 0).to_numpy()
    if not escaping.any():
        return
    every = p[escaping]
    of_all = shown(every["mean"].to_numpy(float))
    lines = np.stack([every["log2_dosage"], every["log2_dosage_acting"]]), np.stack([of_all, mean[escaping]])
    ax.plot(*lines, color=color, lw=0.7, ls=":", zorder=2)
    ax.plot(every["log2_dosage"], of_all, "o", ms=4, mfc="none", mec=color, mew=0.8, zorder=2, label=ALL_CELLS)


def _many_controls(ax: Any, p: pd.DataFrame, shown: Any) -> None:
    """Many NTC guides: dots, their mean, and bars over 95 % of them."""
    x, y = p["log2_dosage"].to_numpy(float), shown(p["mean"].to_numpy(float))
    ax.plot(x, y, "o", ms=2.5, mew=0, alpha=0.45, color=GRAY, zorder=2, rasterized=len(p) >= MANY)
    centre = np.average(x, weights=p["n_cells"]), np.average(y, weights=p["n_cells"])
    bars = [np.abs(np.quantile(v, [0.025, 0.975]) - c)[:, None] for v, c in zip((x, y), centre, strict=True)]
    ax.errorbar(
        [centre[0]],
        [centre[1]],
        xerr=bars[0],
        yerr=bars[1],
        fmt="o",
        ms=5.5,
        color=GRAY,
        elinewidth=1.2,
        mec=paper(ax),
        mew=0.6,
        zorder=3.5,
        label=CONTROLS,
    )


def ec50(ax: Any, row: pd.Series, suffix: str, height: float, span: tuple[float, float], *, on_areas: bool) -> None:
    """Mark the EC50 of a Hill and its interval just above the axis of dosage, as far as `span` goes."""
    middle, *ends = (row.get(f"log2_ec50{suffix}{q}", np.nan) for q in ("", "_q025", "_q975"))
    if not np.isfinite([middle, *ends]).all() or ends[0] > span[1] or ends[1] < span[0]:
        return
    style: dict[str, Any] = {"color": ORANGE, "transform": ax.get_xaxis_transform(), "zorder": 4}
    if on_areas:
        ax.plot(np.clip(ends, *span), [height] * 2, lw=9, solid_capstyle="projecting", **style | {"color": paper(ax)})
    ax.plot(np.clip(ends, *span), [height] * 2, lw=3, alpha=0.5, solid_capstyle="butt", label=EC50, **style)
    for end, edge, marker in ((ends[0], span[0], "<"), (ends[1], span[1], ">")):
        if (end < edge) if marker == "<" else (end > edge):
            ax.plot(edge, height, marker, ms=5, mew=0, **style)
    if span[0] <= middle <= span[1]:
        ax.plot(middle, height, "|", ms=9, mew=2, label=EC50, **style)


def medians(fit: TransFit, rows: np.ndarray, doses: np.ndarray, *, log2fc: bool) -> np.ndarray:
    """Posterior medians ``(R, X)`` of many curves at once: log2 of the ratio to NTC, or the difference.

    NaN for rows without a posterior. Of many rows every other draw is used: these are ordered, so that they cover the
    posterior just as well.

    Raises
    ------
    ValueError
        If the fit is without dosages.
    """
    if not np.isfinite(fit.info["axis"]["low"]):
        raise ValueError(f".uns[{fit.key!r}] is a fit without dosages, so that there are no curves to draw")
    zero = fit.info["axis"].get(ZERO)
    x = np.asarray(doses, float) if zero is None else np.maximum(np.asarray(doses, float) - zero, 0.0)
    out = np.full((len(rows), len(x)), np.nan)
    scale, every = "log2fc" if log2fc else "delta", 1 if len(rows) < MANY else 2
    for some, moved in values_of_many(fit, rows, x, scale, every=every):
        out[some] = _median(np.asarray(moved, np.float32))
    return out


def _median(values: np.ndarray) -> np.ndarray:
    """Medians ``(R, X)`` of ``(R, S, X)``; four times as fast as that of numpy, whose axes are not in this order."""
    last = np.ascontiguousarray(np.swapaxes(values, 1, 2))
    n = last.shape[2]
    middle = [(n - 1) // 2, n // 2]
    return np.asarray(np.partition(last, middle, axis=2)[..., middle].mean(axis=2))
