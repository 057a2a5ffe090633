"""The cells that take part in a cis fit, sorted by guide, in whichever modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import DOSE

from .guide_matrix import guides_of_cells

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class GuideCells:
    """Guides of a cis fit and the cells of each."""

    cis_gene: str
    table: pd.DataFrame  # guides, one a row
    guide: np.ndarray  # (N,) row of the table; -1 where a cell takes no part, or has several guides of the cis gene
    from_zero: bool = False  # whether dosages are doses, with controls at 0

    @property
    def dosage(self) -> np.ndarray:
        """``(G,)`` log2 dosage relative to NTC; of doses relative to half the lowest one, with controls at 0."""
        x = self.table["log2_dosage"].to_numpy(float)
        if self.from_zero:
            return np.where(self.control, 0.0, x - np.min(x[~self.control]) + 1.0)
        return np.asarray(x)

    @property
    def control(self) -> np.ndarray:
        """``(G,)`` whether a guide is non-targeting."""
        return np.asarray(self.table["is_control"].to_numpy(bool))


def zero_of(cis: Any) -> float | None:
    """The log2 dose at which the axis has dose 0, in a cis step of doses; None where dosages are relative to NTC."""
    if cis["params"].get("scale") != DOSE:
        return None
    from dream_sc._core.dosage import known

    table = cis["guides"]
    return known.zero_of(table["log2_dosage"].to_numpy(float), table["is_control"].to_numpy(bool))


def guide_cells(adata: AnnData, holder: AnnData, cis_key: str) -> GuideCells:
    """Find the guide of each cell of `adata`; `holder` is the object with the cis fit, cells are matched by name.

    Raises
    ------
    KeyError, ValueError
        If there is no cis fit, or none of these cells takes part in it.
    """
    cis = _validate.step(holder, cis_key, "fit_cis(data, cis_gene)")
    table = cis["guides"].reset_index(drop=True)
    if table["log2_dosage"].isna().all():
        raise ValueError(
            f".uns[{cis_key!r}] holds the guides of a fit without dosages, and this is about dosages: name the key "
            "of a cis fit, or call dream_sc.tl.fit_cis"
        )
    mine = guides_of_cells(holder, cis_key).reindex(adata.obs_names).to_numpy(object)
    guide = pd.Index(table["guide"]).get_indexer(mine).astype(np.int64)
    if not (guide >= 0).any():
        raise ValueError(
            f"no cell takes part in the cis fit {cis_key!r}: the cells of the modality and those of the one with the "
            "cis fit have no name in common, or the fit is of other cells; call dream_sc.tl.fit_cis on this data"
        )
    return GuideCells(str(cis["cis_gene"]), table, guide, from_zero=zero_of(cis) is not None)
