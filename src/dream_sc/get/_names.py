"""What the trans step wrote, found by the names of features, and of categories where a feature has several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._data import made_from, stored
from dream_sc._keys import CATEGORIES, CATEGORY_COLUMNS, ZERO, Slots

from . import _symbols
from ._stored import check_entry, completed, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from dream_sc._core.likelihoods import Likelihood

MIN_SIDE = 0.1  # log2: an end of the axis nearer to NTC than this has no fold change
CALL = "fit_trans(data)"
OWN = (*CATEGORY_COLUMNS, "mean")  # columns of a category by itself, not those of its feature
SEPARATOR = ":"  # of feature and layer, in the name of a category that is a layer


def names_of(features: str | Sequence[str]) -> list[str]:
    """One name, or several, as a list."""
    return [features] if isinstance(features, str) else list(features)


@dataclass(frozen=True)
class TransFit:
    """Rows of a trans fit: features, or the categories of features.

    A row is a row of `.var`; with `category_layers` it is a feature in a layer, feature by feature.
    """

    adata: AnnData
    key: str
    frame: pd.DataFrame  # `.varm[key]`
    info: Any  # `.uns[key]`
    names: pd.Index  # (R,) of the rows
    feature: np.ndarray | None = None  # (R,) feature of each row, if rows are categories
    category: np.ndarray | None = None  # (R,) category of each row by itself
    gene_symbols: str | None = None  # column of `.var` by which features are called
    shown: pd.Index | None = None  # (R,) what rows are called, by default their names
    shown_feature: np.ndarray | None = None  # (R,) what the feature of each row is called
    symbol: np.ndarray | None = None  # (R,) symbol of the feature of each row, "" where it has none

    @property
    def row_labels(self) -> pd.Index:
        """``(R,)`` what rows are called in tables, and asked for by."""
        return self.names if self.shown is None else self.shown

    @property
    def feature_labels(self) -> np.ndarray:
        """``(R,)`` what the feature of each row is called."""
        if self.feature is None:
            return np.asarray(self.row_labels)
        return self.feature if self.shown_feature is None else self.shown_feature

    def names_of_features(self) -> pd.Index:
        """What the rows of the stored table are called, where categories are layers."""
        return self.frame.index if self.gene_symbols is None else pd.Index(list(self.of_feature))

    @property
    def distribution(self) -> str:
        """Name of the distribution that was fitted."""
        return str(self.likelihood.name)

    @property
    def likelihood(self) -> Likelihood:
        """Its likelihood."""
        return stored.likelihood_of(self.info)

    @property
    def by_layer(self) -> bool:
        """Whether categories are layers."""
        return self.feature is not None and len(self.names) != len(self.frame)

    @cached_property
    def of_feature(self) -> dict[str, np.ndarray]:
        """The rows of each feature by what it is called, in order of first appearance; empty if rows are features."""
        if self.feature is None:
            return {}
        order = pd.Series(np.arange(len(self.names))).groupby(self.feature_labels, sort=False)
        return {str(name): rows.to_numpy() for name, rows in order}

    @cached_property
    def records(self) -> np.ndarray:
        """``(R, 512)`` compact posteriors."""
        records = table(self.adata, None, "varm", Slots(self.key).posterior, CALL)[1]
        return np.asarray(records).reshape(len(self.names), -1)

    def find(self, name: str) -> np.ndarray:
        """Rows of a feature or a category; a name of both is that of the feature.

        Raises
        ------
        KeyError, ValueError
            If there is no such name, or it is a symbol of several features.
        """
        if name in self.of_feature:
            return self.of_feature[name]
        known = self.row_labels
        if name not in known and self.gene_symbols is not None:
            ids = self.names if self.feature is None else self.feature
            every = pd.Index([*self.of_feature, *known])
            raise _symbols.unknown(name, ids, np.asarray(self.symbol), every, self.gene_symbols)
        if name not in known:
            close = _validate.close(name, [*self.of_feature, *self.names])
            where = "in var_names" if self.feature is None else "a feature or a category of the fit"
            hint = f'; a layer of a feature is named "feature{SEPARATOR}layer"' if self.by_layer else ""
            raise KeyError(f"feature {name!r} is not {where}{close}{hint}")
        return np.array([known.get_loc(name)])

    def fitted(self, name: str) -> np.ndarray:
        """Those rows of a feature or a category that have a posterior.

        Raises
        ------
        KeyError, ValueError
            If there is no such name, or nothing with this name has a posterior.
        """
        from dream_sc._core.response.status import NO_FIT

        rows = self.find(name)
        found = rows[np.isfinite(self.records[rows, 0])]
        if not len(found):
            row = self.row(rows[0])
            why = f"its status is {str(row['status'])!r}, {row.get('note', '')}".rstrip(", ")
            if row["status"] not in NO_FIT:
                why = "it has no count in any cell"
            raise ValueError(f"{name!r} has no posterior: {why}")
        return found

    def labels(self, r: int) -> dict[str, Any]:
        """Feature of row `r`, and its category if it is one."""
        feature = {"feature": str(self.feature_labels[r])}
        return feature if self.category is None else feature | {"category": str(self.category[r])}

    def row(self, r: int) -> pd.Series:
        """Numbers of row `r`, those of a category by itself where it has any."""
        if not self.by_layer:
            return self.frame.iloc[r]
        row = self.frame.iloc[r // (len(self.names) // len(self.frame))].copy()
        own = self.layer_table().iloc[r]
        for name in CATEGORY_COLUMNS:
            row[name] = own[name]
        return row

    def layer_table(self) -> pd.DataFrame:
        """`.uns[key]["categories"]` in the order of the rows, by their names."""
        every = self.info[CATEGORIES]
        index = every["feature"].astype(str) + SEPARATOR + every["category"].astype(str)
        return every.set_axis(pd.Index(index, name=None)).reindex(self.names)

    @property
    def ends(self) -> list[float]:
        """Ends of the axis at which something was perturbed: knock-down, then activation; the top of doses."""
        low, high, zero = (self.info["axis"].get(name) for name in ("low", "high", ZERO))
        if zero is not None:
            return [high - zero]
        return [end for end, moved in ((low, low <= -MIN_SIDE), (high, high >= MIN_SIDE)) if moved] or [low]

    @property
    def end(self) -> float:
        """The end at which the effect on knock-down is taken."""
        return self.ends[0]

    def is_switch(self, r: int) -> bool:
        """Whether row `r` is described by one level for all acting guides."""
        from dream_sc._core.response import posterior_record

        return bool(posterior_record.unpack(self.records[r])[0].by_acting)

    def unit(self, r: int) -> tuple[float, float]:
        """Centre and scale of a score, 0 and 1 of others: a value is centre + scale * that of the likelihood."""
        if "centre" not in self.frame:
            return 0.0, 1.0
        row = self.frame.iloc[r]
        return float(row["centre"]), float(row["scale"])


def trans_fit(data: Any, key: str, mod: str | None, gene_symbols: str | None = None) -> TransFit:
    """Find the trans fit; its features are called by the column `gene_symbols` of `.var`, if there is one.

    Raises
    ------
    KeyError
        If it is not there.
    """
    return _called(_trans_fit(data, key, mod), gene_symbols)


def _called(fit: TransFit, gene_symbols: str | None) -> TransFit:
    """The same fit, its features called by their symbols; categories keep their names."""
    if gene_symbols is None:
        return fit
    symbol = _symbols.symbols(fit.adata, gene_symbols).to_numpy(object)
    if fit.feature is None:
        shown = _symbols.unique_labels(fit.names, symbol).rename(gene_symbols)
        return replace(fit, gene_symbols=gene_symbols, shown=shown, symbol=symbol)
    symbol = np.repeat(symbol, len(fit.names) // len(symbol))
    of_feature = pd.Series(symbol).groupby(fit.feature, sort=False)
    one = of_feature.first().where(of_feature.nunique() == 1, "")
    label = pd.Series(_symbols.unique_labels(one.index, one.to_numpy()), one.index)
    own, of_row = label[fit.feature].to_numpy(object), one[fit.feature].to_numpy(object)
    shown = fit.names
    if fit.by_layer:
        shown = pd.Index([f"{f}{SEPARATOR}{c}" for f, c in zip(own, np.asarray(fit.category), strict=True)])
    return replace(fit, gene_symbols=gene_symbols, shown=shown, shown_feature=own, symbol=of_row)


def _trans_fit(data: Any, key: str, mod: str | None) -> TransFit:
    """Find the trans fit."""
    adata, frame = table(data, mod, "varm", key, CALL)
    info = _validate.step(adata, key, CALL)
    check_entry(info, key, CALL)
    like = stored.likelihood_of(info)
    frame = completed(frame, key, CALL, like)
    holder = getattr(data, "mod", {}).get(info.get("cis_mod"))
    made_from.warn_if_stale(adata, key, "get", holder)
    names = pd.Index(adata.var_names)
    if not like.categories:
        return TransFit(adata, key, frame, info, names)
    params = info["params"]  # not those of the technical fit, which may have been replaced since
    if params["category_layers"] is None:
        feature = adata.var[params["category_key"]].astype(str).to_numpy(object)
        return TransFit(adata, key, frame, info, names, feature, names.to_numpy(object))
    layers = [str(layer) for layer in params["category_layers"]]
    feature = np.repeat(names.to_numpy(object), len(layers))
    category = np.tile(np.array(layers, dtype=object), len(names))
    rows = pd.Index([f"{f}{SEPARATOR}{c}" for f, c in zip(feature, category, strict=True)])
    return TransFit(adata, key, frame, info, rows, feature, category)


def by_category(fit: TransFit) -> pd.DataFrame:
    """A row per category: the calls of its feature, and what it does by itself."""
    if fit.by_layer:
        own = fit.layer_table()
        frame = fit.frame.loc[fit.feature].set_axis(fit.names)
        for name in CATEGORY_COLUMNS:
            frame[name] = own[name]
    else:
        frame = fit.frame.copy()
    frame = frame.rename(columns={"category": "leading"}).set_axis(fit.row_labels)
    frame.insert(0, "feature", fit.feature_labels)
    frame.insert(1, "category", fit.category)
    return frame


def by_feature(fit: TransFit) -> pd.DataFrame:
    """A row per feature: its numbers, those of its category that moves most among them."""
    if fit.feature is None:
        return fit.frame.set_axis(fit.row_labels)
    if fit.by_layer:
        return fit.frame.set_axis(fit.names_of_features())
    first = np.array([rows[0] for rows in fit.of_feature.values()], dtype=int)
    frame = fit.frame.iloc[first].set_axis(pd.Index(list(fit.of_feature)))
    leading = fit.frame[[name for name in OWN if name in fit.frame]].reindex(frame["category"].astype(object))
    return frame.assign(**{name: leading[name].to_numpy() for name in leading})
