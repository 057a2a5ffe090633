"""What each guide does to features, beside the curve that was fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc._core.stats.intervals import Z95
from dream_sc._keys import TRANS, ZERO

from . import _points
from ._curves import inert_guides, values
from ._names import TransFit, names_of, trans_fit
from ._responders import called

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

LN2 = float(np.log(2.0))
HALF = 0.5  # counts added to those of each guide, so that a guide without any has a log
SIZES = "n_reads", "n_scores", "n_cells"  # what a guide's mean is over, the first that is there


def guide_effects(
    data: AnnData | MuData,
    features: str | Sequence[str] | None = None,
    *,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Effect of every guide on features, against NTC, and where the fitted curve has it.

    The effect is what was observed in a guide's cells (`pl.dose_response_data`) against the mean over the cells of all
    NTC guides; an NTC guide is held against the others. Its error is that of both means by the fitted
    overdispersion, and the sd between guides of equal dosage (`guide_sd`), because cells with the same guide are not
    independent replicates. That sd is taken as known, so that p-values are somewhat too small where guides have strong
    effects of their own.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run, with its counts.
    features
        Names, as in `get.dose_response`; those with a q-value below 0.05 by default.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are asked for and called, as in `get.trans`.

    Returns
    -------
    A row per feature (and category) and guide: feature, guide, is_control, n_cells, log2_dosage, log2fc (delta_p of
    shares, delta of scores), se, pvalue (two-sided, of no effect), fitted (effect of the curve at the guide's dosage;
    0 for NTC and inert guides) and p_fitted (two-sided, of no difference from the curve: small where a guide
    disagrees). NaN where a guide has no reads or scores.

    Raises
    ------
    KeyError, ValueError
        If the fit or a feature is not there.

    Examples
    --------
    >>> effects = ds.get.guide_effects(adata, "gene_0002")
    >>> effects[["guide", "log2fc", "se"]].shape
    (18, 3)
    >>> bool((effects["log2fc"] - effects["fitted"]).abs().median() < 0.3)
    True
    """
    fit = trans_fit(data, key, mod, gene_symbols)
    names = list(called(fit).index) if features is None else names_of(features)
    cells = _points.cells(data, fit)
    parts = [_of_rows(fit, cells, fit.fitted(str(name))) for name in names]
    if not parts:
        numbers = ("n_cells", "log2_dosage", fit.likelihood.effect, "se", "pvalue", "fitted", "p_fitted")
        return pd.DataFrame(columns=["feature", "guide", "is_control", *numbers])
    return pd.concat(parts, ignore_index=True)


def _of_rows(fit: TransFit, cells: _points.Cells, rows: np.ndarray) -> pd.DataFrame:
    """The guides of one feature, or of categories of it."""
    if fit.likelihood.statistics == "counts":
        return _of_row(fit, int(rows[0]), _points.counts(cells, int(rows[0]), more=HALF))
    seen = _points.observed(cells, rows)
    if fit.feature is None:
        return _of_row(fit, int(rows[0]), seen)
    own = {fit.labels(int(r))["category"]: int(r) for r in rows}
    parts = [_of_row(fit, own[str(name)], part) for name, part in seen.groupby("category", sort=False)]
    return pd.concat(parts, ignore_index=True)


def _of_row(fit: TransFit, r: int, seen: pd.DataFrame) -> pd.DataFrame:
    """The guides of one row of the fit."""
    from scipy.stats import norm

    kind, control = fit.likelihood.statistics, seen["is_control"].to_numpy(bool)
    mean, error = seen["mean"].to_numpy(float), ((seen["upper"] - seen["lower"]) / (2 * Z95)).to_numpy(float)
    size = seen[next(name for name in SIZES if name in seen)].to_numpy(float)
    level, level_error = _level(mean, error, np.where(control, size, 0.0))
    guide_sd = np.nan_to_num(float(fit.row(r)["guide_sd"]))
    if kind == "counts":
        effect = np.log2(mean / level)
        error, level_error = error / mean / LN2, level_error / level / LN2
    else:
        effect = mean - level
    if kind == "shares":  # the sd is one of log odds
        guide_sd = guide_sd * mean * (1.0 - mean)
    se = np.sqrt(error**2 + level_error**2 + guide_sd**2)
    zero = np.float64(fit.info["axis"].get(ZERO, 0.0))
    nothing = control | seen["guide"].isin(inert_guides(fit)).to_numpy(bool)
    x = np.where(nothing, 0.0, seen["log2_dosage"].to_numpy(float) - zero)
    fitted = np.median(values(fit, r, x, "log2fc" if kind == "counts" else "delta"), 0)
    out: dict[str, Any] = {name: seen[name].to_numpy() for name in ("guide", "is_control", "n_cells", "log2_dosage")}
    out |= {fit.likelihood.effect: effect, "se": se, "pvalue": 2 * norm.sf(np.abs(effect) / se)}
    return pd.DataFrame(fit.labels(r) | out | {"fitted": fitted, "p_fitted": 2 * norm.sf(np.abs(effect - fitted) / se)})


def _level(mean: np.ndarray, error: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(G,)`` weighted mean over the guides but a guide itself, and its error."""
    weight = np.where(np.isfinite(mean) & np.isfinite(error), weight, 0.0)
    each = np.tile(weight, (len(mean), 1))
    if (weight > 0).sum() > 1:
        np.fill_diagonal(each, 0.0)
    each /= each.sum(1, keepdims=True)
    known = weight > 0
    return each[:, known] @ mean[known], np.sqrt(each[:, known] ** 2 @ error[known] ** 2)
