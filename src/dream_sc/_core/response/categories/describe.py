"""Rows of features with categories: a row per category, and which of a feature's categories leads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dream_sc._core import engines
from dream_sc._core.curves.single_hill import CURVE as HILL
from dream_sc._core.parallel import blocks, each, under
from dream_sc._core.response import guide_support, leave_one_guide_out, posterior_record, summary
from dream_sc._core.response.describe import draws_of, for_pyro, level_shifts

from . import all_categories
from .draws import LinkDraws, draw_links
from .usage import Usage, usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.likelihoods import Likelihood
    from dream_sc._core.parallel import Kept
    from dream_sc._core.response.comparison import Lattice
    from dream_sc._core.response.describe import Described
    from dream_sc._core.response.prepare import Prepared
    from dream_sc._core.types import Axis

    from .decision import Decision
    from .evidence import CategoryEvidence
    from .links import Links

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

BLOCK = 16  # features


class OfDraws(NamedTuple):
    """What draws say of `F` features with `C` categories in all, in the order of their links, the rest last."""

    by_category: dict[str, Any]  # each (C,)
    by_feature: dict[str, Any]  # each (F,)
    records: NDArray[np.float16]  # (C, 512)
    leading: Ints  # (F,) the category whose usage moves most, an index into the C categories


def describe(
    decision: Decision,
    prepared: Prepared,
    links: Links,
    *,
    asked: NDArray[np.bool_] | None = None,
    progress: Callable[[Any], Any] = lambda x: x,
    kept: Kept | None = None,
) -> Described:
    """Describe the features that were fitted, by draws of the best curve of each; of those `asked` ``(F,)`` for."""
    asked = np.ones(len(prepared.reason), dtype=bool) if asked is None else asked
    found = of_draws(decision, asked[prepared.fitted], progress=progress, kept=kept)
    return all_categories.described(prepared, links, decision.calls, found, asked)


def of_draws(d: Decision, asked: NDArray[np.bool_], *, progress: Callable[[Any], Any], kept: Kept | None) -> OfDraws:
    """Draws of the best non-null curve of each feature, summed up; of those `asked` ``(F,)`` for."""
    spans, n_f = d.evidence.spans, len(d.evidence.spans.start)
    first = spans.start + np.arange(n_f)  # of the categories
    n_c, best, likely = int(spans.length.sum()) + n_f, d.calls.best, d.calls.likely
    jobs = [
        (m, quick, index[s])
        for m in range(1, len(d.evidence.links.comparison.curves))
        for quick in (False, True)
        for alone in (False, True)
        for index in [np.flatnonzero(asked & (best == m) & (likely != quick) & ((spans.length == 1) == alone))]
        for s in blocks(len(index), BLOCK)
    ]
    by_category: dict[str, Any] = {}
    by_feature: dict[str, Any] = {}
    records, leading = np.full((n_c, posterior_record.WIDTH), np.nan, dtype=np.float16), np.zeros(n_f, dtype=np.int64)

    def call(job: tuple[int, bool, Ints]) -> Any:
        return _block(d, *job)

    alone = d.evidence.links.settings.inference != "laplace"  # Pyro's state is one
    found = each(call, jobs, progress, alone=alone, kept=under(kept, "rows"))
    for (_, _, features), (of_categories, of_features, record, lead) in found:
        where = np.concatenate([first[f] + np.arange(spans.length[f] + 1) for f in features])
        _put(by_category, of_categories, where, n_c)
        _put(by_feature, of_features, features, n_f)
        records[where], leading[features] = record, where[lead]
    return OfDraws(by_category, by_feature, records, leading)


def _put(columns: dict[str, Any], found: dict[str, Any], at: Ints, n: int) -> None:
    """Put what was found of some into columns ``(n,)`` of all, in place."""
    for name, values in found.items():
        if name not in columns:
            text = values.dtype.kind in "UO"
            columns[name] = np.full(n, "" if text else np.nan, dtype=object if text else float)
        columns[name][at] = values


def _block(
    d: Decision, m: int, quick: bool, features: Ints
) -> tuple[dict[str, Any], dict[str, Any], NDArray[np.float16], Ints]:
    e = d.evidence.links
    p, like, c = e.problem, e.problem.likelihood, e.comparison.curves[m]
    if d.evidence.spans.length[features[0]] == 1:
        drawn = _binomials(d, m, features, quick=quick)
    else:
        drawn = draw_links(d.evidence, m, features, quick=quick)
    converged = np.ones(len(features))
    if e.settings.inference != "laplace" and not c.by_acting:  # of a switch the draws of the fast engine stay
        drawn, converged = _replace_draws(d.evidence, features, drawn)
    shares = usage(_with_level_error(drawn, p.level_error, e.settings.seed), c, p.axis)
    columns, records = _categories(shares, p.axis, like, one_hill=c is HILL)
    lead = _leading(columns[f"{like.effect}_range"], shares)
    found = _support(d, m, features, drawn, quick=quick)
    found |= {"pareto_k": drawn.pareto_k, "converged": converged}
    return columns, found, records, lead


def _with_level_error(drawn: LinkDraws, sd: float, seed: int) -> LinkDraws:
    """Draws with the error of the NTC level, which moves all curves along the axis."""
    shapes = drawn.shapes.copy()
    shapes[..., ::2] += level_shifts(sd, shapes.shape[1], seed)[:, None]  # the EC50 of each Hill
    return drawn._replace(shapes=shapes)


def _categories(
    shares: Usage, axis: Axis, like: Likelihood, *, one_hill: bool
) -> tuple[dict[str, Any], NDArray[np.float16]]:
    """Columns and records of all categories of a block."""
    n = len(shares.feature)
    columns: dict[str, Any] = {}
    records = np.full((n, posterior_record.WIDTH), np.nan, dtype=np.float16)
    for which, curve, params, consts in shares.parts():
        found: dict[str, Any] = summary.summarise(params, curve, consts, axis, like)
        if one_hill and curve is not HILL:  # the feature's Hill has an EC50 all the same
            found |= summary.of_steps(shares.hill[which], HILL, np.zeros((int(which.sum()), 2)), axis, like)
        _put(columns, found, np.flatnonzero(which), n)
        records[which] = posterior_record.pack_block(params, curve, consts)
    return columns, records


def _binomials(d: Decision, m: int, features: Ints, *, quick: bool) -> LinkDraws:
    """Draws of features with two categories, which are binomials."""
    link, spans = d.evidence.spans.links(features)
    e, log_bf = d.evidence.links, d.calls.log_bf[features]
    drawn = draws_of(e.take(link), d.evidence.prior, m, quick=quick)
    n_level = drawn.params.shape[-1] - e.comparison.curves[m].n_shape
    return LinkDraws(
        drawn.params[..., :n_level],
        drawn.params[..., n_level:],
        drawn.consts,
        np.zeros(len(link)),
        spans,
        log_bf,
        drawn.tau,
        drawn.pareto_k,
    )


def _replace_draws(e: CategoryEvidence, features: Ints, drawn: LinkDraws) -> tuple[LinkDraws, Floats]:
    """Draws of another engine, and which features converged; lags and which links move are the fast engine's."""
    settings, spans = e.links.settings, drawn.spans
    p = e.links.problem.take(e.spans.links(features)[0])
    surest = spans.start + np.array([part.argmax() for part in np.split(drawn.log_bf, spans.start[1:])])
    moves = drawn.log_bf > 0
    moves[surest] = True
    stats, dosage, hyper = for_pyro(p, e.prior, settings)
    params, shapes, converged = engines.engine(settings.inference).trans_chains(
        stats,
        dosage,
        np.repeat(np.arange(len(features)), spans.length),
        overdispersion=p.overdispersion,
        axis=p.axis,
        priors=p.priors,
        hyper=hyper,
        lag=drawn.lag,
        moves=moves,
        init=(drawn.params, drawn.shapes),
        nsamples=settings.nsamples,
        niters=settings.niters,
        device=settings.device,
        rng=settings.seed,
    )
    no_k = np.full(len(features), np.nan)  # weights are those of the fast engine's draws
    return drawn._replace(params=params, shapes=shapes, pareto_k=no_k), converged.astype(float)


def _leading(moved: Floats, shares: Usage) -> Ints:
    """Category of each feature that moves most, an index into those of the block."""
    cuts = np.flatnonzero(np.diff(shares.feature)) + 1
    parts = np.split(moved, cuts)
    offset = np.concatenate([[0], cuts])
    return np.array([o + part.argmax() for o, part in zip(offset, parts, strict=True)], dtype=np.int64)


def _support(d: Decision, m: int, features: Ints, drawn: LinkDraws, *, quick: bool) -> dict[str, Floats]:
    """What single guides say, for the link of each feature that moves most surely."""
    e, prior, spans = d.evidence.links, d.evidence.prior, drawn.spans
    grid, c = e.comparison.grid, e.comparison.curves[m]
    parts = np.split(drawn.log_bf, spans.start[1:])
    surest = spans.start + np.array([part.argmax() for part in parts])
    link = d.evidence.spans.links(features)[0][surest]
    p = e.problem.take(link)
    draws = np.concatenate([drawn.params[surest], drawn.shapes], 2)
    curves = summary.at_dosages(draws, c, drawn.consts, p.seen_by(c).dose_mean)
    at = np.log(p.dose_escape + (1 - p.dose_escape) * np.exp(curves))
    tau = drawn.tau[surest]
    found, influence = guide_support.columns(p, np.median(draws[..., 0], 1), at, tau, prior.log_odds)
    found |= {"guide_sd": tau / p.likelihood.effect_unit, "log_bf_loo": np.full(len(features), np.nan)}
    if not quick:
        values, log_tau = e.values[link], prior.log_tau(grid)
        two = leave_one_guide_out.two_taus(values[:, m] + log_tau, values[:, 0] + log_tau, grid, prior)
        posterior = d.evidence.posterior(m, features).astype(np.float32)
        shapes: Lattice = leave_one_guide_out.leading_shapes(e.comparison.lattices[c.name], posterior)
        found["log_bf_loo"] = leave_one_guide_out.least_log_bf(
            p, c, shapes, two, d.calls.log_bf[features], influence, degree=e.settings.degree
        )
    return found
