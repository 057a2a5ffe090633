"""The slope among the cells of one guide: whether cells with more of the cis gene have more of a feature, too.

It takes no part in calls. Cells of one guide differ in dosage, but cis and trans counts of a cell also share its state,
so this slope agrees with the curve at best, and says nothing where it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.curves import LN2
from dream_sc._core.parallel import blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.covariates import CovariateEffects

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


@dataclass(frozen=True)
class WithinStats:
    """Sums over the cells of each row, weighted by a cell's log2 dosage less the mean of its row, `d`.

    Only the rows whose cells differ in dosage, `W` of all `R`, have them.
    """

    counts: Floats  # (T, W) sum of d y
    spread: Floats  # (W,) sum of s d^2
    spread2: Floats  # (W,) sum of s^2 d^2
    rows: Ints | None = None  # (W,), all by default
    by_bin: Floats | None = None  # (W, K) sum of s d in each bin of cells with alike covariates


def centred_dosage(row: Ints, dosage: Floats, size_factor: Floats, n_rows: int) -> Floats:
    """Log2 dosage of each cell less the mean of its row, weighted by size factor; 0 where a cell takes no part."""
    used = row >= 0
    weight = np.bincount(row[used], size_factor[used], n_rows)
    mean = np.bincount(row[used], (size_factor * dosage)[used], n_rows) / np.maximum(weight, 1e-300)
    out = np.zeros(len(row))
    out[used] = dosage[used] - mean[row[used]]
    return out


def within_slope(
    stats: WithinStats,
    counts: Floats,
    exposure: Floats,
    overdispersion: Floats,
    covariates: CovariateEffects | None = None,
) -> tuple[Floats, Floats]:
    """Derivative of the log expected count by log dosage among the cells of a row, pooled over rows, and its sd.

    Parameters
    ----------
    counts, exposure
        ``(T, R)`` sums of counts and ``(R,)`` of size factors.
    overdispersion
        ``(T,)`` of single cells.
    covariates
        What they do to the counts of cells is taken off, where `stats` has the sums by bin.

    Weighted least squares: the sum of d y has mean `slope ln2 mu S`, `S` the sum of s d^2, and the variance of a sum of
    independent negative binomials. NaN where no row has cells that differ.
    """
    moved, information = np.zeros(len(counts)), np.zeros(len(counts))
    for s in blocks(len(counts)):
        mu = counts[s] / exposure
        mu = mu if stats.rows is None else mu[:, stats.rows]
        observed = stats.counts[s]
        if covariates is not None and stats.by_bin is not None:
            rows = np.arange(len(exposure)) if stats.rows is None else stats.rows
            observed = observed - mu * covariates.take(s).leaning(stats.by_bin, rows)
        unit = LN2 * mu * stats.spread
        variance = mu * stats.spread + overdispersion[s, None] ** 2 * mu**2 * stats.spread2
        weight = np.divide(unit, variance, out=np.zeros_like(unit), where=variance > 0)
        moved[s], information[s] = (weight * observed).sum(1), (weight * unit).sum(1)
    information[information <= 0] = np.nan
    return moved / information, 1.0 / np.sqrt(information)
