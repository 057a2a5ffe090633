"""Expected width of the interval of an EC50: that of the posterior over a lattice of curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .evidence import Curves, Known, curves_of, masses

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import TransPriors

    from .guide_sums import Design

    Floats = NDArray[np.float64]

N_WIDTHS = 16  # draws
STEP, N_STEEPNESSES, BEYOND = 0.5, 3, 2.5  # log2, of the EC50s of the lattice
QUANTILES = (0.025, 0.975)


def fine_curves(design: Design, priors: TransPriors) -> Curves:
    """Curves of a Hill whose EC50s are close to each other."""
    found = curves_of(design, priors, step=STEP, n_steepnesses=N_STEEPNESSES, beyond=BEYOND)
    hill = found.model == 1
    return Curves(found.moves[hill], found.log_weight[hill], found.log2_ec50[hill])


def expected_width(sums: Floats, known: Known, curves: Curves) -> float:
    """Mean width (log2) of the 95 % interval over draws ``(N, G + H)``."""
    return float(np.mean(widths(sums, known, curves)))


def widths(sums: Floats, known: Known, curves: Curves) -> Floats:
    """Width ``(N,)`` for each draw, given that the response is a Hill."""
    at, place = np.unique(curves.log2_ec50, return_inverse=True)
    by_ec50 = masses(sums, known, curves) @ np.eye(len(at))[place.ravel()]
    step = at[1] - at[0]
    edges = np.append(at - step / 2, at[-1] + step / 2)
    cumulative = np.concatenate([np.zeros((len(sums), 1)), by_ec50.cumsum(1)], 1)
    cumulative /= cumulative[:, -1:]
    low, high = (np.array([np.interp(q, each, edges) for each in cumulative]) for q in QUANTILES)
    return np.asarray(high - low)
