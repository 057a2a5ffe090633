"""The curves that compete on one design, and where they are evaluated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dream_sc._core.curves import NULL, RESPONSES, curve
from dream_sc._core.parallel import each_block, under

from . import ntc_guides
from .first_pass import Columns, columns_of
from .joint_departures import Pair, pairs_of
from .learned import Prior, Wide
from .wide_effects import with_wide

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.parallel import Kept
    from dream_sc._core.priors import TransPriors
    from dream_sc._core.response.problem import Problem
    from dream_sc._core.response.settings import Settings
    from dream_sc._core.types import Axis

    Floats = NDArray[np.float64]

DISTINCT_GAP = 0.2  # log2
FINER = 4  # points of the fine grid of tau for each of the priors'


class Lattice(NamedTuple):
    """Shapes of a curve with their prior."""

    shapes: Floats  # (S, d)
    log_weight: Floats  # (S,)
    consts: Floats  # (S, 2)


def lattices_of(curves: list[Curve], axis: Axis, priors: TransPriors) -> dict[str, Lattice]:
    """The lattice of each curve; where several compete, the factors of their priors are made up for."""
    out = {c.name: Lattice(*c.lattice(axis, priors)) for c in curves}
    for c in curves:
        if c.factor is not None and len(curves) > 2:
            lattice = out[c.name]
            out[c.name] = lattice._replace(log_weight=lattice.log_weight - np.log(c.factor.mass(axis, priors)))
    return out


@dataclass(frozen=True)
class Comparison:
    """The curves that compete on one design, and where they are evaluated."""

    curves: list[Curve]  # the null first
    lattices: dict[str, Lattice]
    grid: Floats  # (K,) of tau
    columns: dict[str, Columns] | None  # of the first pass, where there is one
    degree: int = 6
    pairs: tuple[Pair, ...] = ()  # of guides that depart together


def compare(p: Problem, curves: list[Curve], grid: Floats, degree: int) -> Comparison:
    """Set up the comparison of curves on the design of a problem."""
    lattices = lattices_of(curves, p.axis, p.priors)
    columns = None
    if p.one_dose_each and p.shared is None and all(c.moves is not None for c in curves[1:]):
        q = p.take(slice(0, 0)).guides(p.targeting)  # whose positions are wanted
        columns = {c.name: columns_of(q.seen_by(c), c, lattices[c.name]) for c in curves[1:]}
    return Comparison(curves, lattices, grid, columns, degree)


def distinct_dosages(axis: Axis) -> int:
    """Number of dosages, NTC included, that are at least 0.2 log2 apart."""
    levels = np.sort(np.append(axis.guides, 0.0))
    count, last = 0, -np.inf
    for level in levels:
        if level - last >= DISTINCT_GAP:
            count, last = count + 1, level
    return count


def candidates(function_type: str, axis: Axis, *, one_level: bool = False, one_step: bool = False) -> list[Curve]:
    """Curves to compare, the null first. A second Hill needs at least five distinct dosages.

    Guides of `one_level` of dosage say nothing of a curve. With `one_step` only curves of one step compete.
    """
    if function_type != "auto":
        return [NULL, curve(function_type)]
    n = distinct_dosages(axis)
    some = (c for c in RESPONSES if c.min_dosages is not None and n >= c.min_dosages)
    return [NULL, *(c for c in some if (c.by_acting or not one_level) and (c.one_step or not one_step))]


def set_up(
    p: Problem, settings: Settings, wide: tuple[float, float] | Wide, kept: Kept | None = None
) -> tuple[Problem, Comparison]:
    """The problem with what depends on the settings and the wide guide effects, and the curves that compete."""
    curves = candidates(settings.function_type, p.axis, one_level=p.one_level, one_step=settings.one_step)
    knots = np.array(p.priors.tau_grid if settings.guide_effects else [1e-6 * p.priors.unit])
    p = with_wide(replace(p, several=len(curves) > 2), *wide)
    grid = knots
    if p.pooled:
        background = _sum_up_ntc(p, knots, under(kept, "ntc"))
        p = replace(p, background=background)
        if settings.guide_effects and p.shared is None:
            grid = np.geomspace(knots[0], knots[-1], FINER * (len(knots) - 1) + 1)
            start = Prior.start(p.priors).log_tau(grid)
            p = replace(p, tau_weight=ntc_guides.grid_weights(background, grid, start))
    return p, replace(compare(p, curves, grid, settings.degree), pairs=pairs_of(p, Wide(*wide)))


def _sum_up_ntc(p: Problem, knots: Floats, kept: Kept | None) -> ntc_guides.Background:
    """Sum up the NTC guides of every feature."""

    def call(s: slice) -> tuple[Floats, ...]:
        return p.take(s).summed_up(knots).arrays

    parts = each_block(call, len(p.counts), kept=kept)
    return ntc_guides.joined([ntc_guides.Background(*part) for part in parts])
