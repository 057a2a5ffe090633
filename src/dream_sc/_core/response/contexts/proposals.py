"""Draws of curves from a mixture that covers their posterior: cells of the lattice, and t distributions at the modes.

Where the data say little, the cells follow the posterior along its ridges; where they say much, it is far narrower than
a cell, and the modes have it. Draws are weighted by the density of the mixture, so that sums over them are right
whichever of the two they came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.special import gammaln, logsumexp, ndtri

from dream_sc._core.stats.sobol import sobol_points, student_scale

from . import modes
from .lattice_draws import LatticeDraws, starts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .hypotheses import Sharing
    from .modes import Modes
    from .pair_likelihood import Pair
    from .shapes import Shapes

    Floats = NDArray[np.float64]

DF, WIDER = 5.0, 1.3  # of the t distributions; factor on the covariance
LEAST_WEIGHT = 0.02  # of a mode
OF_CELLS = 0.25  # of the draws; a power of 2
FEW = 5.0  # draws' worth of weight of the covariance at the best mode


class Cells(Protocol):
    """A density over cells around points, even within each."""

    def draw(self, numbers: Floats) -> Floats:
        """Draws ``(T, D, P)`` from uniform numbers ``(D, P + 3)``."""

    def log_density(self, phi: Floats) -> Floats:
        """Log density ``(T, D)``; -inf where there is no cell."""


@dataclass(frozen=True)
class Draws:
    """Draws of the free parameters, and the log of their prior over the density they were drawn with."""

    phi: Floats  # (T, D, P)
    log_weight: Floats  # (T, D)


def draw(shapes: Shapes, pair: Pair, tau: Floats, tables: Floats, sharing: Sharing, *, n: int, seed: int) -> Draws:
    """`n` draws, a power of 2, of the curves of each feature, by the same random numbers for every one.

    Parameters
    ----------
    tau
        ``(T,)`` sd of the guide effects, about which to look.
    tables
        ``(T, 2, K, N, B)`` of the contexts.
    """

    def log_prior(phi: Floats) -> Floats:
        return sharing.log_prior(shapes, phi)

    cells = LatticeDraws.of(shapes, tables, sharing)
    found = modes.find(shapes, pair, tau, sharing, log_prior, starts(shapes, tables, sharing))
    return of_mixture(cells, found, log_prior, sharing.n_free, n=n, seed=seed)


def of_mixture(
    cells: Cells, found: Modes, log_prior: Callable[[Floats], Floats], n_free: int, *, n: int, seed: int
) -> Draws:
    """`n` draws, `OF_CELLS` of them from cells of the lattice and the others about modes, by the density of both."""
    bumps = Bumps.of(found)
    numbers = sobol_points(n_free + 3, n, np.random.default_rng(seed))
    of_cells = int(OF_CELLS * n)
    phi = np.concatenate([cells.draw(numbers[:of_cells]), bumps.draw(numbers[of_cells:])], 1)
    return Draws(phi, log_prior(phi) - _log_mixed(cells, bumps, phi))


def _log_mixed(cells: Cells, bumps: Bumps, phi: Floats) -> Floats:
    """Log density ``(T, D)`` of the mixture."""
    of_cells, of_bumps = np.log(OF_CELLS) + cells.log_density(phi), np.log1p(-OF_CELLS) + bumps.log_density(phi)
    return np.asarray(np.logaddexp(of_cells, of_bumps))


def adapted(
    first: Draws, log_weight: Floats, cells: Cells, found: Modes, log_prior: Callable[[Floats], Floats], *, seed: int
) -> Draws:
    """The draws of a mixture with as many more, from a t distribution that has the moments of the first ones.

    Along a curved ridge that is far wider than the curvature at a mode says. `log_weight` ``(T, D)`` are the weights of
    the first draws for the posterior.
    """
    n_features, n, n_p = first.phi.shape
    w = np.exp(log_weight - logsumexp(log_weight, axis=1, keepdims=True))
    few = FEW / (FEW + 1.0 / (w**2).sum(1))[:, None, None]  # few draws with weight say little of a covariance
    mean = np.einsum("td,tdp->tp", w, first.phi)
    away = first.phi - mean[:, None]
    covariance = np.einsum("td,tdp,tdq->tpq", w, away, away)
    at_best = found.covariance[np.arange(n_features), found.value.argmax(1)]
    root = np.asarray(np.linalg.cholesky((1 - few) * covariance + few * at_best), dtype=np.float64)
    wide = Bumps(np.ones((n_features, 1)), mean[:, None], root[:, None])
    numbers = sobol_points(n_p + 3, n, np.random.default_rng(seed))
    phi = np.concatenate([first.phi, wide.draw(numbers)], 1)
    before = _log_mixed(cells, Bumps.of(found), phi)
    log_q = np.logaddexp(before, wide.log_density(phi)) - np.log(2.0)
    return Draws(phi, log_prior(phi) - log_q)


@dataclass(frozen=True)
class Bumps:
    """A mixture of t distributions."""

    weight: Floats  # (T, S)
    at: Floats  # (T, S, P)
    root: Floats  # (T, S, P, P) Cholesky factor of the scale

    @classmethod
    def of(cls, found: Modes) -> Bumps:
        """At modes, each with the weight of its Laplace approximation, at least a little."""
        root = np.asarray(np.linalg.cholesky(WIDER * found.covariance), dtype=np.float64)
        log_w = found.value + np.log(np.einsum("tspp->tsp", root)).sum(-1)
        weight = np.exp(log_w - log_w.max(1, keepdims=True)) + LEAST_WEIGHT
        return cls(weight / weight.sum(1, keepdims=True), found.at, root)

    def draw(self, numbers: Floats) -> Floats:
        """Draws ``(T, D, P)`` from uniform numbers ``(D, P + 2 or more)``."""
        n_p = self.at.shape[2]
        cumulative = self.weight.cumsum(1)
        which = np.minimum((cumulative[:, None] < numbers[:, :1]).sum(-1), self.weight.shape[1] - 1)
        rows = np.arange(len(which))[:, None]
        z = ndtri(numbers[:, 2 : 2 + n_p]) * student_scale(numbers[:, 1], DF)[:, None]
        return self.at[rows, which] + np.einsum("tdpq,dq->tdp", self.root[rows, which], z)

    def log_density(self, phi: Floats) -> Floats:
        """Log density ``(T, D)``."""
        n_p = self.at.shape[2]
        away = phi[:, None] - self.at[:, :, None]  # (T, S, D, P)
        z = np.einsum("tspq,tsdq->tsdp", np.linalg.inv(self.root), away)
        norm_of = gammaln((DF + n_p) / 2) - gammaln(DF / 2) - 0.5 * n_p * np.log(DF * np.pi)
        norm_of = norm_of - np.log(np.einsum("tspp->tsp", self.root)).sum(-1)
        each = norm_of[..., None] - 0.5 * (DF + n_p) * np.log1p((z**2).sum(-1) / DF)
        return np.asarray(logsumexp(each + np.log(self.weight)[..., None], axis=1))
