"""Stored tables by their slot, those of earlier versions with all columns of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import DIRECT_TARGET, SCHEMA_VERSION
from dream_sc._logging import logger

if TYPE_CHECKING:
    from dream_sc._core.likelihoods import Likelihood

# of the entry of `.uns`, without which a table of the trans step cannot be read
NEEDED = ("params", "axis", "guides", "cis_gene", "seed")
NEEDED_COLUMNS = ("lfdr", "qvalue", "log_bf", "class", "status")
TEXTS = ("on_knockdown", "confidence", "category", "note", "model", "class", "status")
# what classes and statuses were called before -> what they are called now
CLASSES = {"up": "increasing", "down": "decreasing"}  # as the dosage rises
STATUSES = {"cis gene": "cis_gene", "not asked for": "not_asked", "single_gap": "converged"}
# columns that came later, which every fit of this version has
LATER = (
    "on_knockdown",
    "confidence",
    "note",
    "score",
    "p_class",
    "lfdr_graded",
    "qvalue_graded",
    "log_bf_graded",
    "log2_dosage_full",
    "log2_dosage_max",
    DIRECT_TARGET,
)


def table(data: Any, mod: str | None, slot: str, key: str, call: str) -> Any:
    """A stored table and its object; a missing one names the function to call."""
    adata = _validate.readable(data, mod)
    store = getattr(adata, slot)
    _validate.text("key", key)
    if key not in store:
        raise KeyError(f".{slot}[{key!r}] is not there: call dream_sc.tl.{call} first, or name another key=")
    return adata, store[key]


def check_entry(info: Any, key: str, call: str) -> None:
    """Refuse an entry of `.uns` of a later version than this one, or without what every version writes."""
    from dream_sc._core.response.posterior_record import LAYOUT_VERSION

    for name, newest in (("schema_version", SCHEMA_VERSION), ("posterior_layout", LAYOUT_VERSION)):
        found = info.get(name, newest)
        if not isinstance(found, int | np.integer) or found > newest:
            raise ValueError(
                f".uns[{key!r}][{name!r}] is {found!r}, and this version of dream_sc reads up to {newest}: read it "
                "with the version that wrote it, or a later one"
            )
    lacking = [name for name in NEEDED if name not in info]
    if lacking:
        raise ValueError(f".uns[{key!r}] has no {lacking}, as every fit has: call dream_sc.tl.{call} again")


def completed(frame: pd.DataFrame, key: str, call: str, like: Likelihood) -> pd.DataFrame:
    """The table of a trans fit with all columns of today: what an earlier version lacks is empty, and the log says so.

    Direction, score and confidence are made from the other columns; classes and statuses get the names of today.

    Raises
    ------
    ValueError
        If a column is not there that every version has.
    """
    from ._columns import names_of_columns

    needed = [name for name in NEEDED_COLUMNS if name not in frame]
    if needed:
        raise ValueError(f".varm[{key!r}] has no columns {needed}, as every fit has: call dream_sc.tl.{call} again")
    names = names_of_columns("trans", like)
    lacking = [name for name in LATER if name not in frame]
    if not lacking:
        return frame
    made = _made(frame, lacking, like.effect)
    logger.warning(
        "get: .varm[%r] is of an earlier version of dream_sc, and lacks %d columns: %s are made from the others, %s "
        "are empty; call dream_sc.tl.%s again for those",
        key,
        len(lacking),
        [name for name in lacking if name in made],
        [name for name in lacking if name not in made],
        call,
    )
    rest = [name for name in frame if name not in names]
    empty: dict[str, Any] = {name: "" if name in TEXTS else np.nan for name in lacking} | {DIRECT_TARGET: False}
    full = frame.assign(**({name: empty[name] for name in lacking} | made))
    return full[[*(name for name in names if name in full), *rest]]


def _made(frame: pd.DataFrame, lacking: list[str], effect: str) -> dict[str, Any]:
    """Columns that follow from others, with the words of today."""
    from dream_sc._core.response import confidence, direction

    kind = frame["class"].astype(object).replace(CLASSES)
    status = frame["status"].astype(object).replace(STATUSES)
    rises = frame["hill_n"].to_numpy(float) > 0 if "hill_n" in frame else np.zeros(len(frame), bool)
    kind = kind.where(kind != "threshold", np.where(rises, "threshold_increasing", "threshold_decreasing"))
    out: dict[str, Any] = {"class": pd.Categorical(kind), "status": pd.Categorical(status)}
    columns = {name: frame[name].to_numpy() for name in frame} | {"class": kind.to_numpy(object)}
    if f"{effect}_full" in frame and f"{effect}_max" in frame and "p_class" in frame:
        found = direction.with_direction(columns, effect)
        out |= {"class": pd.Categorical(found["class"]), "score": found["score"]}
        out["on_knockdown"] = pd.Categorical(found["on_knockdown"])
    if all(name in frame for name in confidence.NEEDED):
        out["confidence"] = pd.Categorical(confidence.confidence(columns | {"class": np.asarray(out["class"])}))
    return {name: value for name, value in out.items() if name in lacking or name in ("class", "status")}


def entry(adata: Any, key: str, call: str, what: str = "") -> Mapping[str, Any]:
    """An entry of `.uns`; one that is not there, or is of something else, names the function to call."""
    _validate.text("key", key)
    found = adata.uns.get(key)
    if found is None:
        raise KeyError(f".uns[{key!r}] is not there: call dream_sc.tl.{call} first, or name another key=")
    if not isinstance(found, Mapping) or (what and what not in found):
        raise KeyError(f".uns[{key!r}] was not made by dream_sc.tl.{call}: name its key_added as key=")
    return found
