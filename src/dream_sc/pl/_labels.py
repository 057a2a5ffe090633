"""Labels of points that do not overlap: the first ones win, and those without room are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._style import SMALL, ink, plain

if TYPE_CHECKING:
    from collections.abc import Iterable

# places of a label around its point: shift in points, alignment; near ones first, then with a line to the point
PLACES = tuple(
    (
        dx * r,
        dy * r,
        {1: "left", 0: "center", -1: "right"}[np.sign(dx)],
        {1: "bottom", 0: "center", -1: "top"}[np.sign(dy)],
    )
    for r in (1.0, 3.0, 5.5)
    for dx, dy in ((3, 3), (-3, 3), (3, -3), (-3, -3), (5, 0), (-5, 0), (0, 5), (0, -5))
)
NEAR = 8  # places without a line
FURTHEST = 5.5 * 5  # points
MARGIN = np.array([-1.5, -0.5, 1.5, 0.5])  # around a label, in points
POINT = 3.0  # half of the width of a labelled point, in points


def label_points(
    ax: Any, x: Iterable[float], y: Iterable[float], names: Iterable[object], avoid: np.ndarray | None = None
) -> list[Any]:
    """Write names beside points, best first, where there is room; gives the labels that were drawn.

    Limits and scales of the axes have to be final. A label stays within the axes, off the other labels, and off the
    points that have one and those of `avoid`, ``(N, 2)``. The layout of the figure is worked out first.
    """
    at = np.column_stack([np.asarray(list(x), float), np.asarray(list(y), float)])
    words = [plain(name) for name in names]
    if not words:
        return []
    ax.figure.draw_without_rendering()
    scale = ax.figure.dpi / 72
    pixel = ax.transData.transform(at)
    half = POINT * scale
    every = pixel if avoid is None else np.vstack([pixel, ax.transData.transform(np.asarray(avoid, float))])
    taken = np.column_stack([every - half, every + half])
    inside, drawn = ax.get_window_extent().extents, []
    measured = ax.text(0, 0, "", fontsize=SMALL)
    for i, word in enumerate(words):
        if not np.isfinite(pixel[i]).all():
            continue
        measured.set_text(word)
        box = measured.get_window_extent()
        reach = np.array([box.width, box.height]) + (FURTHEST + POINT) * scale
        near = (taken[:, :2] < pixel[i] + reach).all(axis=1) & (taken[:, 2:] > pixel[i] - reach).all(axis=1)
        found = _room(pixel[i], (box.width, box.height), scale, taken[near & ~_is(taken, pixel[i])], inside)
        if found is None:
            continue
        place, extent = found
        dx, dy, ha, va = PLACES[place]
        line = {"arrowstyle": "-", "lw": 0.5, "color": ink(), "alpha": 0.6, "shrinkA": 0, "shrinkB": 2}
        drawn.append(
            ax.annotate(
                word,
                at[i],
                (dx, dy),
                textcoords="offset points",
                ha=ha,
                va=va,
                fontsize=SMALL,
                zorder=5,
                arrowprops=line if place >= NEAR else None,
            )
        )
        taken = np.vstack([taken, extent])
    measured.remove()
    return drawn


def _is(taken: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Which of the extents are of the point itself."""
    return np.asarray(np.abs((taken[:, :2] + taken[:, 2:]) / 2 - point).max(axis=1) < 1e-6)


def _room(
    point: np.ndarray, size: tuple[float, float], scale: float, taken: np.ndarray, inside: np.ndarray
) -> tuple[int, np.ndarray] | None:
    """The first place of a label that covers nothing, and its extent in pixels."""
    for place, (dx, dy, ha, va) in enumerate(PLACES):
        left = point[0] + dx * scale - {"left": 0.0, "center": 0.5, "right": 1.0}[ha] * size[0]
        low = point[1] + dy * scale - {"bottom": 0.0, "center": 0.5, "top": 1.0}[va] * size[1]
        box = np.array([left, low, left + size[0], low + size[1]]) + scale * MARGIN
        if (box[:2] < inside[:2]).any() or (box[2:] > inside[2:]).any():
            continue
        if not ((taken[:, :2] < box[2:]) & (taken[:, 2:] > box[:2])).all(axis=1).any():
            return place, box
    return None
