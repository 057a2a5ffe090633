"""The dosages of a row's cells as a few nodes with weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

N_NODES = 7


def dosage_nodes(mean: Floats, spread: Floats, escape: Floats) -> tuple[Floats, Floats]:
    """Gauss-Hermite nodes and weights ``(R, 8)`` of normal dosages with these means and spreads (log2).

    The last node is for the share `escape` of the cells at the NTC level. Nodes without weight stand for nothing: a row
    without spread has one, one without such cells does not use the last.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
    mean, spread, escape = (np.asarray(a, dtype=float)[:, None] for a in (mean, spread, escape))
    weights = np.where(spread > 0, weights / weights.sum(), np.arange(N_NODES) == 0)
    at = np.concatenate([mean + spread * nodes, np.where(escape > 0, 0.0, mean)], 1)
    return at, np.concatenate([weights * (1 - escape), escape], 1)


def two_parts(mean: Floats, escape: Floats) -> tuple[Floats, Floats]:
    """The same without the spread, ``(G, 2)``: the guide's dosage, and that of its cells at the NTC level."""
    return np.stack([mean, np.zeros_like(mean)], 1), np.stack([1 - escape, escape], 1)
