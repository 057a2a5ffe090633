"""Compiled: a mixture of Student t kernels around draws."""

from __future__ import annotations

import numpy as np

from dream_sc._core.compiled import Matrix, Vector, entry
from dream_sc._core.compiled.vector_math import vexp, vlog


@entry
def log_kernels(x: Matrix, centres: Matrix, df: float) -> Vector:
    """Log density ``(N,)``, up to a constant, of a mixture of Student t kernels of unit scale.

    `x` is ``(D, N)``, `centres` ``(D, M)``: parameters first.
    """
    power, out, near = 0.5 * (df + x.shape[0]), np.zeros(x.shape[1]), np.zeros(centres.shape[1])
    for i in range(out.size):
        for j in range(near.size):
            near[j] = 1.0
        for d in range(x.shape[0]):
            for j in range(near.size):
                step = x[d, i] - centres[d, j]
                near[j] += step * step / df
        for j in range(near.size):
            near[j] = vexp(-power * vlog(near[j]))
        out[i] = np.log(near.sum())
    return out
