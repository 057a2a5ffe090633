"""What many NTC guides say of a feature's level and group effects, as a Gaussian for each sd of the guide effects.

NTC guides are at NTC dosage, so the curve does not touch them: what they say depends on the level, the group effects
and the sd of the guide effects only. Where they are many it is summed up once, and the kernel sees the targeting guides
alone. NTC guides then count as at NTC dosage exactly; by themselves they are within hundredths of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import logsumexp

from dream_sc._core.laplace.layout import Anchors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LOG_2PI = float(np.log(2 * np.pi))
STRIDES = ((0.35, 1), (0.7, 2), (np.inf, 4))  # sd of log tau given the NTC guides, points of the fine grid a step


@dataclass(frozen=True)
class Background:
    """The Gaussians at a few sds of the guide effects."""

    log_tau: Floats  # (J,) knots
    value: Floats  # (T, J) log density at the mode, priors included
    mode: Floats  # (T, J, C)
    precision: Floats  # (T, J, C, C)

    @property
    def arrays(self) -> tuple[Floats, Floats, Floats, Floats]:
        """All of it, as it is put together."""
        return self.log_tau, self.value, self.mode, self.precision

    def take(self, features: Any) -> Background:
        """Those of some features."""
        return replace(self, value=self.value[features], mode=self.mode[features], precision=self.precision[features])

    def at(self, taus: Floats) -> Anchors:
        """The Gaussians at other sds ``(T, K)``, by cubic splines over log tau; what is skipped (< 0) has any value."""
        log_tau = np.log(np.where(taus > 0, taus, np.exp(self.log_tau[0])))
        weights = _basis(tuple(self.log_tau))(np.clip(log_tau, self.log_tau[0], self.log_tau[-1]))
        return Anchors(*(_weighted(weights, values) for values in (self.value, self.mode, self.precision)))

    def evidence(self, taus: Floats) -> Floats:
        """Log evidence ``(T, K)`` of the NTC guides alone."""
        found = self.at(taus)
        n_c = found.mode.shape[-1]
        return np.asarray(found.value + 0.5 * n_c * LOG_2PI - 0.5 * np.linalg.slogdet(found.precision)[1])


@lru_cache(maxsize=8)
def _basis(knots: tuple[float, ...]) -> CubicSpline:
    """The natural cubic splines that are 1 at one of the knots and 0 at the others."""
    return CubicSpline(knots, np.eye(len(knots)), bc_type="natural")


def _weighted(weights: Floats, values: Floats) -> Floats:
    """Sums ``(T, K, ...)`` of the values ``(T, J, ...)`` at the knots: a spline is one of them.

    In their order, which linear algebra does not promise.
    """
    wide = weights.reshape(*weights.shape, *(1,) * (values.ndim - 2))
    out = wide[:, :, 0] * values[:, None, 0]
    for j in range(1, values.shape[1]):
        out += wide[:, :, j] * values[:, None, j]
    return np.asarray(out)


def joined(parts: list[Background]) -> Background:
    """Those of all features, from those of blocks."""
    names = ("value", "mode", "precision")
    return replace(parts[0], **{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})


def summed_up(modes: Floats, covs: Floats, log_z: Floats, knots: Floats) -> Background:
    """From the evidence ``(T, J)`` of the NTC guides alone, and its modes and covariances."""
    sign_det = np.linalg.slogdet(covs)[1]
    value = log_z - 0.5 * modes.shape[-1] * LOG_2PI - 0.5 * sign_det
    return Background(np.log(knots), value, modes, np.asarray(np.linalg.inv(covs)))


def grid_weights(background: Background, grid: Floats, log_prior: Floats) -> Floats:
    """Log weight ``(T, K)`` of each point of a fine grid of tau: -inf where a feature does without it.

    A feature whose NTC guides tell tau well needs neighbouring points, another every second or fourth, each standing
    for as many.
    """
    log_post = background.evidence(np.repeat(grid[None], len(background.value), 0)) + log_prior
    log_post -= logsumexp(log_post, axis=1, keepdims=True)
    post, log_grid = np.exp(log_post), np.log(grid)
    mean = post @ log_grid
    sd = np.sqrt(np.maximum((post * (log_grid - mean[:, None]) ** 2).sum(1), 0.0))
    stride = np.array([s for _, s in STRIDES])[np.searchsorted([w for w, _ in STRIDES[:-1]], sd)]
    used = np.arange(len(grid)) % stride[:, None] == 0
    return np.where(used, np.log(stride)[:, None], -np.inf)
