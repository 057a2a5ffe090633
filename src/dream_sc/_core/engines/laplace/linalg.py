"""Small dense linear algebra inside kernels."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numba as nb


@nb.njit(cache=True, error_model="numpy")
def cholesky(h, n, out):
    """Lower Cholesky factor of ``h[:n, :n]``; False where it is not positive definite."""
    for i in range(n):
        for j in range(i + 1):
            s = h[i, j]
            for k in range(j):
                s -= out[i, k] * out[j, k]
            if i == j:
                if s <= 1e-10:
                    return False
                out[i, i] = s**0.5
            else:
                out[i, j] = s / out[j, j]
    return True


@nb.njit(cache=True, error_model="numpy")
def solve(chol, n, rhs, out):
    """Solve with the Cholesky factor ``chol[:n, :n]`` into `out`."""
    for i in range(n):
        s = rhs[i]
        for k in range(i):
            s -= chol[i, k] * out[k]
        out[i] = s / chol[i, i]
    for i in range(n - 1, -1, -1):
        s = out[i]
        for k in range(i + 1, n):
            s -= chol[k, i] * out[k]
        out[i] = s / chol[i, i]
