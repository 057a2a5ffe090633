"""The trans step's rows: posterior draws of the best curve of each feature, summed up in columns and records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from dream_sc._core import engines
from dream_sc._core.parallel import blocks, each, under
from dream_sc._core.response import draws
from dream_sc._core.response.problem import Problem, acting
from dream_sc._core.types import GuideStats, RowDosage

from . import all_features, guide_sets, guide_support, leave_one_guide_out, plateau, posterior_record, summary
from .direction import with_direction
from .first_pass import columns_of
from .first_pass_draws import QuickDraws, Table, quick_draws, shifted, table_of, what_is_said

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.parallel import Kept
    from dream_sc._core.types import SingleCells

    from .decision import Decision
    from .evidence import Evidence
    from .importance import Draws
    from .learned import Prior
    from .prepare import Prepared
    from .settings import Settings

    Floats = NDArray[np.float64]

NO_TAU = float(np.log(1e-3)), 0.1  # prior of log tau of the Pyro engines without guide effects
QUICK_DRAWS = 256  # of a feature that is not called


@dataclass(frozen=True)
class Described:
    """What the trans step says of `F` features; missing where a feature was not fitted or not asked for."""

    columns: dict[str, Any]  # of the table, each (F,)
    records: NDArray[np.float16]  # (F, 512) compact posteriors, or (K, 512) of categories
    learned: dict[str, Any]  # numbers over features, for a fit that is given them
    by_category: dict[str, Any] | None = None  # columns of the categories, each (K,)


class Job(NamedTuple):
    """A block of features with the same curve and effort."""

    curve: int
    quick: bool
    features: NDArray[np.int64]


def describe(
    decision: Decision,
    prepared: Prepared,
    *,
    asked: NDArray[np.bool_] | None = None,
    progress: Callable[[Any], Any] = lambda x: x,
    kept: Kept | None = None,
) -> Described:
    """Describe the features that were fitted, by draws of the best curve of each; of those `asked` ``(F,)`` for."""
    fitted = prepared.fitted
    asked = np.ones(len(fitted), dtype=bool) if asked is None else asked
    some = decision.take(asked[fitted])
    cells = None if prepared.cells is None else prepared.cells.take(asked[fitted])
    found = of_draws(some, cells, progress=progress, kept=kept)
    columns = with_direction(found.columns | calls_of(some), prepared.likelihood.effect)
    return Described(
        all_features.columns(prepared, asked, columns, found.flags),
        all_features.spread(fitted & asked, found.records),
        decision.learned,
    )


def calls_of(d: Decision) -> dict[str, Any]:
    """Columns of the calls."""
    return {
        "lfdr": d.lfdr,
        "qvalue": d.q_value,
        "pvalue": d.p_value,
        "log_bf": d.log_bf,
        "lfdr_graded": d.graded.lfdr,
        "qvalue_graded": d.q_graded,
        "log_bf_graded": d.graded.log_bf,
        "model": d.model,
    }


class OfDraws(NamedTuple):
    """What draws say of `T` features."""

    columns: dict[str, Any]  # each (T,)
    records: NDArray[np.float16]  # (T, 512)
    flags: dict[str, NDArray[np.bool_]]  # (T,) whether an engine converged, and whether draws had to be improved


def of_draws(
    d: Decision,
    cells: SingleCells | None,
    *,
    progress: Callable[[Any], Any],
    kept: Kept | None,
    coarse: bool = False,
) -> OfDraws:
    """Columns, records and flags of the best non-null curve of each feature.

    `coarse`: weight draws of coarser lattices, take slopes of fewer of them, and leave the records empty.
    """
    n_t = len(d.best)
    columns: dict[str, Any] = {}
    records = np.full((n_t, posterior_record.WIDTH), np.nan, dtype=np.float16)
    flags = {"converged": np.ones(n_t, dtype=bool), "improved": np.zeros(n_t, dtype=bool)}
    jobs = [  # the longest first, so that no thread has one left at the end
        Job(m, quick, index[s])
        for quick in (False, True)
        for m in reversed(range(1, len(d.evidence.comparison.curves)))
        for index in [np.flatnonzero((d.best == m) & (d.likely != quick))]
        for s in blocks(len(index))
    ]

    first_pass = _first_pass_tables(d, jobs)

    def call(job: Job) -> tuple[dict[str, Any], NDArray[np.float16], dict[str, Any]]:
        mine = None if cells is None else cells.take(job.features)
        return _describe_block(
            d.take(job.features), job.curve, mine, quick=job.quick, first_pass=first_pass, coarse=coarse
        )

    alone = d.evidence.settings.inference != "laplace"  # Pyro's state is one for all threads
    for job, (found, record, said) in each(call, jobs, progress, alone=alone, kept=under(kept, "rows")):
        for name, value in found.items():
            if name not in columns:
                text = value.dtype.kind in "UO"
                columns[name] = np.full(n_t, "" if text else np.nan, dtype=object if text else float)
            columns[name][job.features] = value
        records[job.features] = record
        for name, flag in said.items():
            flags[name][job.features] = flag
    return OfDraws(columns, records, flags)


def _describe_block(
    d: Decision,
    m: int,
    cells: SingleCells | None,
    *,
    quick: bool,
    first_pass: dict[int, tuple[Table, summary.Said | None]],
    coarse: bool,
) -> tuple[dict[str, Any], NDArray[np.float16], dict[str, Any]]:
    """Columns, records and flags of one block of features with curve `m`."""
    e = d.evidence
    if _by_first_pass(e, m, quick):
        return _describe_from_table(d, m, *first_pass[m])
    p, c, settings = e.problem, e.comparison.curves[m], e.settings
    drawn = draws_of(e, d.prior, m, quick=quick, coarse=coarse)
    out, const, fast = drawn.params, drawn.consts, settings.inference == "laplace"
    said: dict[str, Any] = {"improved": drawn.improved & fast, "converged": np.ones(len(out), dtype=bool)}
    if not fast:
        out, said["converged"] = _replace_draws(d, cells, c, const, out)
    out = _with_level_error(out, c, p.level_error, settings.seed)
    n_slopes = summary.SAID_DRAWS if coarse else summary.MEDIAN_DRAWS
    found: dict[str, Any] = summary.summarise(out, c, const, p.axis, p.likelihood, n_slopes=n_slopes)
    found |= _support(d, m, out, const, drawn.tau)
    k = drawn.pareto_k if fast else np.full(len(out), np.nan)  # of the fast engine's draws
    found |= {"guide_sd": drawn.tau / p.likelihood.effect_unit, "pareto_k": k}
    if c.one_step and not c.by_acting and not p.axis.from_zero:
        found["p_ec50_inside"] *= _plateau(e, c, drawn.tau)
    if coarse:
        return found, np.full((len(out), posterior_record.WIDTH), np.nan, dtype=np.float16), said
    return found, posterior_record.pack_block(_full_width(out, c), c, const), said


def _plateau(e: Evidence, c: Curve, tau: Floats) -> Floats | float:
    """Probability ``(T,)`` that a plateau was seen, where it can be told; of sets of guides by cells with one guide."""
    p, columns = e.problem, e.comparison.columns
    if p.shared is not None and p.one_dose_each:
        p = guide_sets.of_one_guide(p)
        if p.targeting.any():
            q = p.take(slice(0, 0)).guides(p.targeting)
            columns = {c.name: columns_of(q, c, e.comparison.lattices[c.name])}
    return 1.0 if columns is None else plateau.probability(p, c, columns[c.name], tau)


def _by_first_pass(e: Evidence, m: int, quick: bool) -> bool:
    """Whether a curve is described by the table of the first pass."""
    one_step = e.comparison.curves[m].one_step
    return quick and one_step and e.comparison.columns is not None and e.settings.inference == "laplace"


def _table(e: Evidence, m: int) -> Table:
    c = e.comparison
    columns, curve = c.columns or {}, c.curves[m]
    return table_of(e.problem, curve, c.lattices[curve.name].shapes, columns[curve.name], e.settings.seed)


def _first_pass_tables(d: Decision, jobs: list[Job]) -> dict[int, tuple[Table, summary.Said | None]]:
    """Of each curve the table for features that are not called, and what its Hills say, where a job needs it."""
    e, out = d.evidence, {}
    for m in {job.curve for job in jobs if _by_first_pass(e, job.curve, job.quick)}:
        table, c = shifted(_table(e, m)), e.comparison.curves[m]
        out[m] = table, None if c.by_acting else what_is_said(table, c, e.problem.axis, e.problem.likelihood.unit)
    return out


def _describe_from_table(
    d: Decision, m: int, table: Table, said: summary.Said | None
) -> tuple[dict[str, Any], NDArray[np.float16], dict[str, Any]]:
    """As `_describe_block`, by the table of the first pass."""
    p, c = d.evidence.problem, d.evidence.comparison.curves[m]
    drawn, column, place = _quick_draws(d.evidence, d.prior, m, table)
    found: dict[str, Any]
    if said is None:
        found = summary.summarise(drawn.params, c, drawn.consts, p.axis, p.likelihood)
    else:
        found = summary.summarise_said(drawn.params, c, said, column, place, p.axis, p.likelihood)
    # neighbours among the draws are alike, so every fourth is as good
    found |= _support(d, m, drawn.params[:, ::4], drawn.consts, drawn.tau)
    found |= {"guide_sd": drawn.tau / p.likelihood.effect_unit, "pareto_k": drawn.pareto_k}
    record = posterior_record.pack_block(drawn.params, c, drawn.consts, ordered=True)
    return found, record, {"improved": drawn.improved, "converged": np.ones(len(column), dtype=bool)}


def _quick_draws(e: Evidence, prior: Prior, m: int, table: Table) -> QuickDraws:
    grid, columns = e.comparison.grid, e.comparison.columns or {}
    tau_post = e.values[:, m] + prior.log_tau(grid)
    return quick_draws(
        e.problem, columns[e.comparison.curves[m].name], table, (np.log(grid), tau_post), e.settings.seed
    )


def draws_of(e: Evidence, prior: Prior, m: int, *, quick: bool, coarse: bool = False) -> Draws:
    """Draws of curve `m` by the fast engine, or out of the table of the first pass where there is one."""
    p, c, settings = e.problem, e.comparison.curves[m], e.settings
    if _by_first_pass(e, m, quick):
        return _quick_draws(e, prior, m, _table(e, m)).draws
    lattice, grid = e.comparison.lattices[c.name], e.comparison.grid
    shapes, tau_post = (lattice.shapes, lattice.consts), e.values[:, m] + prior.log_tau(grid)
    return draws.draws(
        p,
        c,
        shapes,
        e.masses[m - 1].astype(float),
        tau_post,
        grid,
        prior,
        seed=settings.seed,
        degree=settings.degree,
        quick=quick,
        smaller=coarse,
        n=min(settings.nsamples, QUICK_DRAWS) if quick else settings.nsamples,
    )


def _support(d: Decision, m: int, out: Floats, const: Floats, tau: Floats) -> dict[str, Floats]:
    """Columns that say whether single guides bear a response out; without the last one for likely nulls."""
    e, prior = d.evidence, d.prior
    p, c = e.problem, e.comparison.curves[m]
    # cells without effect dilute what a guide shows
    curves = summary.at_dosages(out, c, const, p.seen_by(c).dose_mean)
    at = np.log(p.dose_escape + (1 - p.dose_escape) * np.exp(curves))
    found, influence = guide_support.columns(p, np.median(out[..., 0], 1), at, tau, prior.log_odds)
    lattice, grid, likely = e.comparison.lattices[c.name], e.comparison.grid, d.likely
    log_tau = prior.log_tau(grid)
    two = leave_one_guide_out.two_taus(e.values[:, m] + log_tau, e.values[:, 0] + log_tau, grid, prior)
    found["log_bf_loo"] = np.full(len(tau), np.nan)
    shapes = leave_one_guide_out.leading_shapes(lattice, e.masses[m - 1][likely])
    found["log_bf_loo"][likely] = leave_one_guide_out.least_log_bf(
        p.take(likely),
        c,
        shapes,
        (two[0][likely], two[1][likely]),
        d.log_bf[likely],
        influence[likely],
        degree=e.settings.degree,
        pairs=e.comparison.pairs,
    )
    return found


def level_shifts(sd: float, n: int, seed: int) -> Floats:
    """Draws ``(n,)`` of the error of the NTC level, the same for every feature, as the error is."""
    return np.asarray(sd * np.random.default_rng([seed, 1]).permutation(ndtri((np.arange(n) + 0.5) / n)))


def _with_level_error(draws: Floats, c: Curve, sd: float, seed: int) -> Floats:
    """Draws ``(T, S, P)`` with the error of the NTC level, which shifts the dosages of all targeting guides alike.

    The curve moves along the axis with them, and with it what it says at a given dosage.
    """
    shift, out = level_shifts(sd, draws.shape[1], seed), draws.copy()
    for i, name in enumerate(c.params):
        if name.startswith("log2_ec50"):
            out[..., i] += shift
    return out


def _full_width(draws: Floats, c: Curve) -> Floats:
    """Zero coefficients for the powers above the degree of a polynomial."""
    missing = len(c.params) - draws.shape[-1]
    return np.pad(draws, ((0, 0), (0, 0), (0, missing))) if missing else draws


def _replace_draws(d: Decision, cells: SingleCells | None, c: Curve, const: Floats, init: Floats) -> tuple[Floats, Any]:
    """Posterior of another engine, started at the fast engine's draws."""
    p, settings = d.evidence.problem.seen_by(c), d.evidence.settings
    stats, dosage, hyper = for_pyro(p, d.prior, settings)
    more: dict[str, Any] = {}
    if cells is not None:
        dosage = acting(cells.dosage, cells.guide) if c.by_acting else cells.dosage
        stats, more = cells.stats, {"minibatch_size": settings.minibatch_size}
        hyper |= _wide_of(d.prior if settings.guide_effects else d.prior.without_wide(), np.arange(stats.n_guides))
    out, info = engines.engine(settings.inference).trans(
        stats,
        dosage,
        overdispersion=p.overdispersion,
        curve=c.name,
        axis=p.axis,
        priors=p.priors,
        hyper=hyper,
        consts=const,
        init=init,
        nsamples=settings.nsamples,
        niters=settings.niters,
        device=settings.device,
        rng=settings.seed,
        degree=settings.degree,
        **more,
    )
    return out, info["converged"]


def for_pyro(p: Problem, prior: Prior, settings: Settings) -> tuple[GuideStats, RowDosage, dict[str, Any]]:
    """What the Pyro engines take of a problem: sums, dosages and learned numbers."""
    d, w = p.design, np.exp(p.design.log_w)
    stats = GuideStats(
        p.counts,
        w,
        d.scale2 * w**2,
        p.guide,
        d.group,
        len(d.guide_start) - 1,
        int(d.group.max()) + 1,
        p.weights if p.weights.size else None,
        p.likelihood.name,
        p.covariates,
    )
    dosage = RowDosage(p.dose_mean[d.dose], p.dose_spread[d.dose], d.error, escape=p.dose_escape[d.dose])
    if not settings.guide_effects:
        prior = replace(prior, tau_log_mean=NO_TAU[0] + np.log(p.priors.unit), tau_log_sd=NO_TAU[1]).without_wide()
    hyper: dict[str, Any] = {
        "tau_log_mean": prior.tau_log_mean,
        "tau_log_sd": prior.tau_log_sd,
        "group_effect_sd": d.group_effect_sd,
        "several": float(p.several),
    }
    return stats, dosage, hyper | _wide_of(prior, p.codes)


def _wide_of(prior: Prior, codes: NDArray[np.int64] | None) -> dict[str, Any]:
    """Weight and sd of the wide effects: numbers, or those of guides with these codes."""
    if prior.departures is None or codes is None:
        return {"wide_weight": prior.wide_weight, "wide_sd": prior.wide_sd}
    weight, sd = prior.wide.of(codes, len(codes))
    return {"wide_weight": weight, "wide_sd": sd}
