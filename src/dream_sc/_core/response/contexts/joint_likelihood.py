r"""The likelihood of curves in any number of contexts, given the levels of the guides in each.

As that of two contexts: the effects of a guide have the variance ``tau^2`` in each context, and the share ``rho`` of it
is common to all of them. Where a guide has the variances ``d_c`` besides what is common, the precision of its levels is
``1/d_c`` on the diagonal, less a product: so all sums over guides are those of independent contexts, less one of rank 1
for each guide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .pair_likelihood import Curves, Pair

    Floats = NDArray[np.float64]


def at_tau(pair: Pair, curves: Curves, tau: float, rho: float) -> Floats:
    """Log likelihood ``(T, D)``."""
    n, common, own = pair.n_targeting, rho * tau**2, (1 - rho) * tau**2
    ntc = of_guides(pair.mean[:, None, :, n:], pair.variance[:, None, :, n:] + own, None, common)
    residual = pair.mean[:, None, :, :n] - curves.value
    variance = pair.variance[:, None, :, :n] + own + curves.variance
    value, precision, pull = of_guides(residual, variance, (curves.slope, pair.together), common)
    c = pair.mean.shape[1]
    precision[..., :c, :c] += ntc[1] + pair.level_sd**-2.0 * np.eye(c)
    precision[..., c:, c:] += np.eye(precision.shape[-1] - c)
    pull[..., :c] += ntc[2]
    root = np.linalg.cholesky(precision)
    z = np.linalg.solve(root, pull[..., None])[..., 0]
    integrated = 0.5 * (z**2).sum(-1) - np.log(np.einsum("...ii->...i", root)).sum(-1)
    return np.asarray(value + ntc[0] - c * np.log(pair.level_sd) + integrated)


def of_guides(
    residual: Floats, variance: Floats, moved: tuple[Floats, Floats] | None, common: float
) -> tuple[Floats, Floats, Floats]:
    """What guides say of the levels of the contexts, and of errors of their dosages that go together.

    Arrays are ``(T, D, C, G)``; `moved` are the slopes of the curves and the errors ``(F, C, G)``. Returns the log
    likelihood ``(T, D)`` at levels and errors of 0, the precision ``(T, D, P, P)`` and the pull ``(T, D, P)`` of the
    `C` levels and, with `moved`, the `F` errors.
    """
    w = 1.0 / variance
    shrunk = common / (1.0 + common * w.sum(-2))  # (T, D, G)
    wr = w * residual
    total = wr.sum(-2)
    value = -0.5 * ((wr * residual).sum((-2, -1)) - (shrunk * total**2).sum(-1))
    value = value + 0.5 * np.log(w).sum((-2, -1)) - 0.5 * np.log1p(common * w.sum(-2)).sum(-1)
    c, a, pull = w.shape[-2], w, wr.sum(-1)
    i, f = np.arange(c), 0 if moved is None else len(moved[1])
    precision = np.zeros((*w.shape[:2], c + f, c + f))
    precision[..., i, i] = w.sum(-1)
    if moved is not None and f:
        slope, loadings = moved
        ws, flat, size = w * slope, loadings.reshape(f, -1), (*w.shape[:2], c * w.shape[-1])
        cross = np.stack([ws[..., each, :] @ loadings[:, each].T for each in range(c)], -2)
        precision[..., :c, c:], precision[..., c:, :c] = cross, np.swapaxes(cross, -1, -2)
        square = (flat[:, None] * flat).reshape(f * f, -1)
        precision[..., c:, c:] = ((ws * slope).reshape(size) @ square.T).reshape(*w.shape[:2], f, f)
        a = np.concatenate([w, np.einsum("tdcg,fcg->tdfg", ws, loadings, optimize=True)], -2)
        pull = np.concatenate([pull, (wr * slope).reshape(size) @ flat.T], -1)
    precision -= (a * shrunk[..., None, :]) @ np.swapaxes(a, -1, -2)
    return value, precision, pull - (a @ (shrunk * total)[..., None])[..., 0]
