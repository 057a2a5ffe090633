"""The trans step: choice of the curve by evidence, calls, and the posterior of the best curve."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.blocks import each_block, under
from dream_sc._core.curves import CURVES, Curve, curve
from dream_sc._core.response import ntc_guides
from dream_sc._core.response.problem import Problem, problem
from dream_sc._core.types import Axis, GuideStats, RowDosage, SingleCells, TransFit

from . import decision, guide_support
from .describe import Choice, describe
from .evidence import Comparison, Found, block_evidence, compare
from .null_scale import strength
from .wide_effects import learn_tail, with_tail

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.blocks import Kept
    from dream_sc._core.priors import TransPriors

    Floats = NDArray[np.float64]

N_NULL = 1000
MIN_DISTINCT = {"single_hill": 1, "additive_hill": 5}
DISTINCT_GAP = 0.2  # log2
MORE_COMPLEX = float(np.log(3.0))
FINER = 4  # points of the fine grid of tau for each of the priors'


@dataclass(frozen=True)
class Options:
    """How the trans step runs."""

    function_type: str = "auto"
    guide_effects: bool = True
    degree: int = 6
    nsamples: int = 1000
    niters: int | None = None
    inference: str = "laplace"
    device: str = "auto"
    seed: int = 0
    minibatch_size: int | None = None  # cells of a step of "svi" on single cells


def distinct_dosages(axis: Axis) -> int:
    """Number of dosages, NTC included, that are at least 0.2 log2 apart."""
    levels = np.sort(np.append(axis.guides, 0.0))
    count, last = 0, -np.inf
    for level in levels:
        if level - last >= DISTINCT_GAP:
            count, last = count + 1, level
    return count


def candidates(function_type: str, axis: Axis) -> list[Curve]:
    """Curves to compare, the null first. A second Hill needs at least five distinct dosages."""
    names = [function_type]
    if function_type == "auto":
        names = [n for n, least in MIN_DISTINCT.items() if distinct_dosages(axis) >= least]
    return [curve("null"), *(curve(n) for n in names)]


def simplest(marginal: Floats, prior: decision.Prior) -> NDArray[np.int64]:
    """Index ``(T,)`` of the curve to describe a response by: a more complex one has to be three times as probable."""
    joint = marginal[:, 1:] + np.log(prior.weights[1:])
    best = np.zeros(len(joint), dtype=np.int64)
    for m in range(1, joint.shape[1]):
        best = np.where(joint[:, m] > joint[np.arange(len(joint)), best] + MORE_COMPLEX, m, best)
    return 1 + best


def simulate_null(p: Problem, grid: Floats, values: Floats, prior: decision.Prior, n: int, seed: int) -> Problem:
    """Features without response, alike the likely null ones in level, overdispersion and guide effects."""
    rng = np.random.default_rng(seed)
    lfdr = decision.local_fdr(decision.log_bayes_factor(decision.marginals(values, grid, prior), prior), prior)
    likely = np.flatnonzero(lfdr >= min(0.5, np.quantile(lfdr, 0.9)))
    pick = np.resize(rng.permutation(likely[by_content(p.counts[likely])]), n)
    return simulated_alike(p, pick, values[pick, 0], grid, prior, rng)


def by_content(counts: Floats) -> NDArray[np.int64]:
    """Order ``(T,)`` of features that depends on their rows ``(T, R)`` alone, not on the order in which they come."""
    at = np.arange(1.0, counts.shape[1] + 1)
    # of whole counts these sums are exact
    return np.lexsort([(counts * weight).sum(1) for weight in (at**2, at, np.ones_like(at))])


def simulated_alike(
    p: Problem,
    pick: NDArray[np.int64],
    null: Floats,
    grid: Floats,
    prior: decision.Prior,
    rng: np.random.Generator,
) -> Problem:
    """Features without response, each alike one of `pick` with the evidence `null` ``(n, K)`` of no response."""
    q, n = p.take(pick), len(pick)
    log_tau = null + prior.log_tau(grid)
    weights = np.exp(log_tau - logsumexp(log_tau, axis=1, keepdims=True))
    tau = grid[(weights.cumsum(1) > rng.random(n)[:, None]).argmax(1)]
    d = p.design
    u = rng.normal(size=(n, len(d.guide_start) - 1))
    wide = rng.random(u.shape) < prior.wide_weight
    u *= np.sqrt(tau[:, None] ** 2 + wide * prior.wide_sd**2)
    # the fit takes the coefficients of covariates for known, so that their errors have to be in its null
    true = q if q.covariates is None else replace(q, covariates=q.covariates.drawn(rng.spawn(1)[0]))
    counts, weights = q.likelihood.simulate(rng, q.rows, q.level[:, None] + true.log_exposure + u[:, p.guide])
    level = q.likelihood.level(counts, weights, d.log_w)
    if q.covariates is not None:
        level -= q.covariates.log_total(np.exp(d.log_w))
    return replace(q, counts=counts, weights=weights, level=level, background=None, tau_weight=None)


def fit(
    stats: GuideStats,
    dosage: RowDosage,
    overdispersion: Floats,
    *,
    axis: Axis,
    priors: TransPriors,
    alpha_sd: float,
    options: Options,
    hyper: dict[str, Any] | None = None,
    report: NDArray[np.bool_] | None = None,
    progress: Callable[[Any], Any] = lambda x: x,
    kept: Kept | None = None,
    cells: SingleCells | None = None,
) -> TransFit:
    """Fit every feature of `stats`.

    Parameters
    ----------
    overdispersion
        ``(T,)`` of single cells, from the technical step.
    alpha_sd
        Scale of the group effects (natural log).
    hyper
        Learned numbers of an earlier fit; given them a row does not depend on the other features.
    report
        ``(T,)`` features to return; all take part in what is learned.
    progress
        Wraps the iterable of blocks, such as tqdm.
    kept
        Where results of blocks are kept for a fit of the same arguments that goes on after an interruption.
    cells
        The cells behind the sums, where `options.minibatch_size` asks for them.
    """
    p = problem(stats, dosage, overdispersion, alpha_sd=alpha_sd, axis=axis, priors=priors)
    if not options.guide_effects:
        tail = (0.0, 0.0)
    elif hyper is None:
        tail = learn_tail(p, np.array(priors.tau_grid))
    else:
        tail = float(hyper["wide_weight"]), float(hyper["wide_sd"])
    p, c = set_up(p, options, tail, kept)
    grid, curves = c.grid, c.curves
    values, masses = evaluate(p, c, progress, kept)
    if hyper is None:
        prior = decision.learn(values, grid, priors, tail=tail)
        null = _null_distribution(p, c, values, prior, options, progress, under(kept, "null"))
    else:
        check_curves(hyper, curves)
        prior, null = restore(hyper)
        prior = prior if options.guide_effects else replace(prior, wide_weight=0.0)
    marginal = decision.marginals(values, grid, prior)
    log_bf = decision.log_bayes_factor(marginal, prior)
    lfdr = decision.local_fdr(log_bf, prior)
    p_value = null.p_value(strength(log_bf, guide_support.movement_sd(p, values, grid, prior), priors))
    best = simplest(marginal, prior)
    q_value = decision.q_values(lfdr)  # running means, over all features
    if report is not None:
        p, best, values, masses = p.take(report), best[report], values[report], tuple(m[report] for m in masses)
        log_bf, lfdr, q_value, p_value = log_bf[report], lfdr[report], q_value[report], p_value[report]
        cells = None if cells is None else cells.take(report)
    choice = Choice(p, c, prior, values, masses, log_bf, options, cells)
    columns, records, diagnostics = describe(choice, best, progress, kept)
    columns |= {
        "lfdr": lfdr,
        "qvalue": q_value,
        "pvalue": p_value,
        "log_bf": log_bf,
        "model": np.where(lfdr > 0.5, "null", np.array([c.name for c in curves])[best]),
    }
    columns["class"] = np.where(lfdr > 0.5, "null", columns["class"])
    columns["p_class"] = np.where(lfdr > 0.5, lfdr, columns["p_class"] * (1 - lfdr))
    return TransFit(columns, records, store(prior, null) | {"curves": [c.name for c in curves]}, diagnostics)


def check_curves(hyper: dict[str, Any], curves: list[Curve]) -> None:
    have, want = [str(name) for name in hyper["curves"]], [c.name for c in curves]
    if have != want:
        raise ValueError(f"hyper= is of a fit that compared {have}, but this one compares {want}: leave it out")


def set_up(
    p: Problem, options: Options, tail: tuple[float, float], kept: Kept | None = None
) -> tuple[Problem, Comparison]:
    """The problem with what depends on the options and the tail of the guide effects, and the curves that compete."""
    curves = candidates(options.function_type, p.axis)
    knots = np.array(p.priors.tau_grid if options.guide_effects else [1e-6 * p.priors.unit])
    # two Hills have to turn where they compete with one
    p = with_tail(replace(p, turn=len(curves) > 2), *tail)
    grid = knots
    if p.pooled:
        background = _sum_up_ntc(p, knots, under(kept, "ntc"))
        p = replace(p, background=background)
        if options.guide_effects:
            grid = np.geomspace(knots[0], knots[-1], FINER * (len(knots) - 1) + 1)
            start = decision.Prior.start(p.priors).log_tau(grid)
            p = replace(p, tau_weight=ntc_guides.grid_weights(background, grid, start))
    return p, compare(p, curves, grid, options.degree)


def evaluate(
    p: Problem, c: Comparison, progress: Callable[[Any], Any] = lambda x: x, kept: Kept | None = None
) -> Found:
    """Evidence of every feature."""

    def call(s: slice) -> tuple[Any, ...]:
        return block_evidence(p.take(s), c)

    parts = each_block(call, len(p.counts), progress, kept=under(kept, "evidence"))
    values, masses = zip(*parts, strict=True)
    return Found(np.concatenate(values), tuple(np.concatenate(mass) for mass in zip(*masses, strict=True)))


def _sum_up_ntc(p: Problem, knots: Floats, kept: Kept | None) -> ntc_guides.Background:
    """Sum up the NTC guides of every feature."""

    def call(s: slice) -> tuple[Floats, ...]:
        return p.take(s).summed_up(knots).arrays

    parts = each_block(call, len(p.counts), kept=kept)
    return ntc_guides.joined([ntc_guides.Background(*part) for part in parts])


def _null_distribution(
    p: Problem,
    c: Comparison,
    values: Floats,
    prior: decision.Prior,
    options: Options,
    progress: Callable[[Any], Any],
    kept: Kept | None,
) -> decision.NullDistribution:
    sim = simulate_null(p, c.grid, values, prior, N_NULL, options.seed)
    sim, c = set_up(sim, options, (prior.wide_weight, prior.wide_sd), kept)
    found = evaluate(sim, c, progress, kept).values
    log_bf = decision.log_bayes_factor(decision.marginals(found, c.grid, prior), prior)
    return decision.null_distribution(strength(log_bf, guide_support.movement_sd(sim, found, c.grid, prior), p.priors))


def store(prior: decision.Prior, null: decision.NullDistribution) -> dict[str, Any]:
    return {
        "model_weights": prior.weights.tolist(),
        "tau_log_mean": prior.tau_log_mean,
        "tau_log_sd": prior.tau_log_sd,
        "wide_weight": prior.wide_weight,
        "wide_sd": prior.wide_sd,
        "null_strength": null.body,
        "null_threshold": null.threshold,
        "null_rate": null.rate,
    }


def restore(hyper: dict[str, Any]) -> tuple[decision.Prior, decision.NullDistribution]:
    """What a fit has learned, from how it is stored."""
    prior = decision.Prior(
        np.asarray(hyper["model_weights"], float),
        float(hyper["tau_log_mean"]),
        float(hyper["tau_log_sd"]),
        float(hyper["wide_weight"]),
        float(hyper["wide_sd"]),
    )
    null = decision.NullDistribution(
        np.asarray(hyper["null_strength"]), float(hyper["null_threshold"]), float(hyper["null_rate"])
    )
    return prior, null


FUNCTION_TYPES = (*(c.name for c in CURVES if c.name != "null"), "auto")
