"""One table of all targets of a screen, with one false discovery rate over all of its pairs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dream_sc._keys import PAIR_COLUMNS, PAIR_TEXTS, QVALUE_UNION, TARGET_COLUMNS_OF_SCREEN, TARGETS_OF_SCREEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .store import Part

CALLED = 0.05  # q-value
# of pairs that are called over all targets only
ONLY_OVER_ALL = {
    "confidence": "low",
    "note": "called over all targets only: pairs of other targets that are clear carry it",
}


def pairs_of(name: str, frame: pd.DataFrame, features: Sequence[str] | None) -> pd.DataFrame:
    """The rows of a target that were asked for: those columns of the table of the trans step that a screen keeps."""
    frame = frame if features is None else frame[frame.index.isin(features)]
    kept = frame[[c for c in PAIR_COLUMNS if c in frame]].reset_index(drop=True)
    kept.insert(0, "feature", frame.index.astype(str).to_numpy(object))
    kept.insert(0, "target", name)
    return kept


def table_of(parts: Sequence[Part]) -> pd.DataFrame:
    """The table of all pairs; what is known of targets goes with it, see `targets_of`."""
    some = [part.frame for part in parts if len(part.frame)]
    if some:
        out = pd.concat(_with_the_same_categories(some), ignore_index=True)
    else:
        out = pd.DataFrame(columns=["target", "feature", *PAIR_COLUMNS])
    out.insert(out.columns.get_loc("qvalue") + 1, QVALUE_UNION, over_all(out))
    only = (out[QVALUE_UNION] < CALLED).to_numpy(bool) & ~(out["qvalue"] < CALLED).to_numpy(bool)
    if only.any():
        out.loc[only, list(ONLY_OVER_ALL)] = list(ONLY_OVER_ALL.values())
    for name in (c for c in PAIR_TEXTS if c in out):
        text = out[name].astype("category").cat.remove_unused_categories()
        out[name] = text.cat.reorder_categories(sorted(text.cat.categories))
    rows = [part.about for part in parts]
    calls = out["target"][(out[QVALUE_UNION] < CALLED).to_numpy(bool)].astype(str).value_counts()
    rows = [row | {"n_calls_union": int(calls.get(row["target"], 0)) if row["n_rows"] else None} for row in rows]
    # a text, since tables copy what goes with them at each step
    out.attrs = {TARGETS_OF_SCREEN: json.dumps([{c: r.get(c) for c in TARGET_COLUMNS_OF_SCREEN} for r in rows])}
    return out


def _with_the_same_categories(frames: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Tables whose texts are categories, the same in all: together they take a byte or two a row, texts take eight."""
    out = [frame.copy(deep=False) for frame in frames]
    for name in (c for c in PAIR_TEXTS if any(c in frame for frame in frames)):
        texts = {text for frame in frames if name in frame for text in frame[name].dropna().unique()}
        categories = sorted(texts | ({ONLY_OVER_ALL[name]} if name in ONLY_OVER_ALL else set()))
        for frame in out:
            if name in frame:
                frame[name] = pd.Categorical(frame[name], categories=categories)
    return out


def over_all(pairs: pd.DataFrame) -> np.ndarray:
    """The q-value of each pair among all that have one within their target, NaN of the others.

    It is the running mean of the sorted local false discovery rates, as within a target.
    """
    from dream_sc._core.response.decision import q_values

    lfdr, q = (pairs[c].to_numpy(float) for c in ("lfdr", "qvalue"))
    out, some = np.full(len(pairs), np.nan), np.isfinite(q) & np.isfinite(lfdr)
    if some.any():
        out[some] = q_values(lfdr[some])
    return out


def targets_of(table: pd.DataFrame) -> pd.DataFrame:
    """The table of targets that goes with a table of pairs.

    Raises
    ------
    KeyError
        If there is none.
    """
    if TARGETS_OF_SCREEN not in table.attrs:
        raise KeyError(
            "the table of targets does not go with this table: give what dream_sc.tl.screen returned, its parquet "
            "file, or the store"
        )
    return pd.DataFrame(json.loads(table.attrs[TARGETS_OF_SCREEN]), columns=list(TARGET_COLUMNS_OF_SCREEN))
