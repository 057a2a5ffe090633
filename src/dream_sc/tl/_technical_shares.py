"""The technical step of shares (binomial, multinomial) and of scores (normal, studentt)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _compile
from dream_sc._data import scores as _scores
from dream_sc._data import shares
from dream_sc._keys import SCORE_COLUMNS, STICK_EFFECTS, STICK_EFFECTS_SD, STICKS, TECHNICAL_COLUMNS, Slots

from ._technical_counts import NOT_CONVERGED, spread

if TYPE_CHECKING:
    from anndata import AnnData

    from ._technical_counts import Modality

MIN_COUNT = 3  # of a feature's denominators in control cells


def fit(
    adata: AnnData, m: Modality, inference: Any, overdispersed: bool, key: str, progress: bool | None
) -> tuple[dict[tuple[str, str], Any], dict[str, Any]]:
    """The slots of `.varm`, and what `.uns` stores beside what all distributions do."""
    if m.likelihood.statistics == "scores":
        return _fit_scores(adata, m, inference, key)
    _compile.ready("shares", progress, then=("trans",))
    pairs = shares.open_pairs(
        adata,
        m.likelihood,
        layer=m.layer,
        denominator_layer=m.denominator_layer,
        category_key=m.category_key,
        category_layers=m.category_layers,
        limit=m.limit,
    )
    ok, found = _fit_sticks(pairs, m, inference, overdispersed)
    info = {"beta_o": found.beta_o, "effect_scale": found.effect_scale, "effect_unit": m.likelihood.technical_unit}
    if not m.likelihood.categories:
        return _share_slots(adata, found, ok, key), info
    usage = _usage(pairs, found, ok, m)
    return _usage_slots(adata, pairs, found, ok, usage, m, key), info | _stick_entries(pairs, found, ok)


def _fit_sticks(pairs: Any, m: Modality, inference: Any, overdispersed: bool) -> tuple[np.ndarray, Any]:
    """Which sticks were fitted, and their fit; those of a feature are fitted together or not at all."""
    from dream_sc._core.engines import run
    from dream_sc._core.priors import SharePriors
    from dream_sc._core.sums.share_sums import share_stats

    stats = share_stats(pairs.blocks(), m.row, m.n_groups, pairs.n_sticks, pairs.largest())
    total = (stats.numerator + stats.rest).sum(1)
    most = np.zeros(len(pairs.sticks.features))
    np.maximum.at(most, pairs.sticks.feature, total)
    ok = most[pairs.sticks.feature] >= MIN_COUNT
    if not ok.any():
        raise ValueError(
            f"no feature has {MIN_COUNT} counts or more in the denominators of the {int((m.row >= 0).sum())} control "
            "cells, and two categories that occur: check control=, the layers and category_key="
        )
    left = np.maximum(total, 1.0) / np.maximum(most[pairs.sticks.feature], 1.0)
    stats = replace(stats, left=left).take(ok)
    return ok, run(m.likelihood.technical_step, inference, stats, SharePriors(), overdispersed)


def _share_slots(adata: AnnData, found: Any, ok: np.ndarray, key: str) -> dict[tuple[str, str], Any]:
    status = np.full(
        adata.n_vars, f"filtered: fewer than {MIN_COUNT} counts in the denominators of control cells", dtype=object
    )
    status[ok] = np.where(found.converged, "converged", NOT_CONVERGED)
    columns = 1 / (1 + np.exp(-found.level)), found.level_sd, found.overdispersion, found.overdispersion_sd
    table = {name: spread(c, ok) for name, c in zip(TECHNICAL_COLUMNS, columns, strict=False)}
    frame = pd.DataFrame(table | {"status": pd.Categorical(status)}, index=adata.var_names)
    slots = Slots(key)
    return {
        ("varm", key): frame,
        ("varm", slots.effects): spread(found.effects, ok),
        ("varm", slots.effects_sd): spread(found.effects_sd, ok),
    }


def _usage(pairs: Any, found: Any, ok: np.ndarray, m: Modality) -> dict[str, np.ndarray]:
    """Usage of each category in the reference group, and effects of groups on its log, from the sticks."""
    from dream_sc._core.response.categories.baseline_usage import log_usage
    from dream_sc._core.sums.pair_sums import indicator

    s, n_columns = pairs.sticks, len(pairs.sticks.column_names)
    counts = (pairs.numerators.T.tocsr() @ indicator(m.row, m.n_groups)).toarray()
    out = {name: np.full(n_columns, np.nan) for name in TECHNICAL_COLUMNS[:-1]}
    effects, effects_sd = (np.full((n_columns, m.n_groups), np.nan) for _ in range(2))
    stick = np.full(pairs.n_sticks, -1)
    stick[ok] = np.arange(int(ok.sum()))
    cuts = np.flatnonzero(np.diff(s.feature)) + 1
    for chain in np.split(np.arange(pairs.n_sticks), cuts):
        at = stick[chain]
        if not len(at) or at[0] < 0:
            continue
        columns = np.append(s.category[chain], s.following[chain[-1]])
        u = log_usage(
            found.level[at],
            found.level_sd[at],
            found.effects[at],
            found.effects_sd[at],
            found.effects_cov[at],
            counts[columns] > 0,
        )
        out["mu"][columns], out["mu_sd"][columns] = np.exp(u.level), u.level_sd
        effects[columns], effects_sd[columns] = u.effects, u.effects_sd
        own = np.append(at, at[-1])  # the last category has no stick of its own
        out["overdispersion"][columns] = found.overdispersion[own]
        out["overdispersion_sd"][columns] = found.overdispersion_sd[own]
    return out | {"effects": effects, "effects_sd": effects_sd}


def _usage_slots(
    adata: AnnData, pairs: Any, found: Any, ok: np.ndarray, usage: dict[str, np.ndarray], m: Modality, key: str
) -> dict[tuple[str, str], Any]:
    s = pairs.sticks
    fitted, bad = np.zeros(len(s.features), dtype=bool), np.zeros(len(s.features), dtype=bool)
    fitted[s.feature[ok]] = True
    bad[s.feature[ok][~found.converged]] = True
    of_feature = np.full(len(s.features), "filtered: only one category occurs", dtype=object)
    of_feature[s.has_stick] = f"filtered: fewer than {MIN_COUNT} counts in control cells"
    of_feature[fitted] = "converged"
    of_feature[bad] = NOT_CONVERGED
    columns = {name: usage[name] for name in TECHNICAL_COLUMNS[:-1]}
    effects, effects_sd = usage["effects"], usage["effects_sd"]
    status = of_feature
    if m.category_layers is None:
        status = of_feature[s.column_feature]
        status[~s.active & s.has_stick[s.column_feature]] = "filtered: no count in any cell"
    else:
        columns = _by_layer(columns, pairs, list(m.category_layers))
        # (vars, groups, layers), as the columns of each feature follow each other
        shape = adata.n_vars, len(m.category_layers), m.n_groups
        effects, effects_sd = (np.ascontiguousarray(x.reshape(shape).swapaxes(1, 2)) for x in (effects, effects_sd))
    frame = pd.DataFrame(columns | {"status": pd.Categorical(status)}, index=adata.var_names)
    slots = Slots(key)
    return {("varm", key): frame, ("varm", slots.effects): effects, ("varm", slots.effects_sd): effects_sd}


def _by_layer(columns: dict[str, np.ndarray], pairs: Any, layers: list[str]) -> dict[str, np.ndarray]:
    """Usage in a column per layer; the overdispersion is that of the first stick."""
    out = {
        f"{name}_{layer}": columns[name].reshape(-1, len(layers))[:, i]
        for name in ("mu", "mu_sd")
        for i, layer in enumerate(layers)
    }
    first = np.full(len(pairs.sticks.features), -1)
    feature, at = np.unique(pairs.sticks.feature, return_index=True)
    first[feature] = pairs.sticks.category[at]
    for name in ("overdispersion", "overdispersion_sd"):
        out[name] = np.where(first >= 0, columns[name][first], np.nan)
    return out


def _stick_entries(pairs: Any, found: Any, ok: np.ndarray) -> dict[str, Any]:
    """What the trans step needs of each stick, by name."""
    status = np.full(pairs.n_sticks, f"filtered: fewer than {MIN_COUNT} counts in control cells", dtype=object)
    status[ok] = np.where(found.converged, "converged", NOT_CONVERGED)
    numbers = {
        "logit": found.level,
        "logit_sd": found.level_sd,
        "overdispersion": found.overdispersion,
        "overdispersion_sd": found.overdispersion_sd,
    }
    table = pairs.sticks.table().assign(**{name: spread(v, ok) for name, v in numbers.items()})
    table["status"] = pd.Categorical(status)
    table.index = table.index.astype(str)
    return {
        STICKS: table,
        STICK_EFFECTS: spread(found.effects, ok),
        STICK_EFFECTS_SD: spread(found.effects_sd, ok),
    }


def _fit_scores(
    adata: AnnData, m: Modality, inference: Any, key: str
) -> tuple[dict[tuple[str, str], Any], dict[str, Any]]:
    """The technical step of normal or Student t scores."""
    from dream_sc._core.engines import run
    from dream_sc._core.priors import ScorePriors
    from dream_sc._core.sums.pair_sums import score_sums

    scores, step = _scores.open_scores(adata, m.layer, m.limit), m.likelihood.technical_step
    if m.likelihood.robust:
        found = run(step, inference, scores, m.row, m.n_groups, adata.n_vars, ScorePriors())
    else:
        sums = score_sums(scores.blocks(), m.row, m.n_groups, adata.n_vars)
        found = run(step, inference, sums, ScorePriors())
    status = np.full(adata.n_vars, "filtered: constant in control cells", dtype=object)
    status[found.n_cells <= m.n_groups] = "filtered: too few scores in control cells"
    status[found.converged] = "converged"
    if found.settled is not None:
        status[found.converged & ~found.settled] = "not converged: raise niters"
    if not found.converged.any():
        raise ValueError("no feature has scores that differ between control cells: check control= and layer=")
    table = {name: getattr(found, name) for name in SCORE_COLUMNS if name != "status"}
    frame = pd.DataFrame(table | {"status": pd.Categorical(status)}, index=adata.var_names)
    slots = Slots(key)
    info = {"effect_scale": found.effect_scale, "effect_unit": m.likelihood.technical_unit}
    return {
        ("varm", key): frame,
        ("varm", slots.effects): found.effects,
        ("varm", slots.effects_sd): found.effects_sd,
    }, info
