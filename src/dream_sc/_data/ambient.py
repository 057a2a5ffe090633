"""The share of ambient counts of each cell, and how they fall on features: read, measured, stored, read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._core.response.ambient import Ambient
from dream_sc._keys import Slots

from . import results
from .groups import group_codes

if TYPE_CHECKING:
    from anndata import AnnData

MOST = 0.9  # of a cell's counts


def read_share(adata: AnnData, ambient: Any, groups: list[str], group: np.ndarray) -> np.ndarray:
    """Share ``(N,)`` of each cell: a number for all, a column of `.obs`, or a mapping of groups.

    Raises
    ------
    ValueError, KeyError, TypeError
        If a share is not a number from 0 to 0.9, or a group has none.
    """
    if isinstance(ambient, str):
        found = pd.to_numeric(_validate.column(adata, ambient, "ambient"), errors="coerce").to_numpy(float)
        where = f".obs[{ambient!r}]"
    elif isinstance(ambient, Mapping):
        given = {str(name): value for name, value in ambient.items()}
        if lacking := [name for name in groups if name not in given]:
            raise KeyError(
                f"ambient= has no share of {lacking[:8]}: give one of each group of batch_key=, which are {groups[:8]}"
            )
        found, where = np.array([_number(given[name]) for name in groups])[group], "ambient="
    else:
        found, where = np.full(adata.n_obs, _number(ambient)), "ambient="
    bad = ~((found >= 0) & (found <= MOST))
    if bad.any():
        raise ValueError(
            f"{where} holds {found[bad][0]:.3g} for {int(bad.sum())} of {len(found)} cells: the ambient share of a "
            f"cell's counts is a number from 0 to {MOST}"
        )
    return np.asarray(found)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(
            f"ambient={value!r} is not a share: give a number from 0 to {MOST}, a column of .obs, or a mapping of the "
            "groups of batch_key= to numbers"
        )
    return float(value)


def check_ambient(ambient: Any, guides: str | None, statistics: str) -> None:
    """Refuse a share where there are no counts, or cells may have several guides."""
    if ambient is None:
        return
    if statistics != "counts":
        raise ValueError(f"ambient= is of counts, not of {statistics}: leave it out")
    if guides is not None:
        raise ValueError(
            "ambient= is for cells with one guide, not for a matrix of guides: leave it out, or call "
            "dream_sc.pp.assign_guides(data) and fit the cells with one guide, without guides="
        )


def as_param(ambient: Any) -> Any:
    """The argument as it is stored; a mapping as a table, since files take a "/" in a key for a group of keys."""
    if isinstance(ambient, Mapping):
        return pd.DataFrame({"group": [str(name) for name in ambient], "share": [float(v) for v in ambient.values()]})
    return ambient if ambient is None or isinstance(ambient, str) else float(ambient)


def measured(
    adata: AnnData, layer: str | None, share: np.ndarray, group: np.ndarray, n_groups: int, limit: int | str | None
) -> Ambient:
    """One pass over the counts of all cells: their totals, and the profile of each group."""
    from dream_sc._core.sums.guide_sums import RowSums, add_cell_moments, row_bytes

    held = {f"sums of {adata.n_vars} features in {n_groups} groups": row_bytes(n_groups, adata.n_vars)}
    sums, cells = RowSums(group, n_groups, adata.n_vars), np.zeros((adata.n_obs, 3))
    for block in results.counts(adata, layer, limit, held).blocks(np.ones(adata.n_obs, dtype=bool)):
        sums.add(block)
        add_cell_moments(block, np.ones(adata.n_vars), cells)
    total = sums.closed()[0]
    return Ambient(share * cells[:, 0], share, total / np.maximum(total.sum(0), 1.0))


def slots_of(key: str, found: Ambient | None) -> dict[tuple[str, str], Any]:
    """Where a technical fit stores it, or that it stores none."""
    name = Slots(key).ambient
    if found is None:
        return dict.fromkeys((("varm", name), ("obsm", name)), results.ABSENT)
    return {("varm", name): found.profile, ("obsm", name): np.stack([found.counts, found.share], 1)}


def stored(adata: AnnData, technical: Any, key: str) -> Ambient | None:
    """That of a technical fit; None where it has none.

    Raises
    ------
    KeyError
        If the fit names an ambient share that is not there any more.
    """
    if technical["params"].get("ambient") is None:
        return None
    name = Slots(key).ambient
    if name not in adata.varm or name not in adata.obsm:
        raise KeyError(
            f".varm[{name!r}] or .obsm[{name!r}] is missing, which dream_sc.tl.fit_technical(ambient=) wrote: "
            "call it again"
        )
    counts, share = np.asarray(adata.obsm[name], dtype=float).T
    return Ambient(counts, share, np.asarray(adata.varm[name], dtype=float))


def of_feature(adata: AnnData, technical: Any, key: str, j: int) -> np.ndarray | None:
    """Expected ambient counts ``(N,)`` of one feature in each cell; None where the technical fit has none."""
    found = stored(adata, technical, key)
    return None if found is None else found.counts * found.profile[j][group_codes(adata, technical)]
