r"""Curves of one Hill, their prior and a lattice of them, with parameters in which posteriors are nearly normal.

A curve is ``(log2 EC50, log n, beta)`` with the amplitude ``b = unit sinh(beta) / 10``, the log of one asymptote over
the other: steps of `beta` are even in `b` about 0, and in its log beyond. The prior is that of the trans step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import RegularGridInterpolator
from scipy.special import logsumexp

from dream_sc._core.curves import LN2
from dream_sc._core.curves.single_hill import amplitude_mass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import TransPriors
    from dream_sc._core.types import Axis

    Floats = NDArray[np.float64]

SMALL = 0.1  # amplitude about which `beta` turns from even in it to even in its log, units of the priors
MOST_BETA = 5.0
STEP, BEYOND = 0.4, 2.5  # log2, of the lattice along the EC50
N_STEEP, STEEP = 6, (0.4, 10.0)
N_BETA = 32  # even: none is 0
NODES, NODE_WEIGHTS = np.array([-(3**0.5), 0.0, 3**0.5]), np.array([1 / 6, 2 / 3, 1 / 6])  # of a normal
LEAST = 1e-300
FAR = 600.0  # of a logit
WALL = 6.5  # of `beta`: asymptotes that differ by e^33 are as good as any beyond
MOST_LOG_N = 7.0


@dataclass(frozen=True)
class Dosages:
    """Dosages of the cells of `G` targeting guides in one context, log2."""

    at: Floats  # (G, J) nodes
    weight: Floats  # (G, J)
    acts: Floats  # (G, J) the weights without cells that escape
    error: Floats  # (G,) sd of a guide's dosage
    level_error: float  # sd of the NTC level

    @classmethod
    def of(cls, mean: Floats, spread: Floats, escape: Floats, error: Floats, level_error: float) -> Dosages:
        """From means, spreads between cells and shares of escaping cells ``(G,)``."""
        at, acts = mean[:, None] + spread[:, None] * NODES, (1 - escape)[:, None] * NODE_WEIGHTS
        if not (escape > 0).any():
            return cls(at, acts, acts, error, level_error)
        nothing = np.zeros((len(mean), 1))
        at, acts = np.concatenate([at, nothing], 1), np.concatenate([acts, nothing], 1)
        return cls(at, acts + escape[:, None] * (np.arange(4) == 3), acts, error, level_error)

    def moved(self, by: Floats | float) -> Dosages:
        """The same at other dosages ``(G, 1)``; cells that escape stay where they are."""
        return replace(self, at=np.where(self.acts > 0, self.at + by, self.at))


@dataclass(frozen=True)
class Shapes:
    """The curves over an axis."""

    axis: Axis
    priors: TransPriors

    def amplitude(self, beta: Floats) -> Floats:
        """Log of one asymptote over the other."""
        return np.asarray(self.priors.unit * SMALL * np.sinh(np.clip(beta, -WALL - 2.0, WALL + 2.0)))

    def beta(self, amplitude: Floats) -> Floats:
        """The reverse."""
        return np.asarray(np.arcsinh(amplitude / (self.priors.unit * SMALL)))

    def curve(self, theta: Floats, dosages: Dosages) -> tuple[Floats, Floats]:
        """Log curve ``(..., G)`` less that at NTC dosage, averaged over cells, and its slope by log2 dosage."""
        k, rate = theta[..., 0, None], (LN2 * np.exp(np.minimum(theta[..., 1], MOST_LOG_N)))[..., None]
        factor = np.exp(self.amplitude(theta[..., 2]))[..., None]
        mean, rise = 0.0, 0.0
        for at, weight, acts in zip(dosages.at.T, dosages.weight.T, dosages.acts.T, strict=True):
            h, c = _hill(rate * (at - k))
            mean = mean + weight * (factor * h + c)
            rise = rise + acts * (h * c)
        return np.log(mean) - self._at(theta, 0.0)[..., None], (factor - 1.0) * rate * rise / mean

    def with_errors(self, theta: Floats, dosages: Dosages) -> tuple[Floats, Floats, Floats]:
        """The same with the errors of the guides' dosages: mean and variance of the curve over them, and its slope.

        Where a step is steep, its slope at a dosage says little of what an error does.
        """
        apart = np.sqrt(3.0) * dosages.error[:, None]
        middle, slope = self.curve(theta, dosages)
        low, high = (self.curve(theta, dosages.moved(shift))[0] for shift in (-apart, apart))
        mean = NODE_WEIGHTS[1] * middle + NODE_WEIGHTS[0] * (low + high)
        variance = NODE_WEIGHTS[1] * (middle - mean) ** 2
        variance += NODE_WEIGHTS[0] * ((low - mean) ** 2 + (high - mean) ** 2)
        return mean, variance, slope

    def _at(self, theta: Floats, x: float) -> Floats:
        h, c = _hill(LN2 * np.exp(np.minimum(theta[..., 1], MOST_LOG_N)) * (x - theta[..., 0]))
        return np.asarray(np.log(np.exp(self.amplitude(theta[..., 2])) * h + c))

    def change(self, theta: Floats, x: float) -> Floats:
        """Log curve at a log2 dosage, less that at NTC dosage."""
        return self._at(theta, x) - self._at(theta, 0.0)

    def log_prior(self, theta: Floats) -> Floats:
        """Log density of curves ``(..., 3)``."""
        b, s = self.amplitude(theta[..., 2]), np.array(self.priors.movement_scales)
        d, by_b = self._movement(theta[..., 0], theta[..., 1], b)
        d2, widest = d**2, s.max() ** -2.0
        parts = zip(np.array(self.priors.movement_weights) / s**3, 0.5 * (s**-2.0 - widest), strict=True)
        mixed = sum(weight * np.exp(-d2 * faster) for weight, faster in parts)
        moment = np.log(mixed) - 0.5 * d2 * widest + np.log(d2 + LEAST) - 0.5 * np.log(2.0 * np.pi)
        turned = np.log(self.priors.unit * SMALL * np.cosh(np.clip(theta[..., 2], -WALL, WALL)))
        beyond = np.maximum(np.abs(theta[..., 2]) - WALL, 0.0)
        out = self._log_shape(theta) + moment + np.log(by_b + LEAST) + turned - self._log_norm
        return np.asarray(out - 20.0 * beyond**2)

    def _movement(self, k: Floats, log_n: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Movement between the ends of the axis, and its derivative by the amplitude."""
        rate, factor = LN2 * np.exp(np.minimum(log_n, MOST_LOG_N)), np.exp(b)
        (low, low_c), (high, high_c) = (_hill(rate * (end - k)) for end in (self.axis.low, self.axis.high))
        at_low, at_high = factor * low + low_c, factor * high + high_c
        # without cancellation
        return np.log(at_high / at_low), factor * (high * low_c - low * high_c) / (at_low * at_high)

    def _log_shape(self, theta: Floats) -> Floats:
        p = self.priors
        return np.asarray(
            -0.5 * ((theta[..., 0] - p.ec50_mean) / p.ec50_sd) ** 2
            - 0.5 * ((theta[..., 1] - p.n_log_mean) / p.n_log_sd) ** 2
        )

    def log_mass(self, theta: Floats) -> Floats:
        """Log prior density of EC50 and steepness, with the amplitude summed out."""
        mass = amplitude_mass(theta[..., :2], None, self.axis, self.priors)
        return np.asarray(self._log_shape(theta) + np.log(mass + LEAST) - self._log_norm)

    @cached_property
    def _log_norm(self) -> float:
        p = self.priors
        k = np.linspace(p.ec50_mean - 6 * p.ec50_sd, p.ec50_mean + 6 * p.ec50_sd, 241)
        log_n = np.linspace(p.n_log_mean - 6 * p.n_log_sd, p.n_log_mean + 6 * p.n_log_sd, 121)
        at = np.stack(np.meshgrid(k, log_n, indexing="ij"), -1)
        mass = np.exp(self._log_shape(at)) * amplitude_mass(at, None, self.axis, p)
        return float(np.log(mass.sum() * (k[1] - k[0]) * (log_n[1] - log_n[0])))

    def log_mass_of_steps(self, theta: Floats) -> Floats:
        """Log prior density of steepness and amplitude, with the EC50 summed out."""
        beta = np.where(np.abs(theta[..., 2]) < self._least, self._least, theta[..., 2])
        at = np.stack([np.clip(theta[..., 1], *self._steep), np.clip(beta, *self._betas)], -1)
        return np.asarray(self._table(at) + 2.0 * np.log(np.abs(self.amplitude(beta))))

    _least, _steep, _betas = 1e-3, (-3.5, 5.0), (-WALL, WALL)

    @cached_property
    def _table(self) -> RegularGridInterpolator:
        """Of the above, less twice the log of the amplitude, which it is smooth without."""
        p = self.priors
        k = np.linspace(p.ec50_mean - 6 * p.ec50_sd, p.ec50_mean + 6 * p.ec50_sd, 301)
        log_n, beta = np.linspace(*self._steep, 52), np.linspace(*self._betas, 106)
        away = np.where(np.abs(beta) < self._least, self._least, beta)
        total = np.empty((len(log_n), len(away)))
        for i, each in enumerate(log_n):  # all at once are 1.6 million curves
            theta = np.stack(np.meshgrid(k, each, away, indexing="ij"), -1)[:, 0]
            total[i] = logsumexp(self.log_prior(theta), axis=0) + np.log(k[1] - k[0])
        return RegularGridInterpolator((log_n, beta), total - 2.0 * np.log(np.abs(self.amplitude(away))))

    @cached_property
    def lattice(self) -> Lattice:
        """The lattice of curves."""
        low, high = self.axis.bottom - BEYOND, self.axis.high + BEYOND
        k = np.linspace(low, high, int(np.ceil((high - low) / STEP)) + 1)
        log_n, beta = (
            np.linspace(np.log(STEEP[0]), np.log(STEEP[1]), N_STEEP),
            np.linspace(-MOST_BETA, MOST_BETA, N_BETA),
        )
        theta = np.stack(np.meshgrid(k, log_n, beta, indexing="ij"), -1)
        inside = np.where(k < self.axis.bottom, 0, np.where(k > self.axis.high, 2, 1))
        return Lattice((k, log_n, beta), theta, self.log_prior(theta), inside, (beta > 0).astype(int))


def _hill(z: Floats) -> tuple[Floats, Floats]:
    """The logistic function and its complement, neither of them 0."""
    e = np.exp(np.clip(-z, -FAR, FAR))
    h = 1.0 / (1.0 + e)
    return h, e * h


@dataclass(frozen=True)
class Lattice:
    """Curves at even steps of their parameters."""

    points: tuple[Floats, Floats, Floats]
    theta: Floats  # (K, N, B, 3)
    log_prior: Floats  # (K, N, B) density
    where: NDArray[np.int64]  # (K,) 0, 1, 2: EC50 below, inside, above the axis
    rises: NDArray[np.int64]  # (B,) 1 for curves that rise with the dosage

    @property
    def steps(self) -> Floats:
        """Distances between the points."""
        return np.array([p[1] - p[0] for p in self.points])

    def cells(self, theta: Floats) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The nearest points ``(..., 3)`` of curves, and which of them are on the lattice."""
        first = np.array([p[0] for p in self.points])
        at = np.floor((theta - first) / self.steps + 0.5).astype(np.int64)
        size = np.array(self.theta.shape[:3])
        inside = ((at >= 0) & (at < size)).all(-1)
        return np.clip(at, 0, size - 1), inside
