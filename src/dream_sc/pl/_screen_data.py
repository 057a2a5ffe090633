"""Tables behind the pictures of a whole library: fold changes, responders, what targets share, EC50s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import QVALUE_UNION
from dream_sc._logging import logger
from dream_sc.get import screen as get_screen

from . import _effects
from ._heatmap import by_shape

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from numpy.typing import NDArray

Show = Literal["fold_changes", "responders", "shared", "ec50"]
Order = Literal["cluster", "calls", "given"]
N_FEATURES = 100
MOST_SAID = 6  # targets without a call that the log names
MOST_TARGETS = 2000  # pairs of which are compared
FULL, MAX = "log2fc_full", "log2fc_max"
COLUMNS = (QVALUE_UNION, "lfdr", "on_knockdown", FULL, _effects.EC50, "p_ec50_inside")
WAYS = ("down", "up", "mixed")


def screen_data(
    data: pd.DataFrame | str | PathLike[str],
    show: Show = "fold_changes",
    *,
    targets: str | Iterable[str] | None = None,
    features: str | Iterable[str] | None = None,
    n_features: int | None = None,
    order: Order | None = None,
    fdr: float = 0.05,
) -> pd.DataFrame:
    """Results of a whole library as a table for a picture.

    Parameters
    ----------
    data
        What `tl.screen` returned, a parquet file of it, or the folder of its store.
    show
        "fold_changes": targets x features. "responders": how many features respond to each target. "shared": targets x
        targets, how far the same features respond. "ec50": the EC50s of the features that respond to each target.
    targets, features
        Only these. By default the targets that anything responds to; with "fold_changes" the features that respond to
        most targets, else all features.
    n_features
        How many features are taken for "fold_changes" where none are named; 100 by default.
    order
        Of "fold_changes" and "shared". "cluster", the default: neighbours have like values. "calls": those with most
        calls come first. "given": as in the screen, or as named. "responders" are sorted by their number, EC50s by
        their median in each target.
    fdr
        Pairs with a smaller `qvalue_union` are called.

    Returns
    -------
    "fold_changes": targets x features, log2 fold changes at the strongest knock-down (activation, where nothing was
    knocked down); `.attrs["called"]` says for each row which of its pairs are called. Pairs without a fold change, such
    as a target with itself, are NaN. "responders": a row per target with `down`, `up`, `mixed` (what features do on
    knock-down) and `all`. "shared": the number of features that respond to both targets in the same direction, less
    those in opposite directions, over those that respond to either: 1 for the same responses, -1 for opposite ones.
    "ec50": a row per pair that is called and whose `p_ec50_inside` is above 0.95, with target, feature, log2_ec50 and
    on_knockdown.

    Raises
    ------
    FileNotFoundError, KeyError, ValueError
        If there is no such file, a target, feature or column is not there, a pair is there twice, nothing is called, or
        an argument has no effect.

    Examples
    --------
    >>> table = ds.tl.screen(adata, progress=False)
    >>> ds.pl.screen_data(table, "responders").columns.tolist()
    ['down', 'up', 'mixed', 'all']
    """
    _validate.one_of("show", show, get_args(Show))
    _effects.check_fdr(fdr)
    if order is not None:
        _validate.one_of("order", order, ("cluster", "calls", "given"))
    if show not in ("fold_changes", "shared"):
        _validate.without_effect({"order": order}, f"with show={show!r}, only with 'fold_changes' and 'shared'")
    if n_features is not None:
        _validate.whole("n_features", n_features)
        if show != "fold_changes" or features is not None:
            why = "with features=" if features is not None else f"with show={show!r}, only with 'fold_changes'"
            _validate.without_effect({"n_features": n_features}, why)
    targets, features = (None if x is None else _validate.label_texts(x) for x in (targets, features))
    pairs, names = _asked(data, targets, features, fdr, any_call=show in ("shared", "ec50"))
    if show == "fold_changes":
        return _fold_changes(pairs, names, features, n_features or N_FEATURES, order or "cluster")
    if show == "shared":
        return _shared(pairs, names, order or "cluster")
    return _responders(pairs, names) if show == "responders" else _ec50s(pairs, names)


def _asked(
    data: pd.DataFrame | str | PathLike[str],
    targets: list[str] | None,
    features: list[str] | None,
    fdr: float,
    *,
    any_call: bool,
) -> tuple[pd.DataFrame, list[str]]:
    """The pairs with a column that says which are called, and names of targets; those without a call only if named."""
    pairs = get_screen(data, targets=targets, features=features)
    missing = [name for name in COLUMNS if name not in pairs]
    if missing:
        raise KeyError(f"the table lacks {missing}: give what dream_sc.tl.screen returned")
    twice = pairs.duplicated(["target", "feature"])
    if twice.any():
        first = [f"{t} with {f}" for t, f in pairs.loc[twice, ["target", "feature"]].astype(str).to_numpy()[:3]]
        raise ValueError(
            f"{int(twice.sum()):,} pairs of a target and a feature are there more than once, such as "
            f"{', '.join(first)}: give the table of one screen, with a row per pair"
        )
    call = (pairs[QVALUE_UNION] < fdr).to_numpy(bool)
    if not call.any() and (targets is None or any_call):
        raise ValueError(f"no pair is called at fdr={fdr}: take a larger one, or other targets= and features=")
    if targets is None:
        some = pairs["target"].isin(pairs["target"][call].unique()).to_numpy(bool)
        _say_left_out(list(dict.fromkeys(pairs["target"][~some].astype(str))), fdr)
        pairs, call = pairs[some], call[some]
    pairs = pairs.assign(target=pairs["target"].astype(str), feature=pairs["feature"].astype(str), called=call)
    return pairs, list(dict.fromkeys(pairs["target"] if targets is None else targets))


def _say_left_out(targets: list[str], fdr: float) -> None:
    """Name the targets without a call."""
    if targets:
        rest = f" and {len(targets) - MOST_SAID} more" if len(targets) > MOST_SAID else ""
        names = ", ".join(targets[:MOST_SAID]) + rest
        text = "pl.screen: left out, since nothing is called at fdr=%g: %s; targets= shows them"
        logger.info(text, fdr, names)


def _fold_changes(
    pairs: pd.DataFrame, targets: list[str], features: list[str] | None, n: int, order: Order
) -> pd.DataFrame:
    """Targets x features, with the calls as an attribute."""
    called = pairs[pairs["called"]].sort_values("target", kind="stable")  # sums of lfdr in one order
    if features is None:
        by = called.groupby("feature").agg(n=("lfdr", "size"), lfdr=("lfdr", "sum"))
        features = list(by.sort_values(["n", "lfdr"], ascending=[False, True], kind="stable").index[:n])
        if order == "given":
            chosen = set(features)
            features = [name for name in dict.fromkeys(pairs["feature"]) if name in chosen]
    if not features:
        raise ValueError("nothing is called for these targets: name features=")
    some = pairs[pairs["feature"].isin(features)]
    some = some.assign(change=_change(some))
    values = some.pivot(index="target", columns="feature", values="change").reindex(targets, columns=features)
    calls = some.pivot(index="target", columns="feature", values="called").reindex(targets, columns=features)
    is_call = calls.eq(True).to_numpy(bool)
    sure = np.where(is_call, values.to_numpy(float), 0.0)
    sure[np.isnan(sure)] = 0.0
    if order == "cluster":  # of names in one order: that of the table says nothing
        names = np.argsort(np.array(values.index, dtype=str)), np.argsort(np.array(values.columns, dtype=str))
        values, is_call, sure = values.iloc[names], is_call[np.ix_(*names)], sure[np.ix_(*names)]
    rows, columns = (_ordered(x, is_call.sum(axis), order) for x, axis in ((sure, 1), (sure.T, 0)))
    values = values.iloc[rows, columns].rename_axis(index=None, columns=None)
    values.attrs["called"] = is_call[np.ix_(rows, columns)].tolist()
    return values


def _change(pairs: pd.DataFrame) -> NDArray[np.float64]:
    """Log2 fold change at the strongest knock-down, or activation."""
    full = pairs[FULL].to_numpy(float)
    return np.where(np.isfinite(full), full, pairs[MAX].to_numpy(float)) if MAX in pairs else full


def _ordered(values: NDArray[np.float64], calls: NDArray[np.int64], order: Order) -> NDArray[np.int64]:
    """Places of rows in an order."""
    if order == "cluster":
        return by_shape(values)
    return np.argsort(-calls, kind="stable") if order == "calls" else np.arange(len(values))


def _responders(pairs: pd.DataFrame, targets: list[str]) -> pd.DataFrame:
    """Calls of each target by what features do on knock-down, most first."""
    called = pairs[pairs["called"]]
    way = _effects.direction(called, FULL)
    out = pd.crosstab(called["target"].to_numpy(), way).reindex(index=targets, columns=list(WAYS), fill_value=0)
    out = out.astype(int).rename_axis(index=None, columns=None)
    out["all"] = out.sum(axis=1)
    return out.sort_values("all", ascending=False, kind="stable")


def _shared(pairs: pd.DataFrame, targets: list[str], order: Order) -> pd.DataFrame:
    """How far the same features respond to two targets, in the same direction or opposite ones."""
    from scipy import sparse

    if len(targets) > MOST_TARGETS:
        raise ValueError(
            f'show="shared" takes up to {MOST_TARGETS:,} targets, and here are {len(targets):,}: name some as targets='
        )
    targets = sorted(targets) if order == "cluster" else targets
    called = pairs[pairs["called"]]
    sign = np.sign(_change(called))
    row = pd.Index(targets).get_indexer(called["target"])
    column = pd.factorize(called["feature"])[0]
    shape = (len(targets), int(column.max(initial=-1)) + 1)
    signs, any_ = (sparse.csr_matrix((x, (row, column)), shape) for x in (np.nan_to_num(sign), np.ones(len(called))))
    n, both = np.asarray(any_.sum(1)).ravel(), (any_ @ any_.T).toarray()
    either = n[:, None] + n[None] - both
    values = (signs @ signs.T).toarray() / np.maximum(either, 1.0)
    np.fill_diagonal(values, np.where(n > 0, 1.0, 0.0))
    rows = _ordered(values, n.astype(np.int64), order)
    names = np.array(targets, dtype=object)[rows]
    return pd.DataFrame(values[np.ix_(rows, rows)], names, names)


def _ec50s(pairs: pd.DataFrame, targets: list[str]) -> pd.DataFrame:
    """EC50s that may be reported, targets by their median."""
    called = pairs[pairs["called"]]
    out = called.assign(**{_effects.EC50: _effects.sure_ec50(called), "on_knockdown": _effects.direction(called, FULL)})
    out = out.loc[out[_effects.EC50].notna(), ["target", "feature", _effects.EC50, "on_knockdown"]]
    if not len(out):
        raise ValueError(
            f"none of {len(called):,} called pairs has an EC50 that may be drawn: p_ec50_inside is to be above "
            f"{_effects.SURE}, and is {called['p_ec50_inside'].max():.2g} at most; few guides seldom tell an EC50"
        )
    middle = out.groupby("target")[_effects.EC50].median()
    place = {name: i for i, name in enumerate(targets)}
    keys = [out["target"].map(middle), out["target"].map(place), out[_effects.EC50]]
    return out.iloc[np.lexsort(keys[::-1])].reset_index(drop=True)
