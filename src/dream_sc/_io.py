"""From AnnData to arrays and back."""

from __future__ import annotations

import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _validate
from ._keys import SCHEMA_VERSION
from ._logging import logger, wrote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

BLOCK_BYTES = 64_000_000
_ABSENT = object()


def cell_blocks(x: Any, where: str) -> Iterator[tuple[int, Any]]:
    """Yield ``(first cell, csr block)`` over a matrix in memory or on disk, each block checked for counts.

    Sparse or dense, csr or csc: a dense block is never larger than some 64 MB.
    """
    from scipy import sparse

    if hasattr(x, "format") and x.format == "csc" and sparse.issparse(x):
        x = x.tocsr()
    n, t = x.shape
    step = n if sparse.issparse(x) else max(1, BLOCK_BYTES // (8 * max(t, 1)))
    for start in range(0, n, max(step, 1)):
        block = x if step >= n and sparse.issparse(x) else x[start : start + step]
        if sparse.issparse(block):
            block = block.tocsr()
            _validate.counts(block.data, where)
        else:
            block = np.asarray(block)
            _validate.counts(block, where)
            block = sparse.csr_matrix(block)
        yield start, block


def one_column(x: Any, j: int) -> np.ndarray:
    """One feature of all cells as a dense vector."""
    col = x[:, j]
    if hasattr(col, "toarray"):
        col = col.toarray()
    return np.asarray(col, dtype=np.float64).ravel()


def source(layer: str | None) -> str:
    """How to name the counts in a message."""
    return ".X" if layer is None else f".layers[{layer!r}]"


def run_info(started: float, seed: int, params: dict[str, Any]) -> dict[str, Any]:
    """What every step stores about its run."""
    versions = {}
    for package in ("dream-sc", "anndata", "numpy", "scipy", "numba"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "schema_version": SCHEMA_VERSION,
        "params": params,
        "versions": versions,
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "peak_memory": int(peak),
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

    The entry of `.uns` also says which step wrote it.
    """
    before: list[tuple[str, str, Any]] = []
    for attribute, key in slots:
        if attribute == "uns":
            _validate.new_key(adata, key, label)
            slots[attribute, key]["step"] = label
        if key in getattr(adata, attribute):
            logger.info("%s: .%s[%r] is overwritten", label, attribute, key)
    try:
        for (attribute, key), value in slots.items():
            store = getattr(adata, attribute)
            before.append((attribute, key, store[key] if key in store else _ABSENT))
            store[key] = value
    except BaseException:
        for attribute, key, value in before:
            store = getattr(adata, attribute)
            if value is not _ABSENT:
                store[key] = value
            elif key in store:
                del store[key]
        raise
    wrote(label, [f".{attribute}[{key!r}]" for attribute, key in slots], time.perf_counter() - started)
    if adata.isbacked:
        logger.info(
            "%s: the object is backed, results are in memory; write them to a new file with .write()", label
        )


def now() -> float:
    """Start of a run, for the seconds in the log."""
    return time.perf_counter()
