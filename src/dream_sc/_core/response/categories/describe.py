"""Rows of features with categories: a row per category, and which of a feature's categories leads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from dream_sc._core import engines
from dream_sc._core.blocks import blocks, each, under
from dream_sc._core.likelihoods.binomial import ec50_of_share
from dream_sc._core.response import guide_support, leave_one_guide_out, posterior_record, summary
from dream_sc._core.response.describe import Choice, draws_of, for_pyro, level_shifts, log_odds

from .draws import StickDraws, draw_sticks
from .usage import Usage, usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.blocks import Kept
    from dream_sc._core.likelihoods import Likelihood
    from dream_sc._core.response.evidence import Lattice
    from dream_sc._core.response.fit import Options
    from dream_sc._core.types import Axis

    from .evidence import ChainFit

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

BLOCK = 16  # features


@dataclass(frozen=True)
class ChainRows:
    """What the table says, by category and by feature."""

    by_category: dict[str, Any]  # each (C,), categories in the order of their sticks, the one without a stick last
    by_feature: dict[str, Any]  # each (F,)
    records: NDArray[np.float16]  # (C, 512)
    leading: Ints  # (F,) the category whose usage moves most, an index into the C categories


def describe(
    fit: ChainFit,
    options: Options,
    progress: Callable[[Any], Any],
    kept: Kept | None = None,
    report: NDArray[np.bool_] | None = None,
) -> ChainRows:
    """Draws of the best non-null curve of each feature, summed up; of those to `report` ``(F,)``, if given."""
    e = fit.evidence
    chains, n_f = e.chains, len(e.chains.start)
    first = chains.start + np.arange(n_f)  # of the categories
    n_c = int(chains.length.sum()) + n_f
    likely, asked = e.log_bf + log_odds(e.prior) > 0, np.ones(n_f, dtype=bool) if report is None else report
    jobs = [
        (m, quick, index[s])
        for m in range(1, len(e.comparison.curves))
        for quick in (False, True)
        for alone in (False, True)
        for index in [np.flatnonzero(asked & (fit.best == m) & (likely != quick) & ((chains.length == 1) == alone))]
        for s in blocks(len(index), BLOCK)
    ]
    by_category: dict[str, Any] = {}
    by_feature: dict[str, Any] = {}
    records, leading = np.full((n_c, posterior_record.WIDTH), np.nan, dtype=np.float16), np.zeros(n_f, dtype=np.int64)

    def call(job: tuple[int, bool, Ints]) -> Any:
        return _block(fit, options, *job)

    for (_, _, features), (of_categories, of_features, record, lead) in each(
        call,
        jobs,
        progress,
        alone=options.inference != "laplace",
        kept=under(kept, "rows"),  # Pyro's state is one
    ):
        where = np.concatenate([first[f] + np.arange(chains.length[f] + 1) for f in features])
        for store, found, at, n in ((by_category, of_categories, where, n_c), (by_feature, of_features, features, n_f)):
            for name, values in found.items():
                if name not in store:
                    text = values.dtype.kind in "UO"
                    store[name] = np.full(n, "" if text else np.nan, dtype=object if text else float)
                store[name][at] = values
        records[where], leading[features] = record, where[lead]
    return ChainRows(by_category, by_feature, records, leading)


def _block(
    fit: ChainFit, options: Options, m: int, quick: bool, features: Ints
) -> tuple[dict[str, Any], dict[str, Any], NDArray[np.float16], Ints]:
    e = fit.evidence
    p, like = e.problem, e.problem.likelihood
    if e.chains.length[features[0]] == 1:
        drawn = _binomials(fit, m, features, options, quick=quick)
    else:
        drawn = draw_sticks(e, m, features, options, quick=quick)
    converged = np.ones(len(features))
    if options.inference != "laplace":
        drawn, converged = _replace_draws(fit, features, drawn, options)
    shares = usage(_with_level_error(drawn, p.level_error, options.seed), e.comparison.curves[m], p.axis)
    columns, records = _categories(shares, p.axis, like, one_hill=e.comparison.curves[m].name == "single_hill")
    lead = _leading(columns[f"{like.effect}_range"], shares)
    found = _support(fit, m, features, drawn, quick=quick, degree=options.degree)
    found |= {"pareto_k": drawn.pareto_k, "converged": converged}
    return columns, found, records, lead


def _with_level_error(drawn: StickDraws, sd: float, seed: int) -> StickDraws:
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
        if one_hill and curve.name == "polynomial":  # the feature's Hill has an EC50 all the same
            found |= _of_hill(shares.hill[which], axis)
        for name, values in found.items():
            if name not in columns:
                text = values.dtype.kind in "UO"
                columns[name] = np.full(n, "" if text else np.nan, dtype=object if text else float)
            columns[name][which] = values
        records[which] = posterior_record.pack_block(params, curve, consts)
    return columns, records


def _of_hill(hill: Floats, axis: Axis) -> dict[str, Floats]:
    """EC50, coefficient and amplitude of categories ``(C, N, 4)`` whose curve is written as a polynomial."""
    a, b, k, n = hill[..., 0], hill[..., 1], hill[..., 2], np.exp(hill[..., 3])
    low = a + summary.from_ntc_to_low(b, k, n)
    ec50 = ec50_of_share(k, n, low, low + b)
    found = summary.of_hill(ec50, np.sign(b) * n, expit(low + b) - expit(low))
    return found | {"p_ec50_inside": summary.inside(ec50, axis)}


def _binomials(fit: ChainFit, m: int, features: Ints, options: Options, *, quick: bool) -> StickDraws:
    """Draws of features with two categories, which are binomials."""
    e = fit.evidence
    stick, chains = e.chains.sticks(features)
    masses = tuple(mass[stick] for mass in e.found.masses)
    values = e.found.values[stick]
    choice = Choice(e.problem.take(stick), e.comparison, e.prior, values, masses, e.log_bf[features], options)
    drawn = draws_of(choice, m, quick=quick)
    n_level = drawn.params.shape[-1] - e.comparison.curves[m].n_shape
    return StickDraws(
        drawn.params[..., :n_level],
        drawn.params[..., n_level:],
        drawn.consts,
        np.zeros(len(stick)),
        chains,
        e.log_bf[features],
        drawn.tau,
        drawn.pareto_k,
    )


def _replace_draws(fit: ChainFit, features: Ints, drawn: StickDraws, options: Options) -> tuple[StickDraws, Floats]:
    """Draws of another engine, and which features converged; lags and which sticks move are the fast engine's."""
    e, chains = fit.evidence, drawn.chains
    p = e.problem.take(e.chains.sticks(features)[0])
    surest = chains.start + np.array([part.argmax() for part in np.split(drawn.log_bf, chains.start[1:])])
    moves = drawn.log_bf > 0
    moves[surest] = True
    stats, dosage, hyper = for_pyro(p, e.prior, options)
    params, shapes, converged = engines.engine(options.inference).trans_chains(
        stats,
        dosage,
        np.repeat(np.arange(len(features)), chains.length),
        overdispersion=p.overdispersion,
        axis=p.axis,
        priors=p.priors,
        hyper=hyper,
        lag=drawn.lag,
        moves=moves,
        init=(drawn.params, drawn.shapes),
        nsamples=options.nsamples,
        niters=options.niters,
        device=options.device,
        rng=options.seed,
    )
    no_k = np.full(len(features), np.nan)  # weights are those of the fast engine's draws
    return drawn._replace(params=params, shapes=shapes, pareto_k=no_k), converged.astype(float)


def _leading(moved: Floats, shares: Usage) -> Ints:
    """Category of each feature that moves most, an index into those of the block."""
    cuts = np.flatnonzero(np.diff(shares.feature)) + 1
    parts = np.split(moved, cuts)
    offset = np.concatenate([[0], cuts])
    return np.array([o + part.argmax() for o, part in zip(offset, parts, strict=True)], dtype=np.int64)


def _support(
    fit: ChainFit, m: int, features: Ints, drawn: StickDraws, *, quick: bool, degree: int
) -> dict[str, Floats]:
    """What single guides say, for the stick of each feature that moves most surely."""
    e, chains = fit.evidence, drawn.chains
    c, lattice = e.comparison.curves[m], e.comparison.lattices[e.comparison.curves[m].name]
    parts = np.split(drawn.log_bf, chains.start[1:])
    surest = chains.start + np.array([part.argmax() for part in parts])
    stick = e.chains.sticks(features)[0][surest]
    p = e.problem.take(stick)
    draws = np.concatenate([drawn.params[surest], drawn.shapes], 2)
    curves = summary.at_dosages(draws, c, drawn.consts, p.dose_mean)
    at = np.log(p.dose_escape + (1 - p.dose_escape) * np.exp(curves))
    tau = drawn.tau[surest]
    found, influence = guide_support.columns(p, np.median(draws[..., 0], 1), at, tau, log_odds(e.prior))
    found |= {"guide_sd": tau / p.likelihood.effect_unit, "log_bf_loo": np.full(len(features), np.nan)}
    if not quick:
        values, log_tau = e.found.values[stick], e.prior.log_tau(e.comparison.grid)
        two = leave_one_guide_out.two_taus(values[:, m] + log_tau, values[:, 0] + log_tau, e.comparison.grid, e.prior)
        shapes: Lattice = leave_one_guide_out.leading_shapes(lattice, e.posterior(m, features).astype(np.float32))
        found["log_bf_loo"] = leave_one_guide_out.least_log_bf(
            p, c, shapes, two, e.log_bf[features], influence, degree=degree
        )
    return found
