"""Designs that cannot be analysed: technical groups that follow the perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    from dream_sc._core.association import cramers_v

    for name, values in labels.items():
        known = np.asarray(values != "")
        v = cramers_v(group[known], np.unique(values[known], return_inverse=True)[1]) if known.any() else 0.0
        if v > LARGEST_V:
            raise ValueError(
                f"use_all_cells=True, but .obs[{batch_key!r}] follows {name}: Cramér's V is {v:.2f}, at most "
                f"{LARGEST_V} is allowed, since effects of groups learned from all cells would take the effect of the "
                "guides for their own. Leave use_all_cells out (control cells are then needed in every group), or take "
                "a batch_key that does not follow the guides"
            )
