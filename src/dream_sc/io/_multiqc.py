"""Results as custom content of MultiQC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dream_sc import _validate
from dream_sc._keys import TRANS
from dream_sc._logging import logger

from ._files import folder_to_write

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from ._results import Responses

GUIDE_COLUMNS = ["target", "is_control", "n_cells", "log2_dosage", "sd"]
GENE_COLUMNS = ["qvalue", "class", "on_knockdown", "log2fc_full", "log2_ec50", "p_ec50_inside", "n_guides_support"]


def to_multiqc(
    data: AnnData | MuData,
    folder: str | PathLike[str],
    *,
    sample: str | None = None,
    fdr: float = 0.05,
    n_genes: int = 50,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> list[Path]:
    """Write tables that MultiQC puts into its report.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    folder
        Where the files are written; it is made if it is not there.
    sample
        Name of the row in the summary; the cis gene by default, or the target of the guides.
    fdr
        Level at which responders are counted.
    n_genes
        The number of responders that are listed at most, the surest first.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names of features.

    Returns
    -------
    The files: ``<sample>_dream_sc_summary_mqc.tsv``, ``..._guides_mqc.tsv`` and ``..._responders_mqc.tsv``. Each begins
    with the lines in which MultiQC looks for title, description and kind of plot. Several runs share the summary.

    Raises
    ------
    KeyError, ValueError
        If the fit is not there.

    Examples
    --------
    >>> paths = ds.io.to_multiqc(adata, "qc")  # then: multiqc qc
    """
    from ._results import responses

    _validate.whole("n_genes", n_genes)
    if not 0 < fdr < 1:
        raise ValueError(f"fdr={fdr} is not between 0 and 1")
    of = responses(data, key, mod, counts=False, gene_symbols=gene_symbols)
    name = (of.cis_gene or of.target) if sample is None else str(sample)
    if not name or any(sign in name for sign in "/\\\t\n"):
        raise ValueError(f"sample={name!r} cannot be part of the name of a file: choose another")
    guides = of.guides.set_index("guide")
    guides = guides[[c for c in GUIDE_COLUMNS if c in guides]].rename_axis("Guide")
    called = of.table[of.responders(fdr)].sort_values(["lfdr", "log_bf"], ascending=[True, False], kind="stable")
    genes = called.head(n_genes)[[c for c in GENE_COLUMNS if c in called]].rename_axis("Gene")
    out = folder_to_write(folder)
    parts = {
        "summary": (_summary(of, name, fdr), "Dose-response: runs", "One row per cis gene"),
        "guides": (guides, f"Dosage of {name} by guide", "log2 relative to NTC cells"),
        "responders": (genes, f"Responders to {name}", f"At most {n_genes}, false discovery rate {fdr}"),
    }
    paths = []
    for part, (frame, title, description) in parts.items():
        if frame.empty:
            continue
        identity = "dream_sc_summary" if part == "summary" else f"dream_sc_{part}_{_identity(name)}"
        paths.append(out / f"{name}_dream_sc_{part}_mqc.tsv")
        paths[-1].write_text(custom_content(frame, identity, title, description), encoding="utf-8")
    logger.info("io.to_multiqc: wrote %s", ", ".join(map(str, paths)))
    return paths


def _summary(of: Responses, name: str, fdr: float) -> pd.DataFrame:
    control = of.guides["is_control"].astype(bool)
    status = of.table["status"].astype(str)
    row: dict[str, Any] = {
        "guides": int((~control).sum()),
        "ntc_guides": int(control.sum()),
        "cells": int(of.guides.loc[~control, "n_cells"].sum()),
        "ntc_cells": int(of.guides.loc[control, "n_cells"].sum()),
        "lowest_log2_dosage": float(of.guides.loc[~control, "log2_dosage"].min()),
        "highest_log2_dosage": float(of.guides.loc[~control, "log2_dosage"].max()),
        "features": len(of.table),
        "fitted": int(status.str.startswith("converged").sum()),
        "responders": int(of.responders(fdr).sum()),
    }
    return pd.DataFrame([row], index=pd.Index([name], name="Sample"))


def _identity(name: str) -> str:
    return "".join(sign if sign.isalnum() else "_" for sign in name)


def custom_content(frame: pd.DataFrame, identity: str, title: str, description: str) -> str:
    """A table as MultiQC takes it."""
    return _header(identity, title, description) + _rows(frame)


def _header(identity: str, title: str, description: str) -> str:
    """The lines of YAML in front of the table; JSON strings are YAML."""
    lines = {
        "id": json.dumps(identity),
        "section_name": json.dumps(title),
        "description": json.dumps(description),
        "plot_type": '"table"',
        "parent_id": '"dream_sc"',
        "parent_name": '"dream_sc"',
        "pconfig": None,
    }
    text = [f"# {key}:" + ("" if value is None else f" {value}") for key, value in lines.items()]
    table = {"id": json.dumps(f"{identity}_table"), "title": json.dumps(title)}
    return "\n".join([*text, *(f"#     {key}: {value}" for key, value in table.items())]) + "\n"


def _rows(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(sep="\t", float_format="%.4g", lineterminator="\n"))
