"""Whether a plateau was seen: curves of one step against lines, which rise or fall to the end of the tested dosages.

An EC50 is where half of a step is done, so that it is known only where both ends of the step are. A line in log-log
coordinates, or one that starts at some dosage, has no such end. Both are compared by the table of the first pass, with
the same prior of their movement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logsumexp

from dream_sc._core.curves._base import moment_mass
from dream_sc._core.laplace.lookup import MOVES, log_ratios

from .first_pass import Null, at_guides, start_at
from .first_pass_draws import FINER, MODE_TOL
from .problem import null_evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.response.problem import Problem
    from dream_sc._core.types import Axis

    from .first_pass import Columns

    Floats = NDArray[np.float64]

ODDS = 4.0  # of a curve of one step against a line, before the data: regulation saturates more often than it does not
N_STARTS = 31  # dosages at which a line may start, evenly between the ends of the axis; sure counts tell 0.2 log2 apart


def lines(axis: Axis) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Lines that move by 1 from one end of the axis to the other: which lie above their start, the starts, the prior.

    A third of the prior is that of the line from end to end, a third each of lines above and below a start.
    """
    starts = np.linspace(axis.low, axis.high, N_STARTS + 2)[1:-1]
    start = np.concatenate([[axis.low], starts, starts])
    above = np.arange(len(start)) <= N_STARTS
    return above, start, np.concatenate([[1 / 3], np.full(2 * N_STARTS, 1 / 3 / N_STARTS)])


def at_dosages(x: Floats, above: NDArray[np.bool_], start: Floats, axis: Axis) -> Floats:
    """The lines ``(L, ...)`` at log2 dosages ``(...)``."""
    shape = (-1, *([1] * x.ndim))
    up, k = above.reshape(shape), start.reshape(shape)
    length = np.where(up, axis.high - k, k - axis.low)
    return np.asarray(np.where(up, np.maximum(x - k, 0.0), np.minimum(x - k, 0.0)) / length)


def probability(p: Problem, c: Curve, columns: Columns, tau: Floats) -> Floats:
    """Probability ``(T,)`` that features with a response follow a curve of one step, not a line.

    Parameters
    ----------
    c, columns
        The curve, and what the first pass looks at of it.
    tau
        ``(T,)`` sd of the guide effects.
    """
    q = p.in_kernel()
    null = Null(*null_evidence(p, tau[:, None], tol=MODE_TOL, modes=True))
    start, _ = start_at(q, null, tau[:, None], np.zeros(len(tau), dtype=np.int64))
    positions, log_weight = _of_lines(p.take(slice(0, 0)).guides(p.targeting), c)
    step = logsumexp(log_ratios(q, start, columns.positions, finer=FINER)[0] + columns.log_weight, axis=1)
    line = logsumexp(log_ratios(q, start, positions, finer=FINER)[0] + log_weight, axis=1)
    return np.asarray(expit(np.log(ODDS) + step - line))


def _of_lines(p: Problem, c: Curve) -> tuple[Floats, Floats]:
    """Where lines ``(N, G)`` move the targeting guides, in steps of the first pass's table, and their prior mass."""
    above, start, prior = lines(p.axis)
    edges = p.priors.unit * c.moves
    mass = np.diff(moment_mass(edges, p.priors.movement_scales, p.priors.movement_weights))
    middle = np.sqrt(edges[1:] * edges[:-1])
    move = np.concatenate([middle, -middle])
    nodes, weights = at_guides(p)
    f = at_dosages(nodes, above, start, p.axis)[:, None] * move[:, None, None]  # (L, 2 D, G + 1, J)
    f = logsumexp(f, b=weights, axis=-1)
    curves = (f[..., :-1] - f[..., -1:]).reshape(-1, f.shape[-1] - 1)
    moves = p.priors.unit * MOVES
    positions = np.clip((curves - moves[0]) / (moves[1] - moves[0]), 0.0, len(moves) - 1.0)
    log_weight = np.log(prior)[:, None] + np.log(np.tile(mass, 2))
    return np.ascontiguousarray(positions), log_weight.reshape(-1)
