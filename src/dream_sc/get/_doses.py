"""Dosages at which a part of the observed movement, or a fold change, is reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import TRANS, ZERO

from ._curves import refuse_without_dosage, values
from ._names import TransFit, names_of, trans_fit
from ._responders import called

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

STEPS = 200  # from NTC to an end of the axis
MOST_FLAT = 1e-12  # of a curve without movement
FAR, SLACK = 1e6, 1e-6  # log2: beyond any dosage, and of rounding


def doses(
    data: AnnData | MuData,
    features: str | Sequence[str] | None = None,
    *,
    level: float | Sequence[float] = (0.1, 0.5, 0.9),
    fold_change: float | Sequence[float] | None = None,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Dosages at which shares of the observed movement are done (ED10, ED50, ED90), or fold changes are reached.

    The movement goes from the expected value at NTC dosage to that at the strongest observed knock-down (at the
    strongest activation, where nothing was knocked down; at the top dose, for doses). Unlike the EC50 it does not
    depend on asymptotes outside of the observed dosages, so it is always there.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    features
        Names, as in `get.dose_response`; those with a q-value below 0.05 by default.
    level
        Shares of the movement, each above 0 and below 1; an empty list for none.
    fold_change
        Effects to look for, with their sign: log2 fold changes of counts, differences of shares or scores else. Where
        one is reached on both sides of NTC, the knock-down is told.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are asked for and called, as in `get.trans`.

    Returns
    -------
    A row per feature and level: feature (and category), level, log2_dosage (posterior median), q025, q975, p_reached
    (probability that it is reached within the observed dosages). It is where a curve gets there first on its way from
    NTC. With `fold_change` there are rows with this column filled and no level. NaN of a switch, and where the median
    or an end of the interval is not reached. For doses, log2 of the user's unit; NaN below the lowest dose.

    Raises
    ------
    KeyError, ValueError
        If the fit or a feature is not there, the fit is without dosages, or a level is not between 0 and 1.

    Examples
    --------
    >>> table = ds.get.doses(adata, ["gene_0002"], fold_change=-0.5)
    >>> table["level"].tolist()
    [0.1, 0.5, 0.9, nan]
    >>> bool(table["log2_dosage"].iloc[:3].is_monotonic_decreasing)
    True
    """
    levels = _validate.numbers("level", level)
    if not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"level={level}: each is a share of the movement, above 0 and below 1")
    changes = _validate.numbers("fold_change", [] if fold_change is None else fold_change)
    if not (changes != 0).all():
        raise ValueError(f"fold_change={fold_change}: each is a log2 fold change other than 0")
    fit = trans_fit(data, key, mod, gene_symbols)
    refuse_without_dosage(fit)
    names = list(called(fit).index) if features is None else names_of(features)
    parts = []
    for r in [int(r) for name in names for r in fit.fitted(str(name))]:
        place = np.full((1, len(levels) + len(changes)), np.nan)  # of a switch, which gets there at no dosage
        if not fit.is_switch(r):
            place = _of_levels(fit, r, levels)
        if len(changes) and not fit.is_switch(r):
            place = np.concatenate([place, _of_changes(fit, r, changes)], 1)
        columns = {"level": np.append(levels, np.full(len(changes), np.nan))}
        if fold_change is not None:
            columns["fold_change"] = np.append(np.full(len(levels), np.nan), changes)
        parts.append(pd.DataFrame(fit.labels(r) | columns | _quantiles(fit, place)))
    return pd.concat(parts, ignore_index=True) if parts else _empty(fit, fold_change is not None)


def _empty(fit: TransFit, changes: bool) -> pd.DataFrame:
    names = ["feature", *([] if fit.feature is None else ["category"]), "level", *(["fold_change"] * changes)]
    return pd.DataFrame(columns=[*names, "log2_dosage", "q025", "q975", "p_reached"])


def _grid(fit: TransFit, end: float) -> np.ndarray:
    """Places of the curve ``(X,)`` from NTC to an end of the axis, the first of them where a dosage can be told."""
    zero = fit.info["axis"].get(ZERO)
    start = 0.0 if zero is None else fit.info["axis"]["low"] - zero
    return np.linspace(start, end, STEPS + 1)


def _of_levels(fit: TransFit, r: int, levels: np.ndarray) -> np.ndarray:
    """Places ``(S, L)`` of shares of the movement."""
    x = np.append(0.0, _grid(fit, fit.end))
    curve = values(fit, r, x, "delta")
    whole = curve[:, -1:]
    share = curve / np.where(np.abs(whole) < MOST_FLAT, np.inf, whole)
    return _first(x[1:], share[:, 1:], levels)


def _of_changes(fit: TransFit, r: int, changes: np.ndarray) -> np.ndarray:
    """Places ``(S, C)`` of effects: those of a knock-down before those of an activation."""
    scale = "log2fc" if fit.likelihood.effect == "log2fc" else "delta"
    sides = []
    for end in fit.ends:
        x = _grid(fit, end)
        curve = values(fit, r, x, scale)
        sides.append(np.concatenate([_first(x, curve / change, np.ones(1)) for change in changes], 1))
    out = sides[0]
    for i, other in enumerate(sides[1].T if len(sides) > 1 else ()):
        here, there = np.isfinite(out[:, i]), np.isfinite(other)
        # where neither side gets there, the effect lies beyond the end of the side that mostly does
        takes = ~here & (there | (there.sum() > here.sum()))
        out[takes, i] = other[takes]
    return out


def _first(x: np.ndarray, curve: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Places ``(S, L)`` at which curves ``(S, X)`` first reach levels, by linear interpolation.

    Where one does not, it is infinitely far in the direction of `x`; one that begins above the level was there before.
    """
    beyond = np.copysign(np.inf, x[-1] - x[0])
    rows, out = np.arange(len(curve)), np.full((len(curve), len(levels)), beyond)
    for i, level in enumerate(levels):
        above = curve >= level
        k = above.argmax(1)
        low, high = curve[rows, np.maximum(k - 1, 0)], curve[rows, k]
        part = (level - low) / np.where(high > low, high - low, 1.0)
        place = x[np.maximum(k - 1, 0)] + part * (x[k] - x[np.maximum(k - 1, 0)])
        out[:, i] = np.where(above.any(1), np.where(k == 0, -beyond, place), beyond)
    return out


def _quantiles(fit: TransFit, place: np.ndarray) -> dict[str, np.ndarray]:
    """Median, interval and share of places ``(S, L)`` that are within the observed dosages."""
    axis = fit.info["axis"]
    finite = np.clip(place, -FAR, FAR)
    q = np.quantile(finite, (0.5, 0.025, 0.975), axis=0, method="weibull") + axis.get(ZERO, 0.0)
    q[(q < axis["low"] - SLACK) | (q > axis["high"] + SLACK)] = np.nan
    columns = dict(zip(("log2_dosage", "q025", "q975"), q, strict=True))
    return columns | {"p_reached": np.isfinite(place).mean(0)}
