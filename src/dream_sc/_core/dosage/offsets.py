"""What size factors do to all features of a guide alike, so that the dosage can be freed of it.

If many features rise or fall with the dosage, so do totals and size factors made from them, and the cis gene seems to
be at another dosage. The median over features that agree between guides tells by how much.
"""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.curves import LN2
from dream_sc._core.response.guide_offsets import MIN_EXPECTED, SHIFT_SD, guide_offsets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_FEATURES = 40  # with counts enough in a guide; half of them are kept


def offsets(counts: Floats, expected: Floats, overdispersion: Floats, scale2: Floats) -> tuple[Floats, Floats]:
    """Offset of each targeting guide against the controls, log2, and its variance.

    A guide with too few counts has the mean of all, 0, and their variance.

    Parameters
    ----------
    counts, expected
        ``(T, G + 1)`` observed, and expected at NTC dosage; controls are last.
    overdispersion
        ``(T,)`` of single cells.
    scale2
        ``(G + 1,)`` sum of squared size factors over the squared sum.
    """
    told = (expected >= MIN_EXPECTED).sum(0) >= LEAST_FEATURES
    n = counts.shape[1] - 1
    if not (told[-1] and told[:-1].any()):
        return np.zeros(n), np.zeros(n)
    y, m, scale2 = counts[:, told], expected[:, told], scale2[told]
    found, used = guide_offsets(y, m, overdispersion, scale2, np.arange(told.sum()), int(told.sum()))
    enough = m.min(1) >= MIN_EXPECTED
    noise = 1 / np.maximum(y, m)[enough] + overdispersion[enough, None] ** 2 * scale2 + SHIFT_SD**2
    error2 = pi / 2 / (used * (1 / noise).mean(0))  # of a median
    value, var = (found[:-1] - found[-1]) / LN2, error2[:-1] / LN2**2
    between = max(float((value**2 - var).mean()), 0.0)
    offset, left = np.zeros(n), np.full(n, between)
    shrink = between / (between + var)
    offset[told[:-1]], left[told[:-1]] = shrink * value, shrink * var
    return offset, left
