"""Points that cover a cube evenly, and the scale that makes normal numbers of them Student's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaincinv

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

EDGE = 1e-9  # distance that points keep from the faces of the cube, where quantiles are infinite


def sobol_points(dim: int, n: int, seed: int | np.random.Generator) -> Floats:
    """`n` points ``(n, dim)`` within the unit cube: the first of a scrambled Sobol sequence."""
    from scipy.stats import qmc  # takes most of a second to import, and only posterior draws need it

    points = qmc.Sobol(dim, seed=seed).random(1 << int(np.ceil(np.log2(n))))[:n]
    return np.asarray(np.clip(points, EDGE, 1 - EDGE))


def student_scale(u: Floats, df: float) -> Floats:
    """What standard normal numbers are multiplied with to be Student's t, given uniform numbers."""
    return np.asarray(np.sqrt(df / (2.0 * gammaincinv(0.5 * df, u))))
