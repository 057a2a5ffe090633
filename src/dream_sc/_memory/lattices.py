"""How much the trans step computes for a feature, counted on its own curves, grids and limits."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from dream_sc._core.curves import Curve
    from dream_sc._core.priors import TransPriors
    from dream_sc._core.response.comparison import Lattice
    from dream_sc._core.types import Axis

AXIS = np.linspace(-3.0, 0.5, 30)  # log2 dosages of the guides of a usual titration; a longer axis has larger lattices


class Lattices(NamedTuple):
    """Numbers of points, of a choice of curves."""

    curves: int  # that are compared, the flat one among them
    shapes: int  # of all of them, the flat one not counted
    parameters: int  # of the largest of them
    knots: int  # sds of the guide effects at which evidence is computed
    taus: int  # the same where many controls are summed up, at the knots
    first_pass: int  # shapes with an amplitude in the first pass, of the curve that has most
    dosages: int  # at which drawn curves are summed up
    quick_draws: int  # of a feature that is not called
    many_controls: int  # control guides from which they are summed up
    more_controls: int  # for each targeting guide, from which they are


@cache
def lattices(function_type: str) -> Lattices:
    """Count them; the trans step is loaded for it."""
    from dream_sc._core.priors import TransPriors
    from dream_sc._core.response import comparison, describe, problem, summary
    from dream_sc._core.types import Axis

    axis, priors = Axis.of(AXIS), TransPriors()
    compared, knots = comparison.candidates(function_type, axis), len(priors.tau_grid)
    found = comparison.lattices_of(compared, axis, priors)
    return Lattices(
        curves=len(compared),
        shapes=sum(len(found[c.name].shapes) for c in compared[1:]),
        parameters=max(len(c.params) for c in compared),
        knots=knots,
        taus=comparison.FINER * (knots - 1) + 1,
        first_pass=max(_first_pass(c, found[c.name], axis, priors) for c in compared[1:]),
        dosages=summary.N_GRID + 2,  # and the strongest guide, and half of its dosage
        quick_draws=describe.QUICK_DRAWS,
        many_controls=problem.MANY_NTC,
        more_controls=problem.MORE_NTC,
    )


def _first_pass(c: Curve, lattice: Lattice, axis: Axis, priors: TransPriors) -> int:
    """Shapes of a curve with each of the movements that they can make."""
    if c.moves is None:
        return 0
    edges = priors.unit * np.asarray(c.moves)
    middle, ones = np.sqrt(edges[1:] * edges[:-1]), np.ones((len(lattice.shapes), c.n_amplitudes))
    can = [
        np.isfinite(c.amplitudes(axis, lattice.shapes, lattice.consts, s * d * ones)) for s in c.signs for d in middle
    ]
    return int(np.sum(can, 0).prod(-1).sum())
