"""Sets of guides of the cis gene that cells carry, as labels of the trans step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc._data.guide_combinations import JOINED
from dream_sc._data.guide_matrix import guides_of_cells
from dream_sc._data.results import ABSENT
from dream_sc._keys import GUIDE_COLUMNS, GUIDE_SET_COLUMNS, GUIDE_SETS, SET_MEMBERS, Slots

if TYPE_CHECKING:
    from anndata import AnnData

    from ._cis_design import CisDesign

MOST_SETS = 200  # those that most cells carry: the time of the trans step goes with them
LEAST_SHARE = 0.1  # of the cells with one guide: a handful of cells is not worth what sets cost


@dataclass(frozen=True)
class Labels:
    """Labels of the trans step: the guides of the cis step, and after them sets of these."""

    table: pd.DataFrame  # columns as those of the table of guides
    members: np.ndarray | None = None  # (G, S) which guides each label has; None where each is one guide


def slots_of(key: str, design: CisDesign, fit: Any, least: int) -> tuple[dict[str, Any], dict[tuple[str, str], Any]]:
    """What `.uns` and `.obs` say of the sets that `least` cells or more carry; nothing where there are hardly any."""
    n_guides = len(design.table)
    n_cells = np.bincount(design.code[design.code >= n_guides] - n_guides, minlength=len(design.sets))
    large = np.flatnonzero(n_cells >= least)
    large = np.sort(large[np.argsort(-n_cells[large], kind="stable")[:MOST_SETS]])
    with_one = (design.used & ~design.is_control[design.code] & (design.code < n_guides)).sum()
    if not len(large) or n_cells[large].sum() < LEAST_SHARE * with_one:
        return {}, {("obs", Slots(key).guide_set): ABSENT}
    sets = design.sets[large]
    there, names = sets >= 0, design.table["guide"].astype(str).to_numpy(object)
    table = pd.DataFrame(
        {
            "guides": [JOINED.join(_apart(names[row[row >= 0]])) for row in sets],
            "n_cells": n_cells[large],
            "log2_dosage": np.where(there, fit.guide_mean[sets], 0.0).sum(1),
            "sd": np.sqrt(np.where(there, fit.guide_sd[sets] ** 2, 0.0).sum(1)),
            "within_sd": np.sqrt(np.where(there, fit.within_sd[sets] ** 2, 0.0).sum(1)),
        }
    )[list(GUIDE_SET_COLUMNS)]
    place = np.full(n_guides + len(design.sets) + 1, -1)  # the last is of cells without a code
    place[n_guides + large] = np.arange(len(large))
    of_cell = pd.Categorical.from_codes(place[design.code], table["guides"])
    return {GUIDE_SETS: table, SET_MEMBERS: sets}, {("obs", Slots(key).guide_set): of_cell}


def _apart(names: np.ndarray) -> list[str]:
    """Names of guides, in brackets where they are combinations themselves: no two sets have one name."""
    return [f"({name})" if JOINED in name else name for name in names]


def labels_of(cis: Any, *, sets: bool) -> Labels:
    """The guides of a cis fit, and its `sets` if asked for."""
    guides = cis["guides"].reset_index(drop=True)
    found = cis.get(GUIDE_SETS) if sets else None
    if found is None:
        return Labels(guides)
    if len(found) != len(cis.get(SET_MEMBERS, ())):
        raise ValueError(
            f"the sets of guides of this cis fit are not whole: {len(found)} are in its table {GUIDE_SETS!r}, guides "
            f"of {len(cis.get(SET_MEMBERS, ()))} are in {SET_MEMBERS!r}; call dream_sc.tl.fit_cis again, or take both "
            "out of its .uns to leave cells with several guides out"
        )
    control = guides["is_control"].to_numpy(bool)
    more = pd.DataFrame(
        {
            "guide": found["guides"].astype(str),
            "target": "",
            "is_control": False,
            "escaper_fraction": 0.0,
            "log2_dosage_acting": found["log2_dosage"],
            "sd_acting": found["sd"],
            **{name: found[name] for name in ("n_cells", "log2_dosage", "sd", "within_sd")},
        }
    )
    table = pd.concat([guides, more.reindex(columns=list(GUIDE_COLUMNS))], ignore_index=True)
    carried = np.zeros((len(table), len(guides) + 1))
    carried[: len(guides), : len(guides)] = np.eye(len(guides))
    np.put_along_axis(carried[len(guides) :], np.asarray(cis[SET_MEMBERS], dtype=np.int64), 1.0, axis=1)
    return Labels(table, np.ascontiguousarray(carried[:, :-1][:, ~control]))


def sets_of_cells(holder: AnnData, cis: Any, cis_key: str) -> pd.Series:
    """The set of each cell, as a place after the guides; -1 of cells without."""
    name, n = Slots(cis_key).guide_set, len(cis["guides"])
    if name not in holder.obs:
        raise KeyError(
            f".obs[{name!r}] is not there, but .uns[{cis_key!r}][{GUIDE_SETS!r}] is: call dream_sc.tl.fit_cis again"
        )
    place = pd.Series(n + np.arange(len(cis[GUIDE_SETS])), index=cis[GUIDE_SETS]["guides"].astype(str))
    return holder.obs[name].astype(object).map(place).fillna(-1).astype(np.int64)


def only_controls(adata: AnnData, holder: AnnData, cis: Any, cis_key: str) -> str:
    """Why no targeted cell takes part in the trans step, and what to do."""
    dosage = holder.obsm[cis_key]["log2_x_true"].notna() & guides_of_cells(holder, cis_key).isna()
    n = int(dosage.reindex(adata.obs_names, fill_value=False).sum())
    if n == 0:
        return (
            "no cell with a guide of the cis gene is among these cells, only controls are: call dream_sc.tl.fit_trans "
            "on an object that holds them"
        )
    key = cis["params"].get("guides")
    return (
        f"each of the {n} cells with guides of the cis gene carries several of them, and this step takes cells with "
        "one, or with sets that are in enough cells where tl.fit_trans has inference='laplace', since what a guide "
        "does besides its dosage ties all combinations with it together. Call "
        f"dream_sc.pp.combine_guides(data, {key!r}), which makes labels of combinations that occur in many cells and "
        "share no guide, then dream_sc.tl.fit_technical and dream_sc.tl.fit_cis again, both without guides="
    )
