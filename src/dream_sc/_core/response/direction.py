"""Which way a feature goes where the cis gene is knocked down, and a score to rank features by."""

from __future__ import annotations

from typing import Any

import numpy as np

from dream_sc._core.curves import NULL, SWITCH

from .summary import knockdown_change

CALLED = 0.05  # q-value: the class of a call is never that of no response
DOWN, UP, MIXED = "down", "up", "mixed"


def with_direction(columns: dict[str, Any], effect: str) -> dict[str, Any]:
    """Columns ``(T,)`` with the class of the calls, `on_knockdown` and `score`.

    Parameters
    ----------
    columns
        With `class`, `p_class`, `lfdr`, `qvalue`, `log_bf`, `lfdr_graded`, and the effects at the ends of the axis.
    effect
        What an effect is called.
    """
    kind, p, lfdr = columns["class"].astype(object), columns["p_class"], columns["lfdr"]
    graded = columns.get("lfdr_graded", np.full(len(lfdr), np.nan))
    switch = (kind == SWITCH.name) & np.isfinite(graded)
    null = (lfdr > 0.5) & ~(columns["qvalue"] < CALLED)
    change = knockdown_change(columns, effect)
    turns = np.array([str(each).startswith("biphasic") for each in kind])
    way = np.where(turns, MIXED, np.where(change < 0, DOWN, UP)).astype(object)
    way[null | ~np.isfinite(change)] = None
    return columns | {
        "class": np.where(null, NULL.name, kind),
        "p_class": np.where(null, lfdr, np.where(switch, graded - lfdr, p * (1 - lfdr))),
        "on_knockdown": way,
        "score": np.sign(change) * np.maximum(columns["log_bf"], 0.0),
    }


def of_calls(columns: Any) -> dict[str, Any]:
    """Columns `class` and `on_knockdown` ``(T,)`` where fewer features are called than when they were made.

    A feature that is called no more has neither, where it rather does not respond. (One that is called now responds
    more probably than not, so that it has them already.)
    """
    q, lfdr = (np.asarray(columns[name], dtype=float) for name in ("qvalue", "lfdr"))
    kind, way = (np.asarray(columns[name]).astype(object) for name in ("class", "on_knockdown"))
    lost = (lfdr > 0.5) & ~(q < CALLED)
    way[lost] = None
    return {"class": np.where(lost, NULL.name, kind), "on_knockdown": way}
