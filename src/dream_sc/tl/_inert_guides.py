"""Guides that do nothing, where all acting guides share one level: found, left out, stored and told of by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._keys import GUIDE_ACTS, P_ACTS
from dream_sc._logging import logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from dream_sc._core.response.inert_guides import Acting

    from ._response_inputs import ResponseInputs


def with_acting(inputs: ResponseInputs, hyper: Mapping[str, Any] | None, *, learns: bool) -> ResponseInputs:
    """Without guides that do nothing, of a fit without dosages: those of an earlier fit, or learned if it `learns`."""
    if not inputs.opened.no_dosage:
        return inputs
    found = _known(hyper, inputs.guides["guide"]) if hyper is not None else _learned(inputs) if learns else None
    if found is None:
        return inputs
    inputs = replace(inputs, acting=found, guides=inputs.guides.assign(**{P_ACTS: found.probability}))
    return _without(inputs, found.inert) if found.inert.any() else inputs


def _learned(inputs: ResponseInputs) -> Acting | None:
    from dream_sc._core.response.evidence import problem_of
    from dream_sc._core.response.inert_guides import learn_acting

    prepared = inputs.prepared
    p, learns = problem_of(prepared), None if prepared.links is not None else prepared.learns
    return learn_acting(p if learns is None or not learns.any() else p.take(learns), prepared.stats.n_guides)


def _known(hyper: Mapping[str, Any], guides: pd.Series) -> Acting | None:
    """What an earlier fit says of these guides; a guide that had no part in it acts."""
    from dream_sc._core.response.inert_guides import Acting

    if GUIDE_ACTS not in hyper:
        return None
    known = dict(zip(map(str, hyper["guides"]), map(float, hyper[GUIDE_ACTS]), strict=True))
    return Acting(np.array([known.get(name, 1.0) for name in guides.astype(str)]), disagree=False)


def _without(inputs: ResponseInputs, gone: np.ndarray) -> ResponseInputs:
    """The same without the cells of some guides ``(G,)``."""
    from dream_sc._core.response.inert_guides import without_guides

    cells = inputs.opened.cells
    guide = np.where((cells.guide >= 0) & gone[cells.guide], -1, cells.guide)
    opened = replace(inputs.opened, cells=replace(cells, guide=guide))
    return replace(inputs, opened=opened, prepared=without_guides(inputs.prepared, gone))


def stored_acting(inputs: ResponseInputs) -> dict[str, list[float]]:
    """How it is stored beside what a fit has learned; nothing where it was not learned."""
    return {} if inputs.acting is None else {GUIDE_ACTS: inputs.acting.probability.tolist()}


def tell_inert(guides: pd.DataFrame, acting: Acting | None, label: str = "tl.fit_trans") -> None:
    """Say which guides are taken as inert."""
    if acting is None or not acting.inert.any():
        return
    mine = guides[acting.inert[: len(guides)]]
    targets = mine["target"].astype(str).unique().tolist()
    logger.warning(
        "%s: %s %s nothing that the other guides of %s do: taken as inert, and left out of the fit",
        label,
        ", ".join(mine["guide"].astype(str)),
        "do" if len(mine) > 1 else "does",
        ", ".join(targets),
    )


def tell_split(target: str, acting: Acting) -> None:
    """Say where a few guides share what the others of a target do not do, for which a single fit has a flag."""
    if acting.disagree:
        logger.warning(
            "tl.screen: a few guides of %s share effects that the others do not have: all of them are taken as acting, "
            "and calls may be missed",
            target,
        )


def inert_names(guides: pd.DataFrame) -> str:
    """Names of the guides of a fit that are taken as inert."""
    from dream_sc._core.response.inert_guides import inert

    if P_ACTS not in guides:
        return ""
    return ", ".join(guides["guide"][inert(guides[P_ACTS].to_numpy(float))].astype(str))
