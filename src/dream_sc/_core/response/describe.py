"""The trans step's rows: posterior draws of the best curve of each feature, summed up in columns and records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import norm

from dream_sc._core import engines
from dream_sc._core.blocks import blocks, each, under
from dream_sc._core.response import draws
from dream_sc._core.response.problem import Problem
from dream_sc._core.types import GuideStats, RowDosage, SingleCells

from . import guide_support, leave_one_guide_out, posterior_record, summary
from .first_pass_draws import Looked, Table, quick_draws, shifted, table_of, what_is_said

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.blocks import Kept
    from dream_sc._core.curves import Curve

    from .decision import Prior
    from .evidence import Comparison
    from .fit import Options
    from .importance import Draws

    Floats = NDArray[np.float64]

NO_TAU = float(np.log(1e-3)), 0.1  # prior of log tau of the Pyro engines without guide effects
QUICK_DRAWS = 256  # of a feature that is not called


@dataclass(frozen=True)
class Choice:
    """What the choice of the curves leaves for their description."""

    problem: Problem
    comparison: Comparison
    prior: Prior
    values: Floats  # (T, M, K) log evidence of each curve
    masses: tuple[NDArray[np.float32], ...]  # (T, S) log, of each curve's shapes, up to a constant per feature
    log_bf: Floats  # (T,)
    options: Options
    cells: SingleCells | None = None

    def take(self, features: Any) -> Choice:
        """That of some features."""
        masses = tuple(mass[features] for mass in self.masses)
        return replace(
            self,
            problem=self.problem.take(features),
            values=self.values[features],
            masses=masses,
            log_bf=self.log_bf[features],
            cells=None if self.cells is None else self.cells.take(features),
        )

    @property
    def likely(self) -> NDArray[np.bool_]:
        """Which features rather respond than not."""
        return self.log_bf + log_odds(self.prior) > 0


class Job(NamedTuple):
    """A block of features with the same curve and effort."""

    curve: int
    quick: bool
    features: NDArray[np.int64]


def describe(
    choice: Choice, best: NDArray[np.int64], progress: Callable[[Any], Any], kept: Kept | None = None
) -> tuple[dict[str, Any], NDArray[np.float16], dict[str, Any]]:
    """Columns, records and diagnostics of the best non-null curve of each feature, its index `best` ``(T,)``."""
    n_t = len(best)
    columns: dict[str, Any] = {}
    records = np.full((n_t, posterior_record.WIDTH), np.nan, dtype=np.float16)
    diagnostics = {"converged": np.ones(n_t, dtype=bool), "improved": np.zeros(n_t, dtype=bool)}
    jobs = [  # the longest first, so that no thread has one left at the end
        Job(m, quick, index[s])
        for quick in (False, True)
        for m in reversed(range(1, len(choice.comparison.curves)))
        for index in [np.flatnonzero((best == m) & (choice.likely != quick))]
        for s in blocks(len(index))
    ]

    looked = _looked(choice, jobs)

    def call(job: Job) -> tuple[dict[str, Any], NDArray[np.float16], dict[str, Any]]:
        return _describe_block(choice.take(job.features), job.curve, quick=job.quick, looked=looked)

    alone = choice.options.inference != "laplace"  # Pyro's state is one for all threads
    for job, (found, record, said) in each(call, jobs, progress, alone=alone, kept=under(kept, "rows")):
        for name, value in found.items():
            if name not in columns:
                text = value.dtype.kind in "UO"
                columns[name] = np.full(n_t, "" if text else np.nan, dtype=object if text else float)
            columns[name][job.features] = value
        records[job.features] = record
        for name, flag in said.items():
            diagnostics[name][job.features] = flag
    return columns, records, diagnostics


def _describe_block(
    e: Choice, m: int, *, quick: bool, looked: tuple[Table, summary.Said] | None = None
) -> tuple[dict[str, Any], NDArray[np.float16], dict[str, Any]]:
    """Columns, records and diagnostics of one block of features with curve `m`."""
    if looked is not None and _by_look(e, m, quick):
        return _describe_looked(e, m, *looked)
    p, c, options = e.problem, e.comparison.curves[m], e.options
    drawn = draws_of(e, m, quick=quick)
    out, const, fast = drawn.params, drawn.consts, options.inference == "laplace"
    said: dict[str, Any] = {"improved": drawn.improved & fast, "converged": np.ones(len(out), dtype=bool)}
    if not fast:
        out, said["converged"] = _replace_draws(e, c, const, out)
    out = _with_level_error(out, c, p.level_error, options.seed)
    found: dict[str, Any] = summary.summarise(out, c, const, p.axis, p.likelihood)
    found |= _support(e, m, out, const, drawn.tau)
    k = drawn.pareto_k if fast else np.full(len(out), np.nan)  # of the fast engine's draws
    found |= {"guide_sd": drawn.tau / p.likelihood.effect_unit, "pareto_k": k}
    return found, posterior_record.pack_block(_full_width(out, c), c, const), said


def _by_look(e: Choice, m: int, quick: bool) -> bool:
    """Whether a curve is described by the table of the first look."""
    single = e.comparison.curves[m].name == "single_hill"
    return quick and single and e.comparison.columns is not None and e.options.inference == "laplace"


def _table(e: Choice, m: int) -> Table:
    c = e.comparison
    columns = c.columns or {}
    return table_of(e.problem, c.lattices[c.curves[m].name].shapes, columns[c.curves[m].name], e.options.seed)


def _looked(e: Choice, jobs: list[Job]) -> tuple[Table, summary.Said] | None:
    """The table for features that are not called, and what its curves say, where a job needs it."""
    for job in jobs:
        if _by_look(e, job.curve, job.quick):
            table = shifted(_table(e, job.curve))
            c = e.comparison.curves[job.curve]
            return table, what_is_said(table, c, e.problem.axis, e.problem.likelihood.unit)
    return None


def _describe_looked(
    e: Choice, m: int, table: Table, said: summary.Said
) -> tuple[dict[str, Any], NDArray[np.float16], dict[str, Any]]:
    """As `_describe_block`, by the table of the first look."""
    p, c = e.problem, e.comparison.curves[m]
    drawn, column, place = _look_up(e, m, table)
    found: dict[str, Any] = summary.summarise_said(drawn.params, c, said, column, place, p.axis, p.likelihood)
    # neighbours among the draws are alike, so every fourth is as good
    found |= _support(e, m, drawn.params[:, ::4], drawn.consts, drawn.tau)
    found |= {"guide_sd": drawn.tau / p.likelihood.effect_unit, "pareto_k": drawn.pareto_k}
    record = posterior_record.pack_block(drawn.params, c, drawn.consts, ordered=True)
    return found, record, {"improved": drawn.improved, "converged": np.ones(len(column), dtype=bool)}


def _look_up(e: Choice, m: int, table: Table) -> Looked:
    grid, columns = e.comparison.grid, e.comparison.columns or {}
    tau_post = e.values[:, m] + e.prior.log_tau(grid)
    return quick_draws(e.problem, columns[e.comparison.curves[m].name], table, (np.log(grid), tau_post), e.options.seed)


def draws_of(e: Choice, m: int, *, quick: bool) -> Draws:
    """Draws of curve `m` by the fast engine, or out of the table of the first look where there is one."""
    p, c, options = e.problem, e.comparison.curves[m], e.options
    if _by_look(e, m, quick):
        return _look_up(e, m, _table(e, m)).draws
    lattice, grid = e.comparison.lattices[c.name], e.comparison.grid
    shapes, tau_post = (lattice.shapes, lattice.consts), e.values[:, m] + e.prior.log_tau(grid)
    return draws.draws(
        p,
        c,
        shapes,
        e.masses[m - 1].astype(float),
        tau_post,
        grid,
        e.prior,
        seed=options.seed,
        degree=options.degree,
        quick=quick,
        n=min(options.nsamples, QUICK_DRAWS) if quick else options.nsamples,
    )


def log_odds(prior: Prior) -> float:
    """Prior log odds of a response."""
    return float(np.log1p(-prior.weights[0]) - np.log(prior.weights[0]))


def _support(e: Choice, m: int, out: Floats, const: Floats, tau: Floats) -> dict[str, Floats]:
    """Columns that say whether single guides bear a response out; without the last one for likely nulls."""
    p, c = e.problem, e.comparison.curves[m]
    # cells without effect dilute what a guide shows
    at = np.log(p.dose_escape + (1 - p.dose_escape) * np.exp(summary.at_dosages(out, c, const, p.dose_mean)))
    found, influence = guide_support.columns(p, np.median(out[..., 0], 1), at, tau, log_odds(e.prior))
    lattice, grid, likely = e.comparison.lattices[c.name], e.comparison.grid, e.likely
    log_tau = e.prior.log_tau(grid)
    two = leave_one_guide_out.two_taus(e.values[:, m] + log_tau, e.values[:, 0] + log_tau, grid, e.prior)
    found["log_bf_loo"] = np.full(len(tau), np.nan)
    shapes = leave_one_guide_out.leading_shapes(lattice, e.masses[m - 1][likely])
    found["log_bf_loo"][likely] = leave_one_guide_out.least_log_bf(
        p.take(likely),
        c,
        shapes,
        (two[0][likely], two[1][likely]),
        e.log_bf[likely],
        influence[likely],
        degree=e.options.degree,
    )
    return found


def level_shifts(sd: float, n: int, seed: int) -> Floats:
    """Draws ``(n,)`` of the error of the NTC level, the same for every feature, as the error is."""
    return np.asarray(sd * np.random.default_rng([seed, 1]).permutation(norm.ppf((np.arange(n) + 0.5) / n)))


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


def _replace_draws(e: Choice, c: Curve, const: Floats, init: Floats) -> tuple[Floats, Any]:
    """Posterior of another engine, started at the fast engine's draws."""
    p, options = e.problem, e.options
    stats, dosage, hyper = for_pyro(p, e.prior, options)
    more: dict[str, Any] = {}
    if e.cells is not None:
        stats, dosage, more = e.cells.stats, e.cells.dosage, {"minibatch_size": options.minibatch_size}
    out, info = engines.engine(options.inference).trans(
        stats,
        dosage,
        overdispersion=p.overdispersion,
        curve=c.name,
        axis=p.axis,
        priors=p.priors,
        hyper=hyper,
        consts=const,
        init=init,
        nsamples=options.nsamples,
        niters=options.niters,
        device=options.device,
        rng=options.seed,
        degree=options.degree,
        **more,
    )
    return out, info["converged"]


def for_pyro(p: Problem, prior: Prior, options: Options) -> tuple[GuideStats, RowDosage, dict[str, float]]:
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
    if not options.guide_effects:
        prior = replace(prior, tau_log_mean=NO_TAU[0] + np.log(p.priors.unit), tau_log_sd=NO_TAU[1], wide_weight=0.0)
    hyper = {
        "m_tau": prior.tau_log_mean,
        "s_tau": prior.tau_log_sd,
        "alpha_scale": d.alpha_sd,
        "turn": float(p.turn),
        "wide_weight": prior.wide_weight,
        "wide_sd": prior.wide_sd,
    }
    return stats, dosage, hyper
