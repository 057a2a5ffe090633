"""Guides of cells as Cell Ranger calls them, in ``protospacer_calls_per_cell.csv``."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _validate
from dream_sc._data import results
from dream_sc._keys import GUIDES

from . import _guides
from ._files import path_of, readable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from anndata import AnnData

CELL, N_FEATURES, CALL, UMIS = "cell_barcode", "num_features", "feature_call", "num_umis"
BETWEEN = "|"  # the calls of one cell
OPEN = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


class Calls(NamedTuple):
    """The file: guides of cells, UMIs in csr."""

    cells: list[str]
    guides: np.ndarray
    umis: sparse.csr_matrix


def protospacer_calls(
    adata: AnnData,
    path: str | PathLike[str],
    *,
    feature_reference: str | PathLike[str] | None = None,
    targets: Mapping[str, str] | pd.Series | None = None,
    key_added: str = GUIDES,
    copy: bool = False,
) -> AnnData | None:
    """Add the guides that Cell Ranger called to the cells of an AnnData.

    The file is read strictly: what does not fit is an error that names the line.

    Parameters
    ----------
    adata
        Cells x genes; cells are matched by name.
    path
        ``crispr_analysis/protospacer_calls_per_cell.csv``, plain or compressed (.gz, .bz2, .xz).
    feature_reference
        The feature reference CSV of the run, for the targets of guides: "Non-Targeting" becomes "NTC".
    targets
        Target of each guide, in place of that file.
    key_added
        Where guides are stored.
    copy
        Return a new object instead of writing into `adata`.

    Returns
    -------
    The object if `copy`, else None. Writes `.obsm[key_added]` (UMIs of called guides, csr), `.uns[key_added + "_ids"]`,
    where targets are known `.uns[key_added + "_target"]`, and `.obs["n_guides"]`. Cells that the file lacks have no
    guide; they are no NTC cells.

    Raises
    ------
    ValueError
        If a line has the wrong number of fields, a cell or a guide has no name, a cell occurs twice, UMIs are negative,
        no whole numbers or not as many as guides, or the file and `adata` have no cell in common.

    Examples
    --------
    >>> ds.io.protospacer_calls(adata, "outs/crispr_analysis/protospacer_calls_per_cell.csv", targets=library)
    >>> ds.pp.assign_guides(adata, "guides")
    """
    from dream_sc.pp._guide_matrix import refuse_other

    from ._cellranger import reference_targets

    started = results.now()
    _validate.storable(key_added)
    if targets is not None:
        _validate.without_effect({"feature_reference": feature_reference}, "with targets=")
    adata = results.own(adata, copy)
    _validate.resolve(adata, None)
    refuse_other(adata, None, key_added, "io.protospacer_calls")
    found = read_calls(path)
    x = of_cells(found, list(adata.obs_names), str(path))
    names, known = found.guides.tolist(), None
    if feature_reference is not None:
        known = reference_targets(feature_reference, names)
    elif targets is not None:
        known = _guides.given_targets(targets, names)
    slots = _guides.slots(x, names, known, key_added)
    results.write(adata, "io.protospacer_calls", slots, started)
    _guides.say("io.protospacer_calls", adata, key_added)
    return adata if copy else None


def read_protospacer_calls(path: str | PathLike[str]) -> AnnData:
    """Read the guides of each cell from CellRanger's ``protospacer_calls_per_cell.csv``.

    `io.protospacer_calls` puts them into an AnnData of genes.

    Parameters
    ----------
    path
        The file, with columns cell_barcode, feature_call and num_umis; several guides and their UMIs are joined by
        "|". It may be compressed (.gz, .bz2, .xz).

    Returns
    -------
    AnnData, cells x guides with UMIs in csr `.X`, for `guide_matrix`. Cells without a call are not in it.

    Raises
    ------
    ValueError
        If columns are missing, or a line does not fit: see `io.protospacer_calls`.

    Examples
    --------
    >>> guides = ds.pp.read_protospacer_calls("protospacer_calls_per_cell.csv")
    >>> guides.var_names.tolist()
    ['GFI1B_g01', 'NTC_01']
    """
    from anndata import AnnData

    found = read_calls(path)
    obs = pd.DataFrame(index=pd.Index(found.cells, name=CELL, dtype=object))
    return AnnData(found.umis, obs, pd.DataFrame(index=pd.Index(found.guides, dtype=object)))


def read_calls(path: str | PathLike[str]) -> Calls:
    """Read the file line by line."""
    cells: dict[str, int] = {}
    guides: dict[str, int] = {}
    row: list[int] = []
    column: list[int] = []
    values: list[int] = []
    if not path_of(path).exists():
        raise FileNotFoundError(f"path={str(path)!r} is not there: give protospacer_calls_per_cell.csv of a run")
    opened: Any = OPEN.get(path_of(path).suffix, open)
    with (
        readable(path, "the calls of guides of Cell Ranger"),
        opened(path, "rt", newline="", encoding="utf-8-sig") as file,
    ):
        lines = csv.reader(file)
        header = next(lines, [])
        lacking = [name for name in (CELL, CALL, UMIS) if name not in header]
        if lacking:
            raise ValueError(f"the file has no columns {lacking}; it has {header}: is it CellRanger's calls?")
        for fields in lines:
            number = lines.line_num
            if not fields:
                continue
            if len(fields) != len(header):
                raise _wrong(path, number, f"it has {len(fields)} fields, the header {len(header)}")
            line = dict(zip(header, fields, strict=True))
            if line[CELL] in cells:
                raise _wrong(path, number, f"cell {line[CELL]!r} was in line {cells[line[CELL]]} already")
            called = _calls_of(line, path, number)
            if not called:
                continue
            cells[line[CELL]] = number
            for guide, umis in called.items():
                row.append(len(cells) - 1)
                column.append(guides.setdefault(guide, len(guides)))
                values.append(umis)
    order = np.argsort(np.array(list(guides), dtype=str))
    place = np.argsort(order)
    at = (np.array(row, dtype=np.int64), place[np.array(column, dtype=np.int64)])
    x = sparse.csr_matrix((np.array(values, dtype=np.int64), at), (len(cells), len(guides)))
    return Calls(list(cells), np.array(list(guides), dtype=str)[order], x)


def of_cells(found: Calls, names: list[str], where: str) -> sparse.csr_matrix:
    """The calls of these cells; cells that the file lacks have none."""
    at = pd.Index(found.cells).get_indexer(pd.Index(names))
    if (at < 0).all():
        raise ValueError(
            f"the cells of {where} and those of the data have no name in common: {found.cells[:3]} and {names[:3]}, "
            "for example"
        )
    padded = sparse.vstack([found.umis, sparse.csr_matrix((1, found.umis.shape[1]), dtype=np.int64)], format="csr")
    return padded[at]


def _calls_of(line: dict[str, str], path: Any, number: int) -> dict[str, int]:
    """Guides of a line and their UMIs; none where it says that nothing was called."""
    if not line[CELL]:
        raise _wrong(path, number, "the cell has no name")
    if not line[CALL] and line.get(N_FEATURES, "0") in ("", "0"):
        return {}
    guides, umis = line[CALL].split(BETWEEN), line[UMIS].split(BETWEEN)
    if len(guides) != len(umis):
        raise _wrong(path, number, f"not as many UMIs as guides, ['{line[CELL]}'] has {len(umis)} and {len(guides)}")
    if line.get(N_FEATURES, str(len(guides))) != str(len(guides)):
        raise _wrong(path, number, f"{N_FEATURES} is {line[N_FEATURES]!r}, but there are {len(guides)} guides")
    out: dict[str, int] = {}
    for guide, text in zip(guides, umis, strict=True):
        if not guide.strip():
            raise _wrong(path, number, "a guide has no name")
        if guide in out:
            raise _wrong(path, number, f"guide {guide!r} is there twice")
        try:
            out[guide] = int(text)
        except ValueError:
            raise _wrong(path, number, f"{UMIS} {text!r} is no whole number") from None
        if out[guide] < 1:
            raise _wrong(path, number, f"{UMIS} {text!r} of guide {guide!r} is not above 0")
    return out


def _wrong(path: Any, number: int, what: str) -> ValueError:
    return ValueError(f"line {number} of {path}: {what}")
