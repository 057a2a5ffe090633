"""Which of more guides, cells, control cells or reads raises the power of a plan most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import HELPS_MOST, POWER_COLUMNS, TRANS

from ._pilot import read_pilot
from ._plans import read_plans
from ._power import LOG2FC, asked_of, forecast

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from ._plans import Plan

WHAT = ("guides", "cells", "ntc_cells", "reads")
LEAST_GAIN = 0.01


def what_helps(
    pilot: AnnData | MuData | Mapping[str, Any] | None,
    plan: Mapping[str, Any] | pd.DataFrame | None,
    *,
    factor: float = 1.5,
    fdr: float = 0.05,
    log2fc: float | Sequence[float] = LOG2FC,
    means: float | Sequence[float] | None = None,
    dosage_range: tuple[float, float] | None = None,
    rng: int | np.random.Generator = 0,
    key: str = TRANS,
    mod: str | None = None,
) -> pd.DataFrame:
    """Forecast the power of a plan, and of the same with more guides, cells per guide, control cells or reads.

    Parameters
    ----------
    pilot, plan, fdr, log2fc, means, dosage_range, rng, key, mod
        As in `design.power`.
    factor
        How many times as many. Guides are added at the same cells per guide, and spread over the same dosages.

    Returns
    -------
    The table of `design.power`, and per row the power with more of each: power_more_guides, power_more_cells,
    power_more_ntc_cells, power_more_reads; helps_most names the largest ("guides", "cells", "ntc_cells", "reads"), or
    "nothing" where none adds 0.01.

    Raises
    ------
    TypeError, KeyError, ValueError
        As `design.power`, and if `factor` is not above 1.

    Examples
    --------
    >>> plan = {"n_cells_per_guide": 50, "log2_dosages": [-3, -2.5, -2, -1.5, -1, -0.5]}
    >>> table = ds.design.what_helps({"level": 0.5}, plan, log2fc=1.0)
    >>> set(table["helps_most"]) <= {"guides", "cells", "ntc_cells", "reads", "nothing"}
    True
    """
    if not _validate.number("factor", factor) > 1:
        raise ValueError(f"factor={factor} is not allowed: use a number above 1")
    known = read_pilot(pilot, key=key, mod=mod)
    plans = read_plans(plan, known)
    asked = asked_of(known, plans, fdr, log2fc, means, dosage_range, rng)

    def powers(some: list[Plan]) -> pd.DataFrame:
        return forecast(known, some, asked)

    out = powers(plans)
    names = []
    for what in WHAT:
        names.append(f"power_more_{what}")
        out[names[-1]] = powers([_more(each, what, factor) for each in plans])["power"]
    gain = out[names].to_numpy() - out["power"].to_numpy()[:, None]
    best = np.where(np.isfinite(gain), gain, -1.0)
    out[HELPS_MOST] = np.where(best.max(1) < LEAST_GAIN, "nothing", np.array(WHAT)[best.argmax(1)])
    return out[[*POWER_COLUMNS, *names, HELPS_MOST]]


def _more(plan: Plan, what: str, factor: float) -> Plan:
    """The plan with more of something."""
    if what == "reads":
        return replace(plan, depth=plan.depth * factor)
    name = {"guides": "n_guides", "cells": "n_cells_per_guide", "ntc_cells": "n_ntc_cells"}[what]
    return replace(plan, **{name: max(round(getattr(plan, name) * factor), getattr(plan, name) + 1)})
