"""The dosages of a row's cells as a few nodes with weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

N_NODES = 7


def dosage_nodes(mean: Floats, spread: Floats, escape: Floats | None = None) -> tuple[Floats, Floats]:
    """Gauss-Hermite nodes and weights ``(R, J)`` of normal dosages with these means and spreads (log2).

    Where a share `escape` of the cells is at the NTC level, one node more stands for these.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
    at = np.asarray(mean)[:, None] + np.asarray(spread)[:, None] * nodes
    share = np.tile(weights / weights.sum(), (len(at), 1))
    if escape is None or not (escape > 0).any():
        return at, share
    escape = np.asarray(escape)[:, None]
    # a row without such cells repeats its first node, with no weight
    at = np.concatenate([at, np.where(escape > 0, 0.0, at[:, :1])], 1)
    return at, np.concatenate([share * (1 - escape), escape], 1)


def shifted_nodes(mean: Floats, escape: Floats) -> tuple[Floats, Floats]:
    """Nodes and weights ``(G, 2)`` of guides at a dosage, a share `escape` of their cells at the NTC level."""
    at = np.stack([mean, np.where(escape > 0, 0.0, mean)], 1)
    return at, np.stack([1 - escape, escape], 1)
