"""A first pass that starts at the level of the NTC guides, for features where the null does without them.

The null of a feature may take few NTC guides for wide effects and have the level of many targeting guides that act
alike. A first pass that starts there does not find the curve that has the NTC level right. Features whose NTC guides
stand apart from the targeting ones are therefore given to the kernel for the simplest curve, a switch. Where that finds
more than the first pass did, the latter starts again at the NTC level, and its curves keep their ratio to the switch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.curves import SWITCH
from dream_sc._core.laplace.lookup import log_ratios

from .comparison import Lattice
from .first_pass import Null, columns_of, start_at, sum_by_shape
from .problem import evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .comparison import Comparison
    from .problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

APART, SMALL = 3.0, 0.08  # standard errors, and the largest sd of the guide effects in them, natural log
MORE = 1.0  # log evidence that the kernel finds beyond the first pass, whose error is below it


def start_again(p: Problem, c: Comparison, null: Null, taus: Floats, values: Floats, masses: list[Floats]) -> None:
    """Put what a first pass from the NTC level finds in place of `values` ``(T, M, K)`` and `masses`, where it is more.

    Without NTC guides of their own in the kernel, as where many are summed up, there is nothing to do.
    """
    if c.columns is None or p.background is not None or p.targeting.all():
        return
    at = null.log_z.argmax(1)
    rows, step = _apart(p, null, taus, at)
    if not len(rows):
        return
    shape = np.zeros((1, 1, 0)), np.zeros((1, 1, 2))
    exact = evidence(p.take(rows), SWITCH, *shape, taus[rows], degree=c.degree)[0][:, 0]
    names = [each.name for each in c.curves[1:]]
    simple = names.index(SWITCH.name) if SWITCH.name in names else 0
    more = logsumexp(exact, axis=1) > logsumexp(values[rows, 1 + simple], axis=1) + MORE
    rows, step, exact = rows[more], step[more], exact[more]
    if not len(rows):
        return
    found, of_switch = _from_level(p.take(rows), c, Null(*(x[rows] for x in null)), taus[rows], at[rows], step)
    for m, mass in enumerate(found):
        ratio = logsumexp(mass, axis=1) - of_switch
        better = np.flatnonzero(logsumexp(exact, axis=1) + ratio > logsumexp(values[rows, 1 + m], axis=1))
        values[rows[better], 1 + m] = exact[better] + ratio[better, None]
        masses[m][rows[better]] = mass[better]


def _apart(p: Problem, null: Null, taus: Floats, at: Ints) -> tuple[Ints, Floats]:
    """Features whose NTC guides stand apart from the targeting ones, and how far the level has to go to theirs."""
    rows = np.arange(len(at))
    start, _ = start_at(p, null, taus, at)
    distance, variance, _ = p.likelihood.contrasts(p.rows, start.log_mean, np.zeros(start.log_mean.shape))
    tau = np.minimum(taus[rows, at], SMALL * p.priors.unit)  # few guides apart look like a large one
    weight = 1.0 / (variance + tau[:, None] ** 2)
    of_ntc, of_others = weight * ~p.targeting, weight * p.targeting
    ntc, others = (np.asarray((w * distance).sum(1) / w.sum(1)) for w in (of_ntc, of_others))
    error = np.sqrt(1.0 / of_ntc.sum(1) + 1.0 / of_others.sum(1))
    along = (of_ntc * start.moves).sum(1) / of_ntc.sum(1)
    far = (np.abs(ntc - others) > APART * error) & (np.abs(along) > 0.1)
    some = np.flatnonzero(far)
    return some, ntc[some] / along[some]


def _from_level(
    p: Problem, c: Comparison, null: Null, taus: Floats, at: Ints, step: Floats
) -> tuple[list[Floats], Floats]:
    """Masses ``(T, S)`` of the shapes of each curve by a pass from another level, and that of a switch ``(T,)``."""
    rows, columns = np.arange(len(at)), dict(c.columns or {})
    if SWITCH.name not in columns:
        lattice = SWITCH.lattice(p.axis, p.priors)
        q = p.take(slice(0, 0)).guides(p.targeting)
        columns[SWITCH.name] = columns_of(q.seen_by(SWITCH), SWITCH, Lattice(*lattice))
    _, way = start_at(p, null, taus, at)
    mode = null.mode.copy()
    mode[rows, at] += step[:, None] * way
    start, _ = start_at(p, null._replace(mode=mode), taus, at)
    ratio = log_ratios(p, start, np.concatenate([each.positions for each in columns.values()]))[0]
    parts = np.split(ratio, np.cumsum([len(each.shape) for each in columns.values()])[:-1], axis=1)
    found = {name: sum_by_shape(x, each) for (name, each), x in zip(columns.items(), parts, strict=True)}
    return [found[each.name] for each in c.curves[1:]], np.asarray(logsumexp(found[SWITCH.name], axis=1))
