"""Guides that depart together: a pair whose departures agree over features, as of guides that share a seed.

Such a pair is one witness, not two. In a share of features, the null has one wide effect that both have; curves have
none, so a feature in which only the pair differs is not called. Without a pair nothing changes.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logsumexp

from .learned import Wide
from .problem import null_evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

WEIGHTS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)  # share of features in which a pair departs together
LEAST_GAIN = 6.0  # of log likelihood that this has to bring


class Pair(NamedTuple):
    """Two guides that depart together, by their place in a problem."""

    one: int
    other: int
    weight: float  # share of features in which they do
    sd: float


class Residuals(NamedTuple):
    """Distances of guides from the candidates of each feature."""

    value: Floats  # (T, L, G)
    variance: Floats  # (T, G) by counts alone
    tau2: Floats  # (L,) variance of the guide effects
    posterior: Floats  # (T, L) of the candidates


def learn_pairs(r: Residuals, some: Ints, weight: Floats, sd: Floats) -> list[Pair]:
    """Pairs among `some` guides, whose departures have these weights and sds ``(G,)``; each guide is in one at most."""
    of_variance = r.variance[:, None] + r.tau2[:, None]  # (T, L, G)
    alone = _mixture(r.value, of_variance, weight, sd)
    found = []
    for g, h in combinations(some.tolist(), 2):
        s2 = sd[g] * sd[h]
        joint = _together(r.value[..., [g, h]], of_variance[..., [g, h]], s2)
        ratio = np.log(np.maximum((r.posterior * np.exp(joint - alone[..., g] - alone[..., h])).sum(1), 1e-300))
        gains = [float(np.logaddexp(np.log1p(-w), np.log(w) + ratio).sum()) for w in WEIGHTS]
        best = int(np.argmax(gains))
        if gains[best] > LEAST_GAIN:
            found.append((gains[best], Pair(g, h, WEIGHTS[best], float(s2**0.5))))
    out: list[Pair] = []
    for _, pair in sorted(found, key=lambda x: -x[0]):
        if not {pair.one, pair.other} & {g for p in out for g in (p.one, p.other)}:
            out.append(pair)
    return out


def _normal(x: Floats, variance: Floats) -> Floats:
    return np.asarray(-0.5 * (np.log(2 * np.pi * variance) + x**2 / variance))


def _mixture(x: Floats, variance: Floats, weight: Floats, sd: Floats) -> Floats:
    """Log density of each guide's residual, departures of its own among them."""
    narrow, wide = _normal(x, variance) + np.log1p(-weight), _normal(x, variance + sd**2) + np.log(weight)
    return np.asarray(np.logaddexp(narrow, wide))


def _together(x: Floats, variance: Floats, s2: float) -> Floats:
    """Log density ``(T, L)`` of the residuals of a pair that share a departure of variance `s2`."""
    (a, b), (v, w) = np.moveaxis(x, -1, 0), np.moveaxis(variance, -1, 0)
    precision = 1.0 / v + 1.0 / w
    mean, extra = (a / v + b / w) / precision, 1.0 / precision
    return _normal(a - b, v + w) + _normal(mean, extra + s2)


def pairs_of(p: Problem, wide: Wide) -> tuple[Pair, ...]:
    """The pairs whose guides are both targeting ones of the problem."""
    d, codes = wide.departures, p.codes
    if d is None or codes is None:
        return ()
    place = {int(code): i for i, code in enumerate(codes)}
    found = ((place[int(g)], place.get(int(d.partner[g]), -1), int(g)) for g in codes)
    return tuple(
        Pair(g, h, float(d.together[code]), float((d.sd[code] * d.sd[d.partner[code]]) ** 0.5))
        for g, h, code in found
        if h > g and p.targeting[g] and p.targeting[h]
    )


def with_pairs(p: Problem, pairs: tuple[Pair, ...], null: Floats, taus: Floats) -> Floats:
    """Log evidence ``(T, K)`` of the null, in which each pair may depart together."""
    log_z = [null + sum(np.log1p(-pair.weight) for pair in pairs)]
    for pair in pairs:
        rest = sum(np.log1p(-other.weight) for other in pairs if other is not pair)
        log_z.append(null_evidence(as_one(p, pair), taus)[0] + np.log(pair.weight) + rest)
    return np.asarray(logsumexp(log_z, axis=0))


def as_one(p: Problem, pair: Pair) -> Problem:
    """The problem with the rows of a pair as those of one guide, whose effect is wide."""
    d, (one, other) = p.design, (pair.one, pair.other)
    guide = np.where(p.guide == other, one, p.guide)
    order = np.argsort(guide, kind="stable")
    keep = np.arange(len(p.targeting)) != other
    _, start, places = np.unique(guide[order], return_index=True, return_inverse=True)
    weight, sd = d.wide_weight.copy(), d.wide_sd.copy()
    weight[one], sd[one] = 1.0 / weight.shape[1], pair.sd
    design = d._replace(
        log_w=d.log_w[order],
        scale2=d.scale2[order],
        group=d.group[order],
        loads=np.ascontiguousarray(d.loads[order]),
        guide_start=np.append(start, len(order)).astype(np.int64),
        dose=d.dose[order],
        own=d.own[keep],
        shares=d.shares[keep],
        error=d.error[keep],
        wide_sd=np.ascontiguousarray(sd[keep]),
        wide_weight=np.ascontiguousarray(weight[keep]),
    )
    return replace(
        p,
        counts=np.ascontiguousarray(p.counts[:, order]),
        weights=np.ascontiguousarray(p.weights[:, order]) if p.weights.size else p.weights,
        design=design,
        guide=places.reshape(-1).astype(np.int64),
        targeting=p.targeting[keep],
        codes=None if p.codes is None else p.codes[keep],
        covariates=None if p.covariates is None else p.covariates.some_rows(order),
    )
