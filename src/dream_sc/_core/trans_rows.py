"""The trans step's rows: posterior draws of the best curve of each feature, summed up in columns and records."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm

from . import engines, loo, posterior, summary, support
from .blocks import blocks
from .engines import laplace
from .types import GuideStats, RowDosage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .calls import Prior
    from .dose_response import Curve
    from .evidence import Lattice
    from .trans import Options

    Floats = NDArray[np.float64]

NO_TAU = float(np.log(1e-3)), 0.1  # prior of log tau of the Pyro engines without guide effects
QUICK_DRAWS = 256  # of a feature that is not called


def describe(
    p: laplace.Problem,
    curves: list[Curve],
    lattices: dict[str, Any],
    grid: Floats,
    prior: Prior,
    best: Any,
    values: Floats,
    single: NDArray[np.float32],
    log_bf: Floats,
    options: Options,
    progress: Callable[[Any], Any],
) -> tuple[dict[str, Any], NDArray[np.float16], dict[str, Any]]:
    """Columns, records and diagnostics of the best non-null curve of each feature.

    Parameters
    ----------
    best
        ``(T,)`` index of the curve.
    values
        ``(T, M, K)`` log evidence of each curve.
    single
        ``(T, S, K)`` log evidence of one Hill on its lattice, shape prior included.
    """
    n_t = len(p.counts)
    columns: dict[str, Any] = {}
    records = np.full((n_t, posterior.WIDTH), np.nan, dtype=np.float16)
    diagnostics = {"converged": np.ones(n_t, dtype=bool), "improved": np.zeros(n_t, dtype=bool)}
    log_tau = prior.log_tau(grid)
    likely = log_bf + _log_odds(prior) > 0
    jobs = [
        (m, quick, idx[s])
        for m in range(1, len(curves))
        for quick in (False, True)
        for idx in [np.flatnonzero((best == m) & (likely != quick))]
        for s in blocks(len(idx))
    ]
    for m, quick, index in progress(jobs):
        c = curves[m]
        lattice = lattices[c.name]
        sub = p.take(index)
        if c.name == "single_hill":
            log_post = single[index] + log_tau
        else:
            log_post = _at_best_tau(sub, c, lattice, grid, values[index, m], options) + log_tau
        drawn = laplace.draws(
            sub, c, (lattice.shapes, lattice.consts), log_post, grid, prior, seed=options.seed,
            n=min(options.nsamples, QUICK_DRAWS) if quick else options.nsamples, degree=options.degree, quick=quick,
        )  # fmt: skip
        out, const = drawn.params, drawn.consts
        diagnostics["improved"][index] = drawn.improved & (options.inference == "laplace")
        if options.inference != "laplace":
            out, ok = _replace_draws(sub, c, const, out, prior, options)
            diagnostics["converged"][index] = ok
        out = _with_level_error(out, c, p.level_error, options.seed)
        found = summary.summarise(out, c, const, p.axis)
        found |= _support(
            sub, m, curves, lattices, grid, prior, out, const, drawn.tau, values[index], log_bf[index], options.degree
        )
        k = drawn.pareto_k if options.inference == "laplace" else np.nan  # of the fast engine's draws
        found |= {"guide_sd": drawn.tau / np.log(2), "pareto_k": np.broadcast_to(k, len(index)).astype(float)}
        for name, value in found.items():
            if name not in columns:
                text = value.dtype.kind in "UO"
                columns[name] = np.full(n_t, "" if text else np.nan, dtype=object if text else float)
            columns[name][index] = value
        records[index] = posterior.pack_block(_full_width(out, c), c, const)
    return columns, records, diagnostics


def _at_best_tau(
    p: laplace.Problem, c: Curve, lattice: Lattice, grid: Floats, value: Floats, options: Options
) -> Floats:
    """Log evidence ``(T, S, K)`` on the lattice: shapes at the likeliest tau, taus by `value` ``(T, K)``."""
    best = value.argmax(1)[:, None]
    log_z = laplace.evidence(p, c, lattice.shapes[None], lattice.consts[None], grid[best], degree=options.degree)[0]
    return log_z + lattice.log_weight[:, None] + (value - np.take_along_axis(value, best, 1))[:, None]


def _log_odds(prior: Prior) -> float:
    """Prior log odds of a response."""
    return float(np.log1p(-prior.weights[0]) - np.log(prior.weights[0]))


def _support(
    p: laplace.Problem, m: int, curves: list[Curve], lattices: dict[str, Any], grid: Floats, prior: Prior,
    out: Floats, const: Floats, tau: Floats, values: Floats, log_bf: Floats, degree: int,
) -> dict[str, Floats]:  # fmt: skip
    """Columns that say whether single guides bear a response out; without the last one for likely nulls."""
    c = curves[m]
    log_odds = _log_odds(prior)
    # cells without effect dilute what a guide shows
    at = np.log(p.dose_escape + (1 - p.dose_escape) * np.exp(summary.at_dosages(out, c, const, p.dose_mean)))
    found, influence = support.columns(p, np.median(out[..., 0], 1), at, tau, log_odds)
    log_tau = prior.log_tau(grid)
    two = loo.two_taus(values[:, m] + log_tau, values[:, 0] + log_tau, grid, prior)
    likely = log_bf + log_odds > 0
    found["log_bf_loo"] = np.full(len(log_bf), np.nan)
    found["log_bf_loo"][likely] = loo.least_log_bf(
        p.take(likely), c, lattices[c.name], (two[0][likely], two[1][likely]), log_bf[likely], influence[likely],
        degree=degree,
    )  # fmt: skip
    return found


def _with_level_error(draws: Floats, c: Curve, sd: float, seed: int) -> Floats:
    """Draws ``(T, S, P)`` with the error of the NTC level, which shifts the dosages of all targeting guides alike.

    The curve moves along the axis with them, and with it what it says at a given dosage. The draws of the error are the
    same for every feature, as the error is.
    """
    n = draws.shape[1]
    shift = sd * np.random.default_rng([seed, 1]).permutation(norm.ppf((np.arange(n) + 0.5) / n))
    out = draws.copy()
    for i, name in enumerate(c.params):
        if name.startswith("log2_ec50"):
            out[..., i] += shift
    return out


def _full_width(draws: Floats, c: Curve) -> Floats:
    """Zero coefficients for the powers above the degree of a polynomial."""
    missing = len(c.params) - draws.shape[-1]
    return np.pad(draws, ((0, 0), (0, 0), (0, missing))) if missing else draws


def _replace_draws(
    p: laplace.Problem, c: Curve, const: Floats, init: Floats, prior: Prior, options: Options
) -> tuple[Floats, Any]:
    """Posterior of another engine, started at the fast engine's draws."""
    engine, d = engines.engine(options.inference), p.design
    w = np.exp(d.log_w)
    stats = GuideStats(
        p.counts, w, d.scale2 * w**2, p.guide, d.group, len(d.guide_start) - 1, int(d.group.max()) + 1
    )
    dosage = RowDosage(p.dose_mean[d.dose], p.dose_spread[d.dose], d.error, escape=p.dose_escape[d.dose])
    if not options.guide_effects:
        prior = replace(prior, tau_log_mean=NO_TAU[0], tau_log_sd=NO_TAU[1], wide_weight=0.0)
    hyper = {
        "m_tau": prior.tau_log_mean, "s_tau": prior.tau_log_sd, "alpha_scale": d.alpha_sd, "turn": float(p.turn),
        "wide_weight": prior.wide_weight, "wide_sd": prior.wide_sd,
    }  # fmt: skip
    out, info = engine.trans(
        stats, dosage, overdispersion=p.overdispersion, curve=c.name, axis=p.axis, priors=p.priors, hyper=hyper,
        consts=const, init=init, nsamples=options.nsamples, niters=options.niters, device=options.device,
        rng=options.seed, degree=options.degree,
    )  # fmt: skip
    return out, info["converged"]
