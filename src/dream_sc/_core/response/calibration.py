"""Null refits of the trans step: which guide gets whose dosage, the evidence under it, and what that says of p-values.

A null is a list of *sources*: ``source[g]`` is the guide whose dosage (mean, spread, error, control flag) guide `g` is
given, itself if it keeps its own, -1 if it takes no part. Counts and exposures, offsets in them, stay with the guide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import comb, factorial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import beta

from dream_sc._core.response.problem import problem as problem_of
from dream_sc._core.types import Axis, GuideStats, RowDosage

from . import decision
from .evidence import Evidence, evaluate
from .learned import Prior, learn
from .settings import Settings
from .simulated_nulls import simulate_null

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from dream_sc._core.priors import TransPriors

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Source = tuple[GuideStats, Ints]

LEVELS = (0.05, 1e-3, 1e-5)
Q_LEVEL = 0.05
N_NULL = 2000
TAIL_SIZE, TAIL_SHARES = 200, (0.002, 0.05)  # of the empirical null
TAIL_STRENGTH = 5.0  # null tests' worth of weight of the theoretical tail
N_QUANTILES = 40
N_RESAMPLED = 200
BAND = 0.95


# ---- which guide gets whose dosage -----------------------------------------------------------------------------------


def posing_sources(guide_mean: Floats, control: NDArray[np.bool_], pool: Ints, n: int, seed: int) -> list[Ints]:
    """NTC guides that pose as targeting ones; the other guides of `pool` stay controls, the rest takes no part.

    As many as there are targeting guides, at most half of the pool. Where they are fewer, they get dosages spread
    evenly over the sorted real ones. Sets of guides differ where there are enough of them, then the order within them.

    Parameters
    ----------
    guide_mean
        ``(G,)`` dosages; NaN of a guide that is not to be copied.
    control
        ``(G,)``
    pool
        NTC guides to draw from.
    """
    real = np.flatnonzero(~control & np.isfinite(guide_mean))
    real = real[np.argsort(guide_mean[real], kind="stable")]
    k = min(len(real), len(pool) // 2)
    if k == 1:
        picked = real[[np.abs(guide_mean[real]).argmax()]]
    else:
        picked = real[np.linspace(0, len(real) - 1, k).round().astype(int)]
    out = []
    for chosen in _distinct_draws(len(pool), k, n, np.random.default_rng(seed)):
        source = np.full(len(control), -1, dtype=np.int64)
        source[pool] = pool
        source[pool[chosen]] = picked
        out.append(source)
    return out


def _distinct_draws(n_items: int, k: int, n: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Up to `n` ordered draws of `k` items, no two alike, and none of the same set before all sets have been drawn."""
    n_sets = comb(n_items, k)
    orders: set[tuple[int, ...]] = set()
    sets: set[tuple[int, ...]] = set()
    while len(orders) < min(n, n_sets * factorial(k)):
        draw = rng.permutation(n_items)[:k]
        order, items = tuple(draw.tolist()), tuple(sorted(draw.tolist()))
        if order in orders or (items in sets and len(sets) < n_sets):
            continue
        orders.add(order)
        sets.add(items)
        yield draw


def permuted_sources(present: Ints, control: NDArray[np.bool_], n: int, seed: int) -> list[Ints]:
    """Dosages permuted between all guides that are present; no two permutations alike.

    None in which all targeting guides keep their own: with few of them many permutations only swap NTC guides, which
    differ by little.
    """
    rng = np.random.default_rng(seed)
    targeting = ~control[present]
    most = factorial(len(present)) - factorial(int((~targeting).sum()))
    seen: set[tuple[int, ...]] = set()
    out: list[Ints] = []
    while len(out) < min(n, most):
        order = rng.permutation(present)
        if tuple(order.tolist()) in seen or (order == present)[targeting].all():
            continue
        seen.add(tuple(order.tolist()))
        source = np.full(len(control), -1, dtype=np.int64)
        source[present] = order
        out.append(source)
    return out


def permuted_cells(row: Ints, group: Ints, depth: Floats, n_strata: int, seed: int) -> Ints:
    """Row of each cell after a permutation of the cells within technical group and stratum of depth.

    Parameters
    ----------
    row
        ``(N,)`` -1 where a cell takes no part.
    group, depth
        ``(N,)`` technical group and size factor.
    """
    rng = np.random.default_rng(seed)
    out = row.copy()
    for c in np.unique(group[row >= 0]):
        cells = np.flatnonzero((row >= 0) & (group == c))
        rank = np.argsort(np.argsort(depth[cells], kind="stable"), kind="stable")
        stratum = rank * n_strata // len(cells)
        for s in range(n_strata):
            some = cells[stratum == s]
            out[some] = row[rng.permutation(some)]
    return out


# ---- refits ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """A trans fit as its null refits need it."""

    dosage: RowDosage  # of the rows of the fit
    guide: Ints  # (R,) of the rows of the fit
    guide_mean: Floats  # (G,) log2
    guide_spread: Floats | None  # (G,); None where rows have spreads of their own
    control: NDArray[np.bool_]  # (G,)
    overdispersion: Floats  # (T,)
    group_effect_sd: float
    priors: TransPriors
    settings: Settings
    prior: Prior
    null: decision.NullDistribution
    guide_escape: Floats | float = 0.0  # (G,) share of cells without effect, or one for all
    from_zero: bool = False  # whether controls are at dose 0
    guide_reach: Floats | None = None  # (G,) log2; the mean if None

    def rearranged(self, stats: GuideStats, source: Ints) -> tuple[GuideStats, RowDosage, Axis]:
        """Sums, dosages and axis with each guide's dosage from its source."""
        rows = source[self.guide] >= 0
        own, new = self.guide[rows], source[self.guide[rows]]
        # rows of one guide may differ in dosage: they keep their distance to its mean
        mean = self.guide_mean[new] + (self.dosage.mean[rows] - self.guide_mean[own])
        spread = self.dosage.spread[rows] if self.guide_spread is None else self.guide_spread[new]
        kept = stats.some_rows(rows)
        control = self.control[source]
        targeting = source[(source >= 0) & ~control]
        doses, reach = self.guide_mean[targeting], None if self.guide_reach is None else self.guide_reach[targeting]
        error, level = self.dosage.error[source], self.dosage.level_error
        escape = np.broadcast_to(self.guide_escape, self.control.shape)[new]
        axis = Axis.of(doses, reach=reach, from_zero=self.from_zero)
        return kept, RowDosage(mean, spread, error, control, level, escape), axis

    def take(self, features: Any) -> Fitted:
        """The same for some of the features."""
        return replace(self, overdispersion=self.overdispersion[features])


def refit(fitted: Fitted, stats: GuideStats, source: Ints) -> Evidence:
    """Evidence of every feature with the dosages rearranged: no posteriors, no draws."""
    kept, dosage, axis = fitted.rearranged(stats, source)
    sd, priors, prior = fitted.group_effect_sd, fitted.priors, fitted.prior
    p = problem_of(kept, dosage, fitted.overdispersion, group_effect_sd=sd, axis=axis, priors=priors)
    return evaluate(p, fitted.settings, prior.wide)


def simulated(fitted: Fitted, like: Evidence, n: int, seed: int) -> Evidence:
    """Evidence of `n` features without response, alike the likely null ones of a refit."""
    prior = prior_for(fitted.prior, like)
    lfdr = decision.local_fdr(decision.log_bf_of(like, prior), prior)
    p = simulate_null(like.problem, like.comparison.grid, like.values, lfdr, prior, n, seed)
    return evaluate(p, fitted.settings, prior.wide)


def prior_for(prior: Prior, e: Evidence) -> Prior:
    """The prior for the curves of a refit, of which there are fewer where the dosages are fewer."""
    weights = prior.weights[: len(e.comparison.curves)]
    return replace(prior, weights=weights / weights.sum())


@dataclass(frozen=True)
class Nulls:
    """What `B` null refits found."""

    pvalue: Floats  # (B, T)
    called: NDArray[np.bool_]  # (B, T) q below 0.05, prior odds relearned in each refit
    mean: Floats  # (B, T) counts per unit of exposure
    null_weight: Floats  # (B,) relearned prior probability of the null


def null_refits(
    fitted: Fitted,
    sources: Iterable[Source],
    *,
    own_null: bool,
    seed: int,
    n: int,
    progress: Callable[[Any], Any] = lambda x: x,
) -> Nulls:
    """Refit under each source.

    Parameters
    ----------
    sources
        Pairs of sums and sources, `n` of them.
    own_null
        Take p-values from null features simulated in the refits' own designs, `N_NULL` over all refits, instead of
        the fit's: with other guides, or other numbers of cells, evidence does not compare with the fit's.
    """
    seeds = np.random.default_rng(seed).integers(2**31, size=n).tolist()
    each = -(-N_NULL // n)
    observed, drawn, found = [], [], []
    for (stats, source), s in zip(progress(sources), seeds, strict=True):
        e = refit(fitted, stats, source)
        prior = prior_for(fitted.prior, e)
        observed.append(decision.strength(e, prior))
        found.append(_calls(fitted, e))
        if own_null:
            drawn.append(decision.strength(simulated(fitted, e, each, s), prior))
    null = decision.null_distribution(np.concatenate(drawn)) if own_null else fitted.null
    return _nulls(null.p_value(np.array(observed)), found)


def simulated_refits(
    fitted: Fitted, like: Evidence, n: int, *, seed: int, progress: Callable[[Any], Any] = lambda x: x
) -> Nulls:
    """Simulate as many null features as the fit has, `n` times."""
    observed, found = [], []
    for s in progress(np.random.default_rng(seed).integers(2**31, size=n).tolist()):
        e = simulated(fitted, like, len(like.values), s)
        observed.append(decision.strength(e, prior_for(fitted.prior, e)))
        found.append(_calls(fitted, e))
    return _nulls(fitted.null.p_value(np.array(observed)), found)


def _calls(fitted: Fitted, e: Evidence) -> tuple[NDArray[np.bool_], Floats, float]:
    """Calls of one refit taken as an analysis of its own, the features' means, and the weight of the null."""
    prior = learn(e.values, e.comparison.grid, fitted.priors, wide=fitted.prior.wide)
    called = decision.q_values(decision.local_fdr(decision.log_bf_of(e, prior), prior)) < Q_LEVEL
    return called, e.problem.mean, float(prior.weights[0])


def _nulls(pvalue: Floats, found: list[tuple[NDArray[np.bool_], Floats, float]]) -> Nulls:
    called, mean, weight = (np.array(part) for part in zip(*found, strict=True))
    return Nulls(pvalue, called, mean, weight)


# ---- what the refits say ---------------------------------------------------------------------------------------------


def error_rates(pvalue: Floats, levels: tuple[float, ...] = LEVELS) -> tuple[Floats, Floats]:
    """False-positive rate at each level and its standard error.

    The error is that of a mean over refits: features of one refit share its guides and are not independent.
    """
    each = np.array([(pvalue <= level).mean(1) for level in levels])
    return each.mean(1), standard_error(each)


def standard_error(each: Floats) -> Floats:
    """Standard error of the mean over the last axis; NaN for one value."""
    n = each.shape[-1]
    if n < 2:
        return np.full(each.shape[:-1], np.nan)
    return np.asarray(each.std(-1, ddof=1) / np.sqrt(n))


def quantiles(pvalue: Floats, member: NDArray[np.bool_], seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Expected and observed quantiles of the p-values of a stratum, with a 95 % band over resampled refits.

    Parameters
    ----------
    pvalue, member
        ``(B, T)`` p-values, and whether a feature of a refit is of the stratum.
    """
    pooled = pvalue[member]
    expected = np.geomspace(1.0 / (len(pooled) + 1.0), 1.0, N_QUANTILES)
    observed = np.quantile(pooled, expected, method="weibull")
    rng = np.random.default_rng(seed)
    rows = [pvalue[b, member[b]] for b in range(len(pvalue))]
    draws = rng.integers(len(rows), size=(N_RESAMPLED, len(rows)))
    again = [np.quantile(np.concatenate([rows[b] for b in draw]), expected, method="weibull") for draw in draws]
    lower, upper = np.quantile(again, [(1 - BAND) / 2, (1 + BAND) / 2], axis=0)
    return expected, observed, lower, upper


def independent_band(expected: Floats, n: int) -> tuple[Floats, Floats]:
    """Where 95 % of the quantiles of `n` independent uniform p-values lie."""
    i = np.clip(expected * (n + 1.0), 1e-9, n)
    low, high = (beta.ppf(q, i, n + 1.0 - i) for q in ((1 - BAND) / 2, (1 + BAND) / 2))
    return np.asarray(low), np.asarray(high)


def empirical_null(pvalue: Floats) -> decision.NullDistribution:
    """Distribution of ``-log p`` under the null: ranks in the body, an exponential in the tail.

    It is of rate 1 where the p-values are right, and of a lower one where small p-values are too frequent. A higher
    one, a tail lighter than the theoretical, is not taken from so few tests.
    """
    share = float(np.clip(TAIL_SIZE / pvalue.size, *TAIL_SHARES))
    return decision.null_distribution(_minus_log(pvalue.ravel()), share, strength=TAIL_STRENGTH, rates=(0.0, 1.0))


def recalibrated(null: decision.NullDistribution, pvalue: Floats) -> Floats:
    """Share of null p-values that are as small."""
    return null.p_value(_minus_log(pvalue))


def _minus_log(pvalue: Floats) -> Floats:
    """``-log p``, finite where p underflows."""
    return np.asarray(-np.log(np.maximum(pvalue, np.finfo(float).tiny)))


def step_up(pvalue: Floats) -> Floats:
    """q-values by the step-up rule of Benjamini and Hochberg."""
    n = len(pvalue)
    order = np.argsort(pvalue)[::-1]
    out = np.empty(n)
    out[order] = np.minimum.accumulate(pvalue[order] * n / np.arange(n, 0, -1))
    return np.minimum(out, 1.0)
