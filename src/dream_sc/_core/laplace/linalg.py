"""Small dense linear algebra inside kernels."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from dream_sc._core.compiled import Matrix, Vector, inline


@inline
def cholesky(h: Matrix, n: int, out: Matrix) -> bool:
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


@inline
def solve(chol: Matrix, n: int, rhs: Vector, out: Vector) -> None:
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
