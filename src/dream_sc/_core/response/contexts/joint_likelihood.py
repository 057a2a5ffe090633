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
    error = np.array([d.level_error for d in pair.dosages])[:, None]
    ntc = _of_guides(pair.mean[:, None, :, n:], pair.variance[:, None, :, n:] + own, None, common)
    residual = pair.mean[:, None, :, :n] - curves.value
    variance = pair.variance[:, None, :, :n] + own + curves.variance
    value, precision, pull = _of_guides(residual, variance, curves.slope * error, common)
    c = pair.mean.shape[1]
    precision[..., :c, :c] += ntc[1] + pair.level_sd**-2.0 * np.eye(c)
    precision[..., c:, c:] += np.eye(c)
    pull[..., :c] += ntc[2]
    root = np.linalg.cholesky(precision)
    z = np.linalg.solve(root, pull[..., None])[..., 0]
    integrated = 0.5 * (z**2).sum(-1) - np.log(np.einsum("...ii->...i", root)).sum(-1)
    return np.asarray(value + ntc[0] - c * np.log(pair.level_sd) + integrated)


def _of_guides(
    residual: Floats, variance: Floats, moved: Floats | None, common: float
) -> tuple[Floats, Floats, Floats]:
    """What guides say of the levels of the contexts, and of the common errors of their dosages.

    Arrays are ``(T, D, C, G)``; `moved` is what an error of one sd moves a guide's level by. Returns the log likelihood
    ``(T, D)`` at levels and errors of 0, the precision ``(T, D, P, P)`` and the pull ``(T, D, P)`` of the `C` levels
    and, with `moved`, the `C` errors.
    """
    w = 1.0 / variance
    by = [w] if moved is None else [w, w * moved]
    a = np.concatenate(by, -2)  # (T, D, P, G)
    shrunk = common / (1.0 + common * w.sum(-2))  # (T, D, G)
    wr = w * residual
    total = wr.sum(-2)
    value = -0.5 * ((wr * residual).sum((-2, -1)) - (shrunk * total**2).sum(-1))
    value = value + 0.5 * np.log(w).sum((-2, -1)) - 0.5 * np.log1p(common * w.sum(-2)).sum(-1)
    precision = -(a * shrunk[..., None, :]) @ np.swapaxes(a, -1, -2)
    c = w.shape[-2]
    i = np.arange(c)
    precision[..., i, i] += w.sum(-1)
    pull = [wr.sum(-1)]
    if moved is not None:
        cross = (w * moved).sum(-1)
        precision[..., i, c + i] += cross
        precision[..., c + i, i] += cross
        precision[..., c + i, c + i] += (w * moved**2).sum(-1)
        pull.append((wr * moved).sum(-1))
    out = np.concatenate(pull, -1) - (a @ (shrunk * total)[..., None])[..., 0]
    return value, precision, out
