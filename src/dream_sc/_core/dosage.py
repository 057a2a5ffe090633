"""The dosages of a row's cells as a few nodes with weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

N_NODES = 7


def dosage_nodes(mean: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Gauss-Hermite nodes and weights ``(R, 7)`` of normal dosages with these means and spreads (log2)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
    at = np.asarray(mean)[:, None] + np.asarray(spread)[:, None] * nodes
    return at, np.tile(weights / weights.sum(), (len(at), 1))
