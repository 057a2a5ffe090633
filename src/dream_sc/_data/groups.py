"""The technical groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc import _validate

if TYPE_CHECKING:
    from anndata import AnnData


def group_codes(adata: AnnData, technical: Any) -> np.ndarray:
    """Technical group of each cell, in the order of the technical fit."""
    key = technical["params"]["batch_key"]
    if key is None:
        return np.zeros(adata.n_obs, dtype=np.int64)
    code = {str(n): i for i, n in enumerate(technical["groups"])}
    labels = _validate.labels(adata, key, "batch_key")
    unknown = sorted(set(labels) - set(code))
    if unknown:
        raise ValueError(
            f"the groups {unknown} were not there in the technical fit: call dream_sc.tl.fit_technical again"
        )
    return np.array([code[n] for n in labels], dtype=np.int64)
