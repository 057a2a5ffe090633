"""Results as a workbook, and as a table of text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import pandas as pd

from dream_sc import _validate
from dream_sc._keys import CIS, TRANS
from dream_sc._logging import logger

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from dream_sc._core.likelihoods import Distribution

    from ._results import Responses

Table = Literal["trans", "responders", "guides"]
MOST_ROWS = 1_048_575  # of a sheet, besides its header
FIRST = ("gene", "feature")  # names of the first column
BY_EVIDENCE = ["lfdr", "log_bf"]


def to_tsv(
    data: AnnData | MuData,
    path: str | PathLike[str],
    *,
    table: Table = "trans",
    fdr: float = 0.05,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> Path:
    r"""Write a table of results as text, with a header in which every column has a name.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    path
        The file; tabs between columns, or commas if it ends in ".csv". It is compressed if it also ends in ".gz".
    table
        "trans": all features, the surest responders first. "responders": those called. "guides": guides and dosages.
    fdr
        Level of "responders".
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names of features.

    Returns
    -------
    The path. The first column is called "gene" ("feature" where the fit is not of counts, "guide" for guides). Missing
    values are empty. Some columns hold the word "null", which pandas takes for a missing value: read the file with
    ``pd.read_csv(path, sep="\t", keep_default_na=False, na_values=[""])``.

    Raises
    ------
    KeyError, ValueError
        If the fit is not there.

    Examples
    --------
    >>> path = ds.io.to_tsv(adata, "trans.tsv")
    >>> path.read_text().split()[:3]
    ['gene', 'on_knockdown', 'qvalue']
    """
    from ._files import file_to_write

    _validate.one_of("table", table, ("trans", "responders", "guides"))
    out = file_to_write(path)
    n = write_tsv(out, data, table, fdr=fdr, key=key, mod=mod, gene_symbols=gene_symbols)
    logger.info("io.to_tsv: wrote %s, %d rows", out, n)
    return out


def write_tsv(
    out: Path,
    data: AnnData | MuData,
    table: str = "trans",
    *,
    fdr: float = 0.05,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> int:
    """Write the table of `to_tsv` without a word in the log, as to a file that gets its name later; gives its rows."""
    from ._results import responses

    frame = _tables(responses(data, key, mod, counts=False, gene_symbols=gene_symbols), fdr)[table]
    commas = out.name.removesuffix(".gz").endswith(".csv")
    frame.to_csv(out, sep="," if commas else "\t", index=False)
    return len(frame)


def to_excel(
    data: AnnData | MuData,
    path: str | PathLike[str],
    *,
    fdr: float = 0.05,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> Path:
    """Write results as a workbook for people who do not run Python.

    Names of genes are written as text, so that none becomes a date or a formula. It needs the extra "excel"
    (``pip install "dream-sc[excel]"``).

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    path
        The file, ending in ".xlsx".
    fdr
        Level of the sheet "responders".
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names of features.

    Returns
    -------
    The path. Sheets: responders (the surest first), trans (all features), guides (with their dosages), columns (what
    each column means) and run (how it was made). Missing values are empty cells.

    Raises
    ------
    ImportError
        If openpyxl is not installed.
    KeyError, ValueError
        If the fit is not there, or the path does not end in ".xlsx".

    Examples
    --------
    >>> path = ds.io.to_excel(adata, "results.xlsx")
    >>> path.name
    'results.xlsx'
    """
    from dream_sc import get

    from ._files import file_to_write
    from ._results import responses

    out = file_to_write(path)
    if out.suffix.lower() != ".xlsx":
        raise ValueError(f"path={str(path)!r} does not end in .xlsx")
    try:
        import openpyxl  # noqa: F401
    except ImportError as error:
        raise ImportError('openpyxl is needed to write a workbook: pip install "dream-sc[excel]"') from error
    of = responses(data, key, mod, counts=False, gene_symbols=gene_symbols)
    sheets = _tables(of, fdr)
    if len(sheets["trans"]) > MOST_ROWS:
        raise ValueError(f"{len(sheets['trans'])} features are more than a sheet holds, {MOST_ROWS}: use to_tsv")
    known = get.columns("trans", distribution=cast("Distribution", of.fit.likelihood.name))
    known |= dict.fromkeys(FIRST, "name of the feature")
    explained = {str(c): known.get(str(c), "") for c in sheets["trans"].columns}
    sheets["columns"] = pd.DataFrame({"column": list(explained), "meaning": list(explained.values())})
    sheets["run"] = _run(of, fdr)
    with pd.ExcelWriter(out, engine="openpyxl") as writer:
        for name, frame in sheets.items():
            frame.to_excel(writer, sheet_name=name, index=False, freeze_panes=(1, 1))
            _as_text(writer.sheets[name], frame)
    logger.info("io.to_excel: wrote %s, sheets %s", out, ", ".join(sheets))
    return out


def _tables(of: Responses, fdr: float) -> dict[str, pd.DataFrame]:
    """The tables by name, each with its first column named."""
    if not 0 < fdr < 1:
        raise ValueError(f"fdr={fdr} is not between 0 and 1")
    called = of.responders(fdr)
    first = FIRST[of.fit.likelihood.effect != "log2fc"]
    trans = of.table.copy()
    trans.insert(0, first, trans.index.astype(str))
    trans["called"] = called.to_numpy()
    trans = trans.sort_values(BY_EVIDENCE, ascending=[True, False], kind="stable")
    responders = trans[trans.pop("called")]
    return {"responders": responders, "trans": trans, "guides": of.guides.reset_index(drop=True)}


def _run(of: Responses, fdr: float) -> pd.DataFrame:
    """How the results were made: a row per fact."""
    info: Any = of.fit.info
    holder = of.adata
    rows: dict[str, Any] = {
        "cis gene": of.cis_gene,
        "targets of the guides": of.target,
        "features": len(of.table),
        f"responders at a false discovery rate of {fdr}": int(of.responders(fdr).sum()),
        "cells": holder.n_obs,
        "seed": info.get("seed"),
        "seconds": info.get("seconds"),
    }
    rows |= {f"version of {name}": version for name, version in dict(info.get("versions", {})).items()}
    rows |= {f"fit_trans: {name}": value for name, value in dict(info["params"]).items()}
    cis = holder.uns.get(info["params"].get("cis_key", CIS))
    if cis is not None and "params" in cis:
        rows |= {f"fit_cis: {name}": value for name, value in dict(cis["params"]).items()}
    texts = ["" if value is None else str(value)[:32_000] for value in rows.values()]
    return pd.DataFrame({"what": list(rows), "value": texts})


def _as_text(sheet: Any, frame: pd.DataFrame) -> None:
    """Texts that begin as formulas do stay texts."""
    for j, dtype in enumerate(frame.dtypes, 1):
        if pd.api.types.is_numeric_dtype(dtype):
            continue
        for (cell,) in sheet.iter_rows(min_col=j, max_col=j):
            if cell.data_type == "f":
                cell.data_type = "s"
