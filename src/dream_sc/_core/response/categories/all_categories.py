"""From the features with categories that were fitted to all features, and all categories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._core.response import all_features, status
from dream_sc._core.response.confidence import confidence
from dream_sc._core.response.describe import Described, calls_of
from dream_sc._core.response.direction import with_direction

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.decision import Decision
    from dream_sc._core.response.prepare import Prepared

    from .describe import OfDraws
    from .links import Links

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


def described(prepared: Prepared, links: Links, calls: Decision, found: OfDraws, asked: Bools) -> Described:
    """What the table says of features and of categories, given what draws say of those that were fitted."""
    used = prepared.used
    at = links.categories_of(used)
    mine = asked[links.feature_of_category]
    records = np.full((len(mine), found.records.shape[1]), np.nan, dtype=found.records.dtype)
    records[at] = found.records
    records[~mine] = np.nan
    by_category = {}
    for name, values in found.by_category.items():
        if np.asarray(values).dtype.kind == "f":
            by_category[name] = np.full(len(mine), np.nan)
            by_category[name][at] = values
            by_category[name][~mine] = np.nan
    by_category["mean"] = shares(links, prepared.mean, used)
    return Described(_columns(prepared, links, calls, found, asked, at), records, calls.learned, by_category)


def _columns(
    prepared: Prepared, links: Links, calls: Decision, found: OfDraws, asked: Bools, at: Ints
) -> dict[str, Any]:
    """Columns ``(F,)``: calls, numbers of the category that moves most, what single guides say."""
    fitted, reported = prepared.fitted & asked, asked[prepared.fitted]
    leading = {name: values[found.leading] for name, values in found.by_category.items()}
    columns = with_direction(leading | found.by_feature | calls_of(calls), prepared.likelihood.effect)
    columns |= {"category": at[found.leading].astype(float)}
    some = {name: np.asarray(values)[reported] for name, values in columns.items()}
    out = all_features.with_gaps(prepared, fitted, some)
    first = np.full(len(fitted), np.nan)
    first[links.feature[::-1]] = prepared.overdispersion[::-1]
    out |= {"overdispersion": first, "n_cells": np.full(len(fitted), prepared.n_cells)}
    out |= status.told(prepared, asked, status.went(some, some["converged"] != 0, compare=False))
    out |= all_features.of_ends(prepared, fitted)
    return out | {"confidence": confidence(out)}


def shares(links: Links, share: Floats, used: Bools) -> Floats:
    """Share ``(K,)`` of each category whose links ``(T,)`` are `used`, given the share of each link in what is left."""
    out = np.full(len(links.feature_of_category), np.nan)
    left = np.ones(links.n_features)
    for k in np.flatnonzero(used):
        f = links.feature[k]
        out[links.category[k]] = left[f] * share[k]
        left[f] *= 1.0 - share[k]
        out[links.following[k]] = left[f]
    return out
