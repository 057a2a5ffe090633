"""Step 2 where dosages are known: of labels or of cells, in place of those from the counts of the cis gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._core.stats.intervals import Z95
from dream_sc._data import known_dosages, made_from, results
from dream_sc._keys import CIS, CIS_COLUMNS, GUIDE, GUIDE_COLUMNS, ID, MADE_FROM, NTC, TARGET, TECHNICAL, Slots
from dream_sc._logging import logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData

    from dream_sc._core.dosage.known import OfLabels
    from dream_sc._data.known_dosages import Given

Scale = Literal["relative", "log2", "dose"]
FAR_CONTROL = 1.0  # log2: controls further than this from the dosage that defines them show another unit
OFF_CONTROL = 0.1  # log2: ... are told of, as the axis is off by as much
LEAST_MOVE = 0.01  # log2: dosages that are all nearer to that of controls move nothing
WIDEST = 40.0  # log2: a range of 10^12, beyond which numbers are no dosages
MOST_RELATIVE = 20.0  # of the level in control cells: more looks like per cent
SHOWN = 12


def set_dosage(
    data: AnnData | MuData,
    dosage: str | Mapping[str, float] | pd.Series | pd.DataFrame,
    *,
    label_key: str = GUIDE,
    target_key: str = TARGET,
    control: str | list[str] | None = NTC,
    sd: float | str | Mapping[str, float] | pd.Series | None = None,
    scale: Scale = "relative",
    cis_gene: str | None = None,
    mod: str | None = None,
    technical_key: str = TECHNICAL,
    key_added: str = CIS,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Set dosages that are known, in place of `tl.fit_cis`.

    A dosage is what a degron leaves of its protein, the level in a FACS bin, the published strength of a guide, or the
    dose of a drug. Labels are the units of replication, as guides are in a screen: wells, clones, animals, guides.
    Cells of one label are not independent replicates, so each well has a label of its own, not each dose.

    The result has the form of that of `tl.fit_cis`: `tl.fit_trans`, `get` and `pl` take it as it is.

    Parameters
    ----------
    data
        AnnData or MuData.
    dosage
        Dosages of labels: a mapping, a Series, or a table with the labels as index (or in a column named as
        `label_key`, or "guide"), the dosages in a column "dosage" and, if they have errors, these in a column "sd";
        with scale "log2" the column may be called "log2_dosage", as `get.guides` returns it. Or the name of a column of
        `.obs` with the dosage of each cell. Cells of a label may differ in it: the label then has their mean log2
        dosage and their spread.
    label_key
        Column of `.obs` with the label of each cell. Cells without a label, or with one that has no dosage, take no
        part.
    target_key, control
        Column of `.obs` and its label(s) of control cells, which define the dosage 1 ("relative") or 0. Controls
        without a dosage of their own get that one. None, with scale "dose": the labels at dose 0.
    sd
        Errors of the dosages, in their unit: one number, numbers of labels, or a column of `.obs`. They are those of
        labels; where cells of a label differ in dosage, they are those of cells, independent of each other. A
        label without one is taken to be exact. None: those of the table, or none.
    scale
        Unit of the dosages. "relative": fraction of the level in control cells. "log2": log2 of that. "dose": in a unit
        of the user, with controls at 0.
    cis_gene
        Feature that the dosage is of, if it is one: it is not fitted, and gives axes of plots its name.
    mod
        Modality of a MuData.
    technical_key
        Name of the technical fit. Where it was made on all cells, technical groups must not follow the labels.
    key_added
        Name under which results are stored.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.obsm[key_added]`, `.obs[key_added + "_guide"]` and `.uns[key_added]`, as
    `tl.fit_cis` does; the table of guides (`get.guides`) has a row per label.

    Raises
    ------
    KeyError, ValueError, TypeError
        If a column is missing, a dosage is no number or not above 0, no label with a dosage is there, no cell is a
        control, a label is both, controls are not at the dosage that defines them, all other labels are, or dosages
        range over more than 40 log2.

    Examples
    --------
    A degron in four wells and a control well, by the protein that is left in each:

    >>> left = {"well_1": 0.6, "well_2": 0.35, "well_3": 0.12, "well_4": 0.05}
    >>> ds.tl.set_dosage(adata, left, label_key="well", target_key="treatment", control="DMSO")
    >>> ds.tl.fit_trans(adata)
    """
    started, data = results.now(), results.own(data, copy)
    adata = _validate.resolve(data, mod)
    _validate.new_key(adata, key_added, "tl.set_dosage")
    _validate.one_of("scale", scale, get_args(Scale))
    if cis_gene is not None:
        _validate.feature(adata, cis_gene, "cis gene")
    label = _validate.labels(adata, label_key, "label_key")
    given = known_dosages.read(adata, dosage, sd, label, scale, label_key)
    target, is_control = _controls(adata, target_key, control, given, scale)
    design = _design(label, target, is_control, given, cis_gene)
    _refuse_confounded(adata, technical_key, label_key, label, design)
    cells = _cells(design, given, scale)
    params = {
        "control": sorted(set(target[is_control])),
        "label_key": label_key,
        "guide_key": label_key,
        "target_key": target_key,
        "technical_key": technical_key,
        "scale": scale,
        "dosage": dosage if isinstance(dosage, str) else "labels",
        "by_cell": given.by_cell,
    }
    info = results.run_info(started, 0, params) | {
        "cis_gene": "" if cis_gene is None else cis_gene,
        "guides": _table(design, cells),
        "n_cells": design.n_cells,
        "diagnostics": {"ntc_level_sd": 0.0},
    }
    reads = made_from.of_cis(params, {})
    reads += [made_from.Read(made_from.LABEL, dosage)] if isinstance(dosage, str) else []
    info |= {
        ID: made_from.id_of(params, info["guides"].select_dtypes("number")),
        MADE_FROM: made_from.made_from(adata, reads, design.code >= 0, params),
    }
    slots = {
        ("obsm", key_added): _of_cells(adata, cells, given, design),
        ("obs", Slots(key_added).guide): pd.Categorical.from_codes(design.code, design.table["guide"]),
        ("uns", key_added): info,
    }
    results.write(adata, "tl.set_dosage", slots, started)
    return data if copy else None


@dataclass(frozen=True)
class _Design:
    """Labels that take part, acting ones first, and the label of each cell."""

    table: pd.DataFrame  # guide, target, is_control, n_cells
    code: np.ndarray  # (N,) -1 of cells that take no part

    @property
    def control(self) -> np.ndarray:
        """``(L,)`` labels of controls."""
        return self.table["is_control"].to_numpy(bool)

    @property
    def of_control(self) -> np.ndarray:
        """``(N,)`` control cells."""
        return (self.code >= 0) & self.control[self.code]

    @property
    def n_cells(self) -> dict[str, int]:
        """How many cells are what."""
        used, control = int((self.code >= 0).sum()), int(self.of_control.sum())
        return {"targeting": used - control, "control": control, "excluded": len(self.code) - used}


@dataclass(frozen=True)
class _Cells:
    """Log2 dosages of cells and of their labels."""

    log2: np.ndarray  # (N,) NaN of cells that take no part, and at dose 0
    sd: np.ndarray  # (N,)
    labels: OfLabels


def _controls(
    adata: AnnData, target_key: str, control: str | list[str] | None, given: Given, scale: str
) -> tuple[np.ndarray, np.ndarray]:
    """The target of each cell, and which are controls."""
    if control is not None:
        target = _validate.labels(adata, target_key, "target_key")
        return target, _validate.controls(target, control, target_key)
    if scale != "dose":
        raise ValueError(
            f"control=None is for scale='dose', where controls are the labels at 0: with scale={scale!r} name the "
            f"label(s) of control cells in .obs[{target_key!r}]"
        )
    is_control = given.value == 0
    if not is_control.any():
        raise ValueError("control=None, but no label is at dose 0: name the label(s) of control cells as control=")
    return np.where(is_control, "0", "dose"), is_control


def _design(label: np.ndarray, target: np.ndarray, is_control: np.ndarray, given: Given, gene: str | None) -> _Design:
    """Sort cells by label."""
    known = np.isfinite(given.value)
    take = (label != "") & (is_control | known)
    lacking = (label != "") & ~is_control & ~known
    cells = pd.DataFrame({"guide": label, "target": target, "is_control": is_control})[take]
    both = cells.groupby("guide")["is_control"].nunique().loc[lambda n: n > 1].index
    if len(both):
        raise ValueError(
            f"the labels {list(both)[:SHOWN]} occur in control cells and in others: check label_key= and control="
        )
    table = cells.groupby("guide", sort=True).agg(
        target=("target", "first"), is_control=("is_control", "first"), n_cells=("guide", "size")
    )
    table = table.reset_index().sort_values("is_control", kind="stable").reset_index(drop=True)
    if gene is not None:
        table["target"] = table["target"].where(table["is_control"] | (table["target"] != ""), gene)
    for what, none in (("with a dosage", table["is_control"].all()), ("of control cells", ~table["is_control"].any())):
        if none:
            raise ValueError(f"no cell has a label {what}: check label_key=, target_key= and control=")
    code = pd.Index(table["guide"]).get_indexer(np.where(take, label, ""))
    if lacking.any():
        names = sorted(set(label[lacking]) - set(table["guide"]))
        logger.warning("tl.set_dosage: %d cells without a dosage take no part: %s", int(lacking.sum()), names[:SHOWN])
    return _Design(table, code.astype(np.int64))


def _refuse_confounded(adata: AnnData, key: str, label_key: str, label: np.ndarray, design: _Design) -> None:
    """Refuse technical groups that follow the labels, where effects of groups come from all cells."""
    from dream_sc._data.groups import group_codes

    from ._confounded_groups import refuse_confounded

    if key not in adata.uns:
        return
    technical = _validate.step(adata, key, "fit_technical(data)")
    if technical["params"].get("use_all_cells") and technical["params"]["batch_key"] is not None:
        used = np.where(design.code >= 0, label, "")
        groups = group_codes(adata, technical)
        refuse_confounded(technical["params"]["batch_key"], groups, {f".obs[{label_key!r}]": used})


def _cells(design: _Design, given: Given, scale: str) -> _Cells:
    """Log2 dosages of cells and labels."""
    from dream_sc._core.dosage import known

    used, control = design.code >= 0, design.of_control
    value, sd = np.where(used, given.value, np.nan), np.where(used, given.sd, np.nan)
    unset = control & ~np.isfinite(value)
    value[unset], sd[unset] = (1.0 if scale == "relative" else 0.0), 0.0
    _check(value, control, scale)
    if scale != "log2":
        value, sd = known.to_log2(value, sd)
    _check_range(value[used & ~control], scale)
    n = len(design.table)
    if given.by_cell:
        labels = known.of_cells(value, sd, design.code, n)
        labels = known.OfLabels(labels.mean, labels.sd, np.where(design.control, 0.0, labels.spread))
    else:
        first = np.unique(design.code, return_index=True)[1][-n:]
        labels = known.OfLabels(value[first], sd[first], np.zeros(n))
    return _Cells(value, sd, labels)


def _check(value: np.ndarray, control: np.ndarray, scale: str) -> None:
    """Refuse dosages that the scale does not have."""
    if scale == "log2":
        far = np.abs(value[control].mean()) > FAR_CONTROL
    elif (value < 0).any() or (value[~control] == 0).any() or (scale == "relative" and (value == 0).any()):
        what = "a label at dose 0 is a control, name it in control=, or leave control=None"
        if scale == "relative":
            what = "they are fractions of the level in control cells, so give the limit of detection in place of 0"
        raise ValueError(f"dosage holds {np.nanmin(value):g} with scale={scale!r}: {what}")
    elif scale == "dose":
        far = (value[control] != 0).any()
    else:
        far = np.abs(np.log2(value[control]).mean()) > FAR_CONTROL
    if far:
        raise ValueError(
            f"control cells have a mean dosage of {value[control].mean():g}: with scale={scale!r} controls are at "
            f"{1 if scale == 'relative' else 0}. Check the unit of the dosages, scale= and control="
        )
    _doubt(value, control, scale)


def _check_range(log2: np.ndarray, scale: str) -> None:
    """Refuse dosages of targeted cells that move nothing, or are no dosages; say where they are all the same."""
    low, high = float(log2.min()), float(log2.max())
    if scale != "dose":
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low > WIDEST:
        raise ValueError(
            f"dosages range over {high - low:.0f} log2, which is more than a factor of 10^12: check their unit, and "
            f"scale={scale!r}"
        )
    if scale != "dose" and high - low < LEAST_MOVE:
        raise ValueError(
            "all labels have the dosage of control cells, so that there is nothing to respond to: check the unit of "
            "the dosages. Where only what is perturbed is known, call dream_sc.tl.fit_trans(data, dosage='none', "
            "cis_targets=...)"
        )
    if np.ptp(log2) == 0 and len(log2) > 1:
        logger.warning(
            "tl.set_dosage: all labels have the same dosage: responses are of it against control cells, and have no "
            "EC50. Labels that differ in truth then count as noise"
        )


def _doubt(value: np.ndarray, control: np.ndarray, scale: str) -> None:
    """Say where dosages are hardly what they should be."""
    if scale == "dose":
        return
    log2 = value if scale == "log2" else np.log2(value)
    if abs(off := float(log2[control].mean())) > OFF_CONTROL:
        logger.warning(
            "tl.set_dosage: control cells have a mean log2 dosage of %.2f, which is 0 by definition: EC50s are off by "
            "as much. Divide dosages by the geometric mean of those of control cells, or give controls none",
            off,
        )
    if float(np.nanmax(log2)) > np.log2(MOST_RELATIVE):
        logger.warning(
            "tl.set_dosage: dosages go up to %.3g times the level in control cells: are they per cent? "
            "scale='relative' takes fractions, scale='dose' any unit",
            2.0 ** float(np.nanmax(log2)),
        )


def _table(design: _Design, cells: _Cells) -> pd.DataFrame:
    """The table of labels, with the columns of one of guides."""
    x = cells.labels
    found = {
        "log2_dosage": x.mean,
        "sd": x.sd,
        "log2fc": x.mean,
        "log2fc_q025": x.mean - Z95 * x.sd,
        "log2fc_q975": x.mean + Z95 * x.sd,
        "within_sd": x.spread,
        "escaper_fraction": 0.0,
        "escaper_fraction_q025": np.nan,
        "escaper_fraction_q975": np.nan,
        "log2_dosage_acting": x.mean,
        "sd_acting": x.sd,
    }
    return design.table.assign(**found)[list(GUIDE_COLUMNS)]


def _of_cells(adata: AnnData, cells: _Cells, given: Given, design: _Design) -> pd.DataFrame:
    """The table of cells."""
    x, half = cells.log2, Z95 * cells.sd
    natural = np.where((design.code >= 0) & np.isnan(x), 0.0, 2.0**x)
    values: Any = np.column_stack([natural, x, cells.sd, x - half, x + half])
    return pd.DataFrame(values, index=adata.obs_names, columns=list(CIS_COLUMNS))
