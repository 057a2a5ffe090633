"""Which guides depart from the curves, and with which other guide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream_sc import get
from dream_sc._keys import DEPARTS, DEPARTS_WITH, TRANS

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

COLUMNS = ("target", "is_control", "n_cells", "log2_dosage", "offset", DEPARTS, DEPARTS_WITH)


def guides_data(
    data: AnnData | MuData, *, key: str = TRANS, mod: str | None = None, gene_symbols: str | None = None
) -> pd.DataFrame:
    """Guides by the share of features in which they depart from the curves, the largest share first.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names of genes, as in `get.guides`.

    Returns
    -------
    A row per guide: target, is_control, n_cells, log2_dosage, offset (log2, of the exposures), departs (NaN where this
    was not learned, these come last) and departs_with (the guide that departs with it, or "").

    Raises
    ------
    KeyError
        If the fit is not there, or was written before guides had such a share.

    Examples
    --------
    >>> ds.pl.guides_data(adata).head(3)[["log2_dosage", "departs", "departs_with"]]
    """
    table = get.guides(data, key=key, mod=mod, gene_symbols=gene_symbols)
    lacking = [name for name in COLUMNS if name not in table]
    if lacking:
        raise KeyError(f".uns[{key!r}]['guides'] has no {lacking}: call dream_sc.tl.fit_trans(data) again")
    return table[list(COLUMNS)].sort_values(DEPARTS, ascending=False, kind="stable", na_position="last")
