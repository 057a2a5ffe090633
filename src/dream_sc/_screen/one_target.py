"""The fit of one target out of what was measured for all: its dosages, then its pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc._keys import DEPARTS, DEPARTS_WITH, INERT_GUIDES, NO_DOSAGE, PAIR_COLUMNS

if TYPE_CHECKING:
    from dream_sc._core.response.learned import Departures
    from dream_sc._core.response.prepare import Prepared
    from dream_sc._core.response.rows import Guides
    from dream_sc._core.screen.controls import Controls
    from dream_sc._core.types import CisCells, GuideStats

    from .all_targets import AllTargets
    from .targets import Target

LEVEL = -1.0  # log2: the one level at which all acting guides are taken to be where there are no dosages
MOST_FEATURES = 2000  # of most counts, for the offsets of the dosages


def fit_pairs(every: AllTargets, target: Target) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A row per feature, and what is known of the target.

    Raises
    ------
    ValueError
        If the cis gene, or all features, have too few counts.
    """
    from dream_sc._core.screen.fit import fit

    table, control = every.guides, every.guides["is_control"].to_numpy(bool)
    if target.ntc_guides:
        mine = control & table["guide"].isin(target.ntc_guides).to_numpy(bool)
        control = control & ~mine
        # null draws are of the controls that are left: those of another target would depend on which came first
        own = replace(every.classes, found={})
        every = replace(every, controls=_without(every, np.flatnonzero(control)), classes=own)
    else:
        mine = table["target"].isin(target.labels).to_numpy(bool)
    codes = np.flatnonzero(mine)
    stats = every.sums.of(codes)
    no_dosage = target.dosage == NO_DOSAGE
    guides = _without_dosage(len(codes)) if no_dosage else _dosages(every, target, codes, stats)
    prepared = _prepared(every, target, stats, guides, no_dosage=no_dosage)
    settings, every_code = every.settings, codes
    if no_dosage:
        settings = _compared(every)
        codes = codes[~_inert(every, target, codes, prepared)]
        if len(codes) < len(every_code):
            guides = _without_dosage(len(codes))
            prepared = _prepared(every, target, every.sums.of(codes), guides, no_dosage=True)

    def told(found: Departures) -> None:
        names = table["guide"].iloc[codes].astype(str).to_numpy(object)
        _tell(found, names, every.controls.prior.wide_weight, int(prepared.fitted.sum()))

    columns = fit(prepared, every.controls, every.classes, settings, tell=told)
    frame = _frame(every, target, columns, prepared)
    acting = guides.mean[:-1] * (np.nan if no_dosage else 1.0)
    return frame, {
        "n_guides": len(every_code),
        "n_cells": int(table["n_cells"].iloc[every_code].sum()),
        "n_control_cells": int(table["n_cells"][control].sum()),
        "log2_dosage_min": float(acting.min()),
        "log2_dosage_max": float(acting.max()),
        INERT_GUIDES: ", ".join(table["guide"].iloc[np.setdiff1d(every_code, codes)].astype(str)),
    }


def _inert(every: AllTargets, target: Target, codes: np.ndarray, prepared: Prepared) -> np.ndarray:
    """``(n,)`` guides of a target that do nothing that its others do, of which the log tells."""
    from dream_sc._core.screen.fit import acting_guides
    from dream_sc.tl._inert_guides import tell_inert, tell_split

    found = acting_guides(prepared, every.controls) if every.settings.guide_effects else None
    if found is None:
        return np.zeros(len(codes), dtype=bool)
    tell_inert(every.guides.iloc[codes], found)
    tell_split(target.name, found)
    return found.inert[: len(codes)]


def _tell(found: Departures, guides: np.ndarray, wide_weight: float, n_features: int) -> None:
    """Say which guides depart from the curves, as a fit of one target says it; the last of `found` are the controls."""
    from dream_sc.tl._departures import tell

    names, n = np.append(guides, ""), len(guides)
    partner = np.where(found.partner >= 0, names[found.partner], "")
    of_guides = {"guide": guides, "is_control": False, DEPARTS: found.share[:n], DEPARTS_WITH: partner[:n]}
    tell(pd.DataFrame(of_guides), wide_weight, n_features)


def _without(every: AllTargets, guides: np.ndarray) -> Controls:
    """The controls that are left where some play a target."""
    from .all_targets import controls_of

    known, effects = every.controls.prior, every.settings.guide_effects
    return controls_of(every.sums, guides, every.technical, offsets=every.guide_offsets, effects=effects, known=known)


def _compared(every: AllTargets) -> Any:
    from dream_sc._core.curves import SWITCH

    return replace(every.settings, function_type=SWITCH.name)


def _without_dosage(n: int) -> Guides:
    """Guides that act, all at one level, and one for the controls."""
    from dream_sc._core.response.rows import Guides

    mine, none = np.append(np.ones(n), 0.0), np.zeros(n + 1)
    return Guides(LEVEL * mine, none, none, none, mine == 0, level_error=0.0)


def _dosages(every: AllTargets, target: Target, codes: np.ndarray, stats: GuideStats) -> Guides:
    """Dosages of the guides of a target, and one guide for the controls, at the NTC level."""
    from dream_sc._core.engines import Inference, run
    from dream_sc._core.priors import CisPriors
    from dream_sc._core.response.rows import Guides

    cells, n = _cis_cells(every, target, codes, stats), len(codes)
    found = run("cis", Inference.of("laplace", every.settings.seed), cells, CisPriors())

    def mine(values: Any) -> np.ndarray:
        return np.append(np.asarray(values, dtype=float)[:n], 0.0)

    return Guides.of(
        of_all=(mine(found.guide_mean), mine(found.guide_sd)),
        of_acting=(mine(found.acting_mean), mine(found.acting_sd)),
        within_sd=mine(found.within_sd),
        escape=mine(found.escape),
        control=np.arange(n + 1) == n,
        level_error=float(found.baseline_sd),
    )


def _cis_cells(every: AllTargets, target: Target, codes: np.ndarray, stats: GuideStats) -> CisCells:
    """Cells of the target's guides, which come first, and of controls."""
    from dream_sc._core.types import CisCells

    cis, table, technical, gene = every.cis, every.guides, every.technical, str(target.gene)
    at = every.bare.var_names.get_loc(gene)
    control = np.flatnonzero(table["is_control"].to_numpy(bool))
    place = np.full(len(table), -1)
    place[np.append(codes, control)] = np.arange(len(codes) + len(control))
    guide = place[cis.guide]
    used = np.flatnonzero(guide >= 0)
    column = cis.counts[:, [cis.column[gene]]].toarray().ravel()[used]
    baseline = technical.baseline[at]
    if column.sum() == 0 or not np.isfinite(baseline):
        raise ValueError(f"the cis gene {gene!r} has no count in its guides and the controls, or no baseline")
    exposure = cis.size_factor[used] * baseline * 2.0 ** technical.effects[at][cis.group[used]]
    offset, var = _offsets(every, stats, at, len(control)) if every.guide_offsets else (None, None)
    if offset is not None:
        exposure = exposure * 2.0 ** offset[guide[used]]
    population = None
    if every.pooling == "target":
        of_guide = table["target"].to_numpy(object)[np.append(codes, control)]
        population = pd.factorize(of_guide)[0].astype(np.int64)
    return CisCells(
        column,
        exposure,
        guide[used].astype(np.int64),
        np.append(np.zeros(len(codes), dtype=bool), np.ones(len(control), dtype=bool)),
        float(technical.overdispersion[at]),
        population=population,
        offset=offset,
        offset_var=var,
    )


def _offsets(every: AllTargets, stats: GuideStats, gene: int, n_controls: int) -> tuple[np.ndarray, np.ndarray]:
    """Offset of each guide, log2, and its variance, as in the cis step; controls, counted as one, have none."""
    from dream_sc._core.dosage.offsets import offsets
    from dream_sc._core.response import prepare
    from dream_sc._core.screen.fit import joined

    technical = every.technical
    known = np.isfinite(technical.baseline) & np.isfinite(technical.overdispersion)
    known[gene] = False
    mean = np.where(known, technical.baseline, -1.0)
    features = np.zeros(len(mean), dtype=bool)
    features[np.argsort(-mean, kind="stable")[: min(MOST_FEATURES, int(known.sum()))]] = True
    both = joined(stats, every.controls)
    of_guide = (both.guide[:, None] == np.arange(both.n_guides)).astype(float)
    expected = prepare.expected(both, technical, features) @ of_guide
    w, w2 = both.exposure @ of_guide, both.exposure2 @ of_guide
    scale2 = w2 / np.where(w > 0, w, 1.0) ** 2
    found, var = offsets(both.counts[features] @ of_guide, expected, technical.overdispersion[features], scale2)
    none = np.zeros(n_controls)
    return np.append(found, none), np.append(var, none)


def _prepared(every: AllTargets, target: Target, stats: GuideStats, guides: Guides, *, no_dosage: bool) -> Prepared:
    """What was measured, in the form of the trans step."""
    from dream_sc._core.curves import LN2
    from dream_sc._core.response import prepare
    from dream_sc._core.response.overdispersion import with_silent
    from dream_sc._core.screen.fit import dosage_of, joined
    from dream_sc.tl._direct_targets import direct_targets

    bare, both = every.bare, joined(stats, every.controls)
    technical = with_silent(every.technical, both)
    is_cis = np.zeros(bare.n_vars, dtype=bool) if no_dosage else np.asarray(bare.var_names == target.gene)
    reason = prepare.reasons(both.counts.sum(1), technical.overdispersion, is_cis)
    of_cis = pd.DataFrame({"target": list(target.labels), "is_control": False})
    named = "" if no_dosage else str(target.gene)
    cis = {"guides": of_cis, "params": {"cis_targets": list(target.labels)}, "cis_gene": named}
    direct = direct_targets(bare, cis)
    if every.guide_offsets:
        ok = (reason == "") & np.isfinite(technical.baseline)
        offset, _ = prepare.offsets(both, technical, ok if direct is None else ok & ~direct)
        factor = 2.0 ** (offset[:-1] - offset[-1])[stats.guide]
        stats = replace(stats, exposure=stats.exposure * factor, exposure2=stats.exposure2 * factor**2)
        both = joined(stats, every.controls)
    return prepare.Prepared(
        stats=both,
        dosage=dosage_of(guides, both.guide),
        overdispersion=technical.overdispersion,
        axis=guides.axis(both.guide),
        group_effect_sd=technical.effect_sd * LN2,
        reason=reason,
        n_cells=int(every.guides["n_cells"].sum()),
        one_dosage=False if no_dosage else guides.one_dosage(both.guide),
        direct=direct,
    )


def _frame(every: AllTargets, target: Target, columns: dict[str, Any], prepared: Prepared) -> pd.DataFrame:
    """The table of the pairs, as a single fit has it."""
    from dream_sc.tl._direct_targets import with_direct
    from dream_sc.tl._near_cis import with_near

    frame = pd.DataFrame({c: columns[c] for c in PAIR_COLUMNS if c in columns}, index=every.bare.var_names)
    frame = with_direct(frame, prepared.direct)
    return with_near(frame, every.bare, every.bare, [target.gene or target.name])
