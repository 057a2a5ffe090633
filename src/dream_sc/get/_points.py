"""What was observed of a feature in each guide: counts, shares, usage or scores, free of groups and covariates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._core.stats.intervals import Z95
from dream_sc._data import ambient as _ambient
from dream_sc._data import covariates as _covariates
from dream_sc._data import made_from, results
from dream_sc._data import scores as _scores
from dream_sc._data import shares as _shares
from dream_sc._data.guide_matrix import guides_of_cells
from dream_sc._keys import COVARIATES, STICK_EFFECTS, STICKS, Slots

if TYPE_CHECKING:
    from ._names import TransFit

HEAD = ["guide", "is_control", "log2_dosage", "sd", "n_cells"]


@dataclass(frozen=True)
class Cells:
    """The cells of the modality, by guide and technical group."""

    fit: TransFit
    technical: Any  # `.uns` entry of the technical fit
    table: pd.DataFrame  # guides, one a row
    guide: np.ndarray  # (N,) row of the table; -1 where a cell takes no part
    group: np.ndarray  # (N,)

    @property
    def row(self) -> np.ndarray:
        """``(N,)`` row of (guide, group), -1 where a cell takes no part."""
        return np.where(self.guide >= 0, self.guide * self.n_groups + self.group, -1)

    @property
    def n_groups(self) -> int:
        """C."""
        return len(self.technical["groups"])

    def effects(self, j: int | np.ndarray) -> np.ndarray:
        """``(C,)`` effects of the groups on feature `j`, ``(R, C)`` on several."""
        key = Slots(self.fit.info["params"]["technical_key"]).effects
        return np.nan_to_num(np.asarray(self.fit.adata.varm[key])[j].astype(float))

    def sum(self, values: np.ndarray) -> np.ndarray:
        """``(G,)`` sums of values of cells by guide."""
        used = self.guide >= 0
        return np.bincount(self.guide[used], values[used], len(self.table))


def cells(data: Any, fit: TransFit) -> Cells:
    """Sort the cells; guides without cells in the modality are left out."""
    params = fit.info["params"]
    technical = _validate.step(fit.adata, params["technical_key"], "fit_technical(data)")
    holder = fit.adata if fit.info["cis_mod"] is None else data.mod[fit.info["cis_mod"]]
    cis = _validate.step(holder, params["cis_key"], "fit_cis(data, cis_gene)")
    for owner, key, entry in ((fit.adata, params["technical_key"], technical), (holder, params["cis_key"], cis)):
        made_from.warn_if_changed(owner, key, "get", entry["params"].get("layer"))
    mine = guides_of_cells(holder, params["cis_key"]).reindex(fit.adata.obs_names).to_numpy(object)
    every = fit.info["guides"]
    table = every[every["guide"].isin(set(mine))].reset_index(drop=True)
    guide = pd.Index(table["guide"]).get_indexer(mine)
    batch = technical["params"]["batch_key"]
    group = np.zeros(len(mine), dtype=np.int64)
    if batch is not None:
        groups = pd.Index([str(g) for g in technical["groups"]])
        group = groups.get_indexer(_validate.labels(fit.adata, batch, "batch_key"))
    return Cells(fit, technical, table, np.where(group >= 0, guide, -1), group)


def observed(c: Cells, rows: np.ndarray) -> pd.DataFrame:
    """What was observed in each guide of one row of the fit, or of rows that are categories of one feature."""
    if c.fit.likelihood.statistics == "shares":
        return shares(c, rows)
    of_one = {"counts": counts, "scores": scores}[c.fit.likelihood.statistics]
    return of_one(c, int(rows[0]))


def counts(c: Cells, j: int, *, more: float = 0.0) -> pd.DataFrame:
    """Mean count at size factor 1 and mean covariates, with its standard error by the fitted overdispersion.

    Ambient counts, where their share was given, are taken off. `more` counts are added to the sum of each guide.
    """
    params = c.fit.info["params"]
    y = results.one_column(_validate.matrix(c.fit.adata, params["layer"]), j)
    leaked = _leaked(c, np.array([j]))[0]
    covariates = _covariates.log_factors(c.fit.adata, c.technical, params["technical_key"], j, c.guide >= 0)
    s = _validate.size_factors(c.fit.adata, c.technical["params"]["size_factor_key"])
    s = s * 2.0 ** (c.effects(j)[c.group] + covariates)
    total, exposure, exposure2 = c.sum(y), c.sum(s), c.sum(s**2)
    exposure, se = _error(c, total, leaked, exposure, exposure2, np.array([j]))
    return _with_error(c.table[HEAD], (np.maximum(total - leaked, 0.0) + more) / exposure, se)


def counts_of_many(c: Cells, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means ``(R, G)`` of many features, as `counts` has them of one, and their standard errors, in one pass."""
    from dream_sc._core.sums.guide_sums import RowSums
    from dream_sc._data.counts import open_counts

    params = c.fit.info["params"]
    layer = params["layer"]
    sums = RowSums(c.guide, len(c.table), c.fit.adata.n_vars)
    for block in open_counts(_validate.matrix(c.fit.adata, layer), results.source(layer)).blocks(c.guide >= 0):
        sums.add(block)
    total, leaked = sums.closed()[0][rows], _leaked(c, rows)
    exposure, exposure2 = _exposures(c, rows)
    exposure, se = _error(c, total, leaked, exposure, exposure2, rows)
    return np.maximum(total - leaked, 0.0) / exposure, se


def _exposures(c: Cells, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums ``(R, G)`` of size factors with effects of groups and covariates, and of their squares."""
    key, used = c.fit.info["params"]["technical_key"], c.guide >= 0
    s = _validate.size_factors(c.fit.adata, c.technical["params"]["size_factor_key"])
    if COVARIATES in c.technical:  # every cell has a factor of its own
        first, second = np.empty((2, len(rows), len(c.table)))
        factor_of = _covariates.log_factors_by_feature(c.fit.adata, c.technical, key, used)
        for i, j in enumerate(rows):
            own = s * 2.0 ** (c.effects(j)[c.group] + factor_of(j))
            first[i], second[i] = c.sum(own), c.sum(own**2)
        return first, second
    shape = len(c.table), c.n_groups
    sums = [np.bincount(c.row[used], s[used] ** p, shape[0] * shape[1]).reshape(shape) for p in (1, 2)]
    factor = 2.0 ** c.effects(rows)
    return factor @ sums[0].T, factor**2 @ sums[1].T


def _error(
    c: Cells, total: np.ndarray, leaked: np.ndarray, exposure: np.ndarray, exposure2: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Exposures with the offsets of guides, and standard errors of means, of features in the first dimension if any."""
    scale2 = exposure2 / exposure**2
    exposure = exposure * 2.0 ** c.table["offset"].to_numpy()
    technical = c.fit.adata.varm[c.fit.info["params"]["technical_key"]]
    o = technical["overdispersion"].to_numpy(float)[rows][:, None]
    mean = (np.maximum(total - leaked, 0.0) + 0.5) / exposure
    se = np.sqrt((mean + leaked / exposure) / exposure + o**2 * mean**2 * scale2)
    return exposure, se.reshape(total.shape)


def _leaked(c: Cells, rows: np.ndarray) -> np.ndarray:
    """Expected ambient counts ``(R, G)`` of many features; 0 where the technical fit has none."""
    found = _ambient.stored(c.fit.adata, c.technical, c.fit.info["params"]["technical_key"])
    shape, used = (len(c.table), c.n_groups), c.guide >= 0
    if found is None:
        return np.zeros((len(rows), shape[0]))
    by_row = np.bincount(c.row[used], found.counts[used], shape[0] * shape[1]).reshape(shape)
    return np.asarray(found.profile[rows] @ by_row.T)


def with_acting(points: pd.DataFrame, c: Cells, levels: pd.Series | float) -> pd.DataFrame:
    """Add the dosage of the cells in which a guide acts, and what they show: the escaping ones are at NTC level.

    `levels` are NTC levels, by category where there are several.
    """
    own = c.table.set_index("guide").reindex(points["guide"])
    blank = pd.Series(0.0, own.index)
    escaping = own.get("escaper_fraction", blank).fillna(0.0).to_numpy(float)
    acting = own.get("log2_dosage_acting", own["log2_dosage"]).to_numpy(float)
    level = points["category"].map(levels).to_numpy(float) if isinstance(levels, pd.Series) else levels
    out = points.assign(escaper_fraction=escaping)
    out["log2_dosage_acting"] = np.where(escaping > 0, acting, points["log2_dosage"])
    most = np.inf if c.fit.likelihood.statistics == "counts" else 1.0
    for name in ("mean", "lower", "upper"):
        value = (points[name] - escaping * level) / (1 - escaping)
        if c.fit.likelihood.statistics != "scores" and name == "mean":
            value = value.clip(0.0, most)
        out[f"{name}_acting"] = np.where(escaping > 0, value, points[name])
    return out


def scores(c: Cells, j: int) -> pd.DataFrame:
    """Mean score of the cells that have one, robust for a Student t, with its standard error by the fitted scale."""
    from dream_sc._core.sums.pair_sums import robust_means

    params = c.fit.info["params"]
    x = next(_scores.open_scores(c.fit.adata[:, [j]], params["layer"]).blocks())[1][:, 0]
    x = x - c.effects(j)[c.group]
    seen = np.isfinite(x)
    n = c.sum(seen.astype(float))
    technical = c.fit.adata.varm[params["technical_key"]].iloc[j]
    with np.errstate(invalid="ignore", divide="ignore"):
        if c.fit.likelihood.robust:
            at = np.array([[technical["mu"]], [technical["sigma"]]], dtype=float)
            found = robust_means([(slice(0, 1), x[:, None])], c.guide, len(c.table), *at)
            mean, se = (values[0] for values in (found[0], 1 / np.sqrt(found[1])))
        else:
            mean, se = c.sum(np.where(seen, x, 0.0)) / n, float(technical["sigma"]) / np.sqrt(n)
    known = n > 0
    table = c.table[HEAD].assign(n_cells=c.sum(np.ones(len(x))).astype(int), n_scores=n.astype(int))
    return _with_error(table, np.where(known, mean, np.nan), np.where(known, se, np.nan))


def shares(c: Cells, rows: np.ndarray) -> pd.DataFrame:
    """Share of a feature's counts, or usage of some of its categories, with 95 % intervals.

    `rows` are rows of the fit: one, or those of categories of one feature.
    """
    from dream_sc._core.response import observed

    one = c.fit.feature is None
    pairs = _open(c, rows)
    y, n, doubles = _sums(c, pairs)
    if one:
        effects = c.effects(int(rows[0]))
        rho = c.fit.adata.varm[c.fit.info["params"]["technical_key"]]["overdispersion"].to_numpy(float)[rows]
        usage, column = observed.share_in_reference(y[0], n[0], effects)[:, None], np.zeros(1, dtype=int)
    else:
        at = pairs.sticks.rows_in(c.technical[STICKS])
        usage = observed.usage_in_reference(y, n, np.nan_to_num(np.asarray(c.technical[STICK_EFFECTS])[at]))
        chain = np.append(pairs.sticks.category, pairs.sticks.following[-1])
        own = dict(zip(map(str, pairs.sticks.column_names[chain]), range(len(chain)), strict=True))
        rows = np.array([r for r in rows if c.fit.labels(r)["category"] in own], dtype=int)
        if not len(rows):
            raise ValueError("the category has no count in any cell, so it has no usage")
        column = np.array([own[c.fit.labels(r)["category"]] for r in rows], dtype=int)
        # the last category has no stick of its own
        rho = c.technical[STICKS]["overdispersion"].to_numpy(float)[np.append(at, at[-1])][column]
    reads, twice = n[0].sum(1), doubles[0].sum(1)
    head = c.table[HEAD].assign(n_cells=c.sum(np.ones(len(c.guide))).astype(int), n_reads=reads.astype(int))
    parts = []
    for r, k, correlation in zip(rows, column, rho, strict=True):
        worth = observed.effective_trials(reads, twice, np.nan_to_num(correlation))
        low, high = observed.wilson(usage[:, k], worth)
        named = head if one else head.assign(category=c.fit.labels(r)["category"])
        parts.append(named.assign(n_effective=worth, mean=usage[:, k], lower=low, upper=high))
    return pd.concat(parts, ignore_index=True)


def _open(c: Cells, rows: np.ndarray) -> _shares.Pairs:
    """The counts of one feature.

    Raises
    ------
    ValueError
        If some of its categories are not there any more, or the technical fit is of others.
    """
    fit, params = c.fit, c.technical["params"]
    sticks, layers = c.technical.get(STICKS), params["category_layers"]
    own = fit.info["params"]
    if any(_as_list(own[name]) != _as_list(params[name]) for name in ("category_key", "category_layers")):
        raise ValueError(
            f"the technical fit {own['technical_key']!r} was replaced by one of other categories since "
            f"fit_trans(key_added={fit.key!r}), so that guides have no effects to take off: call fit_trans again"
        )
    if fit.feature is None:
        columns = rows
    else:
        name = str(fit.feature[rows[0]])
        sticks = sticks[sticks["feature"].astype(str) == name]
        if not len(sticks):
            raise ValueError(f"{name!r} has only one category with counts, so there is no usage to show")
        columns = np.array([fit.adata.var_names.get_loc(name)]) if fit.by_layer else np.flatnonzero(fit.feature == name)
    pairs = _shares.open_pairs(
        fit.adata[:, columns],
        fit.likelihood,
        layer=fit.info["params"]["layer"],
        denominator_layer=params["denominator_layer"],
        category_key=params["category_key"],
        category_layers=None if layers is None else list(layers),
        sticks=sticks,
    )
    if not pairs.n_sticks:
        raise ValueError(
            f"categories of {name!r} that the fit had are not in the data, so that shares of it are not known: draw it "
            "before taking a subset"
        )
    return pairs


def _as_list(value: Any) -> Any:
    """Names in a list, also those that come as an array from a file."""
    return value if value is None or isinstance(value, str) else list(map(str, value))


def _sums(c: Cells, pairs: _shares.Pairs) -> list[np.ndarray]:
    """Sums ``(S, G, C)`` of counts, of what they are out of, and of n (n - 1)."""
    from dream_sc._core.sums.pair_sums import pair_sums

    n_rows = len(c.table) * c.n_groups
    sums = pair_sums(pairs.covered(c.fit.info["params"]["min_denominator"]), c.row, n_rows, pairs.n_sticks)
    return [x.reshape(-1, len(c.table), c.n_groups) for x in (sums.numerator, sums.denominator, sums.pairs)]


def _with_error(table: pd.DataFrame, mean: np.ndarray, se: np.ndarray) -> pd.DataFrame:
    return table.assign(mean=mean, se=se, lower=mean - Z95 * se, upper=mean + Z95 * se)
