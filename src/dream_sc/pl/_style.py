"""Colours (safe for colour-blind readers) and axes that the plots share."""

from __future__ import annotations

from typing import Any

BLUE, ORANGE, GRAY, GREEN, INK = "#0072B2", "#D55E00", "#8A8A8A", "#009E73", "#222222"


def axes(ax: Any, size: tuple[float, float] = (4.2, 3.2)) -> Any:
    """The axes given, or new ones."""
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=size, layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax
