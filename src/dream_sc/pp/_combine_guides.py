"""Guides that occur together in many cells as one: labels, or columns of a matrix of guides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._data import results
from dream_sc._data.guide_combinations import combinations, constructs, labelled
from dream_sc._data.guide_matrix import read_guides
from dream_sc._keys import GUIDE, GUIDE_IDS, GUIDE_TARGETS, GUIDES, N_GUIDES, NTC, TARGET
from dream_sc._logging import logger

from ._guide_matrix import check_overwrite

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData
    from mudata import MuData

    from dream_sc._data.guide_matrix import Guides

CombinedDosage = Literal["free", "additive"]
MIN_CELLS = 20
CONSTRUCTS = "constructs"
OF_LABELS, OF_MATRIX = ("min_cells", "guide_key", "target_key"), ("key_added",)


def combine_guides(
    data: AnnData | MuData,
    guides: str | pd.DataFrame | AnnData = GUIDES,
    *,
    mod: str | None = None,
    layer: str | None = None,
    targets: str | Mapping[str, Any] | pd.Series | None = None,
    min_umis: int = 1,
    exclude: str | Iterable[str] = (),
    control: str | list[str] = NTC,
    dosage: CombinedDosage = "free",
    complete: bool = True,
    min_cells: int | None = None,
    guide_key: str | None = None,
    target_key: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Take guides that occur together in many cells for one, such as the two of a dual-guide construct.

    With `dosage="free"` each combination becomes a label, as a guide is in screens with one guide per cell, and gets a
    dosage of its own; its target is that of its guides. A cell with one guide keeps it as label. With
    `dosage="additive"` the result is a matrix for `guides=` of the steps, in which guides that are never apart are one
    column; the log2 effects of a cell's columns add up.

    Labels of one target share no guide: where two combinations do, the one in fewer cells gets no label. What a guide
    does besides its dosage would show in both, and the trans step would take them for independent of each other.

    Parameters
    ----------
    data
        AnnData or MuData.
    guides, layer, targets, min_umis, exclude
        Cells x guides and what they target, as in `pp.guide_matrix`.
    mod
        Modality of a MuData whose cells are labelled.
    control
        Target(s) of non-targeting guides. Beside a targeting guide they are no part of a label. A control cell whose
        combination is no label goes by its guide that fewest control cells carry.
    dosage
        "free": labels, each with a dosage of its own. "additive": a matrix, in which log2 effects add up.
    complete
        Ask that all guides of a combination were seen. False: a cell with some guides of just one combination, and no
        other guide, counts as that combination, for constructs of which not every guide is captured. Guides are then
        taken for one construct if as many of the cells with any of them carry all as where each guide is captured in
        35 % of cells: a fifth of two guides, 6 % of three. For the matrix, guides are one by the same rule, instead of
        nine in ten.
    min_cells
        Combinations of several guides in fewer cells get no label (20 by default); most are two cells in one droplet.
        With `complete=False`, cells with a part of a construct count.
    guide_key, target_key
        Columns of `.obs` to write, "guide" and "target" by default.
    key_added
        Where the matrix is stored, "constructs" by default.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. "free" writes `.obs[guide_key]` (names of guides joined by "+"),
    `.obs[target_key]` (several targets joined by ";"; both missing for cells without a label) and
    `.obs["n_guides"]`; "additive" what `pp.guide_matrix` writes, under `key_added`.

    Raises
    ------
    KeyError, ValueError
        If there is no such matrix, its entries are no counts, guides have no name or no target, no cell gets a label,
        or an argument has no effect with the `dosage` asked for.

    Examples
    --------
    Two guides of each gene in every cell:

    >>> ds.pp.combine_guides(adata, "guide_umis", targets=library["gene"].to_dict(), min_umis=5)
    >>> ds.tl.fit_technical(adata)
    >>> ds.tl.fit_cis(adata, "GFI1B")
    """
    started = results.now()
    _validate.one_of("dosage", dosage, get_args(CombinedDosage))
    _validate.whole("min_umis", min_umis)
    given = {"min_cells": min_cells, "guide_key": guide_key, "target_key": target_key, "key_added": key_added}
    idle, other = (OF_MATRIX, "additive") if dosage == "free" else (OF_LABELS, "free")
    _validate.without_effect({n: given[n] for n in idle}, f'with dosage="{dosage}", only with "{other}"')
    data = results.own(data, copy)
    adata = _validate.resolve(data, mod)
    options: dict[str, Any] = {"layer": layer, "targets": targets, "min_umis": min_umis, "exclude": exclude}
    found = read_guides(data, adata, guides, raw=True, **options)
    labels = _validate.label_texts(control)
    if dosage == "free":
        least = MIN_CELLS if min_cells is None else min_cells
        _validate.whole("min_cells", least)
        slots = _labels(found, labels, least, guide_key or GUIDE, target_key or TARGET, complete=complete)
    else:
        key = key_added or CONSTRUCTS
        _validate.storable(key)
        slots = _matrix(adata, guides, found, key, complete=complete)
    results.write(adata, "pp.combine_guides", slots, started)
    return data if copy else None


def _labels(
    found: Guides, control: list[str], least: int, guide_key: str, target_key: str, *, complete: bool
) -> dict[tuple[str, str], Any]:
    """Columns of cells."""
    sets = combinations(found, control)
    cells = labelled(found, sets, control, least, complete=complete)
    some, n = cells.guide != "", np.diff(found.carried.indptr)
    if not some.any():
        raise ValueError(
            f"no cell gets a label: {int((n == 0).sum())} of {len(n)} have no guide, {cells.rare} a combination of "
            f"guides that fewer than min_cells={least} cells have; lower min_cells, change min_umis, or check guides="
        )
    logger.info(
        "pp.combine_guides: %d cells have one of %d labels, %d have no guide, %d a combination in fewer than %d cells",
        some.sum(),
        len(set(cells.guide[some])),
        (n == 0).sum(),
        cells.rare,
        least,
    )
    if cells.shared:
        logger.warning(
            "pp.combine_guides: %d cells have no label, since their combination shares a guide with one of the same "
            "target in more cells%s",
            cells.shared,
            "; where only a part of the guides was captured in them, pass complete=False" if complete else "",
        )
    return {
        ("obs", guide_key): pd.Categorical(pd.Series(cells.guide).where(some)),
        ("obs", target_key): pd.Categorical(pd.Series(cells.target).where(some)),
        ("obs", N_GUIDES): n.astype(np.int64),
    }


def _matrix(adata: AnnData, guides: Any, found: Guides, key: str, *, complete: bool) -> dict[tuple[str, str], Any]:
    """The matrix of guides, those that are never apart as one."""
    whole, _ = constructs(found, np.ones(len(found.names), dtype=bool), complete=complete)
    check_overwrite(adata, guides, whole, key)
    logger.info("pp.combine_guides: %d guides are %d columns", len(found.names), len(whole.names))
    return {
        ("obsm", key): whole.carried.astype(np.int8),
        ("uns", key + GUIDE_IDS): whole.names.astype(str),
        ("uns", key + GUIDE_TARGETS): np.array(whole.targets, dtype=str),
    }
