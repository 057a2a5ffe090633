"""Scores of features, read by blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from dream_sc import _validate
from dream_sc._memory.budget import memory_budget

from . import results

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

BLOCK = 256  # features in a block
ARRAYS = 9  # of the size of a block that a step makes of it, at most


@dataclass(frozen=True)
class Scores:
    """Scores of features, with NaN where one is missing."""

    x: Any
    shape: tuple[int, int]
    adata: AnnData
    where: str
    size: int = BLOCK

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        return self.blocks()

    def blocks(self, size: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Some features at a time, dense, cells x features; what a sparse matrix does not store is a zero.

        Raises
        ------
        ValueError
            If a score is infinite.
        """
        size = self.size if size is None else size
        for start in range(0, self.shape[1], size):
            part = slice(start, min(start + size, self.shape[1]))
            values = self.x[:, part]
            values = values.compute() if hasattr(values, "compute") else values
            values = values.toarray() if sparse.issparse(values) else np.asarray(values)
            values = values.astype(np.float64)
            infinite = np.isinf(values)
            if infinite.any():
                cells, columns = np.nonzero(infinite)
                named = results.named_values(self.adata, cells, columns, self.adata.var_names[part])
                raise ValueError(f"{self.where} holds infinite scores, {named}: a missing score is NaN")
            yield part, values


def score_block(n_cells: int, room: float) -> int:
    """Features of a block of scores, of which a few arrays are made at a time, within so many bytes."""
    return int(min(BLOCK, max(1, room // (ARRAYS * 8 * max(n_cells, 1)))))


def open_scores(adata: AnnData, layer: str | None = None, limit: int | str | None = None) -> Scores:
    """Get ready to read scores by blocks of features; a sparse matrix in a file is read into memory.

    Blocks are as large as a memory limit lets them be; results do not depend on it.

    Raises
    ------
    KeyError, TypeError
        If there is no such layer, or its values are no numbers.
    """
    x, where = _validate.matrix(adata, layer), results.source(layer)
    if x.dtype.kind not in "iubf":
        raise TypeError(f"{where} holds values of type {x.dtype}: scores are numbers, with NaN where one is missing")
    x = x.to_memory() if hasattr(x, "to_memory") else x
    size = score_block(x.shape[0], memory_budget(limit))
    return Scores(x.tocsc() if sparse.issparse(x) else x, tuple(x.shape), adata, where, size)
