"""Counts of the objects that other tools hand over; normalised values are refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from dream_sc import _validate

if TYPE_CHECKING:
    from anndata import AnnData


def counts(x: Any, where: str, holder: AnnData | None = None) -> sparse.csr_matrix:
    """A matrix of counts as csr, whole numbers as int32; what is none is refused.

    Parameters
    ----------
    x
        Cells x features.
    where
        Its name in messages.
    holder
        Object whose layers and `.raw` are looked through for counts, where these are none.

    Raises
    ------
    ValueError
        If values are not counts: log-normalised, scaled, or missing.
    """
    x = sparse.csr_matrix(x.to_memory() if hasattr(x, "to_memory") else x)
    x.sum_duplicates()
    if _validate.is_fraction(x.data):
        raise ValueError(_validate.log_normalised(where, holder))
    _validate.counts(x.data, where)
    return x.astype(np.int32) if x.data.max(initial=0) < np.iinfo(np.int32).max else x.astype(np.int64)
