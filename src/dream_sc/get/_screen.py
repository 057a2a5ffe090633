"""The results of a whole library, out of a store, a file or a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from dream_sc import _validate
from dream_sc._keys import QVALUE_UNION

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike


def screen(
    data: pd.DataFrame | str | PathLike[str],
    what: Literal["pairs", "targets"] = "pairs",
    *,
    targets: str | Iterable[str] | None = None,
    features: str | Iterable[str] | None = None,
    q: float | None = None,
) -> pd.DataFrame:
    """Results of a screen: its pairs of a target and a feature, or its targets.

    Parameters
    ----------
    data
        What `tl.screen` returned, a parquet file of it, or the folder of its store, also one that is not finished.
    what
        "pairs": a row per target and feature. "targets": a row per target, with what was fitted, or why it was left
        out.
    targets, features
        Only rows of these; all by default. Q-values stay what they are over all pairs.
    q
        Only pairs whose `qvalue_union` is below it, the surest first.

    Returns
    -------
    The table, as `tl.screen` describes it. Out of a store its pairs are all that are there, so that `qvalue_union` is
    that of a screen of these targets.

    Raises
    ------
    FileNotFoundError, KeyError, ValueError
        If there is no such store or file, a target or feature is not in it, or an argument is not known.

    Examples
    --------
    >>> table = ds.tl.screen(adata, progress=False)
    >>> ds.get.screen(table, "targets")[["target", "status", "n_guides"]].values.tolist()
    [['GFI1B', 'fitted', 12]]
    >>> calls = ds.get.screen(table, q=0.05)
    >>> bool(calls["lfdr"].is_monotonic_increasing)
    True
    """
    from dream_sc._screen.union import targets_of

    _validate.one_of("what", what, ("pairs", "targets"))
    if not isinstance(data, pd.DataFrame | str) and not hasattr(data, "__fspath__"):
        raise TypeError(
            f"data is a {type(data).__name__}: give what dream_sc.tl.screen returned, a parquet file of it, or "
            "its store"
        )
    table = data if isinstance(data, pd.DataFrame) else _read(Path(data))
    if what == "targets":
        _validate.without_effect({"features": features, "q": q}, 'with what="targets", only on pairs')
        return _only(targets_of(table), "target", targets).reset_index(drop=True)
    out = _only(_only(table, "target", targets), "feature", features)
    if q is not None:
        if not 0 < q <= 1:
            raise ValueError(f"q={q} is not above 0 and at most 1")
        out = out[(out[QVALUE_UNION] < q).to_numpy(bool)].sort_values(["lfdr", "log_bf"], ascending=[True, False])
    return out.copy()


def _only(table: pd.DataFrame, column: str, names: str | Iterable[str] | None) -> pd.DataFrame:
    """Rows with one of some names."""
    if names is None:
        return table
    wanted, known = _validate.label_texts(names), table[column].astype(str)
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        there = sorted(set(known))[:8]
        raise KeyError(
            f"no {column} {unknown[:8]} in the screen; there are {there}{_validate.close(unknown[0], known.unique())}"
        )
    return table[known.isin(wanted).to_numpy()]


def _read(path: Path) -> pd.DataFrame:
    """The table out of a file, or of the parts of a store."""
    from dream_sc._screen.store import read_parts
    from dream_sc._screen.union import table_of

    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: give the store of dream_sc.tl.screen, or a parquet file of it")
    return table_of(read_parts(path)) if path.is_dir() else pd.read_parquet(path, engine="pyarrow")
