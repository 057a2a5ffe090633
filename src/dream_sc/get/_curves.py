"""Curves with bands and posterior draws, made on demand from the compact posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from dream_sc import _io, _validate
from dream_sc._keys import TRANS, Slots

from ._tables import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

N_DRAWS = 400
LN2 = float(np.log(2))


def _records(data: Any, features: Any, key: str, mod: str | None) -> tuple[Any, list[str], np.ndarray]:
    adata, records = table(data, mod, "varm", Slots(key).posterior, "fit_trans(data)")
    names = [features] if isinstance(features, str) else list(features)
    rows = [_validate.feature(adata, name, "feature") for name in names]
    picked = np.asarray(records)[rows]
    for name, record in zip(names, picked, strict=True):
        if not np.isfinite(record[0]):
            status = adata.varm[key].loc[name, "status"]
            raise ValueError(f"{name!r} has no posterior, its status is {status!r}")
    return adata, names, picked


def dose_response(
    data: Any,
    features: str | Sequence[str],
    *,
    doses: Sequence[float] | np.ndarray | None = None,
    ci: float = 0.95,
    scale: Literal["expected", "log2fc", "derivative"] = "expected",
    key: str = TRANS,
    mod: str | None = None,
) -> pd.DataFrame:
    """Fitted curves with pointwise credible bands.

    Parameters
    ----------
    data
        AnnData or MuData.
    features
        Names of features.
    doses
        Log2 dosages relative to NTC; 101 points over the observed range by default.
    ci
        Coverage of the band.
    scale
        "expected": count at size factor 1; "log2fc": log2 against NTC; "derivative": log2 per log2.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.

    Returns
    -------
    Tidy frame: feature, log2_dosage, median, lower, upper.
    """
    from dream_sc._core import posterior as core

    _validate.one_of("scale", scale, ("expected", "log2fc", "derivative"))
    if not 0 < ci < 1:
        raise ValueError(f"ci={ci} is not between 0 and 1")
    adata, names, records = _records(data, features, key, mod)
    info = _validate.step(adata, key, "fit_trans(data)")
    axis = info["axis"]
    if doses is None:
        doses = np.linspace(axis["low"], axis["high"], 101)
    x = np.atleast_1d(np.asarray(doses, dtype=float))
    columns = ("log2_dosage", "median", "lower", "upper")
    frames = [pd.DataFrame({"feature": np.empty(0, dtype=object)} | {c: np.empty(0) for c in columns})] * (not names)
    for name, record in zip(names, records, strict=True):
        c, consts, _ = core.unpack(record)
        draws = core.draw(record, N_DRAWS, int(info["seed"]), name)
        if scale == "derivative":
            values = c.slope(x, draws, consts)
        else:
            values = c.log_curve(x, draws, consts)
            base = c.log_curve(np.zeros(1), draws, consts)
            values = np.exp(values) if scale == "expected" else (values - base) / LN2
        q = np.quantile(values, [0.5, (1 - ci) / 2, (1 + ci) / 2], axis=0)
        frames.append(
            pd.DataFrame({"feature": name, "log2_dosage": x, "median": q[0], "lower": q[1], "upper": q[2]})
        )
    return pd.concat(frames, ignore_index=True)


def posterior(
    data: Any,
    features: str | Sequence[str] | None = None,
    *,
    key: str = TRANS,
    nsamples: int | None = None,
    mod: str | None = None,
    rng: int | np.random.Generator = 0,
) -> xr.Dataset:
    """Posterior draws of the curve parameters of features.

    Parameters
    ----------
    data
        AnnData or MuData.
    features
        Names; all features with a posterior by default.
    key
        `key_added` of the fit.
    nsamples
        Draws per feature; as many as the fit used by default. 127 of the draws are stored for one Hill, 72 for two,
        picked to cover the posterior, and each is repeated equally often.
    mod
        Modality of a MuData.
    rng
        Seed or Generator. A feature's draws do not depend on which others are asked for.

    Returns
    -------
    Dataset with a variable per parameter, dimensions (feature, draw); NaN where a curve has no such parameter,
    and the coordinate ``model``.
    """
    import xarray as xr

    from dream_sc._core import posterior as core

    adata, records = table(data, mod, "varm", Slots(key).posterior, "fit_trans(data)")
    if features is None:
        features = [str(n) for n in adata.var_names[np.isfinite(np.asarray(records)[:, 0])]]
    adata, names, records = _records(data, features, key, mod)
    info, seed = _validate.step(adata, key, "fit_trans(data)"), _io.seed_of(rng)
    n = int(info["params"]["nsamples"]) if nsamples is None else int(nsamples)
    arrays: dict[str, np.ndarray] = {}
    models = []
    for i, (name, record) in enumerate(zip(names, records, strict=True)):
        c = core.unpack(record)[0]
        models.append(c.name)
        for parameter, values in zip(c.params, core.draw(record, n, seed, name).T, strict=True):
            arrays.setdefault(parameter, np.full((len(names), n), np.nan))[i] = values
    coords = {"feature": names, "draw": np.arange(n), "model": ("feature", models)}
    return xr.Dataset({k: (("feature", "draw"), v) for k, v in arrays.items()}, coords=coords)
