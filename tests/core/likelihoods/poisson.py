"""Poisson counts: cells of a guide differ by chance alone; the predictor is the log mean."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.compiled import Cube, Matrix, Vector, part

from . import negbinom
from ._base import by_guide
from ._compiled import Kernels, is_not_quadratic

if TYPE_CHECKING:
    from ._base import Floats, Rows


@part
def prepare(y: Vector, weights: Vector, overdispersion: float, scale2: Vector, total: Vector, shift: Vector) -> None:
    """Nothing is taken off the log mean."""
    for r in range(y.size):
        total[r], shift[r] = 1.0, 0.0


@part
def add_slopes(
    y: Vector,
    total: Vector,
    start: int,
    stop: int,
    base: Matrix,
    ratio: Matrix,
    u: Vector,
    factor: Vector,
    grad: Vector,
    curvature: Vector,
) -> None:
    """First and second derivative."""
    for r in range(start, stop):
        for lane in range(grad.size):
            mean = ratio[r, lane] * factor[lane]
            grad[lane] += y[r] - mean
            curvature[lane] += mean


@part
def add_values(
    y: Vector,
    total: Vector,
    start: int,
    stop: int,
    base: Matrix,
    ratio: Matrix,
    u: Vector,
    factor: Vector,
    value: Vector,
    parts: Cube,
    curvature: Vector,
    third: Vector,
) -> None:
    """Log density and derivatives."""
    for r in range(start, stop):
        for lane in range(value.size):
            mean = ratio[r, lane] * factor[lane]
            value[lane] += y[r] * (base[r, lane] + u[lane]) - mean
            parts[r, 0, lane], parts[r, 1, lane], parts[r, 2, lane] = y[r] - mean, mean, mean
            curvature[lane] += mean
            third[lane] += mean


@part
def add_change(
    y: Vector,
    total: Vector,
    start: int,
    stop: int,
    base: Matrix,
    ratio: Matrix,
    u: Vector,
    factor: Vector,
    move: Vector,
    moved: Vector,
    value: Vector,
) -> None:
    """Change of the log density."""
    for r in range(start, stop):
        for lane in range(value.size):
            value[lane] += y[r] * move[lane] - ratio[r, lane] * factor[lane] * (moved[lane] - 1.0)


def torch_log_density(y, log_mean, weights, variance):  # type: ignore[no-untyped-def]
    """Log density but for what does not depend on the mean, on tensors."""
    return y * log_mean - log_mean.exp()


def contrasts(rows: Rows, predictor: Floats, curve: Floats) -> tuple[Floats, Floats, Floats]:
    """Log ratios of observed to expected counts, as those of a negative binomial; their variance is that of chance."""
    ratio, _, fitted = negbinom.contrasts(rows, predictor, curve)
    return ratio, 1.0 / (by_guide(np.exp(predictor + curve), rows) + 0.5), fitted


def simulate(rng: np.random.Generator, rows: Rows, predictor: Floats) -> tuple[Floats, Floats]:
    """Sums of counts."""
    return rng.poisson(np.exp(predictor)).astype(float), rows.weights


LIKELIHOOD = replace(
    negbinom.LIKELIHOOD,
    name="poisson",
    contrasts=contrasts,
    simulate=simulate,
    kernels=Kernels(prepare, add_slopes, add_values, add_change, is_not_quadratic),
    torch_log_density=torch_log_density,
    trans_engines=("laplace",),
    technical_engines=("laplace",),
)
