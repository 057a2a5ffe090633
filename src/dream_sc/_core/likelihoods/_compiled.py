"""What the compiled form of a likelihood consists of, and that of counts out of a total.

The kernels keep two numbers of each row beside its count or score, which `prepare` makes: its `total`, and the `shift`
that is taken off the predictor. What they call ``x`` is the predictor of a row less its shift. Lanes are the last axis.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any, NamedTuple

from dream_sc._core.compiled import Cube, Matrix, Vector, part
from dream_sc._core.compiled.vector_math import vlog


class Kernels(NamedTuple):
    """The compiled form: parts, each with the arguments that are said here.

    A guide has the rows from `start` to `stop`. Without its effect `u` (L,) their ``x`` is `base` (R, L), whose
    exponential is `ratio`; that of `u` is `factor`.
    """

    # (y (R,), weights (R,) or (0,), overdispersion, scale2 (R,), total (R,), shift (R,)): fill the last two
    prepare: Any
    # (y, total, start, stop, base, ratio, u, factor, grad (L,), curvature (L,)): add the derivative of the log density
    # by the effect, and the negative second one
    add_slopes: Any
    # (y, total, start, stop, base, ratio, u, factor, value (L,), parts (R, 3, L), curvature (L,), third (L,)): add the
    # log density; each row's derivative, negative second and third one go to `parts`, the sums of the last two to the
    # last two arguments
    add_values: Any
    # (y, total, start, stop, base, ratio, u, factor, move (L,), moved (L,), value (L,)): add what the log density rises
    # if the effect moves by `move`, whose exponential is `moved`
    add_change: Any
    # (): whether the log density is quadratic in the predictor, so that Laplace's method is exact
    is_quadratic: Any


# ---- y x - total log(1 + exp(x)): counts of a negative binomial, or out of a number of trials ------------------------


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
            e = ratio[r, lane] * factor[lane]
            p = 1.0 / (1.0 + e)
            expected = n * (e * p)
            grad[lane] += seen - expected
            curvature[lane] += expected * p


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
            e = ratio[r, lane] * factor[lane]
            value[lane] += seen * (base[r, lane] + u[lane]) - n * vlog(1.0 + e)
        for lane in range(value.size):
            e = ratio[r, lane] * factor[lane]
            p = 1.0 / (1.0 + e)
            q = e * p
            kappa = n * q * p
            parts[r, 0, lane], parts[r, 1, lane] = seen - n * q, kappa
            parts[r, 2, lane] = kappa * (p - q)
        for lane in range(value.size):
            curvature[lane] += parts[r, 1, lane]
            third[lane] += parts[r, 2, lane]


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
            e = ratio[r, lane] * factor[lane]
            value[lane] += seen * move[lane] - n * vlog((1.0 + e * moved[lane]) / (1.0 + e))


@part
def is_not_quadratic() -> bool:
    """No."""
    return False


def out_of_a_total(prepare: Any) -> Kernels:
    """The compiled form of counts whose totals are prepared so."""
    return Kernels(prepare, add_slopes, add_values, add_change, is_not_quadratic)
