"""Contexts in an order, such as time points or doses: their numbers, and what `tl.compare` writes of their trends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import COMPARE_TEXTS, CONTEXTS, CURVE_DOSAGES, NUMBERS, ORDERED_COLUMNS, ZERO, Slots

from ._compare_tables import COMPARED, effect_name, guides_of, tidy, why_not, with_calls
from ._contexts import shared

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from dream_sc._core.response.contexts.decision import Block, Decision

    from ._contexts import Context, Fit, Shared

LEAST_CONTEXTS = 3


def numbers_of(
    fit: Fit, by: str, names: list[str], order: Mapping[str, float] | bool | None, reference: str | None
) -> dict[str, float] | None:
    """The number of each context, the lowest first; None where no order was asked for.

    Raises
    ------
    ValueError
        If there are fewer than three contexts, if one of them has no number or a number no context, if all numbers are
        the same, or if a reference was named.
    """
    if order is None or (isinstance(order, bool | np.bool_) and not order):
        return None
    if reference is not None:
        raise ValueError(
            f"reference={reference!r} has no effect with order=, which looks for a trend over all contexts: leave out "
            "one of them"
        )
    if len(names) < LEAST_CONTEXTS:
        raise ValueError(
            f"order= asks for a trend over {LEAST_CONTEXTS} contexts at least, and .obs[{by!r}] holds {sorted(names)}: "
            f"call dream_sc.tl.compare(data, {by!r}) without order=, which compares two"
        )
    found = _of_labels(fit, by, names) if isinstance(order, bool | np.bool_) else _of_mapping(by, names, order)
    bad = {name: number for name, number in found.items() if not np.isfinite(number)}
    if bad:
        raise ValueError(f"the numbers of contexts are finite, and order= has {bad}")
    if len(set(found.values())) < 2:
        raise ValueError(f"all contexts of .obs[{by!r}] have the same number in order=, {found}: no trend can be seen")
    width = max(found.values()) - min(found.values())
    if not (np.isfinite(width) and np.isfinite(1.0 / width)):
        raise ValueError(f"the numbers of contexts in order= range over {width:g}, {found}: give them in another unit")
    return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))


def _of_labels(fit: Fit, by: str, names: list[str]) -> dict[str, float]:
    """Numbers that labels are, or the places of ordered categories."""
    column = fit.adata.obs[by]
    try:
        return {name: float(name) for name in names}
    except ValueError:
        if not (isinstance(column.dtype, pd.CategoricalDtype) and column.cat.ordered):
            raise ValueError(
                f"order=True needs labels that are numbers, or an ordered categorical, and .obs[{by!r}] holds "
                f"{sorted(names)}: give the number of each, as order={{{sorted(names)[0]!r}: 0.0, ...}}"
            ) from None
    present = [str(c) for c in column.cat.categories if str(c) in names]
    return {name: float(i) for i, name in enumerate(present)}


def _of_mapping(by: str, names: list[str], order: Any) -> dict[str, float]:
    """Numbers as they were given."""
    if not isinstance(order, Mapping):
        raise TypeError(f"order= is a {type(order).__name__}: give a mapping of contexts to numbers, or True")
    given: dict[str, float] = {}
    for name, number in order.items():
        label = _label(str(name), names)
        if label in given:
            raise ValueError(f"order= has two numbers for {label!r} of .obs[{by!r}], {dict(order)}: give one to each")
        given[label] = _validate.number(f"order[{name!r}]", number)
    lacking, unknown = sorted(set(names) - set(given)), sorted(set(given) - set(names))
    if lacking:
        raise ValueError(
            f"order= has no number for {lacking} of .obs[{by!r}]: give one to each of {sorted(names)}, or set the "
            "labels of cells that should not take part to missing"
        )
    if unknown:
        raise ValueError(f"order= names {unknown}, and .obs[{by!r}] holds {sorted(names)} among the cells of the fit")
    return {name: given[name] for name in names}


def _label(name: str, names: list[str]) -> str:
    """The label that a name means: a number may be written in another way, as where a column holds 6.0."""
    number = _as_number(name)
    same = [each for each in names if number is not None and _as_number(each) == number]
    return same[0] if name not in names and len(same) == 1 else name


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def ordered_slots(
    adata: AnnData,
    contexts: list[Context],
    numbers: np.ndarray,
    seed: int,
    n_null: int,
    progress: Callable[[Any], Any],
    keys: tuple[str, str],
) -> dict[tuple[str, str], Any]:
    """What is written; `keys` are those of the trans fit and of the result."""
    from dream_sc._core.response import direction
    from dream_sc._core.response.ordered.decision import decide
    from dream_sc._core.response.ordered.describe import curves_of, described
    from dream_sc._core.response.ordered.hypotheses import places_of

    every, first = shared(*contexts), contexts[0].inputs
    direct = first.prepared.direct
    learns = None if direct is None else ~direct[every.features]
    places = places_of(numbers)
    decision, blocks = decide(every.measured, places, seed=seed, n_null=n_null, learns=learns, progress=progress)
    found = described(every.measured, decision, blocks, numbers)
    drawn = curves_of(every.measured, decision, blocks)
    called = adata.varm[keys[0]]["qvalue"].to_numpy(float) < direction.CALLED
    table = with_calls(_table(contexts, every, decision, found, adata.var_names), called)
    like, slots, rows = first.prepared.likelihood, Slots(keys[1]), np.flatnonzero(every.features)
    curves = np.full((adata.n_vars, 3 * len(contexts), len(drawn.x)), np.nan, dtype=np.float32)
    curves[rows[drawn.rows]] = drawn.curves.reshape(len(drawn.rows), -1, len(drawn.x))
    info: dict[str, Any] = {
        CONTEXTS: [c.name for c in contexts],
        NUMBERS: numbers,
        "learned": _learned(every, decision, first.zero),
        "guides": guides_of(contexts),
        "n_cells": np.array([c.n_cells for c in contexts]),
        "targeting": every.guides,
        "effect": effect_name(like),
        "effect_unit": like.effect_unit,
        CURVE_DOSAGES: (drawn.x + (first.zero or 0.0))[None],
    }
    if first.zero is not None:
        info[ZERO] = first.zero
    return {
        ("varm", keys[1]): table,
        ("varm", slots.curves): curves,
        ("varm", slots.guide_levels): _levels(every, blocks, adata.n_vars, len(contexts)),
        ("uns", keys[1]): info,
    }


def _table(
    contexts: list[Context], every: Shared, decision: Decision, found: dict[str, Any], names: pd.Index
) -> pd.DataFrame:
    """A row per feature of the object."""
    values: dict[str, Any] = {
        "hypothesis": found["hypothesis"].astype(object),
        "qvalue_trend": decision.q_value,
        "lfdr_trend": decision.lfdr,
        "pvalue_trend": decision.p_value,
        "log_bf_trend": decision.log_bf,
        "qvalue_differs": decision.q_differs,
        "lfdr_differs": decision.lfdr_differs,
    }
    for name in ("log2_ec50", "log2_amplitude"):
        for suffix, row in zip(("", "_q025", "_q975"), found[name], strict=True):
            values[f"{name}_slope{suffix}"] = row
    out: dict[str, Any] = {}
    for name in ORDERED_COLUMNS:
        text = name in COMPARE_TEXTS
        out[name] = np.full(len(names), None if text else np.nan, dtype=object if text else float)
        if name in values:
            out[name][every.features] = values[name]
    status, note = why_not(contexts)
    out["status"] = np.where(every.features, COMPARED, status).astype(object)
    out["note"][~every.features] = note[~every.features]
    return tidy(pd.DataFrame(out, index=names))


def _learned(every: Shared, decision: Decision, zero: float | None) -> pd.DataFrame:
    """What was learned over features, in one row."""
    from dream_sc._core.response.ordered.hypotheses import HYPOTHESES

    weights = {f"weight_{name}": w for name, w in zip(HYPOTHESES, decision.prior.weights.tolist(), strict=True)}
    row = weights | {
        "shared_guide_effects": decision.rho,
        "guide_sd": float(np.exp(decision.prior.tau_log_mean)),
        "log2_dosage_full": every.measured.full + (zero or 0.0),
    }
    return pd.DataFrame([row], index=["trend"])


def _levels(every: Shared, blocks: list[Block], n_vars: int, n_contexts: int) -> np.ndarray:
    """Levels ``(n_vars, 2 x contexts, G)`` of the targeting guides less that of NTC guides, and their errors."""
    from dream_sc._core.response.contexts.guide_levels import NOTHING

    n, unit = len(every.guides), every.measured.priors.unit
    mean = np.concatenate([b.levels.pair.mean[:, :, :n] for b in blocks])
    sd = np.sqrt(np.concatenate([b.levels.pair.variance[:, :, :n] for b in blocks]))
    seen = sd < unit * NOTHING**0.5 / 2
    out = np.full((n_vars, 2 * n_contexts, n), np.nan, dtype=np.float32)
    out[every.features] = np.stack([np.where(seen, each, np.nan) for each in (mean, sd)], 2).reshape(len(mean), -1, n)
    return out
