"""Each context's likelihood on the lattice of curves: where to look for modes, and draws from cells of the lattice."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from . import modes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .hypotheses import Sharing
    from .pair_likelihood import Pair
    from .shapes import Dosages, Shapes

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

MOST_STARTS = 5
LEAST = 1e-300
TEMPER = 0.6  # of the lattice: its points are too far apart to have the height of a narrow posterior


def lattice_curves(shapes: Shapes, dosages: tuple[Dosages, ...]) -> tuple[Floats, ...]:
    """The curves of the lattice ``(K N B, G)`` at the dosages of each context."""
    each = (shapes.curve(shapes.lattice.theta, d)[0] for d in dosages)
    return tuple(f.reshape(-1, f.shape[-1]) for f in each)


def tables_of(shapes: Shapes, pair: Pair, tau: Floats, curves: tuple[Floats, ...] | None = None) -> Floats:
    """Log likelihood ``(T, C, K, N, B)`` of each context alone on the lattice, less that of no response.

    Levels are summed out; guide effects have the sd `tau` ``(T,)``. `curves` ``(K N B, G)`` are those of the lattice at
    the dosages of each context, if they were worked out before.
    """
    n, size = pair.n_targeting, shapes.lattice.theta.shape[:3]
    curves = curves or lattice_curves(shapes, pair.dosages)
    w, (held, pull) = modes.weights_of(pair, tau)
    out = np.empty((len(tau), len(curves), *size))
    for c, f in enumerate(curves):
        wc, z = w[:, c], pair.mean[:, c, :n]
        total, precision = (wc * z).sum(1) + pull[:, c], wc.sum(1) + held[:, c]
        fit = (wc * z) @ f.T - 0.5 * wc @ (f**2).T
        gain = ((total[:, None] - wc @ f.T) ** 2 - total[:, None] ** 2) / precision[:, None]
        out[:, c] = (fit + 0.5 * gain).reshape(len(tau), *size)
    return out


def starts(shapes: Shapes, tables: Floats, sharing: Sharing) -> Floats:
    """Best points of the lattice ``(T, S, P)``: of curves with an EC50 below, inside, above the axis, up and down.

    Of more than `MOST_STARTS` of these the better ones.
    """
    lattice = shapes.lattice
    regions = [[lattice.where == i for i in np.unique(lattice.where)], [lattice.rises == j for j in (0, 1)]]
    each = tables[:, sharing.responds] + lattice.log_prior
    if sharing.own is None:
        joint = each.sum(1) - (len(sharing.responds) - 1) * lattice.log_prior
        found, height = [], []
        for k, beta in product(*regions):
            masked = np.where(k[:, None, None] & beta, joint, -np.inf).reshape(len(joint), -1)
            found.append(lattice.theta.reshape(-1, 3)[masked.argmax(1)])
            height.append(masked.max(1))
        return _better(found, height)
    own, shared = (regions[0], regions[1]) if sharing.own == 0 else (regions[1], regions[0])
    last = np.moveaxis(each, 2 + sharing.own, -1)  # the own parameter last
    best = [[np.where(r, last[:, c], -np.inf) for r in own] for c in range(2)]
    found, height = [], []
    for i, j in product(range(len(own)), repeat=2):
        total = best[0][i].max(-1) + best[1][j].max(-1)
        for r in shared:
            masked = np.where(r if sharing.own == 0 else r[:, None], total, -np.inf).reshape(len(total), -1)
            at, rows = masked.argmax(1), np.arange(len(masked))
            height.append(masked[rows, at])
            ends = [b.reshape(len(at), -1, b.shape[-1])[rows, at].argmax(-1) for b in (best[0][i], best[1][j])]
            found.append(_free(lattice.points, np.unravel_index(at, total.shape[1:]), ends, sharing.own))
    return _better(found, height)


def _better(found: list[Floats], height: list[Floats]) -> Floats:
    """The highest of the points."""
    order = np.argsort(-np.stack(height, 1), axis=1, kind="stable")[:, :MOST_STARTS]
    return np.take_along_axis(np.stack(found, 1), order[..., None], 1)


def _free(points: tuple[Floats, ...], shared: tuple[Ints, ...], ends: list[Ints], own: int) -> Floats:
    """Free parameters ``(T, 4)`` at points of the lattice: shared ones, and those of each context."""
    k, log_n, beta = points
    if own == 0:
        return np.stack([k[ends[0]], log_n[shared[0]], beta[shared[1]], k[ends[1]]], 1)
    return np.stack([k[shared[0]], log_n[shared[1]], beta[ends[0]], beta[ends[1]]], 1)


@dataclass(frozen=True)
class LatticeDraws:
    """A density over the cells around the points of the lattice, even within each.

    Points of the parameters that the contexts share come first, then, given these, each context's own.
    """

    shapes: Shapes
    sharing: Sharing
    log_shared: Floats  # (T, M) log probability of the shared parameters
    log_own: Floats | None  # (2, T, M, A) of each context's own, given the shared ones

    @classmethod
    def of(cls, shapes: Shapes, tables: Floats, sharing: Sharing) -> LatticeDraws:
        """From the log likelihoods ``(T, 2, K, N, B)``, tempered."""
        prior = shapes.lattice.log_prior
        each = TEMPER * tables[:, sharing.responds] + prior
        if sharing.own is None:
            flat = (each.sum(1) - (len(sharing.responds) - 1) * prior).reshape(len(tables), -1)
            return cls(shapes, sharing, flat - logsumexp(flat, axis=1, keepdims=True), None)
        last = np.moveaxis(each, 2 + sharing.own, -1)
        own = np.moveaxis(last.reshape(len(last), 2, -1, last.shape[-1]), 1, 0)
        total = logsumexp(own, axis=-1)
        before = logsumexp(np.moveaxis(prior, sharing.own, -1), axis=-1).reshape(-1)
        shared = total.sum(0) - before
        return cls(shapes, sharing, shared - logsumexp(shared, axis=1, keepdims=True), own - total[..., None])

    def draw(self, numbers: Floats) -> Floats:
        """Draws ``(T, D, P)`` from uniform numbers ``(D, P + 3)``."""
        lattice, own = self.shapes.lattice, self.sharing.own
        shared = _pick(self.log_shared, numbers[:, 0])
        rows = np.arange(len(shared))[:, None]
        size = lattice.theta.shape[:3]
        if self.log_own is None or own is None:
            at = np.stack(np.unravel_index(shared, size), -1)
        else:
            pair = np.unravel_index(shared, tuple(np.delete(size, own)))
            ends = [_pick_each(self.log_own[c][rows, shared], numbers[:, 1 + c]) for c in range(2)]
            at = np.stack((ends[0], *pair, ends[1]) if own == 0 else (*pair, *ends), -1)
        kinds = self._kinds
        points = np.stack([lattice.points[kind][at[..., p]] for p, kind in enumerate(kinds)], -1)
        return np.asarray(points + (numbers[:, 3 : 3 + len(kinds)] - 0.5) * lattice.steps[kinds])

    def log_density(self, phi: Floats) -> Floats:
        """Log density ``(T, D)``; -inf off the lattice."""
        lattice, own, kinds = self.shapes.lattice, self.sharing.own, self._kinds
        first = np.array([p[0] for p in lattice.points])[kinds]
        size = np.array(lattice.theta.shape[:3])[kinds]
        at = np.floor((phi - first) / lattice.steps[kinds] + 0.5)
        inside = ((at >= 0) & (at < size)).all(-1)
        at = np.clip(at, 0, size - 1).astype(np.int64)
        rows = np.arange(len(phi))[:, None]
        if self.log_own is None or own is None:
            out = self.log_shared[rows, np.ravel_multi_index(tuple(np.moveaxis(at, -1, 0)), lattice.theta.shape[:3])]
        else:
            pair, ends = ((1, 2), (0, 3)) if own == 0 else ((0, 1), (2, 3))
            m = np.ravel_multi_index(tuple(at[..., i] for i in pair), tuple(size[list(pair)]))
            out = self.log_shared[rows, m] + sum(self.log_own[c][rows, m, at[..., ends[c]]] for c in range(2))
        return np.where(inside, out - np.log(lattice.steps[kinds]).sum(), -np.inf)

    @property
    def _kinds(self) -> list[int]:
        """Which of a curve's parameters each free one is."""
        return modes.kinds_of(self.sharing.layout).tolist()


def _pick(log_p: Floats, u: Floats) -> Ints:
    """Entries ``(T, D)`` of each row of `log_p` ``(T, M)`` at uniform numbers ``(D,)``."""
    cumulative = np.cumsum(np.exp(log_p), axis=1)
    last = log_p.shape[1] - 1
    return np.stack([np.minimum(np.searchsorted(row, u * row[-1], side="right"), last) for row in cumulative])


def _pick_each(log_p: Floats, u: Floats) -> Ints:
    """Entries ``(T, D)`` of rows ``(T, D, A)``, one for each uniform number."""
    cumulative = np.cumsum(np.exp(log_p), axis=-1)
    return np.minimum((cumulative < (u * cumulative[..., -1])[..., None]).sum(-1), log_p.shape[-1] - 1)


def lattice_evidence(shapes: Shapes, tables: Floats) -> Floats:
    """Log Bayes factors ``(T, H)`` against no response, in the order of the hypotheses, by sums over the lattice.

    They are right where posteriors are wide, as where nothing responds. Of several contexts each has what is its own.
    """
    lattice, (n, n_contexts) = shapes.lattice, tables.shape[:2]
    log_prior = lattice.log_prior - logsumexp(lattice.log_prior)
    prior = np.exp(log_prior)
    top = tables.max((2, 3, 4), keepdims=True)
    each = np.exp(tables - top) * prior
    top = top[..., 0, 0, 0]
    same = tables.sum(1)
    top_same = same.max((1, 2, 3))
    out = np.zeros((n, 6))
    with np.errstate(divide="ignore"):  # contexts whose curves are out of question for each other
        out[:, 1] = top_same + np.log(np.exp(same - top_same[:, None, None, None]).reshape(n, -1) @ prior.ravel())
        alone = top + np.log(each.sum((2, 3, 4)))
        for i, own in ((2, 2), (3, 0)):  # amplitudes of their own, EC50s of their own
            shared = each.sum(2 + own)
            joint = shared.prod(1) / np.maximum(prior.sum(own), LEAST) ** (n_contexts - 1)
            out[:, i] = top.sum(1) + np.log(joint.sum((1, 2)))
    out[:, 4] = alone.sum(1)
    out[:, 5] = logsumexp(alone, axis=1) - np.log(n_contexts)
    return out
