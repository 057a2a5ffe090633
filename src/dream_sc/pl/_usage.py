"""Usage of the categories of a feature: areas over the dosage, with what guides were observed to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc.get._curves import acting_level, curves, inert_guides

from ._style import CATEGORIES, GRAY, REST, SMALL, ink, paper, plain

if TYPE_CHECKING:
    from dream_sc.get._names import TransFit

MOST = len(CATEGORIES) + 1  # categories with an area of their own, or one less and the rest


def areas(fit: TransFit, name: str) -> pd.DataFrame:
    """Median usage, dosages x categories, which add up to 1: the one that moves most first, then by usage."""
    curve = curves(fit, fit.fitted(name))
    return _in_order(fit, name, curve.pivot(index="log2_dosage", columns="category", values="median"))


def levels(fit: TransFit, name: str) -> pd.DataFrame:
    """The same of a fit without dosages: places x categories, NTC guides around 0, acting ones around 1, inert at 2."""
    rows = fit.fitted(name)
    ntc = [float(fit.row(r)["baseline"]) for r in rows]
    acting = [float(np.median(acting_level(fit, r))) for r in rows]
    names = [fit.labels(r)["category"] for r in rows]
    levels, at = [ntc, ntc, acting, acting], [-0.5, 0.5, 0.5, 1.5]
    if inert_guides(fit):
        levels, at = [*levels, ntc, ntc], [*at, 1.5, 2.5]
    return _in_order(fit, name, pd.DataFrame(levels, at, names))


def _in_order(fit: TransFit, name: str, usage: pd.DataFrame) -> pd.DataFrame:
    """Usage that adds up to 1, the category that moves most first, then by usage; of many the rest as one."""
    usage = usage.div(usage.sum(axis=1), axis=0)
    leading = str(fit.row(fit.find(name)[0])["category"])
    order = usage.max().sort_values(ascending=False, kind="stable").index
    order = sorted(order, key=lambda category: category != leading)
    if len(order) <= MOST:
        return usage[order]
    shown = order[: MOST - 1]
    return usage[shown].assign(**{f"other ({len(order) - len(shown)})": usage[order[MOST - 1 :]].sum(axis=1)})


def draw(
    ax: Any,
    usage: pd.DataFrame,
    points: pd.DataFrame,
    baseline: pd.Series,
    labels: tuple[str, str, str],
    *,
    zero: bool = False,
) -> list[Any]:
    """Draw areas, NTC levels of their borders, and what guides show at them; gives the handles of the categories.

    `labels` are those of targeting guides, NTC guides and NTC levels. With `zero` controls are left of the areas.
    """
    x, names = usage.index.to_numpy(), list(usage.columns)
    handles = ax.stackplot(
        x,
        usage.to_numpy().T,
        colors=[*CATEGORIES[: len(names)], REST][: len(names)],
        labels=[plain(name) for name in names],
        alpha=0.75,
        edgecolor=paper(ax),
        linewidth=0.8,
    )
    borders = names[:-1]
    for level in baseline.reindex(borders).cumsum():
        ax.axhline(level, color=ink(), lw=0.8, ls=":", label=labels[2])
    for _, p in borders_of(points, borders).groupby("border", sort=False):
        control = p["is_control"].to_numpy(bool)
        for mask, color, label in ((control, GRAY, labels[1]), (~control, paper(ax), labels[0])):
            guides = p[mask]
            ax.errorbar(
                guides["log2_dosage"],
                guides["mean"],
                fmt="o",
                ms=4.2,
                color=color,
                mec=ink(),
                mew=0.7,
                yerr=(guides["mean"] - guides["lower"], guides["upper"] - guides["mean"]),
                ecolor=(ink(), 0.6),
                elinewidth=0.7,
                zorder=3,
                label=label,
            )
    low = x.min() if not zero else min(x.min(), points["log2_dosage"].min())
    margin = 0.025 * (x.max() - low)
    ax.set_xlim(low - margin, x.max() + margin)
    ax.set_ylim(0, 1.02)
    return list(handles)[::-1]


def borders_of(points: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Observed usage of the first of some categories, the first two, and so on, with 95 % intervals."""
    from dream_sc._core.response.observed import wilson

    parts, total = [], 0.0
    for name in names:
        part = points[points["category"] == name].reset_index(drop=True)
        total = (total + part["mean"]).clip(upper=1.0)
        low, high = wilson(total.to_numpy(), part["n_effective"].to_numpy())
        parts.append(part.assign(border=name, mean=total, lower=low, upper=high))
    every = pd.concat(parts) if parts else points.assign(border="")[:0]
    return every[every["mean"].notna()]


def legend(ax: Any, handles: list[Any], marks: tuple[list[Any], list[str]]) -> Any:
    """Legend right of the axes: categories from top to bottom, then the marks."""
    return ax.legend(
        [*handles, *marks[0]],
        [*(h.get_label() for h in handles), *marks[1]],
        frameon=False,
        fontsize=SMALL,
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        borderaxespad=0.0,
    )
