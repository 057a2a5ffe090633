"""Results in the form that all writers start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import betainc

from dream_sc import _validate
from dream_sc._data import results
from dream_sc._keys import DIRECT_TARGET, Slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from dream_sc.get._names import TransFit

PART = 64_000_000  # bytes of counts that are worked on at a time
HALF = 0.5  # added to counts, as by Jeffreys' prior of a Poisson rate
LEAST = 1e-9  # squared coefficient of variation; less than that is a Poisson count
CIS_STATUS = ("cis gene", "cis_gene")  # of the cis gene itself; files of earlier versions have the former


@dataclass(frozen=True)
class Responses:
    """A trans fit as tables."""

    fit: TransFit
    table: pd.DataFrame  # `get.trans`, all features
    guides: pd.DataFrame  # of the cis step
    cis_gene: str

    @property
    def adata(self) -> AnnData:
        """The object with the fit."""
        return self.fit.adata

    @property
    def others(self) -> pd.DataFrame:
        """Features besides the cis gene."""
        return self.table[~self.table["status"].astype(str).isin(CIS_STATUS)]

    @property
    def target(self) -> str:
        """What the targeting guides are directed at, several joined by ";"."""
        acting = self.guides[~self.guides["is_control"].astype(bool)]
        return ";".join(dict.fromkeys(acting["target"].astype(str)))

    def responders(self, fdr: float) -> pd.Series:
        """Which features are called at this false discovery rate; direct targets have no q-value."""
        called = (self.table["qvalue"] < fdr).fillna(False).astype(bool)
        if DIRECT_TARGET in self.table:
            called &= ~self.table[DIRECT_TARGET].fillna(False).astype(bool)
        return called


def responses(
    data: Any, key: str, mod: str | None, *, counts: bool = True, gene_symbols: str | None = None
) -> Responses:
    """The trans fit with its guides; other distributions than counts are refused if `counts`."""
    from dream_sc import get
    from dream_sc.get._names import trans_fit

    fit = trans_fit(data, key, mod, gene_symbols)
    if counts and fit.likelihood.effect != "log2fc":
        raise ValueError(
            f"this fit is with {fit.distribution!r}, but the format holds fold changes of counts: use "
            "dream_sc.io.to_tsv or to_excel"
        )
    table = get.trans(data, key=key, mod=mod, gene_symbols=gene_symbols)
    return Responses(fit, table, fit.info["guides"], str(fit.info["cis_gene"]))


def effects(of: Responses) -> tuple[pd.Series, float]:
    """One log2 fold change per feature besides the cis gene, and the log2 dosage at which it is taken.

    It is that of the strongest observed knock-down; where nothing was knocked down, that of the strongest activation.
    """
    dosage = of.guides.loc[~of.guides["is_control"].astype(bool), "log2_dosage"].astype(float)
    table = of.others
    down = table["log2fc_full"].notna().any()
    column = "log2fc_full" if down else "log2fc_max"
    stored = f"log2_dosage_{'full' if down else 'max'}"
    at = table[stored].dropna() if stored in table else pd.Series(dtype=float)
    place = float(at.iloc[0]) if len(at) else float(dosage.min() if down else dosage.max())
    return table[column].astype(float), place


@dataclass(frozen=True)
class Observed:
    """Sums of each guide's cells."""

    table: pd.DataFrame  # guides (G,)
    total: np.ndarray  # (G, F) counts
    exposure: np.ndarray  # (G, F) size factors times effects
    scale2: np.ndarray  # (G, F) sum of their squares over the square of their sum
    nonzero: np.ndarray  # (G, F) cells with counts


def observed(data: Any, of: Responses) -> Observed:
    """One pass over the counts: what single guides show, free of size factors, technical groups and covariates."""
    from dream_sc.get import _points

    c = _points.cells(data, of.fit)
    params = of.fit.info["params"]
    s = _validate.size_factors(of.adata, c.technical["params"]["size_factor_key"])
    n, g, f = len(c.guide), len(c.table), of.adata.n_vars
    used = np.flatnonzero(c.guide >= 0)
    member = sparse.csr_matrix((np.ones(len(used)), (c.guide[used], used)), (g, n))
    total, nonzero = np.zeros((g, f)), np.zeros((g, f))
    for start, part in _parts(of.adata, params["layer"]):
        mine = member[:, start : start + part.shape[0]]
        total += (mine @ part).toarray()
        nonzero += (mine @ (part > 0).astype(float)).toarray()
    row = c.row
    by_row = [np.bincount(row[used], s[used] ** k, g * c.n_groups).reshape(g, c.n_groups) for k in (1, 2)]
    effect = np.asarray(of.adata.varm[Slots(params["technical_key"]).effects], dtype=float).reshape(f, -1)
    factor = 2.0 ** np.nan_to_num(effect).T  # (C, F)
    exposure, squares = by_row[0] @ factor, by_row[1] @ factor**2
    exposure, squares = _with_covariates(c, of, s, exposure, squares)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale2 = squares / exposure**2
    offset = 2.0 ** c.table["offset"].to_numpy(dtype=float)[:, None] if "offset" in c.table else 1.0
    return Observed(c.table, total, exposure * offset, scale2, nonzero)


def _with_covariates(c: Any, of: Responses, s: np.ndarray, exposure: Any, squares: Any) -> tuple[Any, Any]:
    """Exposures with what covariates do to each feature, where there are any."""
    from dream_sc._data import covariates

    technical_key = of.fit.info["params"]["technical_key"]
    if not c.technical["params"].get("covariates"):
        return exposure, squares
    log_factors = covariates.log_factors_by_feature(of.adata, c.technical, technical_key, c.guide >= 0)
    for j in range(exposure.shape[1]):
        each = s * 2.0 ** (c.effects(j)[c.group] + log_factors(j))
        exposure[:, j], squares[:, j] = c.sum(each), c.sum(each**2)
    return exposure, squares


def _parts(adata: AnnData, layer: str | None) -> Iterator[tuple[int, sparse.csr_matrix]]:
    """Counts of some cells at a time, with the first of them."""
    for block in results.counts(adata, layer).cell_blocks():
        start = block.cell
        for part in block.parts(PART):
            arrays = part.data.astype(np.float64), part.indices, part.indptr
            yield start, sparse.csr_matrix(arrays, (part.n_major, part.n_minor))
            start += part.n_major


def two_sided(total: np.ndarray, expected: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """Two-sided mid p-values of counts that are negative binomial, with a squared coefficient of variation `beyond`.

    What is uncertain in the expectation, the NTC level for one, is in `beyond`: its posterior is about a gamma
    distribution, and a Poisson count whose expectation is gamma distributed is negative binomial.
    """
    n = 1 / np.maximum(beyond, LEAST)
    q = n / (n + expected)
    at, below = betainc(n, total + 1, q), np.where(total > 0, betainc(n, np.maximum(total, 1), q), 0.0)
    above = betainc(total + 1, n, 1 - q)
    from_here = np.where(total > 0, betainc(np.maximum(total, 1), n, 1 - q), 1.0)
    return np.asarray(np.minimum(1.0, np.minimum(at + below, above + from_here)))


def guide_contrasts(data: Any, of: Responses) -> pd.DataFrame:
    """Each targeting guide against all NTC guides, for every feature besides the cis gene.

    Returns
    -------
    A row per feature and guide: feature, guide_id, log2_fc, p_value, dream_sc_se, dream_sc_log2_dosage,
    dream_sc_n_cells. NaN where a feature was not fitted.
    """
    seen = observed(data, of)
    control = seen.table["is_control"].to_numpy(dtype=bool)
    technical = of.adata.varm[of.fit.info["params"]["technical_key"]]
    o2 = technical["overdispersion"].to_numpy(dtype=float) ** 2
    between = (of.fit.frame["guide_sd"].to_numpy(dtype=float) * np.log(2)) ** 2
    between = np.nan_to_num(between)
    pooled, counted = seen.exposure[control], seen.total[control].sum(0) + HALF
    with np.errstate(invalid="ignore", divide="ignore"):
        level = counted / pooled.sum(0)
        share2 = (pooled / pooled.sum(0)) ** 2
        spread = (share2 * seen.scale2[control]).sum(0)
        relative = 1 / counted + o2 * spread + between * share2.sum(0)  # variance of the level over its square
        total, expected = seen.total[~control], level * seen.exposure[~control]
        beyond = o2 * seen.scale2[~control] + between + relative
        ratio = np.log((total + HALF) / (expected + HALF))
        p = two_sided(total, expected, beyond)
        variance = 1 / expected + beyond
    keep = of.adata.var_names.isin(of.others.index) & of.fit.frame["guide_sd"].notna().to_numpy()
    bad = ~(np.isfinite(p) & keep)
    ratio, p = np.where(bad, np.nan, ratio), np.where(bad, np.nan, p)
    rows = np.flatnonzero(of.adata.var_names.isin(of.others.index))
    guides, g = seen.table[~control], int((~control).sum())
    return pd.DataFrame(
        {
            "feature": np.repeat(np.asarray(of.adata.var_names[rows], dtype=object), g),
            "guide_id": np.tile(guides["guide"].to_numpy(dtype=object), len(rows)),
            "log2_fc": ratio[:, rows].T.ravel() / np.log(2),
            "p_value": p[:, rows].T.ravel(),
            "dream_sc_se": np.sqrt(np.where(bad, np.nan, variance))[:, rows].T.ravel() / np.log(2),
            "dream_sc_log2_dosage": np.tile(guides["log2_dosage"].to_numpy(dtype=float), len(rows)),
            "dream_sc_n_cells": np.tile(guides["n_cells"].to_numpy(), len(rows)),
        }
    )
