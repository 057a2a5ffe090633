"""Do guides bring the cis gene to the same dosage in every technical group? Counts of each against those of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import chi2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.types import CisCells

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LN2 = float(np.log(2.0))
ENOUGH = 5.0  # expected counts of a guide in a group
SURE, LARGE = 1e-3, 0.2  # p-value, and sd between groups (log2), beyond which dosages differ


class Differs(NamedTuple):
    """How much dosages of guides differ between groups."""

    sd: float  # log2, between groups, beyond the noise of counts; NaN where it cannot be told
    p_value: float  # of Cochran's Q over guides

    @property
    def clear(self) -> bool:
        """Whether they differ by much, and not by chance."""
        return bool(self.p_value < SURE and self.sd > LARGE)


def between_groups(cells: CisCells, group: Ints) -> Differs:
    """How the dosages of targeting guides differ between the groups ``(N,)`` of the cells.

    Cells with several guides take no part. The noise of a guide's counts is that of its own cells in the same group, so
    that overdispersion, spread within guides and escaping cells are in it.
    """
    n_guides, n_groups = len(cells.is_control), int(group.max()) + 1
    use = cells.guide < n_guides
    y, e = cells.counts[use].astype(float), cells.exposure[use] + cells.floors[use]
    guide, of_group = cells.guide[use], group[use]
    pair = guide * n_groups + of_group

    def sums(values: Floats) -> Floats:
        out = np.bincount(pair, values, n_guides * n_groups).reshape(n_guides, n_groups)
        return np.asarray(out, dtype=np.float64)

    total, expected, n = sums(y), sums(e), sums(np.ones(len(y)))
    of_control = total[cells.is_control].sum(0)
    known = of_control > 0
    level = np.where(known, of_control / np.maximum(expected[cells.is_control].sum(0), 1e-300), 1.0)
    mean = e * (total / np.maximum(expected, 1e-300)).ravel()[pair]
    # variance of a sum over its mean, by the squares of its cells
    squares = (sums((y - mean) ** 2) * n / np.maximum(n - 1.0, 1.0)).sum(1)
    noise = np.maximum(squares / np.maximum(total.sum(1), 1e-300), 1.0)[:, None]
    expected = expected * level
    ratio = total.sum(1, keepdims=True) / np.maximum(expected.sum(1, keepdims=True), 1e-300)
    ok = (expected * ratio >= ENOUGH) & known & ~cells.is_control[:, None]
    ok &= ok.sum(1, keepdims=True) > 1
    if not ok.any():
        return Differs(np.nan, np.nan)
    z = np.log((total + 0.5) / (expected + 0.5))
    w = np.where(ok, 1.0 / (noise / np.maximum(expected * ratio, 1e-300) + 1.0 / np.maximum(of_control, 1.0)), 0.0)
    whole = np.maximum(w.sum(1, keepdims=True), 1e-300)
    q = float((w * (z - (w * z).sum(1, keepdims=True) / whole) ** 2).sum())
    df = int(ok.sum() - ok.any(1).sum())
    per_variance = float((w - w**2 / whole).sum())
    return Differs(float(np.sqrt(max(q - df, 0.0) / per_variance) / LN2), float(chi2.sf(q, df)))
