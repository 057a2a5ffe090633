"""How many of the counts can be ambient at most, as the guide with the lowest dosage tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.stats.intervals import Z95

if TYPE_CHECKING:
    from dream_sc._core.types import CisCells, CisFit


def most_ambient(cells: CisCells, fit: CisFit) -> float:
    """Largest share of the counts that can be ambient, about, at the upper end of a 95 % interval; 1 where unknown.

    Ambient counts fall on the cis gene as the counts of all cells do. Cells that have r times the cis counts of
    control cells, while all cells together have m times as many, have an ambient share a with r = (1 - a) x + a m, x
    being their own dosage. It is not below 0, so that a is r / m at most.
    """
    acts = ~cells.is_control
    if not acts.any():
        return 1.0
    half = Z95 * fit.guide_sd if fit.interval is None else fit.interval[1] - fit.guide_mean
    upper = (fit.guide_mean + np.hypot(half, Z95 * fit.baseline_sd))[acts].min()
    of_all = cells.counts.sum() / max(cells.exposure.sum(), 1e-300)
    return float(np.clip(2.0**upper / max(of_all, 1e-300), 0.0, 1.0))
