"""A trans step without dosages: which guides act is known, by how much is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._data import made_from, results
from dream_sc._keys import ACTING, CIS_COLUMNS, GUIDE, GUIDE_COLUMNS, ID, MADE_FROM, NO_DOSAGE, Slots

from ._fit_cis import _design

if TYPE_CHECKING:
    from anndata import AnnData

    from dream_sc._core.response.rows import Guides

STEP = "tl.fit_trans(dosage='none')"  # what wrote the guides of such a fit
LEVEL = -1.0  # log2: the one level at which all acting guides are taken to be
LEAST_CELLS = 5


def check_acting(dosage: str, function_type: str, given: dict[str, Any]) -> None:
    """Refuse arguments that say which guides act where there are dosages, and curves where there are none."""
    if dosage != NO_DOSAGE:
        _validate.without_effect(given, f'with dosage="{dosage}", only with "{NO_DOSAGE}"')
        return
    if function_type != "auto":
        raise ValueError(
            f'function_type={function_type!r} has no effect with dosage="{NO_DOSAGE}", which compares null and switch: '
            "leave it out"
        )
    if given["cis_targets"] is None:
        others = {name: value for name, value in given.items() if name != "cis_targets"}
        _validate.without_effect(others, "without cis_targets=, with which the guides of a cis fit are taken")


def check_guides(holder: AnnData, cis_key: str, dosage: str, cis_targets: Any) -> None:
    """Refuse a fit without dosages that is not told which guides act."""
    if dosage == NO_DOSAGE and cis_targets is None and cis_key not in holder.uns:
        raise ValueError(
            f'dosage="{NO_DOSAGE}" has to know which guides act: name their target label(s) as cis_targets=, or call '
            "dream_sc.tl.fit_cis first, whose guides are taken then"
        )


def refuse_without_dosage(holder: AnnData, cis_key: str) -> None:
    """Refuse to check what goes with the dosage where there is none."""
    entry = holder.uns.get(cis_key)
    of_acting = [key for key, e in holder.uns.items() if isinstance(e, Mapping) and e.get("step") == STEP]
    if cis_key in of_acting or (entry is None and of_acting):
        raise ValueError(
            f'.uns[{of_acting[0] if entry is None else cis_key!r}] is of a fit without dosages (dosage="{NO_DOSAGE}"), '
            "and tl.check_confounding looks for what changes with the dosage: it is not offered for such a fit. Where "
            "the cis gene is measured, call dream_sc.tl.fit_cis first; else compare size factors and covariates of "
            "control and targeted cells in .obs, and call dream_sc.tl.calibrate"
        )


def acting_guides(
    data: Any, adata: AnnData, holder: AnnData, technical_key: str, cis_targets: Any, given: dict[str, Any], seed: int
) -> dict[str, Any]:
    """The guides of the targets and the controls among the cells of `holder`, in the form of a cis fit without dosages.

    Returns what stands for `.obsm`, `.obs` and `.uns` of such a fit.
    """
    started, wanted = results.now(), _validate.label_texts(cis_targets)
    technical = _validate.step(adata, technical_key, "fit_technical(data)")
    layout = {
        "guide_key": GUIDE if given["guide_key"] is None else given["guide_key"],
        "target_key": given["target_key"],
        "control": given["control"],
        "guides": given["guides"],
        "control_group": given["control_group"] or "nt_cells",
        "guide_covariate_key": None,
    }
    if holder is not adata:  # whose groups are of other cells
        technical = dict(technical) | {"params": dict(technical["params"]) | {"use_all_cells": False}}
    design, layout = _design(data, holder, technical, layout, wanted, LEAST_CELLS, seed)
    table = design.table.assign(**{name: np.nan for name in GUIDE_COLUMNS if name not in design.table})
    params = {"cis_targets": wanted, "min_cells_per_guide": LEAST_CELLS} | layout
    same = holder is adata
    reads = made_from.of_cis(params, technical if same else {})
    info = results.run_info(started, seed, params) | {
        ID: made_from.id_of(params | {"seed": seed}, design.table[["n_cells"]]),
        MADE_FROM: made_from.made_from(
            holder, reads, design.used, params, {technical_key: technical} if same else made_from.NOTHING
        ),
        "cis_gene": "",
        "guides": table.assign(escaper_fraction=0.0)[list(GUIDE_COLUMNS)],
        "n_cells": design.n_cells,
        "diagnostics": {"ntc_level_sd": 0.0},
    }
    cells = pd.DataFrame(np.nan, index=holder.obs_names, columns=list(CIS_COLUMNS))
    return {"obsm": cells, "obs": pd.Categorical.from_codes(design.row_guide, design.table["guide"]), "uns": info}


def slots_of(key: str, found: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """Where the guides of a fit with this `key_added` are stored."""
    own = key + ACTING
    return {("obsm", own): found["obsm"], ("obs", Slots(own).guide): found["obs"], ("uns", own): found["uns"]}


def as_holder(holder: AnnData, key: str, found: dict[str, Any]) -> AnnData:
    """An object with the cells of `holder` and these guides, which are not stored before the fit is done."""
    import anndata as ad

    out = ad.AnnData(obs=pd.DataFrame(index=holder.obs_names))
    for (attribute, name), value in slots_of(key, found).items():
        getattr(out, attribute)[name] = value | {"step": STEP} if attribute == "uns" else value
    return out


def without_dosage(table: pd.DataFrame) -> Guides:
    """Guides that act, all at one level, and controls."""
    from dream_sc._core.response.rows import Guides

    control = table["is_control"].to_numpy(bool)
    none = np.zeros(len(control))
    return Guides(np.where(control, 0.0, LEVEL), none, none, none, control, level_error=0.0)
