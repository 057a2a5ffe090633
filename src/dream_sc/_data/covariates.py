"""Covariates of cells: columns of `.obs` or a formula, read into a design of centred columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc._keys import COVARIATES, Slots
from dream_sc._logging import logger

from . import formula as _formula

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from dream_sc._core.covariates import CellBins

CELLS_PER_LEVEL = 5
CLOSE = 0.3  # Cramér's V of a covariate with the targets, from which on it is said
FEW_VALUES = 12  # of whole numbers, that may be labels


@dataclass(frozen=True)
class Design:
    """Covariates of cells as columns of numbers."""

    formula: str
    names: list[str]  # of the columns
    columns: list[str]  # of `.obs` that they are made of
    factors: list[str]  # those of them that are factors
    values: np.ndarray  # (N, Q); NaN where a cell was not asked for
    centre: np.ndarray  # (Q,) mean over the cells of the technical fit
    scale: np.ndarray  # (Q,) sd over them
    state: str  # levels of factors and what transforms keep, as json

    @property
    def z(self) -> np.ndarray:
        """``(N, Q)`` in sds from the mean."""
        return (self.values - self.centre) / self.scale

    @property
    def entry(self) -> dict[str, Any]:
        """What `.uns` holds of it."""
        return {
            "names": self.names,
            "columns": self.columns,
            "centre": self.centre,
            "scale": self.scale,
            "state": self.state,
        }


def first_design(
    adata: AnnData, formula: str | None, used: np.ndarray, group: np.ndarray, groups: list[str]
) -> Design | None:
    """The design of the cells of the technical fit, ``used``; None where nothing is left of the covariates.

    Parameters
    ----------
    formula
        Right-hand side.
    used
        ``(N,)`` cells of the technical fit.
    group, groups
        ``(N,)`` technical group of each cell, and their names: columns must not be combinations of these.
    """
    if formula is None:
        return None
    read = _formula.read(formula)
    _formula.refuse_unknown(adata, read)
    columns = read.columns
    _complete(adata, columns, used)
    levels = {c: _levels(adata, c, used) for c in _formula.factor_columns(adata, read)}
    for name, present in levels.items():
        if len(present) == 1:
            logger.warning("tl.fit_technical: covariate %r has one level in the cells used, left out", name)
    _say_whole(adata, [c for c in columns if c not in levels], used)
    names, found, states = _formula.encode(adata, read, levels, None, used)
    if not names:
        logger.warning("tl.fit_technical: nothing is left of covariates=%r, fitted without", formula)
        return None
    _finite(names, found, used)
    _full_rank(names, found[used], group[used], groups)
    centre, scale = found[used].mean(0), found[used].std(0)
    return Design(formula, names, columns, list(levels), found, centre, scale, _formula.written(levels, states))


def factors(adata: AnnData, technical: Any) -> dict[str, np.ndarray]:
    """Codes ``(N,)`` of the levels of the covariates of a technical fit that are factors."""
    entry = technical.get(COVARIATES)
    return {} if entry is None else _codes(adata, list(_stored(adata, technical, entry).levels))


def _codes(adata: AnnData, columns: list[str]) -> dict[str, np.ndarray]:
    return {name: pd.factorize(adata.obs[name].astype(str))[0] for name in columns}


def follow(adata: AnnData, design: Design | None, target: np.ndarray) -> tuple[dict[str, np.ndarray], list[str]]:
    """Covariates that are factors, with their codes, and numeric ones whose quarters follow the targets."""
    from dream_sc._core.stats.cramers_v import cramers_v

    if design is None:
        return {}, []
    codes, close = _codes(adata, design.factors), []
    known = target != ""
    code = np.unique(target[known], return_inverse=True)[1]
    for name in (c for c in design.columns if c not in codes):
        quarter = pd.qcut(adata.obs[name][known].astype(float), 4, labels=False, duplicates="drop").fillna(-1)
        if cramers_v(quarter.to_numpy(np.int64), code) > CLOSE:
            close.append(name)
    return codes, close


def design_again(adata: AnnData, technical: Any, used: np.ndarray) -> Design | None:
    """The same design for the cells ``used`` of a later step; None if the technical fit has no covariates."""
    entry = technical.get(COVARIATES)
    if entry is None:
        return None
    stored = _stored(adata, technical, entry)
    formula, levels, columns = stored.formula, stored.levels, stored.formula.columns
    _complete(adata, columns, used)
    for name, known in levels.items():
        here = adata.obs[name][used]
        strange = here[~here.map(_formula.plain_level).isin(known)]
        if len(strange):
            raise ValueError(
                f"{len(strange)} cells have levels of the covariate {name!r} that the cells of the technical fit lack, "
                f"{sorted(set(strange.astype(str)))[:8]}: their effect is not known. Drop these cells, merge levels, "
                "or, where groups do not follow the guides, fit_technical(use_all_cells=True)"
            )
    names, found, _ = _formula.encode(adata, formula, levels, stored.states, used)
    if names != stored.names:
        raise ValueError(
            f"the covariates give the columns {names}, but those of the technical fit are {stored.names}: call "
            "dream_sc.tl.fit_technical again"
        )
    _finite(names, found, used)
    return Design(formula.text, names, columns, list(levels), found, stored.centre, stored.scale, stored.text)


def _stored(adata: AnnData, technical: Any, entry: Any) -> _formula.Stored:
    """What the technical fit has stored, whose columns are all there."""
    stored = _formula.stored(technical, entry)
    columns = stored.formula.columns
    lacking = [c for c in columns if c not in adata.obs]
    if lacking:
        raise KeyError(
            f"the technical fit has the covariates {columns}, but .obs lacks {lacking}: put them back, or call "
            "dream_sc.tl.fit_technical again"
        )
    labels = [c for c in _formula.factor_columns(adata, stored.formula) if c not in stored.levels]
    if labels:
        raise ValueError(
            f"the covariates {labels} hold labels, but were numbers for the technical fit: convert them, or call "
            "dream_sc.tl.fit_technical again"
        )
    return stored


def log_factors(adata: AnnData, technical: Any, key: str, feature: int, used: np.ndarray) -> np.ndarray | float:
    """Log2 factor ``(N,)`` that covariates put on one feature's counts; NaN of cells not used, 0 without covariates."""
    return log_factors_by_feature(adata, technical, key, used)(feature)


def log_factors_by_feature(
    adata: AnnData, technical: Any, key: str, used: np.ndarray
) -> Callable[[int], np.ndarray | float]:
    """The same of one feature after another, for which the design is worked out once."""
    design = design_again(adata, technical, used)
    if design is None:
        return lambda feature: 0.0
    apart = design.values - design.centre
    b = np.nan_to_num(_coefficients(adata, Slots(key).covariates, design))
    return lambda feature: apart @ b[feature]


def _coefficients(adata: AnnData, slot: str, design: Design) -> np.ndarray:
    """``(T, Q)`` coefficients of the columns of a design, or their sds."""
    if slot not in adata.varm or np.shape(adata.varm[slot]) != (adata.n_vars, len(design.names)):
        raise ValueError(
            f".varm[{slot!r}] is not there, or has not one column for each of {design.names}: call "
            "dream_sc.tl.fit_technical again"
        )
    return np.asarray(adata.varm[slot]).astype(float)


def cell_bins(adata: AnnData, technical: Any, key: str, used: np.ndarray) -> CellBins | None:
    """Bins of the cells used by the covariates of the technical fit `key`; None if it has none."""
    design = design_again(adata, technical, used)
    if design is None:
        return None
    from dream_sc._core import covariates as core

    slots, unit = Slots(key), np.log(2) * design.scale
    b, sd = (_coefficients(adata, s, design) * unit for s in (slots.covariates, slots.covariates_sd))
    z = design.z[used]
    return core.CellBins(used, z, core.alike(z, core.MOST_BINS), b, sd)


# ---- checks ----------------------------------------------------------------------------------------------------------


def _complete(adata: AnnData, columns: list[str], used: np.ndarray) -> None:
    """Refuse covariates that are missing in a cell that is used, or that are no numbers and no labels."""
    missing = {c: int(adata.obs[c][used].isna().sum()) for c in columns}
    bad = {c: n for c, n in missing.items() if n}
    if bad:
        raise ValueError(
            f"covariates are missing (NaN) in some of the {int(used.sum())} cells used, by column: {bad}. Drop these "
            "cells, or fill the values in"
        )
    for name in columns:
        values = adata.obs[name]
        if values.dtype.kind in "Mmc":
            raise TypeError(f"the covariate {name!r} is of type {values.dtype}: numbers or labels are needed")
        if not _formula.is_numeric(values):
            _no_fractions(name, values[used])


def _no_fractions(name: str, values: pd.Series) -> None:
    """Refuse labels that are fractions, as of a column of numbers that was read as text."""
    counts = values.astype(str).value_counts()
    number = pd.to_numeric(pd.Series(counts.index, dtype=object), errors="coerce").to_numpy(float)
    fraction = np.isfinite(number) & (number != np.round(number))
    n = int(counts.to_numpy()[fraction].sum())
    if n:
        raise ValueError(
            f"the covariate {name!r} is text, but {n} of {len(values)} cells have a fraction there, "
            f"{list(counts.index[fraction][:3])}: convert it, .obs[{name!r}].astype(float), after mending what is no "
            "number"
        )


def _levels(adata: AnnData, name: str, used: np.ndarray) -> list[Any]:
    """Levels of a factor in the cells used, in the order of its categories."""
    values = adata.obs[name][used]
    if isinstance(values.dtype, pd.CategoricalDtype):
        found = list(values.cat.remove_unused_categories().cat.categories)
    else:
        found = sorted(values.unique(), key=lambda level: (str(type(level)), level))
    if len(found) > 1 and len(found) * CELLS_PER_LEVEL > len(values):
        raise ValueError(
            f"the covariate {name!r} has {len(found)} levels in {len(values)} cells: a factor needs at least "
            f"{CELLS_PER_LEVEL} cells a level; is it a number that was read as text, or a name of cells?"
        )
    return [_formula.plain_level(level) for level in found]


def _say_whole(adata: AnnData, columns: list[str], used: np.ndarray) -> None:
    for name in columns:
        values = adata.obs[name].to_numpy()[used]
        if values.dtype.kind in "iu" and 2 < len(np.unique(values)) <= FEW_VALUES:
            logger.info("tl.fit_technical: covariate %r is taken for a number; for labels write C(%s)", name, name)


def _finite(names: list[str], values: np.ndarray, used: np.ndarray) -> None:
    bad = {n: int(k) for n, k in zip(names, (~np.isfinite(values[used])).sum(0), strict=True) if k}
    if bad:
        raise ValueError(
            f"covariates are NaN or infinite in some of the {int(used.sum())} cells used, by column: {bad}. Drop these "
            "cells, or change the formula"
        )


def _full_rank(names: list[str], values: np.ndarray, group: np.ndarray, groups: list[str]) -> None:
    """Refuse columns that are combinations of the intercept, the technical groups and each other."""
    from dream_sc._core.covariates import dependent

    fixed = ["the intercept", *(f"the technical group {g!r}" for g in groups[1:])]
    indicators = [(group == c).astype(float) for c in range(1, len(groups))]
    found = dependent(np.column_stack([np.ones(len(group)), *indicators, values]), [*fixed, *map(repr, names)])
    told = [(name, of) for name, of in found if name not in fixed]
    if not told:
        return
    text = "; ".join(
        f"{name} has one value in all of them"
        if of in ([], fixed[:1])
        else f"{name} is a combination of " + ", ".join(of)
        for name, of in told
    )
    raise ValueError(
        f"covariates that cannot be told apart in the {len(values)} cells used: {text}. Leave one of each out"
        + (", or the batch_key" if len(groups) > 1 else "")
    )
