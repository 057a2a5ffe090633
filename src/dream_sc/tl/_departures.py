"""Guides that depart from the curves, by name: as the table of guides has them, and from an earlier fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._keys import DEPARTS, DEPARTS_WITH
from dream_sc._logging import logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

FEW_FEATURES = 10
TOLD = 0.05  # share of features from which on a guide is told of
MOST_NAMED = 6
EVERYWHERE = 0.95  # share of features from which on a guide is noisy rather than one that departs


def in_order(hyper: Mapping[str, Any] | None, guides: pd.Series) -> dict[str, Any] | None:
    """Learned numbers with an entry for each of `guides` in their order, general ones for guides that had no part."""
    if hyper is None:
        return None
    from dream_sc._core.response.learned import restored_wide, stored_departures

    wide = restored_wide(hyper)
    before, found = list(map(str, hyper.get("guides", ()))), wide.departures
    if found is None or len(before) != len(found.weight):
        return dict(hyper)
    names = guides.astype(str).tolist()
    place = {name: i for i, name in enumerate(before)}
    at = np.array([place.get(name, -1) for name in names])
    known = at >= 0
    now = {name: i for i, name in enumerate(names)}
    partner = [now.get(before[k], -1) if k >= 0 else -1 for k in np.where(known, found.partner[at], -1)]
    moved = type(found)(
        np.where(known, found.weight[at], wide.weight),
        np.where(known, found.sd[at], wide.sd),
        np.where(known, found.share[at], np.nan),
        np.array(partner, dtype=np.int64),
        np.where(np.array(partner) >= 0, found.together[at], 0.0),
        known & found.own[at],
    )
    return dict(hyper) | stored_departures(moved)


def with_departures(guides: pd.DataFrame, learned: Mapping[str, Any]) -> pd.DataFrame:
    """The table of the guides with the share of features in which each departs, and the guide that it goes with."""
    from dream_sc._core.response.learned import restored_wide

    found = restored_wide(learned).departures
    if found is None:
        return guides.assign(**{DEPARTS: np.nan, DEPARTS_WITH: ""})
    names = guides["guide"].astype(str).to_numpy(object)
    others = np.where(found.partner >= 0, names[found.partner], "").astype(object)
    return guides.assign(**{DEPARTS: found.share, DEPARTS_WITH: others})


def tell(guides: pd.DataFrame, wide_weight: float, n_features: int) -> None:
    """Say which targeting guides depart from the curves in more than one feature of twenty, and more than in general.

    Of few features the share is too uncertain to say it: it has to stand for ten of them. NTC guides, which bear no
    call, are in the table of the guides only.
    """
    guides = guides[~guides["is_control"].astype(bool)]
    noisy = guides[DEPARTS] > EVERYWHERE
    if noisy.sum() > 1:
        logger.warning(
            "tl.fit_trans: %d of %d targeting guides shift nearly every feature by more than NTC guides do, each "
            "differently; a response has to stand out from that. Off-target effects, or NTC guides that do not cut, "
            "do so",
            noisy.sum(),
            len(guides),
        )
        guides = guides[~noisy]
    many = guides[guides[DEPARTS] > max(TOLD, 2 * wide_weight, FEW_FEATURES / max(n_features, 1))].sort_values(
        DEPARTS, ascending=False, kind="stable"
    )
    if not len(many):
        return
    named = [
        f"{guide} in {100 * share:.0f} % of the features" + (f" (with {other})" if other else "")
        for guide, share, other in zip(many["guide"], many[DEPARTS], many[DEPARTS_WITH], strict=True)
    ]
    rest = [f"and {len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
    logger.warning(
        "tl.fit_trans: guides that depart from the curves, by off-target effects or as clones, count less where they "
        "do: %s",
        ", ".join(named[:MOST_NAMED] + rest),
    )
