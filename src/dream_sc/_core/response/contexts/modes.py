"""The likeliest curves of a feature from several starts, and how wide their posterior is there.

A hypothesis has free parameters, and says which curve they give in each context that responds. Steps are by Levenberg
and Marquardt; guide effects are taken as independent between contexts, which the weights of the draws make up for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .pair_likelihood import Pair
    from .shapes import Shapes

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

N_STEPS = 10
H = 1e-3
LEAST_PRECISION = np.array([0.05, 0.5, 0.05])  # of a parameter: an EC50 far outside the axis is bounded by its prior
CURVATURE_H = 0.05
MIN_DAMPING, MAX_DAMPING = 1e-6, 1e6


class Family(Protocol):
    """The curves of a hypothesis."""

    @property
    def responds(self) -> list[int]:
        """Contexts with a response."""

    @property
    def kinds(self) -> Ints:
        """Which of a curve's three parameters each free parameter ``(P,)`` is, or moves."""

    def theta(self, phi: Floats, c: int) -> Floats:
        """Curves ``(..., 3)`` in a context, of free parameters ``(..., P)``."""


@dataclass(frozen=True)
class Modes:
    """Likeliest parameters from each of `S` starts."""

    at: Floats  # (T, S, P)
    value: Floats  # (T, S) log joint density
    covariance: Floats  # (T, S, P, P)


def weights_of(pair: Pair, tau: Floats) -> tuple[Floats, Floats]:
    """Weights ``(T, C, G)`` of the targeting guides, and those ``(T, C)`` and the sums of all NTC guides' levels."""
    n = pair.n_targeting
    error = pair.unit * np.stack([np.log(2.0) * d.error for d in pair.dosages])  # as of a slope of 1
    w = 1.0 / (pair.variance[:, :, :n] + tau[:, None, None] ** 2 + error**2)
    ntc = 1.0 / (pair.variance[:, :, n:] + tau[:, None, None] ** 2)
    return w, np.stack([ntc.sum(-1) + pair.level_sd**-2.0, (ntc * pair.mean[:, :, n:]).sum(-1)])


def find(
    shapes: Shapes,
    pair: Pair,
    tau: Floats,
    family: Family,
    log_prior: Callable[[Floats], Floats],
    starts: Floats,
) -> Modes:
    """Modes from `starts` ``(T, S, P)``; `tau` ``(T,)`` is the sd of the guide effects.

    `log_prior` gives the log density ``(...)`` of parameters ``(..., P)``.
    """
    n, kinds, used = pair.n_targeting, family.kinds, family.responds
    w, (held, pull) = weights_of(pair, tau)

    def residuals(phi: Floats) -> list[Floats]:
        return [pair.mean[:, None, c, :n] - shapes.curve(family.theta(phi, c), pair.dosages[c])[0] for c in used]

    def likelihood(r: list[Floats]) -> Floats:
        out: Floats = np.zeros(r[0].shape[:2])
        for c, each in zip(used, r, strict=True):
            wc = w[:, None, c]
            total = (wc * each).sum(-1) + pull[:, None, c]
            out = out - 0.5 * (wc * each**2).sum(-1) + 0.5 * total**2 / (wc.sum(-1) + held[:, None, c])
        return out

    def value(phi: Floats, r: list[Floats]) -> Floats:
        return likelihood(r) + log_prior(phi)

    phi, damping = starts.copy(), np.full(starts.shape[:2], 1e-2)
    r = residuals(phi)
    now = value(phi, r)
    for _ in range(N_STEPS):
        gradient, hessian = _slopes(phi, r, residuals, w, held, pull, used)
        g, h = _prior_slopes(phi, log_prior, kinds)
        gradient, hessian = gradient + g, hessian + h
        diagonal = np.einsum("tspp->tsp", hessian)
        damped = hessian + (damping[..., None] * diagonal)[..., None] * np.eye(phi.shape[2])
        step = np.linalg.solve(damped, gradient[..., None])[..., 0]
        new = phi + np.clip(step, -1.0, 1.0)
        r_new = residuals(new)
        found = value(new, r_new)
        better = found > now
        phi = np.where(better[..., None], new, phi)
        r = [np.where(better[..., None], a, b) for a, b in zip(r_new, r, strict=True)]
        now = np.where(better, found, now)
        damping = np.clip(damping * np.where(better, 0.2, 8.0), MIN_DAMPING, MAX_DAMPING)
    _, hessian = _slopes(phi, r, residuals, w, held, pull, used)
    hessian = hessian + _prior_slopes(phi, log_prior, kinds)[1]
    return Modes(phi, now, np.asarray(np.linalg.inv(hessian), dtype=np.float64))


def kinds_of(layout: Ints) -> Ints:
    """Which of a curve's three parameters each free parameter ``(P,)`` is, by a `layout` as that of `Sharing`."""
    out = np.zeros(int(layout.max()) + 1, dtype=np.int64)
    for c in range(len(layout)):
        for j in range(3):
            if layout[c, j] >= 0:
                out[layout[c, j]] = j
    return out


def _slopes(
    phi: Floats,
    r: list[Floats],
    residuals: Callable[[Floats], list[Floats]],
    w: Floats,
    held: Floats,
    pull: Floats,
    used: list[int],
) -> tuple[Floats, Floats]:
    """Gradient and Gauss-Newton Hessian of the log likelihood."""
    n_p = phi.shape[2]
    by: list[list[Floats]] = [[] for _ in used]
    for p in range(n_p):
        moved = phi.copy()
        moved[..., p] += H
        for i, (a, b) in enumerate(zip(residuals(moved), r, strict=True)):
            by[i].append((a - b) / H)
    gradient: Floats = np.zeros(phi.shape)
    hessian: Floats = np.zeros((*phi.shape, n_p))
    for i, c in enumerate(used):
        j = np.stack(by[i], -1)  # (T, S, G, P)
        wc = np.broadcast_to(w[:, None, c], r[i].shape)
        total = wc.sum(-1) + held[:, None, c]
        level = ((wc * r[i]).sum(-1) + pull[:, None, c]) / total
        gradient = gradient - np.einsum("tsg,tsgp->tsp", wc * (r[i] - level[..., None]), j)
        mean = np.einsum("tsg,tsgp->tsp", wc, j)
        hessian = hessian + np.einsum("tsgp,tsg,tsgq->tspq", j, wc, j)
        hessian = hessian - mean[..., None] * mean[..., None, :] / total[..., None, None]
    return gradient, hessian


def _prior_slopes(phi: Floats, log_prior: Callable[[Floats], Floats], kinds: Ints) -> tuple[Floats, Floats]:
    """Gradient and diagonal negative Hessian of the log prior, kept positive."""
    here = log_prior(phi)
    gradient, hessian = np.zeros(phi.shape), np.zeros((*phi.shape, phi.shape[2]))
    for p, kind in enumerate(kinds):
        up, down = phi.copy(), phi.copy()
        up[..., p] += CURVATURE_H
        down[..., p] -= CURVATURE_H
        above, below = log_prior(up), log_prior(down)
        gradient[..., p] = (above - below) / (2 * CURVATURE_H)
        hessian[..., p, p] = np.maximum((2 * here - above - below) / CURVATURE_H**2, LEAST_PRECISION[kind])
    return gradient, hessian
