"""What the technical step needs of counts out of totals: sums and tail numbers of each technical group."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._core.types import ShareStats

from .guide_sums import tail_edges

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


def share_stats(
    blocks: Iterable[tuple[slice, Any, Any]], row: Ints, n_rows: int, n_sticks: int, largest: float
) -> ShareStats:
    """Sum blocks of sparse ``(N, sticks)`` matrices of y and n over the cells of each row (-1: none).

    `largest` is the largest denominator. Each stick is taken as the first of its feature (`left` 1).
    """
    edges = tail_edges(max(largest, 2.0))[1:]
    at = (edges[:-1] + edges[1:] - 1) / 2
    shape = n_sticks, n_rows, len(at)
    tail_y, tail_r, tail_n = np.zeros(shape), np.zeros(shape), np.zeros((n_sticks, len(at)))
    total_y, total_r = np.zeros(shape[:2]), np.zeros(shape[:2])
    for part, y, n in blocks:
        rest = (n - y).tocsc()
        for x, total, tail in ((y, total_y, tail_y), (rest, total_r, tail_r)):
            total[part], tail[part] = _tails(x, row, n_rows, edges)
        tail_n[part] = _tails(n, row, n_rows, edges)[1].sum(1)
    return ShareStats(total_y, total_r, tail_y, tail_r, tail_n, at, np.ones(n_sticks))


def _tails(x: Any, row: Ints, n_rows: int, edges: Floats) -> tuple[Floats, Floats]:
    """Sums ``(S, R)`` of a csc matrix ``(N, S)``, and the numbers of cells above each count, summed over bins."""
    shape = x.shape[1], n_rows
    stick = np.repeat(np.arange(x.shape[1]), np.diff(x.indptr))
    mine = row[x.indices]
    used = mine >= 0
    place, values = (stick * n_rows + mine)[used], x.data[used]
    total = np.bincount(place, values, shape[0] * shape[1]).reshape(shape)
    tails = np.zeros((*shape, len(edges) - 1))
    for j, (low, high) in enumerate(pairwise(edges)):
        above = values > low
        if not above.any():
            break
        place, values = place[above], values[above]
        excess = np.minimum(values, high) - low
        tails[:, :, j] = np.bincount(place, excess, shape[0] * shape[1]).reshape(shape)
    return total, tails
