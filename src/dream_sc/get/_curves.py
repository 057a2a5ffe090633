"""Curves with bands and posterior draws, made on demand from the compact posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._data import results
from dream_sc._keys import P_ACTS, TRANS, ZERO

from ._names import TransFit, names_of, trans_fit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr
    from anndata import AnnData
    from mudata import MuData

    from dream_sc._core.curves import Curve

N_DRAWS = 400
Scale = Literal["expected", "log2fc", "delta", "derivative"]
COLUMNS = ("log2_dosage", "median", "lower", "upper")
BLOCK = 200  # features at a time
LARGEST = 60.0  # parameter up to which numbers of 32 bits are used


def dose_response(
    data: AnnData | MuData,
    features: str | Sequence[str],
    *,
    doses: float | Sequence[float] | np.ndarray | None = None,
    ci: float = 0.95,
    scale: Scale = "expected",
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Fitted curves with pointwise credible bands.

    Parameters
    ----------
    data
        AnnData or MuData.
    features
        Names of features. Of a multinomial, a feature stands for all its categories, each with its own curve; a
        category is named by itself ("feature:layer" where categories are layers).
    doses
        Log2 dosages relative to NTC, or log2 doses (-inf for dose 0); 101 points over the observed range by default.
    ci
        Coverage of the band.
    scale
        "expected": count at size factor 1, share, or score. "delta": its difference to NTC. "log2fc", of counts: log2
        of the ratio to NTC. "derivative": change of the effect per log2 of dosage, where the effect is the log2 of
        counts, a share or a score.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are asked for and called, as in `get.trans`.

    Returns
    -------
    Tidy frame: feature, for a multinomial category, then log2_dosage, median, lower, upper. Each curve is by itself:
    the medians of the categories of a feature need not add up to 1.

    Raises
    ------
    KeyError, ValueError
        If the fit or a name is not there, a feature was not fitted, or fold changes are asked for of other than counts.

    Examples
    --------
    >>> curve = ds.get.dose_response(adata, "gene_0002", scale="log2fc")
    >>> curve.columns.tolist()
    ['feature', 'log2_dosage', 'median', 'lower', 'upper']
    >>> bool((curve["lower"] <= curve["upper"]).all())
    True
    """
    _validate.one_of("scale", scale, get_args(Scale))
    if not 0 < ci < 1:
        raise ValueError(f"ci={ci} is not between 0 and 1")
    fit = trans_fit(data, key, mod, gene_symbols)
    if scale == "log2fc" and fit.likelihood.effect != scale:
        raise ValueError(
            f'scale="log2fc" is of counts, and this fit is with {fit.distribution!r}: use scale="delta", the '
            "difference to NTC"
        )
    return curves(fit, [r for name in names_of(features) for r in fit.fitted(name)], doses, ci, scale)


def curves(
    fit: TransFit, rows: Sequence[int] | np.ndarray, doses: Any = None, ci: float = 0.95, scale: str = "expected"
) -> pd.DataFrame:
    """Curves of rows of the fit, which have a posterior, one after another."""
    refuse_without_dosage(fit)
    if doses is None:
        doses = np.linspace(fit.info["axis"]["low"], fit.info["axis"]["high"], 101)
    zero, frames = fit.info["axis"].get(ZERO), []
    x = _validate.numbers("doses", doses, below=0.0 if zero is None else -np.inf)
    # at dose 0 and below it, the axis ends
    at = x if zero is None else np.maximum(x - zero, 0.0)
    for r in rows:
        q = np.quantile(values(fit, r, at, scale), [0.5, (1 - ci) / 2, (1 + ci) / 2], axis=0)
        columns: dict[str, Any] = dict(zip(COLUMNS, (x, *q), strict=True))
        frames.append(pd.DataFrame(fit.labels(r) | columns))
    return pd.concat(frames, ignore_index=True) if frames else _empty(fit)


def refuse_without_dosage(fit: TransFit) -> None:
    """Refuse a fit without dosages, which has no curve."""
    if not np.isfinite(fit.info["axis"]["low"]):
        raise ValueError(
            f".uns[{fit.key!r}] is a fit without dosages, so that there is no curve: columns such as "
            f"{fit.likelihood.effect}_full of dream_sc.get.trans are the change in the cells in which a guide acts"
        )


def _empty(fit: TransFit) -> pd.DataFrame:
    text = ("feature",) if fit.feature is None else ("feature", "category")
    return pd.DataFrame({n: np.empty(0, dtype=object) for n in text} | {n: np.empty(0) for n in COLUMNS})


def acting_level(fit: TransFit, r: int) -> np.ndarray:
    """Draws ``(S,)`` of the expected value of row `r` where guides act, of a fit without dosages."""
    return values(fit, r, np.ones(1), "expected")[:, 0]


def inert_guides(fit: TransFit) -> list[str]:
    """Guides of a fit without dosages that were left out of it, since they do nothing."""
    from dream_sc._core.response.inert_guides import inert

    table = fit.info["guides"]
    return [] if P_ACTS not in table else list(table["guide"][inert(table[P_ACTS].to_numpy(float))].astype(str))


def values(fit: TransFit, r: int, x: np.ndarray, scale: str) -> np.ndarray:
    """Draws ``(S, X)`` of the curve of row `r` at places `x` of the axis, on which dose 0 is 0."""
    from dream_sc._core.response import posterior_record, summary

    like, (centre, unit) = fit.likelihood, fit.unit(r)
    curve, consts, _ = posterior_record.unpack(fit.records[r])
    draws = posterior_record.draw(fit.records[r], N_DRAWS, int(fit.info["seed"]), str(fit.names[r]))
    if curve.by_acting:  # one level at all dosages but that of NTC
        x = np.where(x == 0.0, 0.0, 1.0)
    if scale == "derivative":
        return unit * summary.slope(x, draws, curve, consts, like)
    predictor, ntc = curve.log_curve(x, draws, consts), curve.log_curve(np.zeros(1), draws, consts)
    if scale == "log2fc":
        return np.asarray(like.change(predictor, ntc))
    value = unit * like.expected(predictor)
    return np.asarray(centre + value if scale == "expected" else value - unit * like.expected(ntc))


def values_of_many(
    fit: TransFit, rows: np.ndarray, x: np.ndarray, scale: str, *, every: int = 1
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Kept draws of many curves, block by block: which of `rows`, and ``(r, S, X)`` values at places `x` of the axis.

    Rows without a posterior are left out. `every` takes one draw of so many: these are ordered, so that a part of them
    covers the posterior just as well.
    """
    from dream_sc._core.response import posterior_record

    kinds: dict[tuple[str, int], list[int]] = {}
    found = {}
    for i, r in enumerate(rows):
        if np.isfinite(fit.records[r, 0]):
            found[i] = posterior_record.unpack(fit.records[r])
            kinds.setdefault((found[i][0].name, len(found[i][2])), []).append(i)
    for members in kinds.values():
        curve = found[members[0]][0]
        # a switch has one level at all dosages but that of NTC
        at = np.where(x == 0.0, 0.0, 1.0) if curve.by_acting else x
        for start in range(0, len(members), BLOCK):
            some = members[start : start + BLOCK]
            draws = np.stack([found[i][2][::every] for i in some])
            consts = np.stack([found[i][1] for i in some])[:, None]
            # records have 16 bits, so that 32 are enough where no exponential is too large for them
            kind = np.float32 if np.abs(draws).max() < LARGEST else np.float64
            own: Any = draws.astype(kind), consts.astype(kind)
            predictor, ntc = curve.log_curve(at.astype(kind), *own), curve.log_curve(np.zeros(1, kind), *own)
            if scale == "log2fc":
                yield some, np.asarray(fit.likelihood.change(predictor, ntc))
                continue
            centre, unit = np.array([fit.unit(int(rows[i])) for i in some]).T[:, :, None, None]
            value = unit * fit.likelihood.expected(predictor)
            yield (
                some,
                np.asarray(centre + value if scale == "expected" else value - unit * fit.likelihood.expected(ntc)),
            )


def posterior(
    data: AnnData | MuData,
    features: str | Sequence[str] | None = None,
    *,
    key: str = TRANS,
    nsamples: int | None = None,
    mod: str | None = None,
    gene_symbols: str | None = None,
    rng: int | np.random.Generator = 0,
) -> xr.Dataset:
    """Posterior draws of the curve parameters of features.

    Parameters
    ----------
    data
        AnnData or MuData.
    features
        Names, as in `get.dose_response`; all that have a posterior by default.
    key
        `key_added` of the fit.
    nsamples
        Draws per feature; as many as the fit used by default. 127 of the draws are stored for one Hill, 72 for two,
        picked to cover the posterior, and each is repeated equally often.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are asked for and called, as in `get.trans`.
    rng
        Seed or Generator. A feature's draws do not depend on which others are asked for.

    Returns
    -------
    Dataset with a variable per parameter, dimensions (feature, draw), and the coordinate ``model``; NaN where a curve
    has no such parameter. Of a multinomial the first dimension is ``category``, with the coordinate ``feature``, and
    draws of different categories do not belong together.

    ``a`` is the level at NTC dosage: the natural log of the count at size factor 1, the log odds of a share, or the
    score. One Hill: ``b`` is the asymptote at high dosage less that at low dosage, on the same scale;
    ``log2_ec50`` and ``log_n`` are its place (relative to NTC) and the log of its steepness. Of counts and shares these
    are of the count and the odds themselves: the Hill is ``1 + (exp(b) - 1) h(x)``, and the EC50 of a share, which
    `get.trans` gives, is another one. Two Hills (second: ``_b``): of counts and shares ``b1``, ``b2`` are logs of
    positive amplitudes in units of the lowest level; of scores, amplitudes with the sign of the Hill. Polynomial:
    ``c1`` to ``c6``, on the scale of ``a``, of the powers of the dosage taken to -1 to 1.

    Examples
    --------
    >>> draws = ds.get.posterior(adata, "gene_0002", nsamples=100)
    >>> dict(draws.sizes)
    {'feature': 1, 'draw': 100}
    >>> bool(draws["log2_ec50"].notnull().all())
    True
    """
    import xarray as xr

    from dream_sc._core.response import posterior_record as core

    fit = trans_fit(data, key, mod, gene_symbols)
    if features is None:
        rows = [int(r) for r in np.flatnonzero(np.isfinite(fit.records[:, 0]))]
    else:
        rows = [int(r) for name in names_of(features) for r in fit.fitted(name)]
    seed = results.seed_of(rng)
    if nsamples is not None:
        _validate.whole("nsamples", nsamples)
    n = int(fit.info["params"]["nsamples"]) if nsamples is None else int(nsamples)
    arrays: dict[str, np.ndarray] = {}
    models = []
    for i, r in enumerate(rows):
        curve, consts, _ = core.unpack(fit.records[r])
        models.append(curve.name)
        draws = core.draw(fit.records[r], n, seed, str(fit.names[r]))
        if "centre" in fit.frame:
            draws = _in_score(fit, r, curve, draws, consts)
        for parameter, values in zip(curve.params, draws.T, strict=True):
            if parameter.startswith("log2_ec50"):
                values = values + fit.info["axis"].get(ZERO, 0.0)
            arrays.setdefault(parameter, np.full((len(rows), n), np.nan))[i] = values
    dimension = "feature" if fit.feature is None else "category"
    coords = {dimension: [str(fit.row_labels[r]) for r in rows], "draw": np.arange(n), "model": (dimension, models)}
    if fit.feature is not None:
        coords["feature"] = (dimension, [str(fit.feature_labels[r]) for r in rows])
    return xr.Dataset({k: ((dimension, "draw"), v) for k, v in arrays.items()}, coords=coords)


def _in_score(fit: TransFit, r: int, c: Curve, draws: np.ndarray, consts: np.ndarray) -> np.ndarray:
    """Draws with level and amplitudes in the unit of the score."""
    centre, unit = fit.unit(r)
    expected = fit.likelihood.expected
    out = draws.copy()
    levels = slice(0, 1 + c.n_amplitudes)
    if c.log_amplitudes:
        out[:, levels][:, 1:] = consts * np.logaddexp(0.0, draws[:, levels][:, 1:])
    out[:, levels] = unit * expected(out[:, levels])
    out[:, 0] += centre
    return out
