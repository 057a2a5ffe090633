"""From the features that were fitted to all of them: columns with gaps, the status of each, the unit of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import confidence, status
from .summary import MIN_SIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .prepare import Prepared

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

OF_EC50 = ("log2_ec50", "hill_n", "p_ec50", "inflection")  # how columns begin that few guides do not determine
IN_SCORES = ("baseline", "amplitude", "amplitude_b", "slope_ntc", "guide_sd")  # and what has "delta" in its name


def spread(which: Bools, values: NDArray[Any]) -> NDArray[Any]:
    """Values of some features among all of them, ``(F, ...)``; None or NaN of the others."""
    text = values.dtype.kind in "UOS"
    dtype: Any = object if text else values.dtype if values.dtype.kind == "f" else float
    out = np.full((len(which), *values.shape[1:]), None if text else np.nan, dtype=dtype)
    out[which] = values
    return out


def columns(prepared: Prepared, asked: Bools, found: dict[str, Any], flags: dict[str, Bools]) -> dict[str, Any]:
    """Columns of the table ``(F,)``, given those ``(n,)`` of the features that were fitted and asked for."""
    fitted, n = prepared.fitted & asked, len(prepared.reason)
    out = with_gaps(prepared, fitted, found)
    nothing = np.full(n, np.nan)
    for name, values in zip(("slope_within", "slope_within_sd"), prepared.slope or (nothing, nothing), strict=True):
        out[name] = np.where(fitted, values, np.nan)
    out |= {"overdispersion": prepared.overdispersion, "n_cells": np.full(n, prepared.n_cells), "mean": prepared.mean}
    if prepared.likelihood.statistics == "counts":  # with covariates nothing is capped
        out["n_capped_cells"] = nothing if prepared.n_capped is None else prepared.n_capped.astype(float)
    out |= status.told(prepared, asked, status.went(found, flags["converged"])) | of_ends(prepared, fitted)
    out["confidence"] = confidence.confidence(out)
    return out if prepared.scale is None else _in_scores(prepared, out)


def with_gaps(prepared: Prepared, fitted: Bools, found: dict[str, Any]) -> dict[str, Any]:
    """Columns ``(F,)`` that are missing where a feature was not fitted, or its EC50 not determined."""
    out = {name: spread(fitted, np.asarray(values)) for name, values in found.items()}
    for name in out:
        if name.startswith(OF_EC50):
            out[name][prepared.no_ec50] = np.nan
    return out


def of_ends(prepared: Prepared, fitted: Bools) -> dict[str, Floats]:
    """Columns ``(F,)`` with the dosages at which the effects at the ends of the axis are taken."""
    full, most = prepared.axis.ends_with_effects(MIN_SIDE)
    return {"log2_dosage_full": np.where(fitted, full, np.nan), "log2_dosage_max": np.where(fitted, most, np.nan)}


def _in_scores(prepared: Prepared, columns: dict[str, Any]) -> dict[str, Any]:
    """Columns in the unit of the scores, for sds from their centre."""
    centre, scale = np.asarray(prepared.centre), np.asarray(prepared.scale)
    out = {name: values * scale if "delta" in name or name in IN_SCORES else values for name, values in columns.items()}
    out |= {"baseline": out["baseline"] + centre, "mean": centre + out["mean"] * scale}
    del out["overdispersion"]
    return out | {"centre": centre, "scale": scale}
