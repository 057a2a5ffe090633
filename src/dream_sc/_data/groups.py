"""The technical groups of cells, and the units within guides."""

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


def technical_groups(
    adata: AnnData, batch_key: str | None, reference: str | None, is_control: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Names of the technical groups, the reference first, and the group of each cell."""
    if batch_key is None:
        if reference is not None:
            raise ValueError(f"reference={reference!r} was given without batch_key: name the column of the groups")
        return ["all"], np.zeros(adata.n_obs, dtype=np.int64)
    labels = _validate.labels(adata, batch_key, "batch_key")
    if (labels == "").any():
        raise ValueError(f".obs[{batch_key!r}] holds missing labels: fill them, or drop these cells")
    names = np.unique(labels)
    n_control = {str(n): int((is_control & (labels == n)).sum()) for n in names}
    without = [n for n, k in n_control.items() if k == 0]
    if without:
        raise ValueError(
            f"the groups {without} of .obs[{batch_key!r}] have no control cells, so their technical effect is not "
            "known: drop these cells, or merge the groups"
        )
    if reference is None:
        reference = max(n_control, key=lambda n: n_control[n])
    reference = str(reference)
    _validate.one_of("reference", reference, [str(n) for n in names])
    ordered = [reference, *(str(n) for n in names if str(n) != reference)]
    code = {n: i for i, n in enumerate(ordered)}
    return ordered, np.array([code[str(n)] for n in labels], dtype=np.int64)


def unit_codes(adata: AnnData, key: str | None) -> np.ndarray | None:
    """Unit of each cell (clone, animal, well), in the order of their labels; None where none were named."""
    if key is None:
        return None
    labels = _validate.labels(adata, key, "unit_key")
    return np.unique(labels, return_inverse=True)[1].reshape(-1).astype(np.int64)


def check_units(adata: AnnData, key: str | None, guides: str | None, statistics: str) -> None:
    """Refuse units that are missing, alone or as many as cells, and data that have no units within guides."""
    if key is None:
        return
    if statistics != "counts":
        raise ValueError(f"unit_key= is of counts, not of {statistics}: leave it out")
    if guides is not None:
        raise ValueError(
            "unit_key= names units within guides, but with guides= a cell may have several guides: leave it out, or "
            "call dream_sc.pp.assign_guides(data) and fit the cells with one guide, without guides="
        )
    labels = _validate.labels(adata, key, "unit_key")
    if (n := int((labels == "").sum())) > 0:
        raise ValueError(
            f".obs[{key!r}] holds no unit for {n} of {len(labels)} cells: give each cell a unit, or drop these cells"
        )
    n_units = len(np.unique(labels))
    if n_units < 2 or n_units > len(labels) / 2:
        raise ValueError(
            f".obs[{key!r}] names {n_units} unit(s) of {len(labels)} cells: name a column of clones, animals or wells, "
            "each of several cells, or leave unit_key= out"
        )
