"""Dosages that are known: from the user's unit to log2, and from cells to the labels that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LN2 = float(np.log(2.0))
FAR_BELOW = 24.0  # log2 from dose 0, as the axis has it, to the lowest dose: a Hill of n = 0.4 has risen by 0.3 % there

DIGITS = 9


@dataclass(frozen=True)
class OfLabels:
    """Log2 dosages of `L` labels."""

    mean: Floats  # (L,)
    sd: Floats  # (L,) of the mean
    spread: Floats  # (L,) sd between cells


def to_log2(value: Floats, sd: Floats) -> tuple[Floats, Floats]:
    """Log2 of positive values, and the sd of the log-normal that has their coefficient of variation.

    A value of 0 has no log: it becomes NaN.
    """
    known = value > 0
    safe = np.where(known, value, 1.0)
    log2_sd = np.sqrt(np.log1p((sd / safe) ** 2)) / LN2
    return np.where(known, np.log2(safe), np.nan), np.where(known, log2_sd, np.nan)


def zero_of(log2_dose: Floats, control: NDArray[np.bool_]) -> float:
    """The log2 dose at which the axis has dose 0, given those of labels."""
    return float(log2_dose[~control].min()) - FAR_BELOW


def above(log2_dose: Floats, zero: float) -> Floats:
    """Places on the axis of log2 doses, NaN of dose 0; rounded, so that they are the same in every unit."""
    return np.asarray(np.nan_to_num(np.round(log2_dose - zero, DIGITS)))


def of_cells(log2: Floats, sd: Floats, label: Ints, n_labels: int) -> OfLabels:
    """Mean and spread over the cells ``(N,)`` of each label, given the sd of each cell's error.

    The errors of cells are independent; they add to the spread that is seen, and are taken off it. Cells with a label
    of -1 take no part.
    """
    used = label >= 0
    at, x, e = label[used], log2[used], sd[used]
    n = np.maximum(np.bincount(at, minlength=n_labels), 1)
    mean = np.bincount(at, x, n_labels) / n
    error = np.bincount(at, e**2, n_labels) / n
    seen = np.bincount(at, (x - mean[at]) ** 2, n_labels) / np.maximum(n - 1, 1)
    return OfLabels(mean, np.sqrt(error / n), np.sqrt(np.maximum(seen - error, 0.0)))
