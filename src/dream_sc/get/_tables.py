"""Tables of the three steps and of their calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._data import made_from
from dream_sc._keys import (
    CALIBRATION,
    CALIBRATION_TABLES,
    CHECKED_GUIDES,
    CHECKS,
    CIS,
    CONFOUNDING,
    COVARIATES,
    TECHNICAL,
    TRANS,
    Slots,
)

from . import _symbols
from ._main_table import main_table
from ._names import by_category, by_feature, names_of, trans_fit
from ._stored import entry as stored_entry
from ._stored import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData


def technical(
    data: AnnData | MuData, *, key: str = TECHNICAL, mod: str | None = None, gene_symbols: str | None = None
) -> pd.DataFrame:
    """Baseline, overdispersion and group effects of every feature.

    Parameters
    ----------
    data
        AnnData or MuData.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names that rows get, as in `get.trans`.

    Returns
    -------
    A row per feature (per category of a multinomial with `category_key`); the effect of a group is in the column
    ``effect_<group>``, its sd in ``effect_sd_<group>``. It is a log2 factor for counts, a shift of the logit for a
    binomial, of the log usage for a multinomial, of the score else. Coefficients of covariates, log2 per unit, are in
    ``covariate_<name>`` and ``covariate_sd_<name>``. With `category_layers` each layer has its columns,
    ``mu_<layer>`` and ``effect_<group>_<layer>``.

    Examples
    --------
    >>> ds.get.technical(adata).columns.tolist()[:3]
    ['mu', 'mu_sd', 'overdispersion']
    """
    adata, frame = table(data, mod, "varm", key, "fit_technical(data)")
    slots, groups = Slots(key), list(_validate.step(adata, key, "fit_technical(data)")["groups"])
    layers = adata.uns[key]["params"].get("category_layers")
    names = groups if layers is None else [f"{g}_{layer}" for g in groups for layer in layers]
    parts = [frame]
    for slot, label in ((slots.effects, "effect"), (slots.effects_sd, "effect_sd")):
        values = np.asarray(adata.varm[slot]).reshape(len(frame), len(names))
        parts.append(pd.DataFrame(values, frame.index, [f"{label}_{name}" for name in names]))
    if COVARIATES in adata.uns[key]:
        names = list(adata.uns[key][COVARIATES]["names"])
        for slot, label in ((slots.covariates, "covariate"), (slots.covariates_sd, "covariate_sd")):
            parts.append(pd.DataFrame(np.asarray(adata.varm[slot]), frame.index, [f"{label}_{n}" for n in names]))
    return pd.concat(parts, axis=1).set_axis(_symbols.labels(adata, gene_symbols))


def cis(
    data: AnnData | MuData, *, key: str = CIS, mod: str | None = None, gene_symbols: str | None = None
) -> pd.DataFrame:
    """Dosage of every cell: x_true (1 at NTC) and its log2 with sd and 95 % interval; NaN where it takes no part.

    Parameters
    ----------
    data
        AnnData or MuData.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the name of the cis gene.

    Returns
    -------
    A row per cell; `.attrs["cis_gene"]` names the gene whose dosage it is.

    Raises
    ------
    KeyError
        If the fit is not there.

    Examples
    --------
    >>> dosage = ds.get.cis(adata)
    >>> dosage.attrs["cis_gene"], len(dosage) == adata.n_obs
    ('GFI1B', True)
    """
    adata, frame = table(data, mod, "obsm", key, "fit_cis(data, cis_gene)")
    made_from.warn_if_stale(adata, key, "get.cis")
    out: pd.DataFrame = frame.copy()
    if key in adata.uns:  # lost in a concatenation
        out.attrs["cis_gene"] = _cis_gene(adata, adata.uns[key], gene_symbols)
    return out


def _cis_gene(adata: Any, info: Any, gene_symbols: str | None) -> str:
    """Name of the cis gene of a fit in this object."""
    if gene_symbols is not None:
        _symbols.symbols(adata, gene_symbols)  # refuses a column that is not there
    return _symbols.gene_label(adata, str(info["cis_gene"]), gene_symbols)


def guides(
    data: AnnData | MuData, *, key: str = CIS, mod: str | None = None, gene_symbols: str | None = None
) -> pd.DataFrame:
    """Dosage of every guide, log2 relative to NTC, with sd, 95 % interval and the spread between its cells.

    Parameters
    ----------
    data
        AnnData or MuData.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names that targets get which are named as features.

    Returns
    -------
    A row per guide; `.attrs["cis_gene"]` names the gene whose dosage it is. With the key of a trans fit there are also
    `offset` (log2, of the exposures), `departs` (share of features in which the guide departs from the curves; NaN
    where this was not learned) and `departs_with` (the guide that departs with it, or ""). Of a fit with dosage "none"
    also `p_acts`, the probability that a guide acts: below 0.05 it was left out as inert; NaN of controls.

    Raises
    ------
    KeyError
        If the fit is not there.

    Examples
    --------
    >>> guides = ds.get.guides(adata)
    >>> guides.index[guides["is_control"]].tolist()[:2]
    ['NTC_01', 'NTC_02']
    """
    adata, info = table(data, mod, "uns", key, "fit_cis(data, cis_gene)")
    made_from.warn_if_stale(adata, key, "get.guides")
    frame: pd.DataFrame = info["guides"].set_index("guide")
    frame.attrs["cis_gene"] = _cis_gene(adata, info, gene_symbols)
    if gene_symbols is not None:
        names = {name: _symbols.gene_label(adata, name, gene_symbols) for name in frame["target"].astype(str).unique()}
        frame["target"] = frame["target"].astype(str).map(names)
    return frame


def trans(
    data: AnnData | MuData,
    features: str | Sequence[str] | None = None,
    *,
    columns: Literal["all", "main"] = "all",
    by: Literal["feature", "category"] = "feature",
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
    sort: bool = False,
) -> pd.DataFrame:
    """Dose-response of every feature.

    Parameters
    ----------
    data
        AnnData or MuData.
    features
        Names to return; all by default. Of a multinomial, names of features or of categories; a category that is a
        layer is called "feature:layer".
    columns
        "all", in reading order; or "main", those (at most 12) that most readers need, with the EC50 only where the data
        determine it. `get.columns` says what each means.
    by
        "feature": a row per feature. "category", for a multinomial: a row per category.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are asked for and called, for data named by ids. Where several
        features share a symbol they are called "symbol (id)", and where one has none by its id. Categories keep their
        names; their feature has the symbol that its rows agree on.
    sort
        Put the surest responders first.

    Returns
    -------
    A row per feature; dosages in log2 relative to NTC, NaN with its reason in `status` and `note`. Effects are log2
    fold changes of counts (`log2fc_...`), differences of shares (`delta_p_...`) or of scores (`delta_...`).

    With ``columns="main"`` the number `log2_ec50` is there where `p_ec50_inside` is above 0.95, and the text `ec50`
    has it with its interval; else the text says on which side of the observed dosages it lies ("below -2.9"), "not
    determined", or that a switch has none. Effects are those at the strongest knock-down (`log2fc_full`); where nothing
    was knocked down, those at the strongest activation (`log2fc_max`).

    A feature with categories has the numbers of the one that moves most, which the column `category` names. With
    ``by="category"`` the first columns are `feature` and `category`, and that name is in `leading`; `baseline` and
    `delta_p_...` are the category's own, all others those of its feature.

    Raises
    ------
    KeyError, ValueError
        If the fit or a feature is not there, a symbol is that of several features, or features have no categories.

    Examples
    --------
    >>> table = ds.get.trans(adata)
    >>> len(table) == adata.n_vars
    True
    >>> ds.get.trans(adata, ["gene_0002"], columns="main")["on_knockdown"].tolist()
    ['down']
    """
    _validate.one_of("by", by, ("feature", "category"))
    _validate.one_of("columns", columns, ("all", "main"))
    fit = trans_fit(data, key, mod, gene_symbols)
    if by == "category" and fit.feature is None:
        raise ValueError(f'by="category" is for a multinomial, and this fit is with {fit.distribution!r}: leave it out')
    frame = by_feature(fit) if by == "feature" else by_category(fit)
    if features is not None:
        rows = [fit.find(name) for name in names_of(features)]
        if fit.feature is None:
            frame = frame.iloc[np.concatenate([np.empty(0, int), *rows])]
        elif by == "feature":
            frame = frame.loc[list(dict.fromkeys(str(fit.feature_labels[found[0]]) for found in rows))]
        else:
            frame = frame.iloc[list(dict.fromkeys(int(r) for found in rows for r in found))]
    if sort:
        frame = frame.sort_values(["lfdr", "log_bf"], ascending=[True, False])
    return main_table(fit, frame) if columns == "main" else frame


def calibration(
    data: AnnData | MuData,
    table: Literal["fpr", "regroupings", "features", "qq", "held_out"] = "fpr",
    *,
    key: str = CALIBRATION,
    mod: str | None = None,
    gene_symbols: str | None = None,
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
    gene_symbols
        Column of `.var` with the names that features get, as in `get.trans`.

    Returns
    -------
    The table: a row per level, regrouping, feature or quantile.

    Raises
    ------
    KeyError, ValueError
        If the calibration is not there, or has no such table.

    Examples
    --------
    >>> ds.tl.calibrate(adata, n=5)
    >>> ds.get.calibration(adata)["level"].tolist()
    [0.05, 0.001, 1e-05]
    """
    adata = _validate.readable(data, mod)
    entry = stored_entry(adata, key, "calibrate(data)", "fpr")
    _validate.one_of("table", table, CALIBRATION_TABLES)
    if table not in entry:
        raise ValueError(f".uns[{key!r}] has no table {table!r}: dream_sc.tl.calibrate(data, replace=True) makes it")
    made_from.warn_if_stale(adata, key, "get.calibration")
    frame: pd.DataFrame = entry[table].copy()
    if gene_symbols is not None:
        names = dict(zip(adata.var_names, _symbols.labels(adata, gene_symbols), strict=True))
        for column in frame.columns.intersection(["feature"]):
            frame[column] = frame[column].map(lambda name: names.get(name, name))
    return frame


def confounding(
    data: AnnData | MuData,
    what: str | None = None,
    *,
    key: str = CONFOUNDING,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """What `tl.check_confounding` found: all checks, or the means of guides behind one of them.

    Parameters
    ----------
    data
        AnnData or MuData.
    what
        Name of what was checked (column "what"), such as "size factor" or a covariate; all checks by default.
    key
        `key_added` of the checks.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the name of the cis gene.

    Returns
    -------
    Without `what`: a row per check, as `tl.check_confounding` returns it. With it: a row per guide (and group of a
    categorical covariate, `level`): guide, is_control, log2_dosage, mean, se, n_cells. `.attrs["cis_gene"]` names the
    cis gene.

    Raises
    ------
    KeyError, ValueError
        If there are no checks, or none of that name has means of guides.

    Examples
    --------
    >>> checks = ds.tl.check_confounding(adata, batch_key="batch")
    >>> ds.get.confounding(adata)["flag"].dtype
    dtype('bool')
    >>> {"guide", "mean", "se"} <= set(ds.get.confounding(adata, "size factor"))
    True
    """
    adata = _validate.readable(data, mod)
    info = stored_entry(adata, key, "check_confounding(data)", CHECKS)
    made_from.warn_if_stale(adata, key, "get.confounding", getattr(data, "mod", {}).get(info.get("cis_mod")))
    if gene_symbols is not None:
        _symbols.symbols(adata, gene_symbols)  # refuses a column that is not there
    if what is None:
        out: pd.DataFrame = info[CHECKS].copy()
    else:
        every = info[CHECKED_GUIDES]
        _validate.one_of("what", what, dict.fromkeys(every["what"]))
        out = every[every["what"] == what].drop(columns="what").reset_index(drop=True)
    out.attrs["cis_gene"] = _symbols.cis_label(data, adata, info, gene_symbols)
    return out
