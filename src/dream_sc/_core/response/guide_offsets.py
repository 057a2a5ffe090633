"""Per-guide offsets: what composition or depth does to all features of a guide alike.

If many features rise with the dosage, a guide's total count rises too, its size factors with it, and every feature
that does not respond seems to fall. The median over stable features of the log of observed over expected
counts shows by how much, and the exposure of the guide is scaled by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

MIN_FEATURES = 20
MIN_EXPECTED = 5.0
SHIFT_SD = 0.1  # natural log, of a feature in a guide beside the noise of counts
KEPT = 0.5  # of the features: the half that differs least between guides
N_ITER = 5


def weighted_median(values: Floats, weights: Floats) -> Floats:
    """Median of each column, ``(T, G) -> (G,)``."""
    order = np.argsort(values, axis=0)
    ordered = np.take_along_axis(weights, order, 0)
    position = ordered.cumsum(0) - 0.5 * ordered
    half = 0.5 * ordered.sum(0)
    sorted_values = np.take_along_axis(values, order, 0)
    return np.array([np.interp(half[g], position[:, g], sorted_values[:, g]) for g in range(values.shape[1])])


def guide_offsets(
    counts: Floats, expected: Floats, overdispersion: Floats, scale2: Floats, guide: Ints, n_guides: int
) -> tuple[Floats, int]:
    """Offset of each guide (natural log; 0 of one without rows) and the number of features that it rests on.

    Parameters
    ----------
    counts, expected
        ``(T, R)`` observed, and expected at NTC dosage, per row.
    overdispersion
        ``(T,)`` of single cells.
    scale2
        ``(R,)`` W2 / W^2 of the rows.
    guide, n_guides
        ``(R,)``, and G: some may have no row.
    """
    present, of_row = np.unique(guide, return_inverse=True)
    if len(present) < n_guides:
        found, n = guide_offsets(counts, expected, overdispersion, scale2, of_row, len(present))
        offset = np.zeros(n_guides)
        offset[present] = found
        return offset, n
    design = np.zeros((len(guide), n_guides))
    design[np.arange(len(guide)), guide] = 1.0
    total, mean = counts @ design, expected @ design
    # overdispersion of a sum of rows: their variances add
    extra = overdispersion[:, None] ** 2 * ((expected**2 * scale2) @ design) / np.maximum(mean, 1e-150) ** 2
    enough = mean.min(1) >= MIN_EXPECTED
    if enough.sum() < MIN_FEATURES:
        return np.zeros(n_guides), 0
    total, mean, extra = total[enough], mean[enough], extra[enough]
    ratio = np.log((total + 0.5) / (mean + 0.5))
    weight = 1.0 / (1.0 / np.maximum(mean, total) + extra + SHIFT_SD**2)
    kept = np.ones(len(ratio), dtype=bool)
    offset = np.zeros(n_guides)
    for _ in range(N_ITER):
        offset = weighted_median(ratio[kept], weight[kept])
        rest = ratio - offset
        centre = (weight * rest).sum(1, keepdims=True) / weight.sum(1, keepdims=True)
        differs = (weight * (rest - centre) ** 2).sum(1)
        kept = differs <= max(np.quantile(differs, KEPT), np.sort(differs)[min(MIN_FEATURES, len(differs)) - 1])
    return offset, int(kept.sum())
