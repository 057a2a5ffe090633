"""The report, from the rows alone: parts of docs/calibration.md in Markdown, and its pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import plots
import tables
from peers import SCREEN, SIMULATED

FOLDER = "_static/calibration"
OTHER = "gasperini"
NOTHING = "*No results yet.*\n"
FIGURES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "errors": (plots.errors, (), "False discovery proportion and power of every scenario"),
    "coverage": (plots.coverage, (), "Coverage of intervals and error of the EC50 of every scenario"),
    "designs": (plots.designs, (), "Power and false discovery proportion by the number of guides and of cells"),
    "nulls": (plots.nulls, (SCREEN,), "Share of null tests rejected on real cells, by method"),
    "quantiles": (plots.quantiles, (SCREEN,), "Quantiles of null p-values on real cells"),
    "peers": (plots.peers, (SIMULATED,), "False discovery proportion and power of other tests"),
}
# every part: pictures and tables in their order
PARTS: dict[str, list[str | tuple[Callable[..., str], tuple[Any, ...]]]] = {
    "errors": ["errors", (tables.calls, (("nuisance",),))],
    "curves": ["coverage", (tables.curves, (("nuisance",),))],
    "designs": [
        "designs",
        (tables.calls, (("guides", "cells per guide", "curves"),)),
        (tables.curves, (("guides", "cells per guide", "curves"),)),
    ],
    "dosage": [(tables.calls, (("dosage",),))],
    "few_guides": [(tables.calls, (("few guides",),)), (tables.curves, (("few guides",),))],
    "strata": [(tables.strata, ())],
    "nulls": ["nulls", (tables.nulls, (SCREEN,)), "quantiles"],
    "nulls_by_mean": [(tables.by_mean, (SCREEN,))],
    "nulls_other": [(tables.nulls, (OTHER,))],
    "controls": [(tables.positive, (SCREEN,)), (tables.controls, (SCREEN,)), (tables.refusals, (SCREEN,))],
    "controls_other": [(tables.controls, (OTHER,)), (tables.refusals, (OTHER,))],
    "peers": ["peers", (tables.peers, (SIMULATED,))],
    "times": [(tables.times, ((SCREEN, OTHER),))],
}


def draw(root: Path, docs: Path) -> dict[str, str]:
    """Draw what has rows; the Markdown of every picture. A picture without rows is removed."""
    shown = {}
    with plots.style():
        for name, (plot, args, text) in FIGURES.items():
            figure, path = plot(root, *args), docs / FOLDER / f"{name}.png"
            path.unlink(missing_ok=True)
            if figure is not None:
                plots.save(figure, path)
                shown[name] = f"![{text}]({FOLDER}/{name}.png)\n"
    return shown


def write(root: Path, docs: Path) -> None:
    """All parts."""
    pictures = draw(root, docs)
    for name, contents in PARTS.items():
        pieces = [pictures.get(x, "") if isinstance(x, str) else x[0](root, *x[1]) for x in contents]
        text = "\n".join(piece for piece in pieces if piece) or NOTHING
        (docs / FOLDER / f"{name}.inc").write_text(text, encoding="utf-8")
    print(f"{docs / FOLDER}: {len(PARTS)} parts, {len(pictures)} pictures")
