"""What errors of covariates' coefficients, the last parameters, add to rows and guides.

Passes of their own over the rows: inside the loops that every fit goes through they would cost those without covariates
as much.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from dream_sc._core.compiled import Cube, Indices, Matrix, Stack, Vector, part
from dream_sc._core.compiled.vector_math import vexp


@part
def add_means(theta: Matrix, loads: Matrix, base: Matrix, ratio: Matrix) -> None:
    """Add them to the predictors of the rows."""
    n_loads, n_lanes = loads.shape[1], theta.shape[1]
    first = theta.shape[0] - n_loads
    for r in range(base.shape[0]):
        for q in range(n_loads):
            if loads[r, q] == 0.0:
                continue
            for lane in range(n_lanes):
                base[r, lane] += loads[r, q] * theta[first + q, lane]
        for lane in range(n_lanes):
            ratio[r, lane] = vexp(base[r, lane])


@part
def add_rows(
    n_amp: int,
    guide_start: Indices,
    dose: Indices,
    groups: Indices,
    loads: Matrix,
    odds: Cube,
    parts: Stack,
    jac: Cube,
    gauss: Cube,
    kappa: Vector,
) -> None:
    """Add the rows' curvature in them to `gauss`."""
    n_guides, n_parts, n_lanes = odds.shape
    n_loads, first = loads.shape[1], gauss.shape[0] - loads.shape[1]
    for g in range(n_guides):
        for r in range(guide_start[g], guide_start[g + 1]):
            d, k = dose[r], n_amp + groups[r]
            for lane in range(n_lanes):
                kappa[lane] = 0.0
            for m in range(n_parts):
                for lane in range(n_lanes):
                    kappa[lane] += odds[g, m, lane] * parts[m, r, 1, lane]
            for q in range(n_loads):
                x, at = loads[r, q], first + q
                if x == 0.0:  # as most are of guides that come in sets
                    continue
                for lane in range(n_lanes):
                    gauss[at, 0, lane] += kappa[lane] * x
                for i in range(n_amp):
                    for lane in range(n_lanes):
                        gauss[at, 1 + i, lane] += kappa[lane] * x * jac[d, i, lane]
                if groups[r] > 0:
                    for lane in range(n_lanes):
                        gauss[at, k, lane] += kappa[lane] * x
                for p in range(q + 1):
                    if loads[r, p] == 0.0:
                        continue
                    for lane in range(n_lanes):
                        gauss[at, first + p, lane] += kappa[lane] * x * loads[r, p]


@part
def add_sums(g: int, m: int, guide_start: Indices, loads: Matrix, parts: Stack, first: Matrix, second: Matrix) -> None:
    """Add gradient and curvature in them, summed over the rows of a guide, to `first` and `second`."""
    n_loads, n_lanes = loads.shape[1], first.shape[1]
    start = first.shape[0] - n_loads
    for r in range(guide_start[g], guide_start[g + 1]):
        for q in range(n_loads):
            if loads[r, q] == 0.0:
                continue
            for lane in range(n_lanes):
                first[start + q, lane] += loads[r, q] * parts[m, r, 0, lane]
                second[start + q, lane] += loads[r, q] * parts[m, r, 1, lane]
