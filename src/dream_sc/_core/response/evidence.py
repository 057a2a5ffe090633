"""Evidence of every feature for each curve, with effort spent where it can change a call.

A first pass gives every feature the evidence of every curve. Where it leaves a response possible, the
kernel follows: a few leading shapes of the curve's lattice at every tau, the shapes that hold most of the mass at the
taus that matter. The rest of the mass keeps its ratio to them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.parallel import BLOCK, each_block, under
from dream_sc._core.response.problem import Problem, evidence, problem

from . import guide_sets
from .comparison import set_up
from .departures import learn_departures
from .first_pass import Columns, Null, by_movements, from_one_tau, from_two_taus, null_of
from .joint_departures import with_pairs
from .learned import Prior, Wide, restored_wide
from .ntc_level import start_again
from .wide_effects import learn_wide

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.parallel import Kept

    from .comparison import Comparison, Lattice
    from .prepare import Prepared
    from .settings import Settings

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# log Bayes factors against the null, or of two Hills against one
NO_HOPE = 0.5  # after a first pass, of one Hill and of two: left there
NO_SECOND = -5.0  # of two Hills against one, after a first pass
LESS_SECOND = -1.5  # the same in a screen: the kernel finds 0.5 more at most than the first pass
HOPELESS_SECOND = -2.5  # of two Hills, at the likeliest tau of one: not tried at others
MATTERS = 5.0  # taus whose evidence is this far below the best keep what the leaders say
TAU_TRIES = 3  # of two Hills
LEADERS = 8  # shapes at every tau


@dataclass(frozen=True)
class Evidence:
    """What the sums say of each of `M` curves, the null first, at `K` sds of the guide effects."""

    problem: Problem  # of `T` features
    comparison: Comparison
    settings: Settings
    wide: Wide  # effects of guides
    values: Floats  # (T, M, K) log evidence
    masses: tuple[NDArray[np.float32], ...]  # (T, S) log, of each curve's shapes, up to a constant per feature
    feature: Ints | None = None  # (T,) of each link of features with several categories
    learns: NDArray[np.bool_] | None = None  # (T,) of `Prepared`

    @property
    def learning(self) -> Evidence:
        """That of the features that something is learned from."""
        return self if self.learns is None or not self.learns.any() else self.take(self.learns)

    def take(self, features: Any) -> Evidence:
        """That of some features."""
        return replace(
            self,
            problem=self.problem.take(features),
            values=self.values[features],
            masses=tuple(mass[features] for mass in self.masses),
            feature=None if self.feature is None else self.feature[features],
            learns=None if self.learns is None else self.learns[features],
        )


def problem_of(prepared: Prepared) -> Problem:
    """The problem of the features that can be fitted."""
    used = prepared.used
    return problem(
        prepared.stats.take(used),
        prepared.dosage,
        prepared.overdispersion[used],
        group_effect_sd=prepared.group_effect_sd,
        axis=prepared.axis,
        priors=prepared.priors,
    )


def gather(
    prepared: Prepared,
    settings: Settings,
    *,
    progress: Callable[[Any], Any] = lambda x: x,
    kept: Kept | None = None,
) -> Evidence:
    """Gather the evidence of every feature that can be fitted."""
    links = prepared.links
    if links is not None:  # how much two Hills turn, no single link can tell
        settings = replace(settings, one_step=True)
    p = problem_of(prepared)
    learns = prepared.learns if links is None else None
    found = evaluate(p, settings, _wide(p, learns, settings, prepared.stats.n_guides), progress=progress, kept=kept)
    return replace(found, learns=learns) if links is None else replace(found, feature=links.feature[prepared.used])


def _wide(p: Problem, learns: NDArray[np.bool_] | None, settings: Settings, n_guides: int) -> Wide:
    """The wide effects: of an earlier fit, or learned from the features that something is learned from."""
    if not settings.guide_effects:
        return Wide(0.0, 0.0)
    if settings.learned is not None:
        return restored_wide(settings.learned)
    q = p if learns is None or not learns.any() else p.take(learns)
    if p.shared is not None:  # sets of guides say nothing of single ones
        return Wide(*learn_wide(guide_sets.alone(q.guides(~q.targeting)), np.array(p.priors.tau_grid)))
    grid = np.array(p.priors.tau_grid)
    wide = Wide(*learn_wide(q, grid))
    found = learn_departures(q, settings, wide, n_guides)
    codes = np.asarray(q.codes)
    if found is None or not found.own[codes[~q.targeting]].any():
        return wide._replace(departures=found)
    # what one NTC guide does on its own says nothing of guides in general
    general = Wide(*learn_wide(q.guides(q.targeting | ~found.own[codes]), grid))
    return general._replace(departures=found.beside(general))


def evaluate(
    p: Problem,
    settings: Settings,
    wide: tuple[float, float] | Wide,
    *,
    progress: Callable[[Any], Any] = lambda x: x,
    kept: Kept | None = None,
) -> Evidence:
    """Evidence of every feature of a problem, with these wide guide effects."""
    p, c = set_up(p, settings, wide, kept)

    def call(s: slice) -> tuple[Any, ...]:
        return block_evidence(p.take(s), c)

    parts = each_block(call, len(p.counts), progress, kept=under(kept, "evidence"))
    values, masses = zip(*parts, strict=True)
    of_curves = tuple(np.concatenate(mass) for mass in zip(*masses, strict=True))
    return Evidence(p, c, settings, Wide(*wide), np.concatenate(values), of_curves)


class Found(NamedTuple):
    """Log evidence of a block of features."""

    values: Floats  # (T, M, K) of each curve at each tau
    masses: tuple[NDArray[np.float32], ...]  # (T, S) of each curve's shapes, up to a constant per feature


def block_evidence(p: Problem, c: Comparison, *, whole: bool = False, prior: Prior | None = None) -> Found:
    """Evidence of one block of features; `whole` spends all effort on all of them, as where there is no first pass.

    Given the `prior` of the guide effects, as in a screen, the first pass is from the sd that is likeliest under it.
    """
    grid, taus = c.grid, p.taus(c.grid)
    null = null_of(p, taus)
    values = np.full((len(taus), len(c.curves), len(grid)), -np.inf)
    values[:, 0] = null.log_z
    weight = np.zeros(taus.shape) if p.tau_weight is None else p.tau_weight
    start = Prior.start(p.priors).log_tau(grid)
    if whole or (c.columns is None and p.shared is None):
        masses = []
        for m, each in enumerate(c.curves[1:], 1):
            log_z = _everywhere(p, c, each)
            values[:, m] = logsumexp(log_z, axis=1)
            masses.append(logsumexp(log_z + (start + weight)[:, None], axis=2))
    else:
        if c.columns is None:
            factors, looked = _first_pass_by_kernel(p, c, null, taus)
        else:
            factors, looked = _first_pass(
                p, c.columns, null, taus, None if prior is None else prior.log_tau(grid) + weight
            )
        masses = [looked[each.name] for each in c.curves[1:]]
        values[:, 1:] = null.log_z[:, None] + factors
        start_again(p, c, null, taus, values, masses)
        by_curve = logsumexp(values[:, 1:], axis=2) - logsumexp(null.log_z, axis=1)[:, None]
        rows = np.flatnonzero(by_curve.max(1) > NO_HOPE)
        if len(rows):
            least = NO_SECOND if prior is None else LESS_SECOND
            _closely(p, c, rows, by_curve[rows], values, masses, start + weight, least=least)
    if c.pairs:
        values[:, 0] = with_pairs(p, c.pairs, values[:, 0], taus)
        values[:, 1:] += sum(np.log1p(-pair.weight) for pair in c.pairs)
    relative = (mass - mass.max(1, keepdims=True) for mass in masses)
    return Found(values + weight[:, None], tuple(mass.astype(np.float32) for mass in relative))


def _first_pass(
    p: Problem, columns: dict[str, Columns], null: Null, taus: Floats, log_tau: Floats | None
) -> tuple[Floats, dict[str, Floats]]:
    """The first pass, which runs on the CPU: a large block is shared out between its threads."""
    if log_tau is not None:
        at = np.where(taus > 0, null.log_z + log_tau, -np.inf).argmax(1)
        return from_one_tau(p, columns, null, taus, at)

    def call(s: slice) -> tuple[Floats, dict[str, Floats]]:
        q = p.take(s)
        ntc = None if q.background is None else q.background.evidence(taus[s])
        return by_movements(q, columns, Null(*(values[s] for values in null)), taus[s], ntc)

    if len(taus) <= BLOCK:
        return call(slice(None))
    found = each_block(call, len(taus))
    masses = {name: np.concatenate([looked[name] for _, looked in found]) for name in columns}
    return np.concatenate([factors for factors, _ in found]), masses


def _first_pass_by_kernel(p: Problem, c: Comparison, null: Null, taus: Floats) -> tuple[Floats, dict[str, Floats]]:
    """The first pass by the kernel: where sets of guides share effects, these give way to a curve all at once."""
    curves = {each.name: each for each in c.curves[1:]}

    def masses(some: Ints, at: Ints, names: list[str]) -> list[Floats]:
        q, rows = p.take(some), np.arange(len(some))
        base, only = null.log_z[some, at], _only(q, c.grid, at[:, None])
        out = []
        for name in names:
            lattice = c.lattices[name]
            found = _run(q, curves[name], lattice, np.arange(len(lattice.shapes)), only, c.degree)
            out.append(found[rows, :, at] - base[:, None])
        return out

    ntc = None if p.background is None else p.background.evidence(taus)
    return from_two_taus({name: each.n_amplitudes for name, each in curves.items()}, masses, null, taus, ntc)


def _everywhere(p: Problem, c: Comparison, each: Curve) -> Floats:
    """Log evidence ``(T, S, K)`` on the whole lattice at every tau, the shapes' prior included."""
    lattice = c.lattices[each.name]
    return _run(p, each, lattice, np.arange(len(lattice.shapes)), p.taus(c.grid), c.degree)


def _closely(
    p: Problem,
    c: Comparison,
    rows: Ints,
    looked: Floats,
    values: Floats,
    masses: list[Floats],
    log_tau: Floats,
    *,
    least: float,
) -> None:
    """Evidence and masses of some features by the kernel, in place, given what a first pass says ``(T', M - 1)``.

    Two Hills keep their ratio to one where its log is below the `least`.
    """
    q, before = p.take(rows), values[rows]
    graded = []
    for m, each in enumerate(c.curves[1:], 1):
        if each.by_acting:  # one shape
            values[rows, m] = _everywhere(q, c, each)[:, 0]
        else:
            graded.append(m)
    if not graded:
        return
    one, *more = graded
    values[rows, one], masses[one - 1][rows] = _near(q, c, c.curves[one], masses[one - 1][rows], log_tau[rows])
    second = looked[:, -1] > looked[:, one - 1] + least
    for m in more:
        known = np.isfinite(before[:, m])
        ratio = np.where(known, before[:, m], 0.0) - np.where(known, before[:, one], 0.0)
        values[rows, m] = values[rows, one] + ratio
        some = rows[second]
        if len(some):
            values[some, m] = _two_hills(p.take(some), c, m, one, masses[m - 1][some], values[some, :m])


def _run(p: Problem, c: Curve, lattice: Lattice, which: Ints, taus: Floats, degree: int) -> Floats:
    """Log evidence ``(T, S', K)`` at some shapes, shared ``(S',)`` or by feature ``(T, S')``, their prior included."""
    shapes, consts = lattice.shapes[which], lattice.consts[which]
    if which.ndim == 1:
        shapes, consts = shapes[None], consts[None]
    return evidence(p, c, shapes, consts, taus, degree=degree)[0] + lattice.log_weight[which][..., None]


def _near(p: Problem, c: Comparison, each: Curve, mass: Floats, log_tau: Floats) -> tuple[Floats, Floats]:
    """Log evidence ``(T, K)`` of a curve, and the masses ``(T, S)`` of its shapes, given those of a first pass."""
    lattice, taus = c.lattices[each.name], p.taus(c.grid)
    top = np.argsort(-mass, axis=1, kind="stable")[:, : each.n_closer]
    leaders = _run(p, each, lattice, top[:, :LEADERS], taus, c.degree)
    by_tau = logsumexp(leaders, axis=1)
    matters = by_tau > by_tau.max(1, keepdims=True) - MATTERS
    exact = np.where(matters[:, None], leaders, -np.inf)
    if top.shape[1] > LEADERS:
        others = _run(p, each, lattice, top[:, LEADERS:], np.where(matters, taus, -1.0), c.degree)
        exact = np.concatenate([exact, others], axis=1)
    at_top = np.take_along_axis(mass, top, 1)
    found = logsumexp(exact, axis=1) + (logsumexp(mass, axis=1) - logsumexp(at_top, axis=1))[:, None]
    # the other taus keep their ratio to the best one
    best = by_tau.argmax(1)[:, None]
    values = np.where(matters, found, np.take_along_axis(found, best, 1) + by_tau - np.take_along_axis(by_tau, best, 1))
    here = logsumexp(exact + log_tau[:, None], axis=2)
    out = mass + (logsumexp(here, axis=1) - logsumexp(at_top, axis=1))[:, None]
    np.put_along_axis(out, top, here, 1)
    return values, out


def _only(p: Problem, grid: Floats, picks: Ints) -> Floats:
    """Taus ``(T, K)`` with all but some of each feature's masked."""
    taus = np.full((len(picks), len(grid)), -1.0)
    np.put_along_axis(taus, picks, grid[picks], 1)
    return np.where(p.taus(grid) > 0, taus, -1.0)


def _two_hills(p: Problem, c: Comparison, m: int, one: int, mass: Floats, simpler: Floats) -> Floats:
    """Log evidence ``(T, K)`` of two Hills, curve `m`, that compete with simpler curves ``(T, M, K)``.

    At the likeliest tau of one Hill, curve `one`; at more of them where two Hills may win. Elsewhere the evidence keeps
    its ratio to the single Hill's.
    """
    each, single = c.curves[m], simpler[:, one]
    lattice = c.lattices[each.name]
    order = np.argsort(-single, axis=1, kind="stable")
    top = np.argsort(-mass, axis=1, kind="stable")[:, : each.n_closer]
    rest = logsumexp(mass, axis=1) - logsumexp(np.take_along_axis(mass, top, 1), axis=1)

    def at(rows: Ints, picks: Ints) -> Floats:
        q = p.take(rows)
        log_z = _run(q, each, lattice, top[rows], _only(q, c.grid, picks), c.degree)
        return np.asarray(logsumexp(log_z, axis=1) + rest[rows, None])

    out = at(np.arange(len(mass)), order[:, :1])
    best = out.max(1)
    hopeful = np.flatnonzero(best > simpler.max(axis=(1, 2)) + HOPELESS_SECOND)
    if len(hopeful) and len(c.grid) > 1:
        out[hopeful] = np.maximum(out[hopeful], at(hopeful, order[hopeful, 1:TAU_TRIES]))
    here = np.take_along_axis(single, order[:, :1], 1)
    return np.where(np.isfinite(out), out, single + best[:, None] - here)
