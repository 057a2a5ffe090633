"""Effects of guides where cells carry several of them: what a set of guides does is what its guides do, added up.

Sets that share a guide share its effect, so that they are not independent of each other. The effects of single guides
are therefore parameters beside level and group effects, `loads` of the design, with an sd of tau; the label of a set
has no effect of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._core.laplace.layout import Anchors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.problem import Problem

    Floats = NDArray[np.float64]

LOG_2PI = float(np.log(2 * np.pi))
HARDLY = 1e-3  # in units of the likelihood, the sd of a label's own effect, by whose variance the kernel divides


def with_members(p: Problem, members: Floats) -> Problem:
    """The problem with the guides ``(G, S)`` of each label, whose effects its rows share."""
    loads = np.concatenate([p.design.loads, members[p.guide]], 1)
    return replace(p.with_design(loads=np.ascontiguousarray(loads)), shared=members)


def alone(p: Problem) -> Problem:
    """The problem without what guides share, for rows of controls."""
    if p.shared is None:
        return p
    loads = p.design.loads[:, : p.design.loads.shape[1] - p.shared.shape[1]]
    return replace(p.with_design(loads=np.ascontiguousarray(loads)), shared=None)


def pooled(members: Floats, dosage: Floats, size: Floats) -> tuple[NDArray[np.int64], int]:
    """Which pool each label ``(G,)`` is in, and their number: sets of neighbouring dosages are one.

    Few cells carry one set, so that an offset of its own would be noise. What composition and depth do goes with the
    dosage; a pool is as large (`size` ``(G,)``) as most labels of one guide.
    """
    several = members.sum(1) > 1
    out = np.where(several, -1, np.cumsum(~several) - 1)
    at = np.flatnonzero(several)[np.argsort(dosage[several], kind="stable")]
    least = float(np.median(size[~several])) if (~several).any() else size.sum()
    before = np.cumsum(size[at]) - size[at]
    number = np.minimum(before // least, max(size[at].sum() // least - 1, 0)).astype(np.int64)
    out[at] = (~several).sum() + np.unique(number, return_inverse=True)[1]
    return out, int(out.max()) + 1


def with_effects(found: Anchors, taus: Floats, n: int) -> Anchors:
    """Anchors ``(T, K)`` with the prior of `n` effects of guides at taus ``(T, K)``; skipped ones (< 0) have any."""
    tau, c = np.where(taus > 0, taus, 1.0), found.mode.shape[-1]
    size = *tau.shape, c + n
    mode, precision = np.zeros(size), np.zeros((*size, c + n))
    mode[..., :c], precision[..., :c, :c] = found.mode, found.precision
    at = np.arange(c, c + n)
    precision[..., at, at] = tau[..., None] ** -2.0
    return Anchors(found.value - n * (np.log(tau) + 0.5 * LOG_2PI), mode, precision)


def of_kernel(p: Problem, taus: Floats) -> Floats:
    """The sds of labels' own effects, for the kernel: next to nothing where guides share theirs."""
    return taus if p.shared is None else np.minimum(taus, HARDLY * p.priors.unit)


def without_own(p: Problem) -> Problem:
    """The problem of targeting guides as the kernel sees it: where guides share effects, labels have no wide ones."""
    n = len(p.targeting)
    return p if p.shared is None else p.with_design(wide_sd=np.zeros((n, 1)), wide_weight=np.ones((n, 1)))


def carriers(p: Problem) -> NDArray[np.bool_]:
    """Labels ``(U, G)`` that each of `U` targeting guides is in: itself, where labels are no sets."""
    if p.shared is None:
        return np.eye(len(p.targeting), dtype=bool)[p.targeting]
    return np.asarray(p.shared.T[(p.shared > 0).any(0)] > 0)


def one_guide(p: Problem) -> NDArray[np.bool_]:
    """Labels ``(G,)`` of one targeting guide."""
    return p.targeting if p.shared is None else np.asarray(p.targeting & (p.shared.sum(1) == 1))


def of_one_guide(p: Problem) -> Problem:
    """The problem of controls and of the labels with one targeting guide, whose effects are then their own."""
    return alone(p.guides(~p.targeting | one_guide(p)))


def repeats(p: Problem) -> Any:
    """By how much ``(G,)`` the variance of a label's effect has to be larger if labels were independent.

    A guide that is in `n` labels tells as much of the dosage by its effect as one label does: each has `n` times the
    variance.
    """
    if p.shared is None:
        return 1.0
    labels = np.maximum(p.shared.sum(0), 1.0)
    return np.where(p.targeting, p.shared @ labels, 1.0)
