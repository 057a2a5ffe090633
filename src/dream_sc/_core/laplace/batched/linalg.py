"""Small dense linear algebra, one matrix for each point: the matrix axes come first, any number of others follow."""

from __future__ import annotations

import torch

LEAST_PIVOT = 1e-10


def cholesky(h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower Cholesky factors ``(n, n, ...)`` of lower triangles, and where ``(...)`` they are positive definite."""
    n, out = h.shape[0], torch.zeros_like(h)
    ok = torch.ones(h.shape[2:], dtype=torch.bool, device=h.device)
    for j in range(n):
        column = h[j:, j]
        if j:
            column = column - (out[j:, :j] * out[j, :j]).sum(1)
        positive = column[0] > LEAST_PIVOT
        ok &= positive
        out[j:, j] = column / torch.where(positive, column[0], 1.0).sqrt()
    return out, ok


def solve(chol: torch.Tensor, rhs: torch.Tensor) -> torch.Tensor:
    """Solve for right hand sides ``(n, ...)``, or ``(n, m, ...)`` for `m` of them."""
    n, many = chol.shape[0], rhs.dim() == chol.dim()
    factor = chol.unsqueeze(2) if many else chol
    out = torch.zeros_like(rhs)
    for i in range(n):
        known = (factor[i, :i] * out[:i]).sum(0) if i else 0.0
        out[i] = (rhs[i] - known) / factor[i, i]
    for i in reversed(range(n)):
        known = (factor[i + 1 :, i] * out[i + 1 :]).sum(0) if i + 1 < n else 0.0
        out[i] = (out[i] - known) / factor[i, i]
    return out


def inverse(chol: torch.Tensor) -> torch.Tensor:
    """Inverses ``(n, n, ...)`` of the matrices of these Cholesky factors."""
    n = chol.shape[0]
    eye = torch.eye(n, dtype=chol.dtype, device=chol.device).reshape(n, n, *(1,) * (chol.dim() - 2))
    return solve(chol, eye.expand(chol.shape).clone())
