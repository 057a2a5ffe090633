"""From a matrix of guides to the guide of each cell, for screens with one guide per cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._data import results
from dream_sc._data.guide_matrix import CLEAR, read_guides
from dream_sc._keys import GUIDE, N_GUIDES, NTC, TARGET
from dream_sc._logging import logger

from ._combine_guides import combine_guides

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData


def assign_guides(
    data: AnnData | MuData,
    guides: str,
    *,
    mod: str | None = None,
    layer: str | None = None,
    targets: str | Mapping[str, str] | pd.Series | None = None,
    min_umis: int = 1,
    combine: bool = False,
    control: str | list[str] | None = None,
    guide_key: str = GUIDE,
    target_key: str = TARGET,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Name the guide and the target of every cell with exactly one guide, from a matrix of guides.

    For screens with one guide per cell. Cells with none or with several get no label, and take no part in the steps;
    the log says how many they are. With `combine=True` combinations of guides that occur in many cells, such as
    dual-guide constructs, are labels too.

    Parameters
    ----------
    data
        AnnData or MuData.
    guides
        Key of `.obsm` with cells x guides (DataFrame, array or sparse matrix; binary, or UMI counts), or the name of a
        modality of guides (which comes first), whose cells are matched by name. Names of guides are the columns of the
        DataFrame, the entry ``guides + "_ids"`` of `.uns`, or the names of the modality's features.
    mod
        Modality of a MuData whose cells are labelled.
    layer
        Layer of the modality of guides; "guide_assignment" if there is one, else `.X`.
    targets
        Target of each guide: a mapping or Series, or the name of a column of the `.var` of the modality of
        guides. By default the entry ``guides + "_target"`` of `.uns`, or the column "target" or "intended_target_name";
        guides whose column "targeting" is False are controls, "NTC".
    min_umis
        Entries below it are no guide. 1 is for guides that were called before. Where the matrix has UMIs that leaked
        from other cells, take 3 to 5: a warning says so if more cells than now have one guide with 3 UMIs.
    combine
        Label cells with several guides by their combination where many cells have it: what `pp.combine_guides`, which
        has further options, does by default.
    control
        With `combine`, the target(s) of non-targeting guides, "NTC" by default.
    guide_key, target_key
        Columns of `.obs` to write.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.obs[guide_key]`, `.obs[target_key]` (missing for cells without one
    guide) and `.obs["n_guides"]`.

    Raises
    ------
    KeyError, ValueError
        If there is no such matrix, its entries are no counts, guides have no name or no target, or no cell has exactly
        one guide (with `combine`: none gets a label).

    Examples
    --------
    >>> ds.pp.assign_guides(adata, "guide_umis", min_umis=5)  # one guide in most cells
    >>> ds.pp.assign_guides(adata, "guide_umis", min_umis=5, combine=True)  # two guides of a gene in every cell
    """
    if combine:
        options: dict[str, Any] = {"layer": layer, "targets": targets, "min_umis": min_umis, "mod": mod, "copy": copy}
        options |= {"control": NTC if control is None else control, "guide_key": guide_key, "target_key": target_key}
        return combine_guides(data, guides, **options)
    _validate.without_effect({"control": control}, "without combine=True")
    started = results.now()
    _validate.whole("min_umis", min_umis)
    data = results.own(data, copy)
    adata = _validate.resolve(data, mod)
    found = read_guides(data, adata, guides, layer=layer, targets=targets, min_umis=min_umis, raw=True)
    carried, names = found.carried, list(found.names)
    n = np.diff(carried.indptr)
    one = n == 1
    if not one.any():
        raise ValueError(
            f"no cell has exactly one guide: {int((n == 0).sum())} have none and {int((n > 1).sum())} several, with at "
            f"least {min_umis} UMIs each. Where guides come in pairs (dual-guide constructs), pass combine=True, or "
            f"call dream_sc.pp.combine_guides; else change min_umis, or check guides={guides!r}"
        )
    code = np.full(len(n), -1)
    code[one] = carried.indices[carried.indptr[:-1][one]]
    logger.info(
        "pp.assign_guides: %d cells have one guide, %d none, %d several", one.sum(), (n == 0).sum(), (n > 1).sum()
    )
    clear = 0 if found.n_clear is None else int(np.sum(found.n_clear == 1))
    if min_umis < CLEAR and clear > one.sum():
        logger.warning(
            "pp.assign_guides: with min_umis=%d, UMIs that leaked from other cells count as guides: %d cells have "
            "exactly one guide, and %d would with min_umis=%d",
            min_umis,
            one.sum(),
            clear,
            CLEAR,
        )
    labels = pd.Categorical.from_codes(code, names)
    of_cell = pd.Series(labels).map(dict(zip(names, found.targets, strict=True)))
    slots = {
        ("obs", guide_key): labels.remove_unused_categories(),
        ("obs", target_key): pd.Categorical(of_cell.to_numpy(dtype=object)),
        ("obs", N_GUIDES): n.astype(np.int64),
    }
    results.write(adata, "pp.assign_guides", slots, started)
    return data if copy else None
