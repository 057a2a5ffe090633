"""The MuData and the result tables of the IGVF CRISPR pipeline."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import GUIDE_ASSIGNMENT, GUIDES, IGVF_TARGETS, NTC, TARGET_COLUMNS, TARGETING, TRANS
from dream_sc._logging import logger

from . import _guides
from ._counts import counts
from ._files import folder_to_write, readable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

MOI = "moi"
NAME = TARGET_COLUMNS[1]
PLACE = ("intended_target_chr", "intended_target_start", "intended_target_end")
CONTROL_TYPES = ("non-targeting", "safe-targeting", "negative control")
TRUE, FALSE = ("true", "1", "1.0", "t", "yes", "y"), ("false", "0", "0.0", "f", "no", "n")
ELEMENTS, OF_GUIDES = "per_element_output.tsv", "per_guide_output.tsv"


def from_igvf(
    data: str | PathLike[str] | MuData,
    *,
    gene: str = "gene",
    guide: str = "guide",
    layer: str = GUIDE_ASSIGNMENT,
    moi: Literal["low", "high"] | None = None,
    control_types: Sequence[str] = CONTROL_TYPES,
) -> AnnData:
    """Genes and guides of a MuData of the IGVF CRISPR pipeline.

    Parameters
    ----------
    data
        The MuData, or the path of its h5mu file, such as ``inference_mudata.h5mu``. It is only read.
    gene, guide
        Names of the modalities.
    layer
        Layer of the modality of guides that says which guides a cell carries.
    moi
        "low": one guide per cell; "high": several. By default what the modality of guides says in `.uns["moi"]`.
    control_types
        Guides of these types (`.var["type"]` of the modality of guides) are controls. So are guides whose "targeting"
        is False, and those whose intended target is called "non-targeting", "non-targeting|3" and so on.

    Returns
    -------
    AnnData of cells x genes, with the columns of `.obs` of both modalities. `.obsm["guides"]`, `.uns["guides_ids"]` and
    `.uns["guides_target"]` hold the guides ("NTC" for controls), for `guides=` of the steps. With low MOI
    `.obs["guide"]` and `.obs["target"]` name the guide of cells with exactly one; others have none and take no part.
    `.uns["igvf_targets"]` keeps names and positions of the targets, for `to_igvf`. Cells that the modality of guides
    lacks are left out: they are no controls.

    Raises
    ------
    KeyError, ValueError
        If a modality, the layer of guide assignments, or the MOI is not there, genes are no counts, or a targeting
        guide has no target.

    Examples
    --------
    >>> adata = ds.io.from_igvf("pipeline_outputs/inference_mudata.h5mu")
    """
    mdata = data if hasattr(data, "mod") else _read(data)
    for name in (gene, guide):
        if name not in mdata.mod:
            raise KeyError(f"modality {name!r} is not there; there are {list(mdata.mod)}: name it as gene= or guide=")
    genes, guides = mdata.mod[gene], mdata.mod[guide]
    if layer not in guides.layers:
        raise KeyError(
            f"modality {guide!r} has no layer {layer!r}, which says which guides a cell carries; it has "
            f"{list(guides.layers)}: run the assignment of guides first, or name the layer"
        )
    moi = _moi(guides, moi)
    _guides.unique([str(n) for n in guides.var_names], "guide", f"modality {guide!r}")
    targets = _targets(guides.var, control_types, guide)
    at = guides.obs_names.get_indexer(genes.obs_names)
    if not (at >= 0).any():
        raise ValueError(
            f"the cells of {gene!r} and {guide!r} have no name in common: {list(genes.obs_names[:3])} and "
            f"{list(guides.obs_names[:3])}, for example"
        )
    if (at < 0).any():
        logger.warning(
            "io.from_igvf: %d of %d cells are not in modality %r and are left out: nothing is known of their guides",
            (at < 0).sum(),
            len(at),
            guide,
        )
    adata = _cells(genes, guides, at, f"modality {gene!r}")
    carried = counts(guides.layers[layer], f"layer {layer!r} of modality {guide!r}")[at[at >= 0]]
    carried.eliminate_zeros()
    _guides.store(adata, (carried > 0).astype(np.int8), list(targets), targets)
    adata.uns[IGVF_TARGETS] = _table_of_targets(guides.var, targets)
    if moi == "low":
        _guides.label(adata, _guides.one_guide(adata.obsm[GUIDES], list(targets)), targets)
    _guides.say("io.from_igvf", adata)
    return adata


def _read(path: Any) -> MuData:
    import mudata as md

    if not isinstance(path, str | Path) and not hasattr(path, "__fspath__"):
        raise TypeError(f"data must be a MuData or the path of an h5mu file, not {type(path).__name__}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not there")
    # what mudata does from 0.4 on; versions before ask for a choice in a warning, the oldest know none
    options = md.set_options(pull_on_update=False) if hasattr(md, "set_options") else nullcontext()
    with options:
        with readable(path, "an h5mu file"):
            return md.read_h5mu(path)


def _moi(guides: AnnData, given: str | None) -> Literal["low", "high"]:
    if given is None:
        stored = np.ravel(np.asarray(guides.uns.get(MOI, []), dtype=object))
        given = str(stored[0]).lower() if len(stored) else None
    if given == "low":
        return "low"
    if given == "high":
        return "high"
    raise ValueError(
        f"moi={given!r}: it is neither 'low' nor 'high'. Say moi='low' (one guide per cell) or 'high' (several), "
        f"which the modality of guides should have in .uns[{MOI!r}]"
    )


def _targets(var: pd.DataFrame, control_types: Sequence[str], where: str) -> dict[str, str]:
    """Target of each guide; "NTC" for controls."""
    if NAME not in var:
        raise KeyError(f"modality {where!r} has no column {NAME!r} in .var; it has {list(var.columns)}")
    names = [str(n) for n in var.index]
    target = var[NAME].astype(object).where(var[NAME].notna(), "").astype(str).to_numpy()
    control = np.array([_guides.is_control(t) for t in target], dtype=bool)
    if TARGETING in var:
        says = np.array([str(v).strip().lower() for v in var[TARGETING].astype(object)])
        unknown = sorted(set(says) - {*TRUE, *FALSE, "nan", "none", "<na>", ""})
        if unknown:
            raise ValueError(f"column {TARGETING!r} of modality {where!r} holds {unknown[:8]}: use True or False")
        control |= np.isin(says, FALSE)
    if "type" in var:
        kind = np.array([str(v).strip().lower() for v in var["type"].astype(object)])
        control |= np.isin(kind, [str(t).lower() for t in control_types])
    target = np.where(control, NTC, target)
    lacking = [n for n, t in zip(names, target, strict=True) if not t or t == "nan"]
    if lacking:
        raise ValueError(f"{len(lacking)} targeting guides of {where!r} have no {NAME}, {lacking[:8]} among them")
    _guides.refuse_controls_only(target, f"modality {where!r}")
    return dict(zip(names, map(str, target), strict=True))


def _cells(genes: AnnData, guides: AnnData, at: np.ndarray, where: str) -> AnnData:
    """The genes of cells of which guides are known, with what is known of cells in both."""
    from anndata import AnnData

    known = np.flatnonzero(at >= 0)
    obs = genes.obs.iloc[known].copy()
    further = guides.obs.drop(columns=guides.obs.columns.intersection(obs.columns)).iloc[at[known]]
    obs = pd.concat([obs, further.set_axis(obs.index)], axis=1)
    obs.columns = obs.columns.astype(str)
    x = counts(_validate.matrix(genes, None), f".X of {where}", genes)
    return AnnData(x if len(known) == x.shape[0] else x[known], obs, genes.var.copy())


def _table_of_targets(var: pd.DataFrame, targets: dict[str, str]) -> pd.DataFrame:
    """Names and positions of targets by guide, in a form that files hold."""
    out = pd.DataFrame({NAME: list(targets.values())}, index=pd.Index(list(targets), name="guide_id"))
    if all(column in var for column in PLACE):
        chrom = var[PLACE[0]].astype(object)
        out[PLACE[0]] = chrom.where(chrom.notna(), "").astype(str).to_numpy()
        for column in PLACE[1:]:
            out[column] = pd.to_numeric(var[column].astype(object), errors="coerce").astype(float).to_numpy()
    return out


def to_igvf(
    data: AnnData | MuData,
    folder: str | PathLike[str],
    *,
    key: str = TRANS,
    mod: str | None = None,
    gene_ids: str | None = None,
) -> dict[str, Path]:
    """Write results as the tables of the IGVF CRISPR pipeline, per element and per guide.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run, with counts.
    folder
        Where ``per_element_output.tsv`` and ``per_guide_output.tsv`` are written; it is made if it is not there.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_ids
        Column of `.var` with the ids that the column gene_id gets; by default "gene_ids" if it is there, else names of
        features.

    Returns
    -------
    The paths of the two files, by "element" and "guide".

    Notes
    -----
    An element is what the guides of the cis step target ("A;B" where they have several targets), with one row per gene:
    gene_id, intended_target_name (and its position, where the data came from `from_igvf`), log2_fc and p_value, then
    the columns of `get.trans` with a prefix, as in `dream_sc_class`. `log2_fc` is the fitted change at the strongest
    observed knock-down, or, where nothing was knocked down, at the strongest activation; `dream_sc_log2_dosage` says at
    which dosage. The p-value asks whether the gene responds to the dosage at all.

    The table of guides has a row per gene and targeting guide, with gene_id, guide_id, log2_fc and p_value: what was
    observed in the cells of that guide against those of NTC guides, free of size factors and technical groups, with a
    p-value of the negative binomial whose variance holds the overdispersion and the spread between guides. It describes
    single guides; calls are made by the table of elements. The cis gene itself is in neither.

    Raises
    ------
    KeyError, ValueError
        If the fit is not there, or is not of counts.

    Examples
    --------
    >>> sorted(ds.io.to_igvf(adata, "pipeline_outputs"))
    ['element', 'guide']
    """
    from ._results import effects, guide_contrasts, responses

    fit = responses(data, key, mod)
    ids = _ids(fit.adata, gene_ids)
    out = folder_to_write(folder)
    table = fit.others
    log2_fc, at = effects(fit)
    element = pd.DataFrame({"gene_id": ids[table.index].to_numpy(), NAME: fit.target})
    for column, value in _place(fit.adata, fit.target).items():
        element[column] = value
    element["log2_fc"], element["p_value"] = log2_fc.to_numpy(), table["pvalue"].to_numpy()
    element["dream_sc_cis_gene"], element["dream_sc_log2_dosage"] = fit.cis_gene, at
    own = table.add_prefix("dream_sc_").reset_index(drop=True)
    element = pd.concat([element, own], axis=1)
    guides = guide_contrasts(data, fit)
    guides.insert(0, "gene_id", ids[guides.pop("feature")].to_numpy())
    paths = {"element": out / ELEMENTS, "guide": out / OF_GUIDES}
    element.to_csv(paths["element"], sep="\t", index=False)
    guides.to_csv(paths["guide"], sep="\t", index=False)
    logger.info("io.to_igvf: wrote %s", ", ".join(map(str, paths.values())))
    return paths


def _ids(adata: AnnData, column: str | None) -> pd.Series:
    """Ids of features by name."""
    from dream_sc._keys import GENE_IDS

    if column is not None and column not in adata.var:
        raise KeyError(f"gene_ids={column!r} is not a column of .var; there are {list(adata.var.columns)}")
    column = GENE_IDS if column is None and GENE_IDS in adata.var else column
    values = adata.var_names if column is None else adata.var[column].astype(str)
    return pd.Series(np.asarray(values, dtype=object), index=adata.var_names)


def _place(adata: AnnData, target: str) -> dict[str, Any]:
    """Where a target is, if that is known and one place; nothing else, so that tables are merged by names."""
    table = adata.uns.get(IGVF_TARGETS)
    if table is None or not all(column in table for column in PLACE):
        return {}
    rows = table.loc[table[NAME] == target, list(PLACE)].drop_duplicates()
    if len(rows) != 1 or not str(rows.iloc[0, 0]) or rows.isna().to_numpy().any():
        return {}
    return {PLACE[0]: str(rows.iloc[0, 0]), **{c: int(rows[c].iloc[0]) for c in PLACE[1:]}}
