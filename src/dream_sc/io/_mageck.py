"""Strengths of guides from a pooled screen that MAGeCK has analysed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dream_sc import _validate

from . import _guides
from ._files import path_of, readable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

GUIDE, GENE, LFC = "sgrna", "Gene", "LFC"


def guide_strengths(
    path: str | PathLike[str],
    *,
    gene: str | Iterable[str] | None = None,
    control: str | Iterable[str] | None = None,
) -> pd.Series:
    """Read log2 strengths of guides from ``sgrna_summary.txt`` of ``mageck test``.

    A strength is how much the guide changed in abundance between the two samples of that screen, as log2 fold change.
    It is a dosage only where the screen measured the cis gene itself, such as a sort by its protein, and even there its
    unit is that of the sort. In a screen for growth it is the effect on growth: it ranks the guides of one gene, and
    how it relates to the dosage is not known. Where the mRNA of the cis gene is counted, `tl.fit_cis` measures the
    dosage; strengths are for a gene that is not, or as `guide_prior=` once they are turned into dosages.

    Parameters
    ----------
    path
        The file, with columns sgrna, Gene and LFC.
    gene
        Gene(s) whose guides are returned; all by default.
    control
        "Gene" of control guides. Their median is subtracted, so that they are around 0 as controls are.

    Returns
    -------
    Series of log2 strengths by guide, which is what `tl.set_dosage(..., scale="log2")` takes; leave controls out of it,
    their dosage is 0 by definition.

    Raises
    ------
    KeyError, ValueError
        If columns, a gene, or a number is missing, a guide has no name or is there twice, or the file is of
        ``mageck mle``, where it says something else.

    Examples
    --------
    >>> strength = ds.io.guide_strengths("sgrna_summary.txt", gene="GFI1B")
    >>> ds.tl.set_dosage(adata, strength, scale="log2")
    """
    if not path_of(path).is_file():
        raise FileNotFoundError(f"{path} is not there: give sgrna_summary.txt of mageck test")
    with readable(path, "sgrna_summary.txt of mageck test"):
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    table = table.rename(columns={"sgRNA": GUIDE})
    if "eff" in table and LFC not in table:
        raise ValueError(
            f"{path} is of mageck mle: it holds the efficiency of guides in that model, no fold changes; take the file "
            "of mageck test"
        )
    lacking = [c for c in (GUIDE, GENE, LFC) if c not in table]
    if lacking:
        raise ValueError(
            f"{path} has no columns {lacking}; it has {list(table.columns)}: is it sgrna_summary.txt of mageck test?"
        )
    _guides.unique(table[GUIDE].tolist(), "guide", str(path))
    value = pd.to_numeric(table[LFC], errors="coerce").to_numpy(dtype=float)
    bad = np.flatnonzero(~np.isfinite(value))
    if len(bad):
        text = table[LFC].iloc[bad[0]]
        raise ValueError(
            f"line {bad[0] + 2} of {path}: {LFC} {text!r} of guide {table[GUIDE].iloc[bad[0]]!r} is no number"
        )
    out = pd.Series(value, pd.Index(table[GUIDE].to_numpy(dtype=object), name="guide"), name="log2_strength")
    if control is not None:
        out -= float(np.median(out[_of(table[GENE], control, "control")]))
    return out if gene is None else out[_of(table[GENE], gene, "gene")]


def _of(genes: pd.Series, wanted: str | Iterable[str], what: str) -> np.ndarray:
    """Guides of some genes."""
    labels = _validate.label_texts(wanted)
    known = set(genes)
    for label in labels:
        if label not in known:
            raise KeyError(f"{what}={label!r} has no guide in the file{_validate.close(label, known)}")
    return genes.isin(labels).to_numpy()
