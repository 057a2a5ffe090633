"""What a likelihood is: the interface that every file of this folder fills, for sums over the cells of a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from dream_sc._core.engines import ENGINES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._compiled import Kernels

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LN2 = 0.6931471805599453


class Rows(NamedTuple):
    """Observations of `T` features in `R` rows, sorted by guide."""

    counts: Floats  # (T, R) sums of counts, or mean scores
    weights: Floats  # (T, R) numbers of trials, or precisions; (T, 0) of a negative binomial
    overdispersion: Floats  # (T,) of single cells
    scale2: Floats  # (R,) W2 / W^2
    group: Ints  # (R,)
    start: Ints  # (G,) first row of each guide


Statistics = Literal["counts", "shares", "scores"]


class Words(NamedTuple):
    """How figures name what a likelihood is of; ``{}`` in `effect` stands for the group."""

    level: str  # of a feature in control cells
    noise: str  # between cells
    effect: str  # of a technical group
    observed: str  # of a feature in the cells of a guide


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of the rows of a feature, given the predictor: the curve plus all effects.

    Parameters
    ----------
    name
        Public name.
    effect
        What a difference between two dosages is called in tables: "log2fc", "delta_p" or "delta".
    unit
        The unit of amplitudes and effects in their priors, on the scale of the predictor.
    effect_unit
        What effects of guides are given in, on the scale of the predictor: log2 of counts, log odds, or sds.
    level
        ``(counts, weights, log exposure) -> (T,)``: the predictor's level if nothing moves it.
    expected
        From the predictor to the expected value of a cell; a score's in its unit, less its centre.
    change
        ``(predictor, predictor at NTC) -> ``: the effect of a change of the predictor.
    contrasts
        ``(Rows, predictor, curve) -> (ratio, variance, fitted)``, each ``(T, G)``: how far each guide's rows are from
        the predictor ``(T, R)`` without the curve, on its scale, the variance of that by the counts alone, and how far
        the curve ``(T, R)`` moves them.
    simulate
        ``(rng, Rows, predictor) -> (counts, weights)`` of new rows.
    kernels
        The compiled form.
    torch_log_density
        ``(y (T, R), predictor, weights, variance) -> (T, R)``: log density but for what does not depend on the
        predictor, for the Pyro models; `variance` is that of the rows' means beyond chance, relative, of counts.
    half
        ``(predictor below a step, above it) -> `` log odds of the part of the step, on the scale of the exponential of
        the predictor, at which half of it is done on that of the expected value.
    linear
        Whether an effect depends on the change of the predictor alone, and not on where it starts.
    statistics
        What cells are summed up as: "counts" (with size factors), "shares" (counts out of trials), or "scores" (means).
    noise
        What the noise between cells is called in tables: "overdispersion" or "sigma".
    technical_unit
        The unit of group effects in the technical step.
    technical_step
        Name of the function that an engine has for the technical step.
    words
        Labels of axes.
    denominator
        Whether what counts are out of is a layer of its own.
    categories
        Whether a feature has several columns of counts, which are out of their sum.
    robust
        Whether the mean of a row leaves outliers out.
    technical_engines, trans_engines
        Engines that know it, by step.
    """

    name: str
    effect: str
    unit: float
    effect_unit: float
    level: Callable[[Floats, Floats, Floats], Floats]
    expected: Callable[[Any], Any]
    change: Callable[[Any, Any], Any]
    contrasts: Callable[[Rows, Floats, Floats], tuple[Floats, Floats, Floats]]
    simulate: Callable[[np.random.Generator, Rows, Floats], tuple[Floats, Floats]]
    statistics: Statistics
    noise: str
    technical_unit: str
    technical_step: str
    words: Words
    kernels: Kernels
    torch_log_density: Callable[..., Any]
    half: Callable[[Any, Any], Any] = lambda low, high: 0.0
    linear: bool = True
    denominator: bool = False
    categories: bool = False
    robust: bool = False
    technical_engines: tuple[str, ...] = ENGINES
    trans_engines: tuple[str, ...] = ENGINES


def by_guide(values: Floats, rows: Rows) -> Floats:
    """Sums ``(T, G)`` over the rows of each guide."""
    return np.asarray(np.add.reduceat(values, rows.start, axis=1))
