"""Colours (safe for colour-blind readers), axes and text that the plots share."""

from __future__ import annotations

from typing import Any

BLUE, ORANGE, GRAY, GREEN, INK = "#0072B2", "#D55E00", "#8A8A8A", "#009E73", "#222222"
# of categories, neighbours far apart for every reader; and of those without a colour
CATEGORIES = ("#0072B2", "#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#F0E442", "#D55E00")
REST = "#C8C8C8"
TITLE, LABEL, TICK, SMALL = 10, 9, 8, 7.5  # font sizes in points


def axes(ax: Any, size: tuple[float, float] = (4.2, 3.2)) -> Any:
    """The axes given, or new ones."""
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=size, layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=TICK)
    ax.xaxis.label.set_size(LABEL)
    ax.yaxis.label.set_size(LABEL)
    return ax


def dosage_label(gene: str, *, doses: bool = False) -> str:
    """Label of an axis of dosage; `gene` is "" where known dosages are of none."""
    of = f" of {gene}" if gene else ""
    return rf"$\log_2$ dose{of}" if doses else rf"$\log_2$ dosage{of} relative to NTC"


def at_zero(ax: Any, lowest: float) -> float:
    """Where dose 0 is drawn on a log axis: one log2 below the lowest dose, with a tick that says so."""
    ax.set_xticks([lowest - 1.0], ["0"], minor=True)
    return lowest - 1.0


def number(value: float) -> str:
    """A number as text: 417, 0.34, or a power of ten below a thousandth."""
    if value >= 10:
        return f"{value:.0f}"
    if value >= 1e-3 or value == 0:
        return f"{value:.2g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return rf"${mantissa}\times10^{{{int(exponent)}}}$"
