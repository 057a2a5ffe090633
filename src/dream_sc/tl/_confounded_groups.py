"""Designs that cannot be analysed: technical groups that follow the perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dream_sc._data.guide_matrix import Guides

    from ._cis_design import CisDesign

LARGEST_V = 0.3


def refuse_confounded(batch_key: str | None, group: np.ndarray, labels: Mapping[str, np.ndarray]) -> None:
    """Refuse groups that follow guides or targets, where effects of groups come from all cells.

    Parameters
    ----------
    batch_key
        Column of the groups.
    group
        ``(N,)`` group of each cell.
    labels
        What the groups must not follow: how to name it, and ``(N,)`` labels, "" of cells that have none.

    Raises
    ------
    ValueError
        If a bias-corrected Cramér's V is above 0.3.
    """
    from dream_sc._core.stats.cramers_v import cramers_v

    for name, values in labels.items():
        known = np.asarray(values != "")
        v = cramers_v(group[known], np.unique(values[known], return_inverse=True)[1]) if known.any() else 0.0
        _refuse(batch_key, name, v)


def refuse_confounded_guides(batch_key: str | None, group: np.ndarray, guides: Guides, control: np.ndarray) -> None:
    """The same for cells with several guides, each guide of a cell counted once.

    Parameters
    ----------
    control
        ``(G,)`` guides that are controls.
    """
    from dream_sc._core.stats.cramers_v import cramers_v

    cell = np.repeat(np.arange(len(group)), np.diff(guides.carried.indptr))
    of_guide = guides.carried.indices
    _refuse(batch_key, f"the guides of {guides.key!r}", cramers_v(group[cell], of_guide))
    _refuse(batch_key, "whether a guide is a control", cramers_v(group[cell], control[of_guide].astype(np.int64)))


def refuse_confounded_design(
    batch_key: str | None, group: np.ndarray, design: CisDesign, guides: Guides, acting: np.ndarray
) -> None:
    """The same for the guides of one cis gene: among themselves, and against the controls, however many these are.

    Guides are looked at as the matrix has them: one that is taken apart by a column, such as that of the groups
    itself, is one guide in several of these.

    Parameters
    ----------
    guides, acting
        That matrix, and ``(G,)`` the guides of the cis gene in it.
    """
    from dream_sc._core.stats.cramers_v import balanced_v, cramers_v

    targeting = design.used & ~design.is_control[design.code]
    alone = targeting & (design.row_guide >= 0)
    only = guides.carried[np.flatnonzero(alone)][:, np.flatnonzero(acting)].tocsr().indices
    _refuse(batch_key, "the guides of the cis gene", cramers_v(group[alone], only))
    _refuse(
        batch_key, "whether a cell is targeted", balanced_v(group[design.used], targeting[design.used].astype(np.int64))
    )


def _refuse(batch_key: str | None, name: str, v: float) -> None:
    if v > LARGEST_V:
        raise ValueError(
            f"use_all_cells=True, but .obs[{batch_key!r}] follows {name}: Cramér's V is {v:.2f}, at most "
            f"{LARGEST_V} is allowed, since effects of groups learned from all cells would take the effect of the "
            "guides for their own. Leave use_all_cells out (control cells are then needed in every group), or take "
            "a batch_key, or covariates, that do not follow the guides"
        )
