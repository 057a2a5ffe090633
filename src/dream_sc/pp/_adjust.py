"""Size factors made free of the perturbation: of guides, or of the dosage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dream_sc import _validate
from dream_sc._data import results
from dream_sc._data.cis_cells import guide_cells
from dream_sc._keys import CIS, GUIDE, NTC, SIZE_FACTOR, TARGET

from ._size_factors import made_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

SHOWN = 8


def adjust_size_factors(
    data: AnnData | MuData,
    *,
    by: str | Sequence[str] | None,
    mod: str | None = None,
    guide_key: str = GUIDE,
    target_key: str = TARGET,
    control: str | list[str] = NTC,
    size_factor_key: str = SIZE_FACTOR,
    key_added: str = SIZE_FACTOR,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Scale size factors so that every guide has the mean of NTC cells, within groups of covariates.

    This takes from the size factors whatever differs between guides: what the composition of their counts did to the
    totals, but also **real differences in depth**. A guide whose cells were in truth sequenced less deeply, or hold
    less RNA, then seems to have less of *every* gene, so that all of them may be called. Use it only where depth cannot
    follow the guide for another reason than composition (pooled cells, one library).
    ``pp.size_factors(method="stable")`` needs no such assumption. `tl.check_confounding` shows what is left.

    Parameters
    ----------
    data
        AnnData or MuData with size factors.
    by
        Column or columns of `.obs` with the groups within which guides are compared (lanes, batches, lines); None for
        no groups. The column of guides may be among them, and makes no difference: guides are always told apart.
    mod
        Modality of a MuData.
    guide_key, target_key, control
        Columns of `.obs` with each cell's guide and target, and the label(s) of non-targeting cells in the latter.
    size_factor_key
        Column of `.obs` with the size factors to start from.
    key_added
        Column of `.obs` to write; the old ones stay if it is another one.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.obs[key_added]`: of each group and guide, the size factors times the mean
    of the group's NTC cells over their own mean. NTC guides are scaled alike; cells without a guide stay as they are.

    Raises
    ------
    KeyError, ValueError
        If a column is missing or has missing labels, size factors are not positive, or a group with targeted cells has
        no NTC cells.

    Examples
    --------
    >>> ds.pp.size_factors(adata)
    >>> ds.pp.adjust_size_factors(adata, by="batch", key_added="adjusted")
    >>> bool((adata.obs["adjusted"] > 0).all())
    True
    """
    started = results.now()
    data = results.own(data, copy)
    adata = _validate.resolve(data, mod)
    _validate.new_size_factors(adata, key_added)
    s = _validate.size_factors(adata, size_factor_key)
    guide = _validate.labels(adata, guide_key, "guide_key")
    is_control = _validate.controls(_validate.labels(adata, target_key, "target_key"), control, target_key)
    group, names = _covariate_groups(adata, by, guide_key)
    labelled = guide != ""
    level = _means(s[is_control], group[is_control], len(names))
    lacking = [names[g] for g in np.unique(group[labelled]) if not np.isfinite(level[g])]
    if lacking:
        raise ValueError(
            f"the groups {lacking[:SHOWN]} of by={by!r} have no control cells to compare guides with: leave these "
            "cells out, merge the groups, or leave that column out of by="
        )
    each, code = np.unique(guide, return_inverse=True)
    cell = group * len(each) + code
    own = _means(s, cell, len(names) * len(each))[cell]
    out = np.where(labelled, s * level[group] / own, s)
    results.write(adata, "pp.adjust_size_factors", {("obs", key_added): out}, started)
    made_by(adata, key_added, "pp.adjust_size_factors", by=by if by is None or isinstance(by, str) else list(by))
    return data if copy else None


def _covariate_groups(adata: AnnData, by: str | Sequence[str] | None, guide_key: str) -> tuple[np.ndarray, list[str]]:
    """The group of each cell as a number, and the names of the groups."""
    keys = [] if by is None else [by] if isinstance(by, str) else list(by)
    label = np.full(adata.n_obs, "", dtype=object)
    for key in keys:
        values = _validate.labels(adata, key, "by")
        if (values == "").any() and key != guide_key:
            raise ValueError(f".obs[{key!r}] holds missing labels: fill them, or drop these cells")
        if key != guide_key:
            label = label + np.where(label == "", "", ", ") + values
    names, group = np.unique(label.astype(str), return_inverse=True)
    return group, [str(n) for n in names]


def _means(values: np.ndarray, group: np.ndarray, n: int) -> np.ndarray:
    """Mean of each group, NaN where it is empty."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.bincount(group, values, n) / np.bincount(group, minlength=n))


def refit_size_factors(
    data: AnnData | MuData,
    *,
    cis_key: str = CIS,
    mod: str | None = None,
    cis_mod: str | None = None,
    size_factor_key: str = SIZE_FACTOR,
    key_added: str = SIZE_FACTOR,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Take a smooth dependence on the dosage out of the size factors.

    The mean log size factor of each guide is regressed on its log2 dosage, NTC cells together at 0, by a quadratic
    spline with one knot (a line through fewer than six points). What the spline says beyond the NTC level is taken off
    the size factors of the guide's cells; NTC cells keep theirs, so the technical fit stands. Guides are the points,
    not cells: a cell's own dosage is its count over its size factor, and falls with any error of the latter.

    A dependence of the real depth on the dosage is taken off as well: see `pp.adjust_size_factors`, of which this is
    the milder form.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_cis` has run.
    cis_key
        Name of the cis fit.
    mod, cis_mod
        Modality with the size factors, and the one that holds the dosage (the same by default); cells are matched by
        name.
    size_factor_key
        Column of `.obs` with the size factors to start from.
    key_added
        Column of `.obs` to write; the old ones stay if it is another one. `tl.fit_trans` reads the column that the
        technical fit names (`size_factor_key`), at the time it is called.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.obs[key_added]`; cells that take no part in the cis fit stay as they are.

    Raises
    ------
    KeyError, ValueError
        If there is no cis fit, size factors are not positive, or there are fewer than two targeting guides.

    Examples
    --------
    >>> ds.pp.refit_size_factors(adata, key_added="refitted")  # after tl.fit_cis
    >>> bool((adata.obs["refitted"] > 0).all())
    True
    """
    from dream_sc._core.stats.dosage_trend import trend
    from dream_sc._core.stats.meta_regression import guide_means

    started = results.now()
    data = results.own(data, copy)
    adata = _validate.resolve(data, mod)
    holder = adata if cis_mod is None else _validate.resolve(data, cis_mod)
    _validate.new_size_factors(adata, key_added)
    s = _validate.size_factors(adata, size_factor_key)
    cells = guide_cells(adata, holder, cis_key)
    # all NTC guides are one point
    point = np.where(cells.control, 0, np.cumsum(~cells.control))
    of_cell = np.where(cells.guide >= 0, point[cells.guide], -1)
    mean, variance, n = guide_means(np.log(s), of_cell, int(point.max()) + 1)
    seen = n > 0
    if not seen[0] or seen[1:].sum() < 2:
        raise ValueError(
            f"a trend over the dosage needs control cells and two targeting guides; here are {n[0]} control cells and "
            f"{seen[1:].sum()} targeting guides: use dream_sc.pp.adjust_size_factors, or method='stable'"
        )
    x = np.zeros(len(mean))
    x[point[~cells.control]] = cells.dosage[~cells.control]
    off = np.zeros(len(mean))
    off[seen] = trend(x[seen], mean[seen], variance[seen])
    out = np.where(of_cell >= 0, s * np.exp(off[0] - off[of_cell]), s)
    results.write(adata, "pp.refit_size_factors", {("obs", key_added): out}, started)
    made_by(adata, key_added, "pp.refit_size_factors", cis_key=cis_key)
    return data if copy else None
