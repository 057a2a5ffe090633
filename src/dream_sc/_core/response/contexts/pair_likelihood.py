r"""The likelihood of two curves, one in each of two contexts, given the levels of the guides in both.

A guide shifts a feature by ``shared + own`` in each context: in both contexts the variance of that is ``tau^2``, and
the share ``rho`` of it is common to them. The levels of NTC guides, and the common error of all dosages of a context,
are integrated; so are the errors of guides' dosages, by the variance that they give the curve.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import joint_likelihood

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .shapes import Dosages

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """What was measured of `T` features in two contexts, the reference first, or in several."""

    mean: Floats  # (T, C, G) levels of the guides, less that of the context; targeting guides first
    variance: Floats  # (T, C, G)
    dosages: tuple[Dosages, ...]  # of the targeting guides
    level_sd: float  # of the level of NTC guides about that of the context
    unit: float = 1.0  # of the likelihood
    loadings: Floats | None = None  # (F, C, G) errors of dosages that go together; those of the NTC levels if None

    @property
    def n_targeting(self) -> int:
        """Number of targeting guides."""
        return len(self.dosages[0].error)

    @property
    def together(self) -> Floats:
        """Errors of dosages that go together ``(F, C, G)``, each as far as one sd moves the guides."""
        if self.loadings is not None:
            return self.loadings
        sd = np.array([d.level_error for d in self.dosages])
        return np.eye(len(sd))[sd > 0][:, :, None] * sd[:, None] * np.ones(self.n_targeting)

    def take(self, features: Any) -> Pair:
        """That of some features."""
        return replace(self, mean=self.mean[features], variance=self.variance[features])


@dataclass(frozen=True)
class Curves:
    """Curves of each feature in the contexts."""

    value: Floats  # (T, D, C, G)
    variance: Floats  # (T, D, C, G) by the errors of the guides' dosages
    slope: Floats  # (T, D, C, G) by log2 dosage

    @classmethod
    def flat(cls, n_features: int, n_guides: int, n_contexts: int = 2) -> Curves:
        """No response in any."""
        nothing = np.zeros((n_features, 1, n_contexts, n_guides))
        return cls(nothing, nothing, nothing)


def log_likelihood(pair: Pair, curves: Curves, taus: Floats, rho: float) -> Floats:
    """Log likelihood ``(T, D, K)`` at every tau ``(K,)``."""
    out = np.empty((*curves.value.shape[:2], len(taus)))
    at_tau = _at_tau if len(pair.dosages) == 2 else joint_likelihood.at_tau
    for k, tau in enumerate(taus):
        out[:, :, k] = at_tau(pair, curves, float(tau), rho)
    return out


def _at_tau(pair: Pair, curves: Curves, tau: float, rho: float) -> Floats:
    n, common = pair.n_targeting, rho * tau**2
    total = of_ntc(pair, tau, rho)
    v = [pair.variance[:, None, c, :n] + tau**2 + curves.variance[:, :, c] for c in range(2)]
    r = [pair.mean[:, None, c, :n] - curves.value[:, :, c] for c in range(2)]
    det = v[0] * v[1] - common**2
    p00, p11, p01 = v[1] / det, v[0] / det, -common / det
    y = [p00 * r[0] + p01 * r[1], p01 * r[0] + p11 * r[1]]
    value = total.value[:, None] - 0.5 * (np.log(det) + r[0] * y[0] + r[1] * y[1]).sum(-1)
    matrix: dict[tuple[int, int], Floats] = {
        (0, 0): total.precision[0, :, None] + p00.sum(-1),
        (0, 1): total.precision[1, :, None] + p01.sum(-1),
        (1, 1): total.precision[2, :, None] + p11.sum(-1),
    }
    pull = [total.pull[c, :, None] + y[c].sum(-1) for c in range(2)]
    p = {(0, 0): p00, (0, 1): p01, (1, 0): p01, (1, 1): p11}
    moved: list[dict[int, Floats]] = []
    for i, loading in enumerate(pair.together):
        moved.append({c: curves.slope[:, :, c] * loading[c] for c in range(2) if loading[c].any()})
        by = [np.asarray(sum(p[d, c] * each for c, each in moved[i].items())) for d in range(2)]
        for d in range(2):
            matrix[d, 2 + i] = by[d].sum(-1)
        for j in range(i + 1):
            matrix[2 + j, 2 + i] = sum((each * by[c]).sum(-1) for c, each in moved[j].items()) + float(i == j)
        pull.append(sum((y[c] * each).sum(-1) for c, each in moved[i].items()))
    return value + _integrated(matrix, pull)


@dataclass(frozen=True)
class OfNtc:
    """What the NTC guides say of the levels of both contexts."""

    value: Floats  # (T,) log likelihood at a level of 0
    precision: Floats  # (3, T) of the two levels: first, both, second
    pull: Floats  # (2, T)


def of_ntc(pair: Pair, tau: float, rho: float) -> OfNtc:
    """What the NTC guides say of the levels."""
    n, common = pair.n_targeting, rho * tau**2
    v, r = pair.variance[:, :, n:] + tau**2, pair.mean[:, :, n:]
    det = v[:, 0] * v[:, 1] - common**2
    p00, p11, p01 = v[:, 1] / det, v[:, 0] / det, -common / det
    y0, y1 = p00 * r[:, 0] + p01 * r[:, 1], p01 * r[:, 0] + p11 * r[:, 1]
    value = -0.5 * (np.log(det) + r[:, 0] * y0 + r[:, 1] * y1).sum(-1) - 2.0 * np.log(pair.level_sd)
    own = pair.level_sd**-2.0
    precision = np.stack([p00.sum(-1) + own, p01.sum(-1), p11.sum(-1) + own])
    return OfNtc(value, precision, np.stack([y0.sum(-1), y1.sum(-1)]))


def _integrated(matrix: dict[tuple[int, int], Floats], pull: list[Floats]) -> Floats:
    """Log of the integral of ``exp(pull x - x matrix x / 2)``, but for its constant, by elimination."""
    out: Floats = np.zeros_like(pull[0])
    n = len(pull)
    a, b = dict(matrix), list(pull)
    for i in range(n):
        out = out + 0.5 * (b[i] ** 2 / a[i, i] - np.log(a[i, i]))
        for j in range(i + 1, n):
            ratio = a[i, j] / a[i, i]
            b[j] = b[j] - ratio * b[i]
            for k in range(j, n):
                a[j, k] = a[j, k] - ratio * a[i, k]
    return out
