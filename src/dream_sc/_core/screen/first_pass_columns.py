"""Columns of pairs of which the first pass is all that is said: evidence, and a straight line through the guides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dream_sc._core.curves import LN2, NULL
from dream_sc._core.response import all_features, status
from dream_sc._core.response.describe import calls_of
from dream_sc._core.response.guide_contrasts import slope_over
from dream_sc._core.response.guide_support import SUPPORT_Z, min_detectable
from dream_sc._core.response.summary import MIN_SIDE
from dream_sc._core.stats.intervals import Z95

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.decision import Decision
    from dream_sc._core.response.prepare import Prepared
    from dream_sc._core.types import Axis

    Floats = NDArray[np.float64]

NOTE = "the first pass left it: the fold change is that of a straight line, there is no EC50"
TEXTS = ("on_knockdown", "confidence", "class", "model")


class Contrasts(NamedTuple):
    """Distances of the guides of `T` features from the level, controls as one guide among them."""

    ratio: Floats  # (T, G) natural log
    variance: Floats  # (T, G) of counts and guide effects
    dosage: Floats  # (G,)
    targeting: NDArray[np.bool_]  # (G,)
    axis: Axis  # of these dosages
    by_acting: bool  # whether the dosages are only whether a guide acts
    level: Floats  # (T,) log of the mean count of control cells

    @property
    def line(self) -> tuple[Floats, Floats]:
        """Slope ``(T,)`` over the dosage, and its sd."""
        slope, information = slope_over(self.dosage, self.ratio, self.variance)
        return slope, 1.0 / np.sqrt(information)


def columns(d: Decision, prepared: Prepared, guides: Contrasts) -> dict[str, Any]:
    """Columns ``(F,)`` of all features that are fitted, as if none rather responded."""
    slope, sd = guides.line
    found = calls_of(d) | {"baseline": np.exp(guides.level)}
    del found["model"]  # which of the curves is the best one is not worth saying
    ends = _ends(prepared.axis, guides)
    for part, at in ends.items():
        found |= _effect(f"log2fc_{part}", slope * at / LN2, np.abs(sd * at) / LN2)
    change = np.where(np.isfinite(found["log2fc_full"]), found["log2fc_full"], -found["log2fc_max"])
    found["score"] = np.sign(np.nan_to_num(change)) * np.maximum(d.log_bf, 0.0)
    z = guides.ratio * np.sign(slope[:, None] * guides.dosage) / np.sqrt(guides.variance)
    found["n_guides_support"] = ((z > SUPPORT_Z) & guides.targeting).sum(1).astype(float)
    span = guides.axis.high - guides.axis.low
    found["min_detectable_log2fc"] = min_detectable(span * sd, prepared.priors, d.prior.log_odds) / LN2
    return _of_all(found, prepared)


def _ends(axis: Axis, guides: Contrasts) -> dict[str, float]:
    """Dosages, as the line has them, of the effects at the ends of the axis; NaN where there is none."""
    full, most = axis.ends_with_effects(MIN_SIDE)
    if not guides.by_acting:
        return {"full": full, "max": most}
    nowhere = np.isnan(full) and np.isnan(most)
    return {"full": 1.0 if nowhere or np.isfinite(full) else np.nan, "max": 1.0 if np.isfinite(most) else np.nan}


def _effect(name: str, value: Floats, sd: Floats) -> dict[str, Floats]:
    return {name: value, f"{name}_q025": value - Z95 * sd, f"{name}_q975": value + Z95 * sd}


def _of_all(found: dict[str, Any], prepared: Prepared) -> dict[str, Any]:
    """The columns of all features, those that are not fitted among them."""
    fitted, n = prepared.fitted, len(prepared.reason)
    out = {name: all_features.spread(fitted, values) for name, values in found.items()}
    for name in TEXTS:
        out[name] = np.full(n, None, dtype=object)
    for name in ("class", "model"):
        out[name][fitted] = NULL.name
    for name in ("log2_ec50", "log2_ec50_q025", "log2_ec50_q975", "p_ec50_inside", "log_bf_loo"):
        out[name] = np.full(n, np.nan)
    none = np.zeros(int(fitted.sum()), dtype=bool)
    out |= status.told(prepared, np.ones(n, dtype=bool), status.Went(~none, np.full(len(none), np.nan), none))
    some = fitted & (out["note"] == "")
    out["note"][some] = NOTE
    return out
