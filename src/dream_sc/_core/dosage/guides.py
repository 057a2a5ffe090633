"""The cis step: the latent dosage of guides and cells, each cell integrated by adaptive quadrature.

A cell of guide `g` has log2 dosage ``x ~ Normal(l_g, s_g)``; its count is negative binomial with the
overdispersion fixed at the technical estimate. That estimate holds the natural spread of unperturbed cells,
so `s_g` is the spread beyond that of NTC cells, and zero for NTC guides.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import log, pi
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from dream_sc._core.parallel import each, in_runs
from dream_sc._core.types import CisFit

from . import escaping_cells
from .cells import each_cell, guide_mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from dream_sc._core.priors import CisPriors
    from dream_sc._core.types import CisCells

SPREADS = np.geomspace(0.03, 2.4, 15)
N_X = 161
ESCAPER_SD = 0.06  # log2: a grid point stands for the NTC level


def _guide_grids(
    cells: CisCells, nodes: np.ndarray, log_w: np.ndarray, progress: Callable[[Any], Any] = lambda x: x
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per guide and spread: log evidence, mean and variance of the guide's mean, from cells with no other guide.

    Controls have no spread; only their first entry is filled.
    """
    n_g = len(cells.is_control)
    phi = 1.0 / max(cells.overdispersion, 0.01) ** 2
    value, mean, var = (np.zeros((n_g, len(SPREADS))) for _ in range(3))
    none, order = np.empty(0), np.argsort(cells.guide, kind="stable")
    start = np.searchsorted(cells.guide[order], np.arange(n_g + 1))

    def fill(g: int) -> None:
        use = order[start[g] : start[g + 1]]
        y, e = cells.counts[use].astype(float), cells.exposure[use].astype(float)
        x = float(np.log2((y.sum() + 0.5) / (e.sum() + 0.5 * e.mean()))) if len(y) else 0.0
        for j, s in enumerate(SPREADS[:1] if cells.is_control[g] else SPREADS):
            v, x, variance = guide_mode(y, e, phi, x, float(s), none, nodes, log_w)
            mean[g, j], var[g, j] = x, variance
            value[g, j] = v + 0.5 * log(2 * pi * variance)

    for _ in each(fill, range(n_g), progress):
        pass  # rows of their own, on all threads
    return value, mean, var


def _control_sd(mean: np.ndarray, var: np.ndarray, scale: float) -> float:
    """Sd of the NTC guides' true means around zero: mode under a half-normal prior."""
    if len(mean) < 2:
        return scale / 2

    def loss(log_sd: float) -> float:
        v = var + np.exp(2 * log_sd)
        centre = (mean / v).sum() / (1 / v).sum()
        return float(0.5 * (np.log(v) + (mean - centre) ** 2 / v).sum() + 0.5 * (np.exp(log_sd) / scale) ** 2 - log_sd)

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(1e-3), np.log(1.0)), method="bounded").x))


def _spread_weights(value: np.ndarray, priors: CisPriors) -> tuple[np.ndarray, float]:
    """Posterior weights of each targeting guide's spread; the prior's median is learned over guides."""
    centre = log(priors.within_median)
    log_s = np.log(SPREADS)
    weights = np.zeros_like(value)
    for _ in range(100):
        lp = value - 0.5 * ((log_s - centre) / priors.within_log_sd) ** 2
        weights = np.exp(lp - logsumexp(lp, axis=1, keepdims=True))
        new = ((weights @ log_s).sum() + 3 * log(priors.within_median)) / (len(value) + 3)
        if abs(new - centre) < 1e-6:
            break
        centre = new
    return weights, float(np.exp(centre))


def cis(cells: CisCells, priors: CisPriors, *, progress: Callable[[Any], Any] = lambda x: x) -> CisFit:
    """Dosage of guides and cells.

    Guide means are relative to the mean of the NTC guides; a targeting guide's posterior is combined with a
    Student t population of guides (or with what is known of it), an NTC guide's with a normal population around zero
    whose sd is learned.
    """
    raw_nodes, raw_w = np.polynomial.hermite_e.hermegauss(9)
    nodes, log_w = raw_nodes, np.log(raw_w / raw_w.sum())
    value, mean, var = _guide_grids(cells, nodes, log_w, progress)
    control = cells.is_control
    c_mean, c_var = mean[control, 0], var[control, 0]
    sd_c = _control_sd(c_mean, c_var, priors.control_sd_scale)
    precision = 1 / (c_var + sd_c**2)
    level = float((precision * c_mean).sum() / precision.sum())
    escape, escape_sd, *two = escaping_cells.find(cells, SPREADS, (value, mean, var), level, priors, nodes, log_w)
    if len(cells.sets):
        from . import guide_sets

        *refined, correlation = guide_sets.refine(cells, SPREADS, (value, mean, var), level, priors, nodes, log_w)
        two = [np.where(escape[:, None] > 0, a, b) for a, b in zip(two, refined, strict=True)]
    value, mean, var = two
    guide_mean, guide_var, within = np.zeros(len(control)), np.zeros(len(control)), np.zeros(len(control))
    shrink = sd_c**2 / (sd_c**2 + c_var)
    guide_mean[control], guide_var[control] = shrink * (c_mean - level), shrink * c_var
    weights, centre = _spread_weights(value[~control], priors)
    w_mean = (weights * mean[~control]).sum(1) - level
    w_var = (weights * (var[~control] + mean[~control] ** 2)).sum(1) - (w_mean + level) ** 2
    guide_mean[~control], guide_var[~control], mu, sigma = _targeting(cells, w_mean, w_var, priors)
    within[~control] = np.sqrt(weights @ SPREADS**2)
    x, log_prior = _cell_priors(control, guide_mean, guide_var, weights, escape)
    if len(cells.sets):
        of_sets = _set_priors(cells.sets, guide_mean, guide_var, within, correlation)
        x, log_prior = (np.concatenate(pair) for pair in zip((x, log_prior), of_sets, strict=True))
    out = np.zeros((len(cells.counts), 4))
    phi = 1.0 / max(cells.overdispersion, 0.01) ** 2
    counts, guide = cells.counts.astype(float), cells.guide.astype(np.int64)
    in_runs(
        each_cell,
        len(counts),
        counts,
        cells.exposure * 2.0**level,
        phi,
        guide,
        x,
        log_prior,
        out,
        load=len(counts) * x.shape[1],
    )
    hyper = {"mu": mu, "sigma": sigma, "ntc_guide_sd": sd_c, "within_median": centre, "ntc_level": level}
    overall_mean, overall_sd = escaping_cells.overall(guide_mean, guide_var, escape, escape_sd)
    return CisFit(
        overall_mean,
        overall_sd,
        within,
        float(precision.sum() ** -0.5),
        out[:, 0],
        out[:, 1],
        out[:, 2],
        out[:, 3],
        hyper,
        bool(np.isfinite(guide_mean).all()),
        escape,
        guide_mean,
        np.sqrt(guide_var),
    )


def _targeting(
    cells: CisCells, mean: np.ndarray, var: np.ndarray, priors: CisPriors
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Means and variances of the targeting guides given their population, or what is known of one before.

    Centre and scale of the populations come last, the mean over them.
    """
    n = len(mean)
    population = np.zeros(n, int) if cells.population is None else cells.population[~cells.is_control]
    out, found = np.zeros((2, n)), []
    for one in np.unique(population):
        mine = population == one
        found.append(_population(mean[mine], var[mine], priors))
        out[:, mine] = _shrink(mean[mine], var[mine], *found[-1], priors.guide_df)
    if cells.known is not None:
        centre, sd = cells.known[~cells.is_control].T
        known = np.isfinite(centre)
        precision = 1 / var[known] + 1 / sd[known] ** 2
        out[:, known] = (mean[known] / var[known] + centre[known] / sd[known] ** 2) / precision, 1 / precision
    mu, sigma = np.mean(found, axis=0)
    return out[0], out[1], float(mu), float(sigma)


def _population(mean: np.ndarray, var: np.ndarray, priors: CisPriors) -> tuple[float, float]:
    """Centre and scale of the targeting guides' true means by EM, the scale kept wide when guides are few.

    A guide without counts has a mean far below and a variance to match; it must not set the scale.
    """
    n = len(mean)
    mu, sigma2 = float(np.average(mean, weights=1 / (var + priors.sigma_scale**2))), priors.sigma_scale**2
    for _ in range(100):
        keep = sigma2 / (sigma2 + var)
        post = mu + keep * (mean - mu)
        before, mu = mu, float(post.mean())
        sigma2 = float((((post - mu) ** 2 + keep * var).sum() + 2 * priors.sigma_scale**2) / (n + 2))
        if abs(mu - before) < 1e-8:
            break
    return mu, sigma2**0.5


def _shrink(mean: np.ndarray, var: np.ndarray, mu: float, sigma: float, df: float) -> tuple[np.ndarray, np.ndarray]:
    """Guide means and variances under the Student t population, its pull taken at the posterior."""
    pull = (df + 1) / df / sigma**2
    for _ in range(50):
        post = (mean / var + pull * mu) / (1 / var + pull)
        pull = (df + 1) / (df + ((post - mu) / sigma) ** 2) / sigma**2
    return (mean / var + pull * mu) / (1 / var + pull), 1 / (1 / var + pull)


def _cell_priors(
    control: np.ndarray, guide_mean: np.ndarray, guide_var: np.ndarray, weights: np.ndarray, escape: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each guide's density of a cell's log2 dosage on a grid, its spread integrated; a part may be at 0."""
    n_g = len(control)
    spread = np.zeros((n_g, len(SPREADS)))
    w = np.zeros((n_g, len(SPREADS)))
    w[control, 0] = 1.0
    spread[~control], w[~control] = SPREADS, weights
    sd = np.sqrt(spread**2 + guide_var[:, None] + 1e-6)
    half = 5.0 * np.sqrt((w * sd**2).sum(1)) + 2.5 * np.sqrt((w * spread**2).sum(1))
    low, high = guide_mean - half, guide_mean + half
    two = escape > 0
    low[two], high[two] = np.minimum(low[two], -4 * ESCAPER_SD), np.maximum(high[two], 4 * ESCAPER_SD)
    x = low[:, None] + np.linspace(0, 1, N_X) * (high - low)[:, None]
    d = (x - guide_mean[:, None])[:, :, None] / sd[:, None]
    log_prior = logsumexp(-0.5 * d**2 - np.log(sd)[:, None], b=w[:, None], axis=2)
    at_ntc = -0.5 * (x[two] / ESCAPER_SD) ** 2 - np.log(ESCAPER_SD)
    share = escape[two][:, None]
    log_prior[two] = np.logaddexp(np.log1p(-share) + log_prior[two], np.log(share) + at_ntc)
    return x, log_prior


def _set_priors(
    sets: np.ndarray, guide_mean: np.ndarray, guide_var: np.ndarray, within: np.ndarray, correlation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same for cells with several guides: a normal density, effects, their errors and spreads added up."""
    there = sets >= 0
    mean = np.where(there, guide_mean[sets], 0.0).sum(1)
    error = np.where(there, np.sqrt(guide_var)[sets], 0.0)
    shared = correlation[sets[:, :, None], sets[:, None, :]]
    var = np.einsum("ni,nij,nj->n", error, shared, error) + np.where(there, within[sets] ** 2, 0.0).sum(1)
    sd = np.sqrt(np.maximum(var, 0.0) + 1e-6)
    z = np.linspace(-7.5, 7.5, N_X)
    return mean[:, None] + sd[:, None] * z, np.repeat(-0.5 * z[None] ** 2, len(sets), 0)
