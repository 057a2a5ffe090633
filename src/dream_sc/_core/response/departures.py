"""Guides that depart from the curves of many features: the weight and sd of the wide effects of each guide.

Most guides share one wide component, which NTC guides tell (see `wide_effects`). A guide with a programme of its own,
such as one with off-targets, has more of them. How many, its rows in all features tell: each is either where a curve
through the other guides would have it, or is not. Curves that go through the guide compete with departures of it,
feature by feature, so that what many features respond to is not taken for a departure. What an NTC guide does on its
own, only other NTC guides tell: where many guides act alike, a few NTC guides that depart would explain it as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.laplace import departures as kernel
from dream_sc._core.laplace.lookup import MOVES, Start, log_ratios
from dream_sc._core.parallel import each_block

from . import targeting_noise
from .comparison import set_up
from .first_pass import null_of, start_at
from .joint_departures import Pair, Residuals, learn_pairs
from .learned import Departures, Prior, Wide
from .simulated_nulls import by_content

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.problem import Problem

    from .comparison import Comparison
    from .settings import Settings

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

MOST_FEATURES, LEAST_FEATURES, MOST_EFFECTS = 300, 50, 20_000  # pairs of a feature and a guide
LIBERAL = 0.15, 0.6  # weight and sd (natural log) of wide effects where candidates are looked for
CLEAR = 8.0  # log Bayes factor above which a feature responds whatever a guide does: its curve has to be exact
N_CURVES = 6  # candidates of each kind of curve
TAUS = (1, 3, 4, 5)  # which of the prior's grid
MANY = 1e9  # features' worth of a weight that stays
STRENGTH = 3.0  # features' worth of weight of the wide effects of guides in general
LEAST_GAIN = 6.0  # of log likelihood that an own weight has to bring
LEAST_WEIGHT = 0.02
LEAST_NTC = 3  # guides among which one can be told to depart
LEAST_RATIO = 2.0  # of an own weight to that of guides in general
MOST_WEIGHT = 0.98
LEAST_DENSITY = 1e-300
N_ITER, TOL = 60, 1e-3


class Candidates(NamedTuple):
    """What may be true of each of `T` features, `L` ways: a curve and an sd of the guide effects."""

    log_prior: Floats  # (T, L) what is known before the kinds of curves and sds are weighted
    density: Floats  # (T, M, L, G) of each guide's rows by component of its effect, over the largest
    distance: Floats  # (T, L, G) of each guide from the curve
    variance: Floats  # (T, G) of that by counts alone
    kind: Ints  # (L,) of curve, the null 0
    tau: Ints  # (L,) which sd


def learn_departures(p: Problem, settings: Settings, wide: Wide, n_guides: int) -> Departures | None:
    """Weight and sd of the wide effects of each guide; None where the design does not let them be learned.

    `wide` are those of guides in general, `n_guides` is the number of guides of the cis step.
    """
    n = min(MOST_FEATURES, max(LEAST_FEATURES, MOST_EFFECTS // len(p.targeting)))
    if len(p.counts) < LEAST_FEATURES or p.targeting.sum() < 2:
        return None
    order = by_content(p.counts)
    order = order[np.argsort(p.mean[order], kind="stable")][-2 * n :]  # features with few counts say little
    some = order[np.unique(np.linspace(0, len(order) - 1, n).round().astype(int))]
    unit = p.priors.unit
    q, c = set_up(p.take(some), settings, Wide(LIBERAL[0], LIBERAL[1] * unit))
    if c.columns is None:
        return None
    sds = np.array(p.priors.wide_sds)
    found = _all_candidates(q, c, sds)
    if len(found.log_prior) < LEAST_FEATURES:
        return None
    ntc = ~q.targeting
    own = Own.none(q, sds, wide)
    if q.background is None and ntc.sum() >= LEAST_NTC:
        p_ntc = q.guides(ntc)
        of_ntc = _own(_all_candidates(p_ntc, replace(c, columns={}), sds), p_ntc, sds, wide, Own.none(p_ntc, sds, wide))
        own = own.put(ntc, of_ntc)
    q = q.in_kernel()
    own = _own(found, q, sds, wide, own if len(q.targeting) == len(ntc) else Own.none(q, sds, wide))
    if own.own[q.targeting].mean() >= targeting_noise.LEAST_SHARE:
        # from the levels that the NTC guides tell, beside targeting guides that depart
        alone = _of_all(q, n_guides, wide, (*own.effects(wide), np.zeros(len(own.own)), own.own), [])
        sds = np.append(sds, unit * np.array(targeting_noise.MORE_SDS))
        found = _all_candidates(*set_up(p.take(some), settings, wide._replace(departures=alone)), sds)
        own = _noisier(found, q, sds, own)
    return _conclude(found, q, sds, wide, n_guides, own)


def _all_candidates(p: Problem, c: Comparison, sds: Floats) -> Candidates:
    """Candidates of all features for which a guide may matter."""
    parts = each_block(partial(_candidates, p, c, sds), len(p.counts))
    log_prior, density, distance, variance = (
        np.concatenate(x) for x in zip(*(part[:4] for part in parts), strict=True)
    )
    return Candidates(log_prior, density, distance, variance, parts[0].kind, parts[0].tau)


def _candidates(p: Problem, c: Comparison, sds: Floats, s: slice) -> Candidates:
    """The null and the likeliest curves of the first pass, each at a few sds of the guide effects."""
    p = p.take(s)
    grid = np.array([p.priors.tau_grid[k] for k in TAUS])
    taus = np.repeat(grid[None], len(p.counts), 0)
    null = null_of(p, taus)
    q, at = p.in_kernel(), null.log_z.argmax(1)
    start, _ = start_at(q, null, taus, at)
    which = np.flatnonzero(q.targeting)
    looked = [(columns, *log_ratios(q, start, columns.positions)) for columns in (c.columns or {}).values()]
    masses = [ratio + columns.log_weight for columns, ratio, _ in looked]
    keep = np.max([np.zeros(len(at)), *(logsumexp(mass, axis=1) for mass in masses)], axis=0) < CLEAR
    n_t, q = int(keep.sum()), q.take(keep)
    start = Start(*(values[keep] for values in start))
    moves, logs, kinds = [np.zeros((n_t, 1, len(q.targeting)))], [np.zeros((n_t, 1))], [0]
    for kind, ((columns, _, every), whole) in enumerate(zip(looked, masses, strict=True), 1):
        mass, shift = whole[keep], every[keep]
        top = np.argpartition(-mass, min(N_CURVES, mass.shape[1]) - 1, axis=1)[:, :N_CURVES]
        by = np.take_along_axis(shift, top, 1).astype(float)
        move = by[..., None] * start.moves[:, None]
        move[..., which] += (MOVES[0] + columns.positions[top] * (MOVES[1] - MOVES[0])) * p.priors.unit
        weight = columns.log_weight[top] + start.held[:, :1] * by - 0.5 * start.held[:, 1:] * by**2
        # the candidates stand for all curves of their kind
        lost = logsumexp(mass, axis=1) - logsumexp(np.take_along_axis(mass, top, 1), axis=1)
        moves.append(move)
        logs.append(weight + lost[:, None])
        kinds += [kind] * top.shape[1]
    every, log_prior = np.concatenate(moves, 1), np.concatenate(logs, 1)
    n_k, n_l = len(grid), every.shape[1]
    m = len(q.targeting), 1 + len(sds)
    q = q.with_design(wide_sd=np.tile(np.append(0.0, sds), (m[0], 1)), wide_weight=np.ones(m))
    out = np.empty((n_t, n_l * n_k, *m))
    tau = np.tile(grid, (n_t, n_l))
    lanes = np.ascontiguousarray(np.repeat(every, n_k, 1))
    kernel.by_component(q.counts, q.weights, q.overdispersion, start.log_mean, lanes, tau, q.design, out)
    top = out.max(3)
    log_prior = np.repeat(log_prior, n_k, 1) + top.sum(2)
    if p.background is not None:  # what NTC guides tell of the sd, which are not among the guides here
        log_prior += np.tile(p.background.evidence(taus)[keep], (1, n_l))
    log_prior -= log_prior.max(1, keepdims=True)
    density = np.ascontiguousarray(np.moveaxis(np.exp(out - top[..., None]), 3, 1))
    r = q.rows
    distance, variance, _ = q.likelihood.contrasts(r, start.log_mean, np.zeros(start.log_mean.shape))
    return Candidates(
        log_prior, density, distance[:, None] - lanes, variance, np.repeat(kinds, n_k), np.tile(np.arange(n_k), n_l)
    )


class Learned(NamedTuple):
    """Weights that explain the candidates."""

    weight: Floats  # (G, M) of the components of each guide's effects
    of_kind: Floats  # of the kinds of curves
    of_tau: Floats
    share: Floats  # (G,) of features in which an effect is wide


def _log_likelihood(c: Candidates, weight: Floats, of_kind: Floats, of_tau: Floats) -> tuple[Floats, Floats]:
    """Log posterior ``(T, L)`` of the candidates, up to its log sum ``(T,)``."""
    joint = c.log_prior + np.log(of_kind)[c.kind] + np.log(of_tau)[c.tau]
    joint = joint + np.log(_mixed(c, weight)).sum(2)
    return joint, np.asarray(logsumexp(joint, axis=1))


def _mixed(c: Candidates, weight: Floats) -> Floats:
    """Density ``(T, L, G)`` of each guide's rows, over the largest of its components."""
    out = c.density[:, 0] * weight[:, 0]
    for m in range(1, weight.shape[1]):
        if weight[:, m].any():
            out += c.density[:, m] * weight[:, m]
    return np.asarray(out)


def _em(c: Candidates, start: Floats, before: Floats, open_: Floats, priors: tuple[Floats, Floats]) -> Learned:
    """EM over features; `before` ``(G, M)`` counts as features, `open_` ``(G, M)`` tells which components there are."""
    weight, of_kind, of_tau = start, *priors
    share = np.zeros(len(weight))
    for _ in range(N_ITER):
        joint, total = _log_likelihood(c, weight, of_kind, of_tau)
        post = np.exp(joint - total[:, None])
        ratio = post[..., None] / _mixed(c, weight)
        mass = np.stack([(c.density[:, m] * ratio).sum((0, 1)) for m in range(weight.shape[1])], 1) * weight
        share = 1.0 - mass[:, 0] / mass.sum(1)
        new = (mass + before) * open_
        new /= new.sum(1, keepdims=True)
        kinds = np.bincount(c.kind, post.sum(0)) + 5.0 * priors[0]
        of_tau = np.bincount(c.tau, post.sum(0)) + 5.0 * priors[1]
        of_kind, of_tau = kinds / kinds.sum(), of_tau / of_tau.sum()
        change, weight = np.abs(new - weight).max(), new
        if change < TOL:
            break
    return Learned(weight, of_kind, of_tau, share)


@dataclass(frozen=True)
class Own:
    """Which of `G` guides have wide effects of their own."""

    weight: Floats  # (G, M) of the components of each guide's effects
    place: Ints  # (G,) the component that is its own
    own: Bools  # (G,)
    sd: Floats  # (G,) natural log

    @classmethod
    def none(cls, p: Problem, sds: Floats, wide: Wide) -> Own:
        """All guides as guides in general."""
        nearest = 1 + int(np.abs(np.log(sds / max(wide.sd, 1e-9))).argmin())
        general = np.zeros(1 + len(sds))
        general[0], general[nearest] = 1.0 - wide.weight, wide.weight
        n_g = len(p.targeting)
        own = np.zeros(n_g, dtype=bool)
        return cls(np.tile(general, (n_g, 1)), np.full(n_g, nearest), own, np.full(n_g, wide.sd))

    def put(self, which: Bools | Ints, other: Own) -> Own:
        """The same with those of some guides in place."""
        mine = [values.copy() for values in self.arrays]
        for values, new in zip(mine, other.arrays, strict=True):
            values[which] = new
        return Own(*mine)

    @property
    def arrays(self) -> tuple[Any, ...]:
        """All of them."""
        return self.weight, self.place, self.own, self.sd

    def effects(self, wide: Wide) -> tuple[Floats, Floats]:
        """Weight and sd of each guide's wide effects, those in general where it has no own."""
        weight = np.where(self.own, np.minimum(1.0 - self.weight[:, 0], targeting_noise.WEIGHT), wide.weight)
        return weight, np.where(self.own, self.sd, wide.sd)

    def some(self, which: Bools | Ints) -> Own:
        """Those of some guides."""
        return Own(*(values[which] for values in self.arrays))


def _own(c: Candidates, p: Problem, sds: Floats, wide: Wide, held: Own) -> Own:
    """Which guides get an own weight, and how large; NTC guides beside targeting ones stay as they are `held`."""
    n_g, n_m = c.density.shape[3], 1 + len(sds)
    general, priors = Own.none(p, sds, wide).weight, _priors(c, p)
    free = p.targeting if p.targeting.any() else ~p.targeting
    start = np.where(free[:, None], np.append(1.0 - LIBERAL[0], np.full(n_m - 1, LIBERAL[0] / (n_m - 1))), held.weight)
    before = np.where(free[:, None], STRENGTH * general, MANY * held.weight)
    found = _em(c, start, before, (free[:, None] | (held.weight > 0)).astype(float), priors)
    # one sd for each guide: that nearest to the root mean square
    rms = np.sqrt((found.weight[:, 1:] * sds**2).sum(1) / found.weight[:, 1:].sum(1))
    place = 1 + np.abs(np.log(sds / rms[:, None])).argmin(1)
    some = np.flatnonzero(free & (1.0 - found.weight[:, 0] > max(LEAST_RATIO * wide.weight, LEAST_WEIGHT)))
    own = np.zeros(n_g, dtype=bool)
    if len(some):
        found = _one_sd(c, found, held.weight, some, place[some], priors)
        own[some] = _gains(c, found, general[0], some) > LEAST_GAIN
        own &= 1.0 - found.weight[:, 0] > LEAST_RATIO * wide.weight
    return held.put(own, Own(found.weight, place, own, sds[place - 1]).some(own))


def _noisier(c: Candidates, p: Problem, sds: Floats, own: Own) -> Own:
    """Targeting guides with one sd besides in all features, where that says more than what each has by itself.

    A guide that departs by more keeps its own weight and sd where these say more of it.
    """
    n_more = 1 + len(sds) - own.weight.shape[1]
    own = replace(own, weight=np.pad(own.weight, ((0, 0), (0, n_more))))
    ways = targeting_noise.Ways(c.log_prior, c.kind, c.tau, *_priors(c, p))
    alone, which = np.log(_mixed(c, own.weight)), np.flatnonzero(p.targeting)
    of_guides = np.log(np.maximum(c.density[:, 1:, :, which], LEAST_DENSITY))
    noisy, sd, at, value = np.ones(len(which), dtype=bool), 0.0, 0, 0.0
    for _ in range(2):  # the second time without guides that depart by more
        rest = alone.sum(2) - alone[..., which[noisy]].sum(2)
        sd, at, value = targeting_noise.shared_sd(ways, rest, of_guides[..., noisy].sum(3), sds)
        rows, by_more = rest + of_guides[:, at][..., noisy].sum(2), (1.0 - own.weight[:, 0]) * own.sd**2 > sd**2
        for i in np.flatnonzero(noisy & (own.own & by_more)[which]):
            mine = rows - of_guides[:, at, :, i] + alone[..., which[i]]
            noisy[i] = ways.log_likelihood(mine) < value + LEAST_GAIN
        if noisy.all() or not noisy.any():
            break
    if not noisy.any() or value < ways.log_likelihood(alone.sum(2)) - own.own.sum():
        return own  # a weight of each guide explains some by chance
    noisy = which[noisy]
    weight = np.zeros((len(noisy), 1 + len(sds)))
    weight[:, 0], weight[:, 1 + at] = 1.0 - targeting_noise.WEIGHT, targeting_noise.WEIGHT
    every = np.ones(len(noisy), dtype=bool)
    return own.put(noisy, Own(weight, np.full(len(noisy), 1 + at), every, np.full(len(noisy), sd)))


def _conclude(c: Candidates, p: Problem, sds: Floats, wide: Wide, n_guides: int, own: Own) -> Departures:
    """Their weights and sds, the share of features in which each guide departs, and which of them go together."""
    found = _em(c, own.weight, MANY * own.weight, (own.weight > 0).astype(float), _priors(c, p))
    weight, sd = own.effects(wide)
    joint, total = _log_likelihood(c, found.weight, found.of_kind, found.of_tau)
    tau2 = np.array([p.priors.tau_grid[k] for k in TAUS])[c.tau] ** 2
    residuals = Residuals(c.distance, c.variance, tau2, np.exp(joint - total[:, None]))
    pairs = learn_pairs(residuals, np.flatnonzero(own.own & p.targeting), weight, sd)
    return _of_all(p, n_guides, wide, (weight, sd, found.share, own.own), pairs)


def _priors(c: Candidates, p: Problem) -> tuple[Floats, Floats]:
    """Prior weights of the kinds of curves and of the sds."""
    n_kinds = int(c.kind.max()) + 1
    of_kind = np.full(n_kinds, (1 - p.priors.null_weight) / max(n_kinds - 1, 1))
    of_kind[0] = p.priors.null_weight
    return of_kind, np.exp(Prior.start(p.priors).log_tau(np.array([p.priors.tau_grid[k] for k in TAUS])))


def _one_sd(
    c: Candidates, free: Learned, held: Floats, some: Ints, place: Ints, priors: tuple[Floats, Floats]
) -> Learned:
    """Weights of the components at `place` of `some` guides; the other guides keep those that are `held`."""
    open_, start, before = (held > 0).astype(float), held.copy(), MANY * held
    before[some], open_[some], start[some] = 0.0, 0.0, 0.0
    open_[some, 0] = open_[some, place] = 1.0
    start[some, place] = np.minimum(1.0 - free.weight[some, 0], MOST_WEIGHT)
    start[some, 0] = 1.0 - start[some, place]
    share = held[some, 0]
    before[some, 0], before[some, place] = STRENGTH * share, STRENGTH * (1.0 - share)
    return _em(c, start, before, open_, priors)


def _gains(c: Candidates, found: Learned, general: Floats, some: Ints) -> Floats:
    """Log likelihood that the own weights of `some` guides bring, each by itself."""
    joint, total = _log_likelihood(c, found.weight, found.of_kind, found.of_tau)
    out = []
    for g in some:
        one = c._replace(density=c.density[..., g : g + 1])
        change = np.log(_mixed(one, general[None])) - np.log(_mixed(one, found.weight[g : g + 1]))
        out.append(float((total - logsumexp(joint + change[..., 0], axis=1)).sum()))
    return np.array(out)


def _of_all(
    p: Problem,
    n_guides: int,
    wide: Wide,
    found: tuple[Floats, Floats, Floats, Bools],
    pairs: list[Pair],
) -> Departures:
    """What was found of the guides of a problem, among all those of the cis step."""
    codes = np.asarray(p.codes)
    general = np.full(n_guides, wide.weight), np.full(n_guides, wide.sd), np.full(n_guides, np.nan)
    every = [*general, np.zeros(n_guides, dtype=bool)]
    for values, mine in zip(every, found, strict=True):
        values[codes] = mine
    partner, together = np.full(n_guides, -1), np.zeros(n_guides)
    for pair in pairs:
        g, h = codes[pair.one], codes[pair.other]
        partner[g], partner[h], together[[g, h]] = h, g, pair.weight
    return Departures(every[0], every[1], every[2], partner, together, every[3])
