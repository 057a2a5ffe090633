"""The matrices that sceptre reads, and the columns that it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _validate
from dream_sc._keys import GUIDES, TRANS
from dream_sc._logging import logger

from . import _guides
from ._counts import counts
from ._files import file_to_write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

GRNA, GRNA_TARGET = "grna_id", "grna_target"


def from_sceptre(
    response_matrix: Any,
    grna_matrix: Any,
    *,
    grna_target_data_frame: pd.DataFrame,
    response_names: Sequence[str] | None = None,
    grna_names: Sequence[str] | None = None,
    cell_names: Sequence[str] | None = None,
    extra_covariates: pd.DataFrame | None = None,
    min_umis: int | None = None,
    moi: str | None = None,
) -> AnnData:
    """Genes and guides from what ``sceptre::import_data`` takes.

    Parameters
    ----------
    response_matrix
        Counts, features x cells, as in R: a DataFrame, or a matrix (sparse or not) with `response_names`.
    grna_matrix
        UMIs or assignments of guides, guides x cells: a DataFrame, or a matrix with `grna_names`.
    grna_target_data_frame
        Columns grna_id and grna_target, where "non-targeting" marks controls.
    response_names, grna_names, cell_names
        Names of rows and columns, of matrices that have none.
    extra_covariates
        Table of cells, which becomes `.obs`.
    min_umis
        Guides with fewer UMIs in a cell are no guides of it; sceptre's own thresholding takes 5.
    moi
        "low": name the guide of cells with exactly one in `.obs`. "high": leave that out. By default low, if at least
        half of the cells with guides have one.

    Returns
    -------
    AnnData of cells x features, counts in csr `.X`, with `.obsm["guides"]`, `.uns["guides_ids"]`,
    `.uns["guides_target"]`, `.obs["n_guides"]` and, with low MOI, `.obs["guide"]` and `.obs["target"]`.

    Raises
    ------
    KeyError, ValueError
        If names are missing or do not fit, cells of the matrices differ, or values are no counts.

    Examples
    --------
    >>> adata = ds.io.from_sceptre(response_matrix, grna_matrix, grna_target_data_frame=targets, min_umis=5)
    """
    from anndata import AnnData

    if moi is not None:
        _validate.one_of("moi", moi, ("low", "high"))
    if min_umis is not None:
        _validate.whole("min_umis", min_umis)
    x, features, cells = _named(response_matrix, "response", response_names, cell_names)
    umis, names, of_guides = _named(grna_matrix, "grna", grna_names, cell_names if cell_names is not None else cells)
    if cells != of_guides:
        raise ValueError(
            f"the columns of the two matrices are not the same cells: {cells[:3]} ({len(cells)}) and {of_guides[:3]} "
            f"({len(of_guides)})"
        )
    targets = _targets(grna_target_data_frame, names)
    obs = pd.DataFrame(index=pd.Index(cells, dtype=object))
    if extra_covariates is not None:
        if len(extra_covariates) != len(cells):
            raise ValueError(f"extra_covariates has {len(extra_covariates)} rows, but there are {len(cells)} cells")
        obs = extra_covariates.set_axis(obs.index).rename(columns=str)
    out = AnnData(x, obs, pd.DataFrame(index=pd.Index(features, dtype=object)))
    if min_umis is not None:
        umis = umis.multiply(umis >= min_umis).tocsr()
    elif umis.data.max(initial=0) > 1:
        logger.warning(
            "io.from_sceptre: grna_matrix holds UMIs, and every guide with one or more counts as a guide of its cell: "
            "pass min_umis=, 5 as in sceptre's thresholding"
        )
    _guides.store(out, umis, names, targets)
    _guides.label_low_moi(out, "io.from_sceptre", targets, moi, GUIDES)
    _guides.say("io.from_sceptre", out)
    return out


def _named(matrix: Any, what: str, rows: Any, columns: Any) -> tuple[sparse.csr_matrix, list[str], list[str]]:
    """A matrix of features x cells as cells x features, with the names of both."""
    if isinstance(matrix, pd.DataFrame):
        rows = matrix.index if rows is None else rows
        columns = matrix.columns
        every = all(isinstance(t, pd.SparseDtype) for t in matrix.dtypes)
        matrix = matrix.sparse.to_coo() if every else matrix.to_numpy()
    if rows is None:
        raise ValueError(f"{what}_matrix has no names of rows: pass {what}_names=, or a DataFrame")
    x = sparse.csr_matrix(matrix)
    names = [str(n) for n in rows]
    cells = [f"cell_{i + 1}" for i in range(x.shape[1])] if columns is None else [str(n) for n in columns]
    if x.shape != (len(names), len(cells)):
        raise ValueError(
            f"{what}_matrix is {x.shape[0]} x {x.shape[1]}, but there are {len(names)} names of rows and {len(cells)} "
            "of cells: it has features as rows and cells as columns, as in R; transpose it if need be"
        )
    _guides.unique(names, "row", f"{what}_matrix")
    _guides.unique(cells, "cell", f"{what}_matrix")
    return counts(x.T, f"{what}_matrix"), names, cells


def _targets(table: pd.DataFrame, names: list[str]) -> dict[str, str]:
    lacking = [c for c in (GRNA, GRNA_TARGET) if c not in table]
    if lacking:
        raise KeyError(f"grna_target_data_frame has no columns {lacking}; it has {list(table.columns)}")
    _guides.unique(table[GRNA].astype(str).tolist(), "guide", "grna_target_data_frame")
    found = dict(zip(table[GRNA].astype(str), table[GRNA_TARGET].astype(object), strict=True))
    unknown = [n for n in names if pd.isna(found.get(n)) or not str(found[n])]
    if unknown:
        raise ValueError(
            f"grna_target_data_frame lacks {len(unknown)} of {len(names)} guides, {unknown[:8]} among them"
        )
    out = _guides.with_controls({n: str(found[n]) for n in names})
    _guides.refuse_controls_only(out.values(), "grna_target_data_frame")
    return out


def to_sceptre(
    data: AnnData | MuData,
    path: str | PathLike[str] | None = None,
    *,
    fdr: float = 0.1,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Results in the columns of sceptre's discovery analysis.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run, with counts.
    path
        CSV to write; none by default.
    fdr
        Level of the column "significant"; sceptre's default is 0.1.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names of genes.

    Returns
    -------
    A row per gene besides the cis gene, the smallest p-values first: response_id, grna_target, n_nonzero_trt and
    n_nonzero_cntrl (cells with counts, among those of targeting guides and of NTC guides), pass_qc (whether it was
    fitted), p_value, log_2_fold_change (at the strongest observed knock-down; where nothing was knocked down, at the
    strongest activation) and significant (by the q-value).

    Raises
    ------
    KeyError, ValueError
        If the fit is not there, or is not of counts.

    Examples
    --------
    >>> table = ds.io.to_sceptre(adata, "results_run_discovery_analysis.csv")
    """
    from ._results import effects, observed, responses

    if not 0 < fdr < 1:
        raise ValueError(f"fdr={fdr} is not between 0 and 1")
    of = responses(data, key, mod, gene_symbols=gene_symbols)
    seen, table = observed(data, of), of.others
    control = seen.table["is_control"].to_numpy(dtype=bool)
    mine = np.flatnonzero(of.table.index.isin(table.index))
    out = pd.DataFrame(
        {
            "response_id": table.index.astype(str),
            GRNA_TARGET: of.target,
            "n_nonzero_trt": seen.nonzero[~control].sum(0)[mine].astype(int),
            "n_nonzero_cntrl": seen.nonzero[control].sum(0)[mine].astype(int),
            "pass_qc": table["pvalue"].notna().to_numpy(),
            "p_value": table["pvalue"].to_numpy(dtype=float),
            "log_2_fold_change": effects(of)[0].to_numpy(),
            "significant": of.responders(fdr).to_numpy()[mine],
        }
    ).sort_values("p_value", kind="stable", ignore_index=True)
    if path is not None:
        out.to_csv(file_to_write(path), index=False)
    return out
