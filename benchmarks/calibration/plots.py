"""Pictures of the report. Each returns the figure, or None where there are no rows for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import summary
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from real import clustered
from summary import COVERAGE_BAR, FDP_BAR, INTERVALS, SINGLE_BAR, TWO_BAR, Rate
from tables import METHODS

BLUE, ORANGE, GREEN, PURPLE, GRAY, INK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A8A8A", "#222222"
POWER = {
    "single": ("one Hill, movers", BLUE, "o"),
    "two": ("two Hills, movers", ORANGE, "s"),
    "responders": ("all responders", GRAY, "D"),
}
LOOK = {"dream_sc": (BLUE, "o"), "nb_glm": (ORANGE, "s"), "sceptre": (GREEN, "^"), "sceptre_guides": (PURPLE, "D")}
LABELS = {"dream_sc": "dream_sc"} | METHODS
WIDTH, ROW = 7.4, 0.28  # inches
LABEL = 34  # letters in a line
MOST = 8  # -log10 p that is shown
STYLE = {
    "font.size": 8,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}


def dots(ax: Any, at: Iterable[float], rates: list[Rate], color: str, marker: str, label: str, **more: Any) -> None:
    """Values and twice their standard errors along x, a row each."""
    known = [(y, r) for y, r in zip(at, rates, strict=True) if r.known]
    if known:
        y, x = [y for y, _ in known], [r.value for _, r in known]
        error = [2 * np.nan_to_num(r.se) for _, r in known]
        look = {"ms": 4.5, "mec": "white", "mew": 0.5, "elinewidth": 1.1} | more
        ax.errorbar(x, y, xerr=error, fmt=marker, color=color, label=label, **look)


def named_rows(axes: Iterable[Any], names: list[str]) -> None:
    """A row per name, from above."""
    axes = list(axes)
    axes[0].set_yticks(range(len(names)), [fill(n, LABEL) for n in names], linespacing=0.9)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    for ax in axes:
        ax.grid(axis="y", color="#E6E6E6", lw=0.6)
        ax.set_axisbelow(True)
        ax.tick_params(axis="y", length=0)


def panels(n_rows: int, ratios: tuple[float, ...]) -> tuple[Figure, Any]:
    """Panels side by side that share their rows."""
    figure = Figure(figsize=(WIDTH, 1.1 + ROW * n_rows))
    return figure, figure.subplots(1, len(ratios), sharey=True, width_ratios=ratios, squeeze=False)[0]


def legend(figure: Figure, axes: Iterable[Any], columns: int) -> None:
    """What the marks of all panels are, once, below them."""
    entries: dict[str, Any] = {}
    for ax in axes:
        entries |= {label: mark for mark, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, handletextpad=0.3)


def errors(root: Path) -> Figure | None:
    """FDP and power of every nuisance."""
    found = summary.scenario_rows(root, "nuisance")
    if not found:
        return None
    figure, (left, right) = panels(len(found), (1, 1.15))
    at = np.arange(len(found), dtype=float)
    left.axvline(FDP_BAR, color=INK, lw=1, ls=":")
    dots(left, at, [summary.fdp(rows) for _, rows in found], INK, "o", "FDP")
    worst = [summary.worst(rows) for _, rows in found]
    left.plot(worst, at, "|", color=GRAY, ms=7, mew=1.4, label="worst seed")
    for i, (kind, (label, color, marker)) in enumerate(POWER.items()):
        dots(right, at + 0.2 * (i - 1), [summary.power(rows, kind) for _, rows in found], color, marker, label)
    for bar, color in ((SINGLE_BAR, BLUE), (TWO_BAR, ORANGE)):
        right.axvline(bar, color=color, lw=1, ls=":")
    named_rows((left, right), [s.text for s, _ in found])
    top = max(0.1, 1.05 * min(max(worst), 0.3))
    left.set_xlim(-0.02 * top, top)
    left.set_xlabel("false discovery proportion at q < 0.05")
    right.set_xlabel("share called at q < 0.05")
    left.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5]))
    right.set_xlim(right=1.02)
    legend(figure, (left, right), 5)
    return figure


def coverage(root: Path) -> Figure | None:
    """Coverage of intervals and error of EC50s for every nuisance."""
    found = [x for x in summary.scenario_rows(root, "nuisance") if summary.ec50_error(x[1]).known]
    if not found:
        return None
    figure, (left, right) = panels(len(found), (1.25, 1))
    at = np.arange(len(found), dtype=float)
    left.axvspan(*COVERAGE_BAR, color=GRAY, alpha=0.18, lw=0)
    left.axvline(0.95, color=INK, lw=1, ls=":")
    looks = zip(INTERVALS.items(), ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^")), strict=True)
    for i, ((name, label), (color, marker)) in enumerate(looks):
        rates = [summary.coverage(rows, name) for _, rows in found]
        dots(left, at + 0.22 * (i - 1), rates, color, marker, label.removesuffix(" at strongest knock-down"))
    dots(right, at, [summary.ec50_error(rows) for _, rows in found], INK, "o", "fitted dosages")
    known = [summary.ec50_error(rows, "oracle_") for _, rows in found]
    dots(right, at + 0.22, known, INK, "o", "true dosages", mfc="white", mec=INK, mew=1.0)
    named_rows((left, right), [s.text for s, _ in found])
    left.set_xlabel("coverage of 95 % intervals")
    right.set_xlabel("median error of the EC50, log2")
    right.set_xlim(left=0)
    left.set_xlim(right=1.005)
    legend(figure, (left, right), 5)
    return figure


def designs(root: Path) -> Figure | None:
    """Power and error of EC50s by the number of guides and of cells per guide."""
    axes_of = {
        "few guides": "number of targeting guides",
        "guides": "number of targeting guides",
        "cells per guide": "cells per guide",
    }
    found = {g: [(int(s.name.rsplit("_", 1)[1]), r) for s, r in summary.scenario_rows(root, g)] for g in axes_of}
    if not any(found.values()):
        return None
    figure = Figure(figsize=(WIDTH, 4.6))
    grid = figure.subplots(2, 3, sharey="row", width_ratios=(1, 1, 1))
    for column, (group, rows) in zip(grid.T, found.items(), strict=True):
        x = [n for n, _ in rows]
        for (kind, (label, color, marker)), aside in zip(POWER.items(), (0.97, 1.03, 1.0), strict=True):
            curve(column[0], [aside * n for n in x], [summary.power(r, kind) for _, r in rows], color, marker, label)
        curve(column[1], x, [summary.fdp(r) for _, r in rows], INK, "o", "FDP")
        column[0].set_title({"few guides": "knock-down only", "guides": "knock-down and activation"}.get(group, group))
        column[1].axhline(FDP_BAR, color=INK, lw=1, ls=":")
        column[1].set_xlabel(axes_of[group])
        for ax in column:
            ax.set_xscale("log")
            ax.set_xticks(x, [str(n) for n in x])
            ax.minorticks_off()
    grid[0, 0].set_ylim(-0.03, 1.03)
    grid[1, 0].set_ylim(bottom=0)
    grid[0, 0].set_ylabel("share called at q < 0.05")
    grid[1, 0].set_ylabel("false discovery proportion")
    legend(figure, grid[0, 1:], 3)
    return figure


def curve(ax: Any, x: list[float], rates: list[Rate], color: str, marker: str, label: str) -> None:
    """Values with twice their standard errors over x."""
    known = [(a, r.value, 2 * np.nan_to_num(r.se)) for a, r in zip(x, rates, strict=True) if r.known]
    if known:
        a, value, error = zip(*known, strict=True)
        ax.errorbar(a, value, yerr=error, fmt=f"{marker}-", color=color, label=label, ms=4.5, lw=1, mec="white")


def null_series(root: Path, screen: str) -> list[tuple[str, str, dict[str, Rate]]]:
    """Label, method and rates of every set of regroupings of NTC guides."""
    table, refits, out = summary.real_rows(root, screen, "nulls"), summary.real_rows(root, screen, "refits"), []
    for r in table[table["null"] == "ntc_guides"].itertuples() if len(table) else ():
        rates = {"p05": Rate(r.p05, r.p05_se, r.n), "p001": Rate(r.p001, r.p001_se, r.n)}
        out.append((f"dream_sc, as {r.run}", "dream_sc", rates | {"any": Rate(r.any_call, r.any_call_se, r.n)}))
    sets = [(f"dream_sc, as {run}, all steps anew", "dream_sc", x) for run, x in grouped(refits, "run")]
    sets += [(LABELS[m], m, x) for m, x in grouped(summary.peer_rows(root, f"{screen}_guides"), "peer")]
    for label, method, x in sets:
        rates = {level: Rate(*clustered(x, level), len(x)) for level in ("p05", "p001")}
        out.append((label, method, rates | {"any": summary.any_call(x)}))
    return out


def grouped(rows: pd.DataFrame, by: str) -> list[tuple[str, pd.DataFrame]]:
    return [(str(k), x) for k, x in rows.groupby(by, sort=False)] if len(rows) else []


def nulls(root: Path, screen: str) -> Figure | None:
    """Rejections where NTC guides pose, fits beside other tests."""
    series = null_series(root, screen)
    if not series:
        return None
    figure, axes = panels(len(series), (1, 1, 1))
    bars = {
        "p05": (0.05, "share of p < 0.05"),
        "p001": (0.001, "share of p < 0.001"),
        "any": (None, "regroupings with any call"),
    }
    for ax, (level, (bar, label)) in zip(axes, bars.items(), strict=True):
        for i, (_, method, rates) in enumerate(series):
            dots(ax, [i], [rates[level]], *LOOK[method], "")
        if bar is not None:
            ax.axvline(bar, color=INK, lw=1, ls=":")
        top = 1.08 * max(2 * (bar or 0.05), *(r[level].value + 2 * r[level].se for _, _, r in series))
        ax.set_xlim(-0.03 * top, top)
        ax.set_xlabel(label)
    named_rows(axes, [label for label, _, _ in series])
    return figure


def quantiles(root: Path, screen: str) -> Figure | None:
    """Null p-values against uniform ones: methods, and expression strata of `tl.calibrate`."""
    sets = {"dream_sc": summary.pvalues(summary.real_rows(root, screen, "refits"))}
    sets |= {m: summary.pvalues(x) for m, x in grouped(summary.peer_rows(root, f"{screen}_guides"), "peer")}
    strata = summary.real_rows(root, screen, "qq")
    sets = {k: v for k, v in sets.items() if len(v)}
    if not sets and not len(strata):
        return None
    figure = Figure(figsize=(WIDTH, 3.3))
    left, right = figure.subplots(1, 2)
    for method, p in sets.items():
        expected = (np.arange(len(p)) + 0.5) / len(p)
        keep = np.unique(np.geomspace(1, len(p), 120).astype(int)) - 1
        x, y = -np.log10(expected[keep]), -np.log10(np.maximum(p[keep], 1e-30))
        color, marker = LOOK[method]
        left.plot(x, np.minimum(y, MOST), marker, ms=3, mew=0, color=color, label=LABELS[method])
    if len(strata):
        run = strata["run"].iloc[0]
        part = strata[(strata["run"] == run) & (strata["null"] == "ntc_guides")]
        for (name, rows), color in zip(part.groupby("stratum", sort=False), (ORANGE, GREEN, BLUE), strict=False):
            x, y, *band = (-np.log10(rows[c]) for c in ("expected", "observed", "lower", "upper"))
            right.fill_between(x, *band, color=color, alpha=0.13, lw=0)
            low, high = rows[["mean_low", "mean_high"]].iloc[0]
            right.plot(x, y, "o-", ms=3, lw=1, mew=0, color=color, label=f"{name}: {low:.2g} to {high:.2g} counts")
        right.set_title(f"dream_sc, NTC guides as {run}, by gene mean")
    left.set_title(f"NTC guides posing, observed up to {MOST}")
    for ax in (left, right):
        top = ax.get_xlim()[1]
        ax.plot([0, top], [0, top], color=INK, lw=1, ls=":")
        ax.set_xlabel(r"expected $-\log_{10}\,p$")
        ax.set_ylabel(r"observed $-\log_{10}\,p$")
        if ax.get_legend_handles_labels()[0]:
            ax.legend(loc="upper left", handletextpad=0.2)
    return figure


def peers(root: Path, names: Iterable[str]) -> Figure | None:
    """Simulated screens: realised FDP and power of fits and other tests."""
    found = []
    for name in names:
        other, own = summary.peer_rows(root, f"simulated_{name}"), summary.store.read(root / f"simulated/{name}.csv")
        sets = dict(grouped(other, "peer"))
        if len(other) and len(own):
            sets["dream_sc"] = own[own["seed"].isin(other["seed"])]
        if sets:
            found.append((summary.GRID[name].text, sets))
    if not found:
        return None
    figure, axes = panels(2 * len(found), (1, 1, 1))
    at = np.arange(len(found), dtype=float)
    for i, (method, (color, marker)) in enumerate(LOOK.items()):
        rows = [sets.get(method, pd.DataFrame()) for _, sets in found]
        rates = [
            [f(r) if len(r) else summary.NONE for r in rows]
            for f in (summary.fdp, lambda r: summary.power(r, "responders"), lambda r: summary.power(r, "two"))
        ]
        for ax, values in zip(axes, rates, strict=True):
            dots(ax, at + 0.2 * (i - 1.5), values, color, marker, LABELS[method])
    axes[0].axvline(FDP_BAR, color=INK, lw=1, ls=":")
    named_rows(axes, [text for text, _ in found])
    labels = ("false discovery proportion", "all responders called", "movers with two Hills called")
    for ax, label in zip(axes, labels, strict=True):
        ax.set_xlim(left=-0.03 * ax.get_xlim()[1])
        ax.set_xlabel(label)
    legend(figure, axes[:1], 4)
    return figure


def save(figure: Figure, path: Path) -> None:
    """As a PNG for the width of a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def style() -> Any:
    """The look of all of them, for a `with` statement."""
    return mpl.rc_context(STYLE)
