"""From AnnData to arrays and back."""

from __future__ import annotations

import logging
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import MADE_FROM, RESULTS, SCHEMA_VERSION, SIZE_FACTOR
from dream_sc._logging import logger, wrote
from dream_sc._memory.budget import highest_resident

from . import stored_results

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from .counts import Counts

ABSENT = object()
SHOWN = 3  # cells and features that an error names


def counts(
    adata: AnnData, layer: str | None, limit: int | str | None = None, held: Mapping[str, int] | None = None
) -> Counts:
    """The counts of `.X` or a layer, to be read block by block; see `counts.open_counts`."""
    from .counts import open_counts

    x = _validate.matrix(adata, layer)
    return open_counts(x, source(layer), limit, held, lambda: _validate.counts_elsewhere(adata))


def one_column(x: Any, j: int) -> np.ndarray:
    """One feature of all cells as a dense vector."""
    from .counts import open_counts

    return open_counts(x, "the matrix of counts").column(j)


def source(layer: str | None) -> str:
    """How to name the counts in a message."""
    return ".X" if layer is None else f".layers[{layer!r}]"


def named_values(adata: AnnData, cells: np.ndarray, columns: np.ndarray, names: Any) -> str:
    """The first few cells and features of values."""
    pairs = zip(cells[:SHOWN], columns[:SHOWN], strict=True)
    return ", ".join(f"cell {adata.obs_names[i]!r} feature {names[j]!r}" for i, j in pairs)


def versions() -> dict[str, str]:
    """Versions of the packages that results may depend on."""
    out = {}
    for package in ("dream-sc", "anndata", "numpy", "scipy", "numba"):
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            out[package] = "unknown"
    return out


def run_info(started: float, seed: int, params: dict[str, Any]) -> dict[str, Any]:
    """What every step stores about its run."""
    return {
        "schema_version": SCHEMA_VERSION,
        "params": params,
        "versions": versions(),
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "peak_memory": highest_resident(),
    }


def seed_of(rng: int | np.random.Generator) -> int:
    """The seed that a run uses: the integer itself, or a draw from a Generator."""
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**31))
    if isinstance(rng, bool) or not isinstance(rng, int | np.integer):
        raise TypeError(f"rng={rng!r} is not a seed: use an int or a numpy Generator")
    if rng < 0:
        raise ValueError(f"rng={rng!r} is negative: a seed is 0 or more")
    return int(rng)


def write(adata: AnnData, label: str, slots: dict[tuple[str, str], Any], started: float) -> None:
    """Assign all slots, or none: an error restores what was there before.

    A slot that is `ABSENT` is removed, if it is there: what an earlier fit has left. An entry of `.uns` that is a
    dictionary also says which step wrote it.
    """
    before: list[tuple[str, str, Any]] = []
    slots = {(a, k): v for (a, k), v in slots.items() if v is not ABSENT or k in getattr(adata, a)}
    for attribute, key in slots:
        if attribute == "uns" and isinstance(slots[attribute, key], dict):
            _validate.new_key(adata, key, label)
            slots[attribute, key]["step"] = label
            if MADE_FROM in slots[attribute, key]:
                slots[attribute, key][MADE_FROM][RESULTS] = stored_results.noted(adata, key, slots)
        if key in getattr(adata, attribute):
            of_user = attribute == "obs" and key != SIZE_FACTOR and not any(a == "uns" for a, _ in slots)
            of_user = of_user and _differs(adata.obs[key], slots)
            logger.log(
                logging.WARNING if of_user else logging.INFO, "%s: .%s[%r] is overwritten", label, attribute, key
            )
    try:
        for (attribute, key), value in slots.items():
            store = getattr(adata, attribute)
            before.append((attribute, key, store[key] if key in store else ABSENT))
            if value is ABSENT:
                del store[key]
            else:
                store[key] = value
    except BaseException:
        for attribute, key, value in before:
            store = getattr(adata, attribute)
            if value is not ABSENT:
                store[key] = value
            elif key in store:
                del store[key]
        raise
    for attribute, key in slots:  # a table of another step, as by tl.calibrate(replace=True)
        made = adata.uns.get(key, {}).get(MADE_FROM, {}) if attribute == "varm" and ("uns", key) not in slots else {}
        if RESULTS in made:
            made[RESULTS] = stored_results.noted(adata, key, {(attribute, key): slots[attribute, key]})
    there = [f".{attribute}[{key!r}]" for (attribute, key), value in slots.items() if value is not ABSENT]
    wrote(label, there, time.perf_counter() - started)
    if adata.isbacked:
        logger.info("%s: the object is backed, results are in memory; write them to a new file with .write()", label)


def _differs(column: Any, slots: dict[tuple[str, str], Any]) -> bool:
    """Whether a column of `.obs` is to hold other values than it does: it may be the user's own."""
    new = pd.Series(slots["obs", column.name], index=column.index)
    return not column.astype(object).equals(new.astype(object))


def own(data: Any, copy: bool) -> Any:
    """The object to write into: the user's, or a copy of it."""
    if copy and any(a.isbacked for a in getattr(data, "mod", {"": data}).values() if hasattr(a, "isbacked")):
        raise ValueError("copy=True of a backed object: leave copy out (results are in memory), or use .to_memory()")
    return data.copy() if copy else data


def now() -> float:
    """Start of a run, for the seconds in the log."""
    return time.perf_counter()
