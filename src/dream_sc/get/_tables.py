"""Tables of the three steps and of their calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import CALIBRATION, CALIBRATION_TABLES, CIS, TECHNICAL, TRANS, Slots

if TYPE_CHECKING:
    from collections.abc import Sequence


def table(data: Any, mod: str | None, slot: str, key: str, call: str) -> Any:
    """A stored table and its object; a missing one names the function to call."""
    adata = _validate.readable(data, mod)
    store = getattr(adata, slot)
    if key not in store:
        raise KeyError(f".{slot}[{key!r}] is not there: call dream_sc.tl.{call} first, or name another key=")
    return adata, store[key]


def technical(data: Any, *, key: str = TECHNICAL, mod: str | None = None) -> pd.DataFrame:
    """Baseline, overdispersion and group effects of every feature.

    Parameters
    ----------
    data
        AnnData or MuData.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.

    Returns
    -------
    A row per feature (per category of a multinomial with `category_key`); the effect of a group is in the column
    ``effect_<group>``, its sd in ``effect_sd_<group>``. It is a log2 factor for counts, a shift of the logit for a
    binomial, of the log usage for a multinomial, of the score else. With `category_layers` each layer has its columns,
    ``mu_<layer>`` and ``effect_<group>_<layer>``.
    """
    adata, frame = table(data, mod, "varm", key, "fit_technical(data)")
    slots, groups = Slots(key), list(_validate.step(adata, key, "fit_technical(data)")["groups"])
    layers = adata.uns[key]["params"].get("category_layers")
    names = groups if layers is None else [f"{g}_{layer}" for g in groups for layer in layers]
    parts = [frame]
    for slot, label in ((slots.effects, "effect"), (slots.effects_sd, "effect_sd")):
        values = np.asarray(adata.varm[slot]).reshape(len(frame), len(names))
        parts.append(pd.DataFrame(values, frame.index, [f"{label}_{name}" for name in names]))
    return pd.concat(parts, axis=1)


def cis(data: Any, *, key: str = CIS, mod: str | None = None) -> pd.DataFrame:
    """Dosage of every cell: x_true (1 at NTC) and its log2 with sd and 95 % interval; NaN where it takes no part.

    Parameters
    ----------
    data
        AnnData or MuData.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.

    Returns
    -------
    A row per cell.

    Raises
    ------
    KeyError
        If the fit is not there.
    """
    return table(data, mod, "obsm", key, "fit_cis(data, cis_gene)")[1].copy()


def guides(data: Any, *, key: str = CIS, mod: str | None = None) -> pd.DataFrame:
    """Dosage of every guide, log2 relative to NTC, with sd, 95 % interval and the spread between its cells.

    Parameters
    ----------
    data
        AnnData or MuData.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.

    Returns
    -------
    A row per guide.

    Raises
    ------
    KeyError
        If the fit is not there.
    """
    frame: pd.DataFrame = table(data, mod, "uns", key, "fit_cis(data, cis_gene)")[1]["guides"]
    return frame.set_index("guide")


def trans(
    data: Any,
    features: str | Sequence[str] | None = None,
    *,
    key: str = TRANS,
    mod: str | None = None,
    sort: bool = False,
) -> pd.DataFrame:
    """Dose-response of every feature.

    Parameters
    ----------
    data
        AnnData or MuData.
    features
        Names to return; all by default.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    sort
        Put the surest responders first.

    Returns
    -------
    A row per feature; fold changes and dosages in log2 relative to NTC, NaN with its reason in `status`.

    Raises
    ------
    KeyError
        If the fit or a feature is not there.
    """
    adata, frame = table(data, mod, "varm", key, "fit_trans(data)")
    if features is not None:
        names = [features] if isinstance(features, str) else list(features)
        for name in names:
            _validate.feature(adata, name, "feature")
        frame = frame.loc[names]
    return frame.sort_values(["lfdr", "log_bf"], ascending=[True, False]) if sort else frame.copy()


def calibration(
    data: Any, table: str = "fpr", *, key: str = CALIBRATION, mod: str | None = None
) -> pd.DataFrame:
    """What `tl.calibrate` found.

    Parameters
    ----------
    data
        AnnData or MuData.
    table
        "fpr": false-positive rate at each level, with its standard error over regroupings. "regroupings": a row for
        each, with its calls at q < 0.05 and the guides that stood for targeting ones. "features": those called most.
        "qq": quantiles of the p-values by expression. "held_out": the rates before and after `replace=True` on NTC
        guides that had no part in it.
    key
        `key_added` of the calibration.
    mod
        Modality of a MuData.

    Returns
    -------
    The table: a row per level, regrouping, feature or quantile.

    Raises
    ------
    KeyError, ValueError
        If the calibration is not there, or has no such table.
    """
    adata = _validate.readable(data, mod)
    entry = adata.uns.get(key)
    if entry is None:
        raise KeyError(f".uns[{key!r}] is not there: call dream_sc.tl.calibrate(data) first, or name another key=")
    _validate.one_of("table", table, CALIBRATION_TABLES)
    if "fpr" not in entry:
        raise KeyError(f".uns[{key!r}] was not made by dream_sc.tl.calibrate: name its key_added as key=")
    if table not in entry:
        raise ValueError(f".uns[{key!r}] has no table {table!r}: dream_sc.tl.calibrate(data, replace=True) makes it")
    return entry[table].copy()
