"""Guides that do nothing, where all acting guides share one level: which guides act is learned over features.

A knock-out has no dosage by which a guide that failed could be told. Features tell it: where the other guides move a
feature together, a guide that does nothing stays at the level of the controls, in one feature after the other. What
features share is a set of guides. Sets of one guide are its own programme, small ones a seed that a few guides share.
Only a set of most guides, and of three at least, can be the one of the target, so that off-target programmes do not
make the others inert.

Each feature is in a set's programme or in none, by weights that are learned over features. The best set of most guides
is compared with the set of all of them. Effects of single guides besides are wide at any time, so that what one guide
does on its own in a feature does not decide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.parallel import blocks

from .learned import learn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.problem import Problem
    from dream_sc._core.types import RowDosage

    from .prepare import Prepared
    from .rows import Layout

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

LEAST_GUIDES, MOST_ENUMERATED = 3, 8  # targeting guides: below, nothing is told; above, sets are searched
LEAST_ACTING = 3  # guides, of which most have to act: two may share a seed
LEAST_FEATURES, MOST_FEATURES = 20, 200
FAR = 2.0  # sds by which two guides of a feature differ from its level, for the feature to say something
ENOUGH = 3  # such features
TAUS = (1, 3, 4, 5)  # which of the prior's grid of guide effects
USUAL_TAU = 3  # of these, by which features are picked
LEVELS = np.array([0.0, -(3.0**0.5), 3.0**0.5]), np.array([2 / 3, 1 / 6, 1 / 6])  # Gauss-Hermite, in sds
N_EFFECTS, BEYOND = 64, 3.0  # points over the effects that guides show, and sds beyond these
OWN = 0.15, 0.6  # weight and sd (natural log) of what a guide does on its own in a feature
MOST_RATIO = 60.0  # log, of the densities of one guide
INERT = 0.2  # prior probability of a guide
START = 0.9, 0.05, 0.05  # weights of no response, of the target's programme, and of all others
STRENGTH = 5.0  # features' worth of weight of the start
LEAST_GAIN, MOST_OF_ONE = 6.0, 2.0  # of log likelihood against all guides acting, and by how much one feature may add
WEAK, GRADED = 0.25, 0.5  # of the effect of the acting guides: a guide does something above, and is weaker below
DECIDED = 0.95  # posterior probability from which on a guide is taken as inert
MOST_SETS = 24  # of those of most guides that are compared
N_ITER = 40


@dataclass(frozen=True)
class Acting:
    """Which of the guides of the cis step act."""

    probability: Floats  # (G,) of acting; NaN of controls, and where it could not be told
    disagree: bool  # whether a set of guides shares more than what all, or most, share

    @property
    def inert(self) -> Bools:
        """``(G,)`` guides that are taken as inert."""
        return inert(self.probability)


def inert(probability: Floats) -> Bools:
    """Guides with so small a probability of acting that they are taken as inert."""
    return np.asarray(probability < 1.0 - DECIDED)


class Distances(NamedTuple):
    """How far `n` targeting guides are from the level of the controls in `T` features."""

    value: Floats  # (T, n)
    variance: Floats  # (T, n) by counts alone
    tau: Floats  # (K,) sd of guide effects
    log_tau: Floats  # (T, K) log weights of these, given the controls
    level_sd: Floats  # (T, K)


def learn_acting(p: Problem, n_guides: int) -> Acting | None:
    """Which targeting guides act; None where there are too few guides or features to tell.

    `p` holds the features that something is learned from, `n_guides` is the number of guides of the cis step.
    """
    n = int(p.targeting.sum())
    if n < LEAST_GUIDES or len(p.counts) < LEAST_FEATURES or (p.targeting.all() and p.background is None):
        return None
    codes = np.asarray(p.codes)[p.targeting]
    found = Acting(np.full(n_guides, np.nan), disagree=False)
    found.probability[codes] = 1.0
    some = _telling(p)
    if len(some) < ENOUGH:
        return found
    q = p.take(some)
    likely = _acting(_distances(q), q.priors.unit, np.array(q.priors.movement_scales), len(p.counts) - len(some))
    found.probability[codes] = likely.probability
    return replace(found, disagree=likely.disagree)


def _acting(d: Distances, unit: float, scales: Floats, n_rest: int) -> Likely:
    """Which of `n` guides act; guides that are weaker than others do not count as inert, and disagree with them."""
    sets, shared = _all_sets(d, unit, scales)
    weak = np.zeros(d.value.shape[1], dtype=bool)
    while True:
        likely = _most_likely(shared, sets, n_rest, weak)
        strength = _strength(d, likely)
        more = ~likely.acting & (np.abs(strength) > WEAK)
        if not more.any():
            graded = not likely.acting.all() and bool((strength[likely.acting] < GRADED).any())
            return likely._replace(disagree=likely.disagree or graded or bool(weak.any()))
        weak |= more


def _strength(d: Distances, likely: Likely) -> Floats:
    """Effect ``(n,)`` of each guide over that of the acting ones, in the features of the target's programme."""
    precision = 1.0 / (d.variance + (np.exp(d.log_tau) @ d.tau**2)[:, None])
    of_acting = precision * likely.acting
    total = of_acting.sum(1)
    effect = (of_acting * d.value).sum(1) / total
    weight = precision * likely.responds[:, None]
    size = np.maximum((weight * (effect**2 - 1.0 / total)[:, None]).sum(0), 1e-300)
    return np.asarray((weight * d.value * effect[:, None]).sum(0) / size)


def _telling(p: Problem) -> Ints:
    """Features in which at least two guides are away from the level: the clearest of them."""
    tau, z = p.priors.tau_grid[USUAL_TAU], np.empty(len(p.counts))
    for s in blocks(len(z)):
        value, variance = _contrasts(p.take(s), p.level[s, None])
        z[s] = np.sort(np.abs(value) / np.sqrt(variance + tau**2), axis=1)[:, -2]
    order = np.argsort(-z, kind="stable")[:MOST_FEATURES]
    return order[z[order] > FAR]


def _contrasts(p: Problem, predictor: Floats) -> tuple[Floats, Floats]:
    """Distances of the targeting guides from a predictor ``(T, 1 or R)`` of their rows, and variances by counts.

    The variance is the larger one of those expected at the level and at the distance.
    """
    q = p.guides(p.targeting)
    at = predictor if predictor.shape[1] == 1 else predictor[:, p.targeting[p.guide]]
    rows, at = q.rows._replace(group=np.zeros_like(q.design.group)), at + q.log_exposure
    value, at_level, _ = q.likelihood.contrasts(rows, at, np.zeros(q.counts.shape))
    _, variance, _ = q.likelihood.contrasts(rows, at, value[:, q.guide])
    return value, np.maximum(variance, at_level)


def _distances(p: Problem) -> Distances:
    """Distances from the level and the group effects that the controls tell."""
    grid = np.array(p.priors.tau_grid)
    known = p.background if p.background is not None else p.summed_up(grid)
    every = np.repeat(grid[None], len(p.counts), 0)
    evidence = known.evidence(every)
    prior = learn(evidence[:, None], grid, p.priors)
    log_tau = (evidence + prior.log_tau(grid))[:, TAUS]
    anchor = known.at(every[:, TAUS])
    # the level and the effects of technical groups; controls may lack some of these
    n_groups = 1 + int(p.design.group.max())
    n_known = min(n_groups, anchor.mode.shape[2] - p.design.loads.shape[1])
    best = log_tau.argmax(1)[:, None, None]
    effects = np.zeros((len(log_tau), n_groups))
    effects[:, :n_known] = np.take_along_axis(anchor.mode, best, 1)[:, 0, :n_known]
    cov = np.zeros((*log_tau.shape, n_groups, n_groups))
    cov[..., range(n_groups), range(n_groups)] = p.design.group_effect_sd**2
    cov[..., :n_known, :n_known] = np.linalg.inv(anchor.precision)[..., :n_known, :n_known]
    of_guide = _in_groups(p, n_groups)
    usual = of_guide.mean(0)
    sd = np.sqrt(np.maximum(usual @ cov @ usual, 0.0))
    # errors of group effects, where guides are in other groups than most
    apart, at_best = of_guide - usual, np.take_along_axis(cov, best[..., None], 1)[:, 0]
    effects[:, 1:] += effects[:, :1]
    value, variance = _contrasts(p, effects[:, p.design.group])
    variance += np.maximum(((apart @ at_best) * apart).sum(2), 0.0)
    return Distances(value, variance, grid[list(TAUS)], log_tau - logsumexp(log_tau, axis=1, keepdims=True), sd)


def _in_groups(p: Problem, n_groups: int) -> Floats:
    """Share ``(n, C)`` of the exposure of each targeting guide in each technical group; 1 for the first, the level."""
    w, group = np.exp(p.design.log_w), p.design.group
    out = np.zeros((len(p.targeting), n_groups))
    np.add.at(out, (p.guide, group), w)
    out /= out.sum(1, keepdims=True)
    out[:, 0] = 1.0
    return out[p.targeting]


class Likely(NamedTuple):
    """What features say of `n` guides."""

    probability: Floats  # (n,) of acting
    acting: Bools  # (n,) the likeliest set of most guides
    responds: Floats  # (T,) probability of each feature of being in its programme
    disagree: bool


def _all_sets(d: Distances, unit: float, scales: Floats) -> tuple[Bools, Floats]:
    """Sets ``(S, n)`` of guides, that of all last, and what `_shared` says of them.

    All sets of few guides. Of many, single ones and pairs, and those on the way from all guides to just more than half,
    on which the guide is left out each time without which the rest is likeliest.
    """
    n = d.value.shape[1]
    if n <= MOST_ENUMERATED:
        sets = (np.arange(1, 2**n)[:, None] >> np.arange(n) & 1).astype(bool)
        return sets, _shared(d, unit, scales, sets)
    few = np.array([[g in c for g in range(n)] for k in (1, 2) for c in combinations(range(n), k)])
    here, parts = np.ones(n, dtype=bool), [(few, _shared(d, unit, scales, few))]
    while 2 * (here.sum() - 1) > n:
        tries = here & ~np.eye(n, dtype=bool)[here]
        found = _shared(d, unit, scales, tries)
        likely = np.logaddexp(found[:, :1] + np.log(START[0]), found[:, 1:] + np.log(START[1])).sum(0)
        here = tries[likely.argmax()]
        parts.append((tries, found))
    every = np.ones((1, n), dtype=bool)
    parts.append((every, _shared(d, unit, scales, every)))
    none = parts[0][1][:, :1]
    return np.concatenate([some for some, _ in parts]), np.concatenate([none, *(x[:, 1:] for _, x in parts)], 1)


def _shared(d: Distances, unit: float, scales: Floats, sets: Bools) -> Floats:
    """Log likelihood ``(T, 1 + S)`` of each feature without response, and with one that the guides of a set share."""
    out = np.empty((len(d.value), 1 + len(sets)))
    for t in range(len(out)):
        variance = d.variance[t] + d.tau[:, None, None] ** 2  # (K, 1, n)
        level = d.level_sd[t][:, None] * LEVELS[0]  # (K, L)
        x = d.value[t] - level[..., None]  # (K, L, n)
        log_weight = d.log_tau[t][:, None] + np.log(LEVELS[1])
        none = _log_density(x, variance, unit)
        at, prior = _effects(d.value[t], np.sqrt(d.variance[t] + d.tau[0] ** 2), scales)
        ratio = _log_density(x[:, :, None] - at[:, None], variance[:, None], unit) - none[:, :, None]
        ratio = np.clip(ratio, -MOST_RATIO, MOST_RATIO)
        start = log_weight + none.sum(-1)  # (K, L)
        whole = (sets.astype(float) @ ratio.reshape(-1, sets.shape[1]).T).reshape(len(sets), *ratio.shape[:3])
        whole += start[..., None] + np.log(prior)
        out[t, 0] = logsumexp(start)
        out[t, 1:] = logsumexp(whole.reshape(len(sets), -1), axis=1)
    return out


def _log_density(x: Floats, variance: Floats, unit: float) -> Floats:
    """Log density of guides about an effect, effects of their own among them."""
    wide = variance + (OWN[1] * unit) ** 2
    narrow = np.log1p(-OWN[0]) - 0.5 * (np.log(variance) + x**2 / variance)
    return np.asarray(np.logaddexp(narrow, np.log(OWN[0]) - 0.5 * (np.log(wide) + x**2 / wide)))


def _effects(value: Floats, sd: Floats, scales: Floats) -> tuple[Floats, Floats]:
    """Points ``(E,)`` over what guides show, and the mass ``(E,)`` of each under the non-local prior of effects."""
    low, high = (value - BEYOND * sd).min(), (value + BEYOND * sd).max()
    at = np.linspace(low, high, N_EFFECTS)
    s2 = scales[:, None] ** 2
    density = (at**2 / s2 * np.exp(-0.5 * at**2 / s2) / np.sqrt(2 * np.pi * s2)).mean(0)
    return at, np.maximum(density * (at[1] - at[0]), 1e-300)


def _most_likely(shared: Floats, sets: Bools, n_rest: int, must: Bools) -> Likely:
    """The sets of most guides, with those that `must` act ``(n,)``, compared with all guides acting.

    `n_rest` features more show no response, whatever the set.
    """
    size, n = sets.sum(1), sets.shape[1]
    most = (size >= min(LEAST_ACTING, n)) & (2 * size > n)
    may = most & (sets | ~must).all(1)
    ratio = np.exp(shared - shared.max(1, keepdims=True))
    # candidates: those of most features' weight where all sets compete
    of_all = _weights(ratio, n_rest, np.append(START[0], np.full(len(sets), (1 - START[0]) / len(sets))))
    order = np.flatnonzero(may)[np.argsort(-of_all[1:][may], kind="stable")][:MOST_SETS]
    which = np.unique(np.append(order, len(sets) - 1))
    others = np.flatnonzero(~most)
    start = np.concatenate([START[:2], np.full(len(others), START[2] / max(len(others), 1))])
    log_sum, responds, weights = np.empty((len(which), len(ratio))), np.empty((len(which), len(ratio))), []
    score = np.empty(len(which))
    for i, k in enumerate(which):
        mine = ratio[:, np.concatenate([[0, 1 + k], 1 + others])]
        weight = _weights(mine, n_rest, start)
        weights.append(weight)
        log_sum[i] = np.log(mine @ weight)
        responds[i] = mine[:, 1] * weight[1] / (mine @ weight)
        score[i] = log_sum[i].sum() + n_rest * np.log(weight[0]) + STRENGTH * float(start @ np.log(weight))
    n_inert = n - size[which]
    posterior = score + n_inert * np.log(INERT) + (n - n_inert) * np.log1p(-INERT)
    posterior = np.exp(posterior - logsumexp(posterior))
    best = int(posterior.argmax())
    mass = weights[best] * (len(ratio) + n_rest)
    disagree = _disagree(mass, size[others])
    gain = np.clip(log_sum[best] - log_sum[-1], -MOST_OF_ONE, MOST_OF_ONE).sum()
    if min(gain, score[best] - score[-1]) < LEAST_GAIN:
        return Likely(np.ones(n), np.ones(n, dtype=bool), responds[-1], disagree)
    return Likely(posterior @ sets[which], sets[which[best]], responds[best], disagree)


def _disagree(mass: Floats, size: Ints) -> bool:
    """Whether a smaller set of several guides shares more features than the one of the target does."""
    several = mass[2:][size > 1]
    return bool(len(several) and several.max() > max(mass[1], ENOUGH))


def _weights(ratio: Floats, n_rest: int, start: Floats) -> Floats:
    """Weights ``(M,)`` by EM over features with likelihoods ``(T, M)``; the first one is that of no response."""
    weight = start
    for _ in range(N_ITER):
        mass = weight * (ratio / (ratio @ weight)[:, None]).sum(0) + STRENGTH * start
        mass[0] += n_rest
        weight = mass / mass.sum()
    return weight


def without_guides(prepared: Prepared, gone: Bools) -> Prepared:
    """What was measured without the rows of some guides ``(G,)``."""
    keep = ~gone[prepared.stats.guide]
    d = prepared.dosage
    escape = d.escape if np.ndim(d.escape) == 0 else np.asarray(d.escape)[keep]
    dosage = replace(d, mean=d.mean[keep], spread=d.spread[keep], escape=escape)
    found = replace(prepared, stats=prepared.stats.some_rows(keep), dosage=dosage)
    if prepared.rows is None:
        return found
    rows = _some_rows(prepared.rows, keep, dosage)
    return replace(found, rows=rows, n_cells=rows.n_cells)


def _some_rows(rows: Layout, keep: Bools, dosage: RowDosage) -> Layout:
    """Some of the rows; cells of the others take no part."""
    place = np.append(np.where(keep, keep.cumsum() - 1, -1), -1)
    return replace(
        rows,
        row_of_cell=place[rows.row_of_cell],
        guide=rows.guide[keep],
        group=rows.group[keep],
        dosage=dosage,
        unit=None if rows.unit is None else rows.unit[keep],
    )
