"""Whether the dosages of the guides are told apart, from each other and from the controls.

A knock-out leaves the mRNA, so that what is estimated of its guides' dosages is noise. Guides that are all strong have
one dosage as well, but one that is clearly not the controls'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtrc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

TOLD_P = 0.01  # of Cochran's Q, below which dosages differ
LEAST_SD = 0.02  # log2, of a dosage that is known
CLEAR, CLEAR_SDS = 0.3, 3.0  # distance from the controls, log2 and in its sds, from which a guide clearly differs
FEW_CLEAR = 0.25  # share of guides that clearly differ, below which the screen as a whole may be a knock-out


@dataclass(frozen=True)
class Resolution:
    """What the estimated dosages of the targeting guides tell."""

    share: float  # of their variance that is not error; NaN of one guide
    told_apart: bool
    clear: float  # share of the guides that clearly differ from controls

    @property
    def none(self) -> bool:
        """Whether guides are told apart neither from each other nor from the controls."""
        return not self.told_apart and self.clear < FEW_CLEAR

    @property
    def one_level(self) -> bool:
        """Whether guides differ from the controls, but not from each other."""
        return not self.told_apart and not self.none


def resolution(mean: Floats, sd: Floats, level_sd: float = 0.0) -> Resolution:
    """From the log2 dosages of targeting guides ``(G,)``, their errors, and that of the control level."""
    clear = np.abs(mean) > np.maximum(CLEAR, CLEAR_SDS * np.hypot(sd, level_sd))
    return Resolution(real_share(mean, sd), told_apart(mean, sd), float(clear.mean()))


def real_share(mean: Floats, sd: Floats) -> float:
    """Share of the variance of dosages ``(G,)`` that is not that of their errors, 0 to 1."""
    if len(mean) < 2:
        return float("nan")
    seen = float(np.var(mean, ddof=1))
    return float(np.clip(1.0 - np.mean(sd**2) / max(seen, 1e-12), 0.0, 1.0))


def told_apart(mean: Floats, sd: Floats) -> bool:
    """Whether dosages ``(G,)`` differ by more than their errors, by Cochran's Q."""
    w = np.maximum(sd, LEAST_SD) ** -2.0
    q = float((w * (mean - (w @ mean) / w.sum()) ** 2).sum())
    return len(mean) > 1 and bool(chdtrc(len(mean) - 1, q) < TOLD_P)
