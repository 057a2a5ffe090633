"""Scores with normal noise: the predictor is the score, less its centre, in hundredths of its sd between cells.

Curves are logarithms of Hills, and the logarithm of a Hill that moves by little is a Hill: in this unit a movement of
four sds differs from one by half a hundredth of itself at most. So scores take the same curves as counts do.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._core.compiled import Cube, Matrix, Vector, part

from ._base import Likelihood, Words, by_guide
from ._compiled import Kernels
from .binomial import prepare

if TYPE_CHECKING:
    from ._base import Floats, Rows

UNIT = 0.01


def torch_log_density(y: Any, predictor: Any, precision: Any, variance: Any) -> Any:
    """Log of the density without the terms that do not depend on the predictor, on tensors."""
    return -0.5 * precision * (y - predictor) ** 2


def in_units(mean: Floats, precision: Floats, centre: Floats, sd: Floats) -> tuple[Floats, Floats]:
    """Means ``(T, R)`` of rows and their precisions, in the unit of the predictor; 0 where there is no score."""
    known = precision > 0
    scale = UNIT / sd[:, None]
    return np.where(known, (mean - centre[:, None]) * scale, 0.0), np.where(known, precision / scale**2, 0.0)


def level(counts: Floats, weights: Floats, log_w: Floats) -> Floats:
    """Weighted mean of all rows."""
    return np.asarray((weights * counts).sum(1) / np.maximum(weights.sum(1), 1e-300))


def half(low: Any, high: Any) -> Any:
    """Log odds of the part of a step of the exponential at which half of it is done in the predictor."""
    return -0.5 * (high - low)


def contrasts(rows: Rows, predictor: Floats, curve: Floats) -> tuple[Floats, Floats, Floats]:
    """Weighted mean differences, groups made equal."""
    rest, w = rows.counts - predictor - curve, rows.weights
    for c in range(1, int(rows.group.max()) + 1):
        mine = rows.group == c
        rest[:, mine] -= ((w * rest)[:, mine].sum(1) / np.maximum(w[:, mine].sum(1), 1e-300))[:, None]
    total = by_guide(w, rows)
    known = np.maximum(total, 1e-300)
    fitted = by_guide(w * curve, rows) / known
    variance = np.where(total > 0, 1.0 / known, 1e6 * UNIT**2)
    return by_guide(w * rest, rows) / known + fitted, variance, fitted


def simulate(rng: np.random.Generator, rows: Rows, predictor: Floats) -> tuple[Floats, Floats]:
    """Mean scores."""
    w = rows.weights
    noise = rng.normal(size=w.shape) / np.sqrt(np.where(w > 0, w, 1.0))
    return np.where(w > 0, predictor + noise, 0.0), w


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
        seen, n = y[r], total[r]
        for lane in range(grad.size):
            grad[lane] += n * (seen - base[r, lane] - u[lane])
            curvature[lane] += n


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
        seen, n = y[r], total[r]
        for lane in range(value.size):
            rest = seen - base[r, lane] - u[lane]
            value[lane] -= 0.5 * n * rest * rest
            parts[r, 0, lane], parts[r, 1, lane], parts[r, 2, lane] = n * rest, n, 0.0
            curvature[lane] += n


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
        seen, n = y[r], total[r]
        for lane in range(value.size):
            value[lane] += n * move[lane] * (seen - base[r, lane] - u[lane] - 0.5 * move[lane])


@part
def is_quadratic() -> bool:
    """Yes."""
    return True


WORDS = Words(
    level="mean score of control cells",
    noise=r"$\sigma$ ± sd",
    effect="effect of {} ± sd (score)",
    observed="score (mean of cells)",
)
LIKELIHOOD = Likelihood(
    name="normal",
    effect="delta",
    unit=UNIT,
    effect_unit=UNIT,
    level=level,
    expected=lambda x: x / UNIT,
    change=lambda x, ntc: (x - ntc) / UNIT,
    contrasts=contrasts,
    simulate=simulate,
    statistics="scores",
    noise="sigma",
    technical_unit="sigma",
    technical_step="technical_normal",
    words=WORDS,
    technical_engines=("laplace", "svi"),
    kernels=Kernels(prepare, add_slopes, add_values, add_change, is_quadratic),
    torch_log_density=torch_log_density,
    half=half,
)
