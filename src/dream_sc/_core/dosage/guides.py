"""The cis step: the latent dosage of guides and cells.

A cell of guide `g` has log2 dosage ``x ~ Normal(l_g, s_g)``; its count is negative binomial with the
overdispersion fixed at the technical estimate. That estimate holds the natural spread of unperturbed cells,
so `s_g` is the spread beyond that of NTC cells, and zero for NTC guides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.parallel import each
from dream_sc._core.stats.intervals import Z95
from dream_sc._core.types import CisFit

from . import escaping_cells, population
from .cell_dosages import GuideDosages, cell_dosages, two_parts
from .control_level import control_level
from .escaping_cells import SHARES
from .lattice import N_FINE, SPREADS, Guide, lattice

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.priors import CisPriors
    from dream_sc._core.types import CisCells

    from .control_level import ControlLevel
    from .lattice import Lattice

    Floats = NDArray[np.float64]

LEARNERS = 200  # guides, evenly taken from all, from which the priors of spread and share are learned
QUANTILES = (0.5, 0.025, 0.975)
NORMAL = np.array([0.0, -Z95, Z95])  # the same of a normal
WIDTH = 2 * Z95  # of its central 95 % interval, in sds


class Table(NamedTuple):
    """What is kept of the likelihood of each targeting guide, prior weights of spread and share in it."""

    curves: population.Curves
    spread: NDArray[np.float32]  # (G, X, S) probability of each spread at each mean
    share: dict[int, Floats]  # (X, K) probability of each share at each mean, of guides that may have two parts
    one_part: dict[int, Floats]  # (X, S) probability of one part with each spread at each mean, of these guides


class Found(NamedTuple):
    """Posterior of the guides' dosages, log2 relative to NTC."""

    acting: Floats  # (3, G) quantiles of the dosage of the acting cells
    every: Floats  # (3, G) of the mean dosage of all cells
    dosages: GuideDosages
    share: Floats  # (2, G) 2.5 and 97.5 % points of the share of escaping cells


def cis(cells: CisCells, priors: CisPriors, *, progress: Callable[[Any], Any] = lambda x: x) -> CisFit:
    """Dosage of guides and cells.

    Guide means are relative to the level of the NTC guides; a targeting guide's likelihood is combined with a
    Student t population of guides (or with what is known of it), an NTC guide's with a normal population around zero
    whose sd is learned.
    """
    phi = 1.0 / max(cells.overdispersion, 0.01) ** 2
    counts, exposure = cells.counts.astype(float), cells.exposure.astype(float)
    lat = lattice(counts, exposure, cells.guide.astype(np.int64), phi)
    ntc = control_level(lat, cells, priors)
    guides = np.flatnonzero(~cells.is_control)
    table, parts, correlation = _likelihoods(lat, cells, guides, ntc.level, priors, progress)
    known = None if cells.known is None else cells.known[guides]
    of_guide = np.zeros(len(guides), dtype=np.int64) if cells.population is None else cells.population[guides]
    p, (mu, sigma) = population.posterior(table.curves, of_guide, known, priors)
    extra = np.zeros(len(guides)) if cells.offset_var is None else cells.offset_var[guides]
    found = _with_controls(_summarise(table, p, extra, correlation), ntc, cells.is_control)
    of_cells = cell_dosages(cells, ntc.level, phi, found.dosages)
    hyper = {"mu": mu, "sigma": sigma, "ntc_guide_sd": ntc.sd, "within_median": parts.median, "ntc_level": ntc.level}
    every, acting = found.every, found.acting
    return CisFit(
        guide_mean=every[0],
        guide_sd=(every[2] - every[1]) / WIDTH,
        within_sd=np.sqrt(found.dosages.weights @ SPREADS**2),
        baseline_sd=ntc.error,
        cell_median=of_cells[:, 0],
        cell_sd=of_cells[:, 1],
        cell_q025=of_cells[:, 2],
        cell_q975=of_cells[:, 3],
        hyper=hyper,
        converged=bool(np.isfinite(every).all()),
        escape=found.dosages.escape,
        acting_mean=acting[0],
        acting_sd=(acting[2] - acting[1]) / WIDTH,
        interval=every[1:3],
        escape_interval=found.share,
    )


def _guides(cells: CisCells, guides: NDArray[np.int64], level: float) -> list[Guide]:
    """Counts of the cells that carry no guide of the cis gene but this, and what is known of each guide."""
    order, n = np.argsort(cells.guide, kind="stable"), len(cells.is_control)
    start = np.searchsorted(cells.guide[order], np.arange(n + 1))
    offset = np.zeros(n) if cells.offset is None else cells.offset
    before = np.full((n, 2), np.nan) if cells.known is None else cells.known
    out = []
    for g in guides:
        mine, (mean, sd) = order[start[g] : start[g + 1]], before[g]
        known = (float(mean) + level, float(sd)) if np.isfinite(mean) else None
        y, e = cells.counts[mine].astype(float), cells.exposure[mine].astype(float)
        floor = None if cells.floor is None else cells.floor[mine]
        out.append(Guide(y, e, offset=float(offset[g]), known=known, floor=floor))
    return out


def _likelihoods(
    lat: Lattice,
    cells: CisCells,
    guides: NDArray[np.int64],
    level: float,
    priors: CisPriors,
    progress: Callable[[Any], Any],
) -> tuple[Table, escaping_cells.Parts, Floats | None]:
    """The likelihood of every targeting guide, what was learned of spread and share, and the guides' correlations.

    The correlations are between all guides, where cells have several.
    """
    n, mine, begin = len(guides), _guides(cells, guides, level), escaping_cells.start(SPREADS, priors)

    def of(g: int, parts: escaping_cells.Parts = begin) -> escaping_cells.Shape:
        return escaping_cells.shape(lat, mine[g], level, parts, priors, two=True)

    learners = np.unique(np.linspace(0, n - 1, min(n, LEARNERS)).astype(np.int64)).tolist()
    few = n <= LEARNERS  # then the bar is over these, which is all
    shapes = dict(each(of, learners, progress if few else lambda x: x))
    parts = escaping_cells.learn(list(shapes.values()), SPREADS, priors)
    curves = population.Curves(*np.zeros((2, n, N_FINE)))
    table = Table(curves, np.zeros((n, N_FINE, len(SPREADS)), dtype=np.float32), {}, {})

    def fill(g: int) -> None:
        _fill(table, g, shapes[g] if g in shapes else of(g, parts), parts)

    for _ in each(fill, range(n), (lambda x: x) if few else progress):
        pass  # rows of their own, on all threads
    if not len(cells.sets):
        return table, parts, None
    from . import guide_sets

    alone = {int(guides[g]): escaping_cells.shape(lat, mine[g], level, parts, priors, two=False) for g in range(n)}
    refined, correlation = guide_sets.refine(lat, cells, alone, level, parts, priors)
    for g in range(n):
        if g not in table.share or _two_parts(table, g, priors) <= escaping_cells.LEAST_PROBABILITY:
            table.share.pop(g, None)
            _fill(table, g, refined[int(guides[g])], parts)
    return table, parts, correlation


def _fill(table: Table, g: int, found: escaping_cells.Shape, parts: escaping_cells.Parts) -> None:
    """Keep the likelihood of one guide, spread and share integrated, and what each mean says of these."""
    n_shares = found.value.shape[2]
    joint = found.value + parts.log[:, :n_shares]
    total = logsumexp(joint, axis=(1, 2))
    table.curves.x[g], table.curves.value[g] = found.x, total
    p = np.exp(joint - total[:, None, None])
    table.spread[g] = p.sum(2)
    if n_shares > 1:
        table.share[g], table.one_part[g] = p.sum(1), p[:, :, 0]


def _two_parts(table: Table, g: int, priors: CisPriors) -> float:
    """Probability that a guide has two parts, under a wide population."""
    x, value = table.curves.x[g], table.curves.value[g]
    p = population.normalised((value + population.log_student(x, 0.0, priors.sigma_scale, priors.guide_df))[None])[0]
    return float(p @ table.share[g][:, 1:].sum(1))


def _summarise(table: Table, p: Floats, extra: Floats, correlation: Floats | None) -> Found:
    """Summaries of the posterior weights ``(G, X)`` of the targeting guides' means, which have an `extra` variance."""
    x = table.curves.x
    acting = population.quantiles(x, p, QUANTILES)
    every, mean = acting.copy(), (p * x).sum(1)
    var = (p * (x - mean[:, None]) ** 2).sum(1)
    weights = np.einsum("gx,gxs->gs", p, table.spread)
    escape, two, shares = np.zeros(len(x)), {}, np.zeros((2, len(x)))
    for g, share in table.share.items():
        joint = p[g][:, None] * share
        every[:, g] = population.weighted_quantiles(*escaping_cells.overall(x[g], joint), QUANTILES)
        shares[:, g] = escaping_cells.share_quantiles(joint.sum(0), QUANTILES[1:])
        away = abs(every[0, g]) >= escaping_cells.LEAST_DOSAGE
        if away and joint[:, 1:].sum() > escaping_cells.LEAST_PROBABILITY:
            escape[g] = joint.sum(0) @ SHARES
        of_one = p[g][:, None] * table.one_part[g]
        of_two = p[g][:, None] * np.maximum(table.spread[g] - table.one_part[g], 0.0)
        two[g] = two_parts(x[g], of_one, of_two, float(joint.sum(0) @ SHARES), float(extra[g]))
    wider = NORMAL[:, None] ** 2 * extra
    acting, every = (q[0] + np.sign(NORMAL)[:, None] * np.sqrt((q - q[0]) ** 2 + wider) for q in (acting, every))
    return Found(acting, every, GuideDosages(mean, var + extra, SPREADS, weights, escape, correlation, two), shares)


def _with_controls(found: Found, ntc: ControlLevel, control: NDArray[np.bool_]) -> Found:
    """All guides: those of the NTC guides have a normal posterior."""

    def every(of_targeting: Floats, of_control: Floats) -> Floats:
        out = np.zeros((*of_targeting.shape[:-1], len(control)))
        out[..., ~control], out[..., control] = of_targeting, of_control
        return out

    half, d = np.sqrt(ntc.var), found.dosages
    of_controls = ntc.mean + NORMAL[:, None] * half
    weights = np.zeros((len(control), len(SPREADS)))
    weights[~control] = d.weights
    dosages = GuideDosages(
        every(d.mean, ntc.mean),
        every(d.var, ntc.var),
        SPREADS,
        weights,
        every(d.escape, np.zeros(len(half))),
        d.correlation,
        {int(np.flatnonzero(~control)[g]): parts for g, parts in d.two.items()},
    )
    share = every(found.share, np.full((2, len(half)), np.nan))
    return Found(every(found.acting, of_controls), every(found.every, of_controls), dosages, share)
