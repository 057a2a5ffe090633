"""Groups of responding features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream_sc import _validate
from dream_sc._data import made_from
from dream_sc._keys import GROUP, RESPONSE_GROUPS

from ._stored import table
from ._symbols import symbols, unique_labels

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

CALL = "group_responses(data)"


def groups(
    data: AnnData | MuData,
    group: str | None = None,
    *,
    key: str = RESPONSE_GROUPS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Groups of the features that follow the dosage, as `tl.group_responses` found them.

    Parameters
    ----------
    data
        AnnData or MuData.
    group
        "early", "proportional", "threshold", "buffered" or "unclear"; all by default.
    key
        `key_added` of the groups.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are called, as in `get.trans`.

    Returns
    -------
    A row per feature, group by group, each from the dosage nearest to that of control cells on: group, p_early,
    p_proportional, p_threshold, p_buffered, half_at, half_at_q025, half_at_q975 (log2 dosage relative to NTC at which
    half of the change is done).

    Raises
    ------
    KeyError, ValueError
        If there are no groups, or none of that name.

    Examples
    --------
    >>> ds.tl.group_responses(adata)
    >>> early = ds.get.groups(adata, "early")
    >>> bool((early["p_early"] >= 0.5).all())
    True
    """
    adata, frame = table(data, mod, "varm", key, CALL)
    made_from.warn_if_stale(adata, key, "get.groups")
    if gene_symbols is not None:
        frame = frame.set_axis(unique_labels(frame.index, symbols(adata, gene_symbols).to_numpy(object)))
    found = frame[frame[GROUP].notna()]
    if group is not None:
        _validate.one_of("group", group, found[GROUP].cat.categories)
        found = found[found[GROUP] == group]
    order = found["half_at"].abs().fillna(float("inf"))
    return found.assign(_order=order).sort_values([GROUP, "_order"], kind="stable").drop(columns="_order")
