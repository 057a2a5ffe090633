"""Likelihoods along lines through the lattice: in each context the point to which a trend moves a curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.response.contexts.lattice_draws import MOST_STARTS, TEMPER

from .hypotheses import AMPLITUDE_SD, EC50_SD, HYPOTHESES, moved_beta

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from dream_sc._core.response.contexts.shapes import Shapes

    from .hypotheses import Trends

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

NODES = np.arange(-2.0, 3.0)  # of changes, in steps
STEP = 1.2  # of the nodes, in sds of the prior of the change
MIDDLE = 2  # the node without a change


@dataclass(frozen=True)
class LatticeSums:
    """Sums over the lattice, and its best point, along lines with every pair of changes of EC50 and amplitude."""

    total: Floats  # (T, J, J) log evidence against no response
    best: Ints  # (T, J, J) point of the lattice
    height: Floats  # (T, J, J) log joint density there, changes included
    alone: Floats  # (T, C) log evidence of a response in one context, against none

    def log_bf(self) -> Floats:
        """Log Bayes factors ``(T, H)`` against no response, in the order of the hypotheses."""
        log_w = -0.5 * (STEP * NODES) ** 2
        log_w = log_w - logsumexp(log_w)
        out = np.zeros((len(self.total), len(HYPOTHESES)))
        out[:, 1] = self.total[:, MIDDLE, MIDDLE]
        out[:, 2] = logsumexp(self.total[:, MIDDLE] + log_w, axis=1)
        out[:, 3] = logsumexp(self.total[:, :, MIDDLE] + log_w, axis=1)
        out[:, 4] = logsumexp(self.total + log_w[:, None] + log_w, axis=(1, 2))
        out[:, 5] = free_of(np.logaddexp(0.0, self.alone).sum(1), self.alone.shape[1])
        return out

    def starts(self, family: Trends, shapes: Shapes) -> Floats:
        """The best lines ``(T, S, P)`` of a hypothesis."""
        pairs = [(i, j) for i, j in np.ndindex(len(NODES), len(NODES)) if _has(family, i, j)]
        height = np.stack([self.height[:, i, j] for i, j in pairs], 1)
        order = np.argsort(-height, axis=1, kind="stable")[:, :MOST_STARTS]
        best = np.take_along_axis(np.stack([self.best[:, i, j] for i, j in pairs], 1), order, 1)
        changes = np.array([(NODES[i] * STEP * EC50_SD, NODES[j] * STEP * AMPLITUDE_SD) for i, j in pairs])[order]
        return family.free(shapes.lattice.theta.reshape(-1, 3)[best], changes[..., 0], changes[..., 1])


def free_of(log_sum: Floats, n_contexts: int) -> Floats:
    """Log evidence of own curves in some contexts, of the log sum ``(T,)`` over all ways, none included.

    A context has a response or not with even odds; that none has is another hypothesis.
    """
    none = -n_contexts * np.log(2.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        some = log_sum + np.log(-np.expm1(-np.maximum(log_sum, 1e-12)))
    return np.asarray(none + some - np.log1p(-np.exp(none)))


def _has(family: Trends, i: int, j: int) -> bool:
    """Whether a hypothesis has the changes of these nodes."""
    return (family.of_ec50 or i == MIDDLE) and (family.of_amplitude or j == MIDDLE)


def lines(shapes: Shapes, places: Floats, tables: Floats) -> Iterator[tuple[int, int, Floats]]:
    """For every pair of changes its nodes and the log likelihood ``(T, K, N, B)`` along lines, of all contexts.

    Lines go to the nearest points, those that leave the lattice to its last ones.
    """
    k, _, beta = shapes.lattice.points
    of_ec50 = [[_nearest(k, k + p * d * STEP * EC50_SD) for d in NODES] for p in places]
    of_beta = [[_nearest(beta, moved_beta(shapes, beta, p * d * STEP * AMPLITUDE_SD)) for d in NODES] for p in places]
    for i in range(len(NODES)):
        moved = [tables[:, c][:, of_ec50[c][i]] for c in range(len(places))]
        for j in range(len(NODES)):
            if j == MIDDLE:
                yield i, j, np.asarray(sum(moved))
            else:
                yield i, j, np.asarray(sum(np.take(each, of_beta[c][j], axis=3) for c, each in enumerate(moved)))


def _nearest(points: Floats, at: Floats) -> Ints:
    """Nearest of even points."""
    step = points[1] - points[0]
    return np.clip(np.floor((at - points[0]) / step + 0.5), 0, len(points) - 1).astype(np.int64)


def lattice_sums(shapes: Shapes, places: Floats, tables: Floats) -> LatticeSums:
    """Sums along all lines, of log likelihoods ``(T, C, K, N, B)`` less that of no response."""
    density = shapes.lattice.log_prior
    prior = np.exp(density - logsumexp(density)).ravel()
    shape = (len(tables), len(NODES), len(NODES))
    total, height, best = np.empty(shape), np.empty(shape), np.empty(shape, dtype=np.int64)
    rows = np.arange(len(tables))
    for i, j, values in lines(shapes, places, tables):
        flat = values.reshape(len(tables), -1)
        total[:, i, j] = _log_sum(flat, prior)
        joint = flat + density.ravel()
        best[:, i, j] = joint.argmax(1)
        height[:, i, j] = joint[rows, best[:, i, j]] - 0.5 * STEP**2 * (NODES[i] ** 2 + NODES[j] ** 2)
    alone = np.stack([_log_sum(tables[:, c].reshape(len(tables), -1), prior) for c in range(len(places))], 1)
    return LatticeSums(total, best, height, alone)


def _log_sum(flat: Floats, prior: Floats) -> Floats:
    """Log of the sum of the exponentials of ``(T, M)`` with weights ``(M,)``."""
    top = flat.max(1)
    return np.asarray(top + np.log(np.exp(flat - top[:, None]) @ prior))


@dataclass(frozen=True)
class LineDraws:
    """A density over cells about the lattice's points and the changes' nodes, even within each."""

    shapes: Shapes
    family: Trends
    log_p: Floats  # (T, L, M) log probability of pairs of nodes and points of the lattice
    pairs: Ints  # (L, 2) nodes

    @classmethod
    def of(cls, shapes: Shapes, tables: Floats, family: Trends) -> LineDraws:
        """From the log likelihoods ``(T, C, K, N, B)``, tempered."""
        found, pairs = [], []
        for i, j, values in lines(shapes, family.places, tables):
            if _has(family, i, j):
                density = shapes.lattice.log_prior - 0.5 * STEP**2 * (NODES[i] ** 2 + NODES[j] ** 2)
                found.append((TEMPER * values + density).reshape(len(tables), -1))
                pairs.append((i, j))
        log_p = np.stack(found, 1)
        return cls(shapes, family, log_p - logsumexp(log_p, axis=(1, 2), keepdims=True), np.array(pairs))

    @property
    def _steps(self) -> Floats:
        """Widths ``(P,)`` of a cell."""
        f = self.family
        return np.append(
            self.shapes.lattice.steps, [STEP * EC50_SD] * f.of_ec50 + [STEP * AMPLITUDE_SD] * f.of_amplitude
        )

    def draw(self, numbers: Floats) -> Floats:
        """Draws ``(T, D, P)`` from uniform numbers ``(D, P + 3)``."""
        cumulative = np.cumsum(np.exp(self.log_p.reshape(len(self.log_p), -1)), axis=1)
        last = cumulative.shape[1] - 1
        at = np.stack(
            [np.minimum(np.searchsorted(row, numbers[:, 0] * row[-1], side="right"), last) for row in cumulative]
        )
        line, point = np.divmod(at, self.log_p.shape[2])
        nodes = NODES[self.pairs[line]] * STEP * np.array([EC50_SD, AMPLITUDE_SD])
        middle = self.family.free(self.shapes.lattice.theta.reshape(-1, 3)[point], nodes[..., 0], nodes[..., 1])
        return np.asarray(middle + (numbers[:, 3 : 3 + self.family.n_free] - 0.5) * self._steps)

    def log_density(self, phi: Floats) -> Floats:
        """Log density ``(T, D)``; -inf outside the cells."""
        lattice = self.shapes.lattice
        at, inside = lattice.cells(phi[..., :3])
        point = np.ravel_multi_index(tuple(np.moveaxis(at, -1, 0)), lattice.theta.shape[:3])
        changes = np.stack(self.family.changes(phi), -1) / (STEP * np.array([EC50_SD, AMPLITUDE_SD]))
        node = np.floor(changes - NODES[0] + 0.5).astype(np.int64)
        inside = inside & ((node >= 0) & (node < len(NODES))).all(-1)
        number = np.full((len(NODES), len(NODES)), -1)
        number[tuple(self.pairs.T)] = np.arange(len(self.pairs))
        node = np.clip(node, 0, len(NODES) - 1)
        line = number[node[..., 0], node[..., 1]]
        out = self.log_p[np.arange(len(phi))[:, None], line, point]
        return np.where(inside, out - np.log(self._steps).sum(), -np.inf)
