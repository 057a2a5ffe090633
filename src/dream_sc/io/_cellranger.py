"""Matrices of Cell Ranger with guides among their features."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _validate
from dream_sc._keys import FEATURE_TYPES, GENE_EXPRESSION, GENE_IDS, GENE_SYMBOLS, GENOME, GUIDE_CAPTURE, GUIDES
from dream_sc._logging import logger

from . import _guides
from ._files import readable
from ._protospacer_calls import of_cells, read_calls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from anndata import AnnData

MATRICES = ("filtered_feature_bc_matrix", "sample_filtered_feature_bc_matrix")
SAMPLES = "per_sample_outs"  # of cellranger multi: a folder per sample, with its cells in "count"
CALLS = "protospacer_calls_per_cell.csv"
REFERENCE = "feature_reference.csv"
TARGET_ID, TARGET_NAME = "target_gene_id", "target_gene_name"


class Matrix(NamedTuple):
    """What a file or a folder holds."""

    x: sparse.csr_matrix  # cells x features
    cells: list[str]
    features: pd.DataFrame  # id, name, feature_type, and what else there is


def read_cellranger(
    path: str | PathLike[str],
    feature_reference: str | PathLike[str] | None = None,
    *,
    targets: Mapping[str, str] | pd.Series | None = None,
    var_names: Literal["gene_symbols", "gene_ids"] = "gene_symbols",
    min_umis: int | None = None,
) -> AnnData:
    """Read genes and guides of a Cell Ranger run with CRISPR Guide Capture.

    Parameters
    ----------
    path
        ``filtered_feature_bc_matrix.h5``, the folder of that name with ``matrix.mtx.gz``, ``features.tsv.gz`` and
        ``barcodes.tsv.gz``, or the folder ``outs`` of a run, whose guide calls
        (``crispr_analysis/protospacer_calls_per_cell.csv``) are then read too. Of ``cellranger multi``: ``outs`` if it
        has one sample, else the folder of a sample, ``outs/per_sample_outs/NAME``.
    feature_reference
        The feature reference CSV of the run, with columns id, name, read, pattern, sequence, feature_type,
        target_gene_id and target_gene_name. By default targets are read from the h5, or from ``feature_reference.csv``
        in the folder ``outs`` (or its ``multi/count``), where they are there.
    targets
        Target of each guide, in place of that file.
    var_names
        What genes are called: symbols, those that occur twice made unique by "-1" and so on, or ids. Targets of guides
        are named alike.
    min_umis
        Guides with fewer UMIs in a cell are no guides of it, in place of Cell Ranger's calls.

    Returns
    -------
    AnnData of cells x genes, counts in csr `.X`; `.var` has gene_ids, gene_symbols, feature_types and genome.
    `.obsm["guides"]` holds UMIs of guides (those called, or at least `min_umis`; without either all UMIs, and a warning
    says so), `.uns["guides_ids"]` their names, `.uns["guides_target"]` their targets, where "Non-Targeting" is "NTC",
    and `.obs["n_guides"]` how many each cell has. Other kinds of features are left out, and a warning says which.

    Raises
    ------
    FileNotFoundError
        If there is no matrix.
    ValueError
        If a run has several samples, a file is damaged or of another kind, files do not fit together, the reference
        lacks guides, or says of all that they are Non-Targeting.

    Examples
    --------
    >>> adata = ds.io.read_cellranger("outs", "feature_reference.csv")
    >>> ds.pp.assign_guides(adata, "guides")  # one guide per cell; else pass guides="guides" to the steps
    """
    _validate.one_of("var_names", var_names, (GENE_SYMBOLS, GENE_IDS))
    if min_umis is not None:
        _validate.whole("min_umis", min_umis)
    if targets is not None:
        _validate.without_effect({"feature_reference": feature_reference}, "with targets=")
    where = Path(path)
    file = _matrix_of(where)
    with readable(file, "a feature-barcode matrix of Cell Ranger 3 or later"):
        found = _read_h5(file) if file.is_file() else _read_folder(file)
    kind = found.features["feature_type"]
    _say_left_out(kind)
    adata = _genes(found, (kind == GENE_EXPRESSION).to_numpy(), var_names)
    is_guide = (kind == GUIDE_CAPTURE).to_numpy()
    calls = _beside(where, file, f"crispr_analysis/{CALLS}")
    if not is_guide.any() and calls is None:
        if feature_reference is not None:
            raise ValueError(f"{file} has no features of type {GUIDE_CAPTURE!r}, so feature_reference= has no effect")
        logger.warning("io.read_cellranger: %s has no guides; io.protospacer_calls adds them from a file", file)
        return adata
    umis, names = found.x[:, np.flatnonzero(is_guide)], found.features["id"][is_guide].tolist()
    if min_umis is not None:
        umis = umis.multiply(umis >= min_umis).tocsr()
    elif calls is not None:
        read = read_calls(calls)
        umis, names = of_cells(read, found.cells, str(calls)), read.guides.tolist()
    else:
        logger.warning(
            "io.read_cellranger: no calls of guides are beside %s, so .obsm[%r] holds all UMIs, background too: pass "
            "min_umis=, or call dream_sc.pp.assign_guides or guide_matrix with min_umis=",
            file,
            GUIDES,
        )
    of_file = found.features[is_guide].set_index("id")
    if TARGET_ID not in of_file or not of_file[TARGET_ID].any():
        of_file = None
    beside = _beside(where, file, REFERENCE, f"crispr_analysis/{REFERENCE}", f"multi/count/{REFERENCE}")
    reference = feature_reference if feature_reference is not None else beside if of_file is None else None
    if targets is not None:
        known: dict[str, str] | None = _guides.given_targets(targets, names)
    else:
        known = _targets(reference, of_file, names, by_id=var_names == GENE_IDS)
    if known is None:
        logger.warning("io.read_cellranger: nothing says what the guides target: pass feature_reference= or targets=")
    _guides.store(adata, umis, names, known)
    _guides.say("io.read_cellranger", adata)
    return adata


def reference_targets(
    path: str | PathLike[str], names: Sequence[str] | None = None, *, by_id: bool = False
) -> dict[str, str]:
    """Targets of guides by a feature reference CSV: all of its guides, or those with these names."""
    with readable(path, "the feature reference CSV of a run"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    table.columns = table.columns.str.strip()
    lacking = [c for c in ("id", "feature_type", TARGET_ID) if c not in table]
    if lacking:
        raise ValueError(
            f"{path} has no columns {lacking}; it has {list(table.columns)}: is it the feature reference CSV of a run "
            "with CRISPR guides?"
        )
    table = table[table["feature_type"] == GUIDE_CAPTURE]
    if table.empty:
        raise ValueError(f"{path} has no rows with feature_type {GUIDE_CAPTURE!r}")
    _guides.unique(table["id"].tolist(), "guide", str(path))
    return _named(table.set_index("id"), names, str(path), by_id=by_id)


def _targets(
    reference: Any, of_file: pd.DataFrame | None, names: Sequence[str], *, by_id: bool
) -> dict[str, str] | None:
    """Targets of the guides, from the reference, or from what the matrix holds of it; None if neither says."""
    if reference is not None:
        return reference_targets(reference, names, by_id=by_id)
    return None if of_file is None else _named(of_file, names, "the features of the matrix", by_id=by_id)


def _named(table: pd.DataFrame, names: Sequence[str] | None, where: str, *, by_id: bool) -> dict[str, str]:
    """Targets of guides by a table with their ids as index: of all, or of these."""
    symbol = table[TARGET_NAME] if TARGET_NAME in table else table[TARGET_ID]
    first, second = (table[TARGET_ID], symbol) if by_id else (symbol, table[TARGET_ID])
    target = first.where(first != "", second)
    empty = table.index[target == ""].tolist()
    if empty:
        raise ValueError(f"{where} says no target of {len(empty)} guides, {empty[: _guides.SHOWN]} among them")
    found = _guides.with_controls(target.to_dict())
    _guides.refuse_controls_only(found.values(), where)
    if names is None:
        return found
    by_name = dict(zip(table["name"], found.values(), strict=True)) if "name" in table else {}
    lacking = [name for name in names if name not in found and name not in by_name]
    if lacking:
        raise ValueError(
            f"{where} lacks {len(lacking)} of {len(names)} guides, {lacking[: _guides.SHOWN]} among them"
            f"{_validate.close(lacking[0], found)}"
        )
    return {name: found[name] if name in found else by_name[name] for name in names}


def _genes(found: Matrix, is_gene: np.ndarray, var_names: str) -> AnnData:
    """The genes as an AnnData."""
    from anndata import AnnData
    from anndata.utils import make_index_unique

    if not is_gene.any():
        raise ValueError(f"the matrix has no features of type {GENE_EXPRESSION!r}")
    genes = found.features[is_gene]
    var = pd.DataFrame(
        {
            GENE_IDS: genes["id"].to_numpy(dtype=object),
            GENE_SYMBOLS: genes["name"].to_numpy(dtype=object),
            FEATURE_TYPES: pd.Categorical(genes["feature_type"]),
        }
    )
    if GENOME in genes:
        var[GENOME] = pd.Categorical(genes[GENOME])
    var.index = make_index_unique(pd.Index(var[var_names].to_numpy(dtype=object)))
    x = found.x[:, np.flatnonzero(is_gene)]
    _validate.counts(x.data, "the matrix")
    return AnnData(x, pd.DataFrame(index=pd.Index(found.cells, dtype=object)), var)


def _say_left_out(kind: pd.Series) -> None:
    others = kind[~kind.isin([GENE_EXPRESSION, GUIDE_CAPTURE])].value_counts()
    if len(others):
        told = ", ".join(f"{n} of type {name}" for name, n in others.items())
        logger.warning("io.read_cellranger: features that are neither genes nor guides are left out: %s", told)


def _matrix_of(path: Path) -> Path:
    """The h5 or the folder with the matrix."""
    if path.is_file():
        return path
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there")
    folders = [path, path / "outs", path / "count"]
    for folder in folders:
        if any((folder / f"matrix.mtx{end}").is_file() for end in ("", ".gz")):
            return folder
        for name in MATRICES:
            if (folder / f"{name}.h5").is_file():
                return folder / f"{name}.h5"
            if (folder / name).is_dir():
                return folder / name
    samples = [p for folder in folders[:2] for p in sorted((folder / SAMPLES).glob("*")) if p.is_dir()]
    if len(samples) == 1:
        return _matrix_of(samples[0])
    if samples:
        raise ValueError(
            f"{path} is of cellranger multi, with {len(samples)} samples, {[p.name for p in samples[:8]]} among them: "
            f"name one of their folders, such as {samples[0]}, and put samples together with anndata.concat"
        )
    raise FileNotFoundError(
        f"{path} holds neither matrix.mtx(.gz) nor {MATRICES[0]}.h5 nor the folder {MATRICES[0]}: name one of these, "
        "or the folder outs of a run"
    )


def _beside(given: Path, matrix: Path, *names: str) -> Path | None:
    """A further file of the run, in the folder that was named or that of the matrix."""
    folders = [given, matrix.parent, matrix.parent.parent] if given.is_dir() else [given.parent]
    folders += [p.parent for p in matrix.parents if p.name == SAMPLES]  # outs of the run of a sample
    if given == matrix and given.is_dir():  # the folder of a matrix: what belongs to it is beside that folder
        folders[:3] = [given.parent]
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def _read_h5(path: Path) -> Matrix:
    import h5py

    with h5py.File(path, "r") as file:
        if "matrix" not in file or "features" not in file["matrix"]:
            raise ValueError(
                f"{path} has no group 'matrix' with 'features': it is no feature-barcode matrix of Cell Ranger 3 or "
                "later"
            )
        group = file["matrix"]
        n_features, n_cells = (int(n) for n in group["shape"][:])
        stored = (group[name][:] for name in ("data", "indices", "indptr"))
        x = sparse.csr_matrix(tuple(stored), (n_cells, n_features))
        cells = _texts(group["barcodes"])
        table = {name: _texts(values) for name, values in group["features"].items() if name != "_all_tag_keys"}
    same = {name: values for name, values in table.items() if len(values) == n_features}
    return _whole(Matrix(x, cells, pd.DataFrame(same)), path)


def _texts(values: Any) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values[:]]


def _read_folder(folder: Path) -> Matrix:
    from scipy.io import mmread

    matrix, barcodes = (_one_of(folder, (name,)) for name in ("matrix.mtx", "barcodes.tsv"))
    features = _one_of(folder, ("features.tsv", "genes.tsv"))
    x = sparse.csr_matrix(sparse.csc_matrix(mmread(matrix, spmatrix=False)).T)
    rows = [line.split("\t") for line in _lines(features)]
    if len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        short = next((i for i, row in enumerate(rows, 1) if len(row) != len(rows[0])), 1)
        raise ValueError(
            f"line {short} of {features} has {len(rows[short - 1])} fields, 2 or more, all alike, are needed"
        )
    table = pd.DataFrame(rows).iloc[:, :3]
    table.columns = pd.Index(["id", "name", "feature_type"][: table.shape[1]])
    if "feature_type" not in table:  # of Cell Ranger 2, which knew genes only
        table["feature_type"] = GENE_EXPRESSION
    return _whole(Matrix(x, [line.split("\t")[0] for line in _lines(barcodes)], table), folder)


def _whole(found: Matrix, where: Path) -> Matrix:
    """The matrix with whole numbers and names that fit."""
    lacking = [name for name in ("id", "name", "feature_type") if name not in found.features]
    if lacking:
        raise ValueError(f"the features of {where} cannot be read as those of Cell Ranger: they have no {lacking}")
    x, (n_cells, n_features) = found.x, found.x.shape
    if (len(found.cells), len(found.features)) != (n_cells, n_features):
        raise ValueError(
            f"the matrix of {where} is {n_features} x {n_cells}, but there are {len(found.features)} features and "
            f"{len(found.cells)} barcodes: take the files of one run"
        )
    _guides.unique(found.cells, "barcode", str(where))
    _guides.unique(found.features["id"].tolist(), "feature", str(where))
    x.sum_duplicates()
    _validate.counts(x.data, f"the matrix of {where}")
    return found._replace(x=x.astype(np.int32, copy=False))


def _one_of(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    raise FileNotFoundError(f"{folder} has no {' or '.join(names)}, plain or gzipped")


def _lines(path: Path) -> list[str]:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        return [line.rstrip("\r\n") for line in file if line.strip()]
