"""Data sets of scPerturb, whose cells name their perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import GUIDE, NTC, TARGET
from dream_sc._logging import logger

from . import _guides
from ._counts import counts

if TYPE_CHECKING:
    from anndata import AnnData

PERTURBATION, NPERTS, CONTROL = "perturbation", "nperts", "control"
GUIDE_COLUMNS = ("guide_id", "sgRNA", "gRNA", "grna", "guide", "guide_identity")


def from_scperturb(
    adata: AnnData,
    *,
    guide_key: str | None = None,
    layer: str | None = None,
    perturbation_key: str = PERTURBATION,
    control: str = CONTROL,
) -> AnnData:
    """Genes and labels of a data set of scPerturb.

    Parameters
    ----------
    adata
        The data set; it is only read.
    guide_key
        Column of `.obs` with the guide of each cell; by default the first that is there of guide_id, sgRNA, gRNA, grna,
        guide and guide_identity. Without such a column all cells of a perturbation count as one guide, and a warning
        says so.
    layer
        Layer of counts; `.X` by default.
    perturbation_key
        Column of `.obs` with the perturbation.
    control
        Its label of control cells, which becomes "NTC".

    Returns
    -------
    A new AnnData with `.obs["guide"]` and `.obs["target"]`. Cells without a perturbation or with several (`nperts`
    above 1) have no labels and take no part; they are no controls.

    Raises
    ------
    KeyError, ValueError
        If a column or the label of controls is not there, or values are no counts.

    Examples
    --------
    >>> adata = ds.io.from_scperturb(ad.read_h5ad("ReplogleWeissman2022_K562_essential.h5ad"))
    """
    from anndata import AnnData

    _validate.resolve(adata, None, views=True)
    perturbation = pd.Series(_validate.labels(adata, perturbation_key, "perturbation_key"), dtype=object)
    if not (perturbation == control).any():
        seen = sorted(set(perturbation) - {""})
        raise ValueError(
            f"no cell has the perturbation {control!r}; there are {seen[:12]}{_validate.close(control, seen)} Name "
            "that of control cells as control="
        )
    target = perturbation.where(perturbation != control, NTC)
    if NPERTS in adata.obs:
        n = pd.to_numeric(adata.obs[NPERTS].astype(object), errors="coerce").to_numpy(dtype=float)
        target = target.where(~(n > 1), "")
        wrong = int(((n == 0) & (target != NTC) & (target != "")).sum())
        if wrong:
            raise ValueError(f"{wrong} cells have {NPERTS} of 0 but a perturbation other than {control!r}")
    guide = _guide(adata, guide_key, target)
    known = (target != "") & (guide != "")
    x = counts(_validate.matrix(adata, layer), ".X" if layer is None else f"layer {layer!r}", adata)
    out = AnnData(x, adata.obs.copy(), adata.var.copy())
    for name, values in ((GUIDE, guide), (TARGET, target)):
        out.obs[name] = pd.Categorical(values.where(known, np.nan).to_numpy(dtype=object))
    _guides.refuse_controls_only(target[known], f".obs[{perturbation_key!r}]")
    logger.info("io.from_scperturb: %d of %d cells have a guide and a target", known.sum(), len(known))
    if not known.all():
        logger.warning(
            "io.from_scperturb: %d of %d cells have no perturbation, several, or no guide: they get no label and are "
            "no controls",
            (~known).sum(),
            len(known),
        )
    return out


def _guide(adata: AnnData, key: str | None, target: pd.Series) -> pd.Series:
    """The guide of each cell."""
    if key is None:
        key = next((c for c in GUIDE_COLUMNS if c in adata.obs), None)
    if key is None:
        logger.warning(
            "io.from_scperturb: no column of .obs names guides (%s), so the cells of a perturbation count as one "
            "guide: guides are the replicates, and no dose-response can be fitted to one dosage; name it as guide_key=",
            ", ".join(GUIDE_COLUMNS),
        )
        return target
    guide = pd.Series(_validate.labels(adata, key, "guide_key"), dtype=object)
    return guide.where((guide != "") | (target != NTC), NTC)  # some data sets name no guides of control cells
