"""Functions of formulas of covariates: what they learn on the cells of the technical fit, and their columns.

Splines, polynomials and scaling are those of formulaic and patsy, so that column names and numbers are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dream_sc._formula.tree import Call

Options = dict[str, Any]
State = dict[str, Any]  # as json has it


def columns(call: Call, x: np.ndarray, state: State | None) -> tuple[np.ndarray, list[str], State]:
    """Columns ``(N, K)`` of a function of numbers, what they are called, and what it has learned.

    Parameters
    ----------
    state
        What it learned before. None: it learns from `x`.
    """
    options, name = call.values, call.function.removeprefix("np.")
    if name in PLAIN:
        return PLAIN[name](x)[:, None], [""], {}
    if not np.isfinite(x).all():
        raise ValueError(f"{name}() is of values that are NaN or infinite in {int((~np.isfinite(x)).sum())} cells")
    learn, apply = KEEPING[name]
    if state is None:
        state = learn(x, options)
    values = apply(x, options, state)
    if name in ("center", "scale"):
        return values[:, None], [""], state
    first = {"bs": 0 if options.get("include_intercept") else 1, "poly": 0 if options.get("raw") else 1}.get(name, 1)
    return values, [f"[{i + first}]" for i in range(values.shape[1])], state


PLAIN: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p, "sqrt": np.sqrt,
}  # fmt: skip


# ---- scales and polynomials ------------------------------------------------------------------------------------------


def _learn_center(x: np.ndarray, options: Options) -> State:
    return _learn_scale(x, {"scale": False})


def _learn_scale(x: np.ndarray, options: Options) -> State:
    ddof = options.get("ddof", 1)
    centre = float(np.mean(x)) if options.get("center", True) else None
    scale = None
    if options.get("scale", True):
        scale = float(np.sqrt(np.sum((x - (centre or 0.0)) ** 2) / np.float64(len(x) - ddof)))
    return {"ddof": ddof, "center": centre, "scale": scale}


def _scale(x: np.ndarray, options: Options, state: State) -> np.ndarray:
    if state["center"] is not None:
        x = x - state["center"]
    return x if state["scale"] is None else x / np.float64(state["scale"])


def _learn_poly(x: np.ndarray, options: Options) -> State:
    """Coefficients of the recurrence of monic polynomials that are orthogonal on `x`."""
    if options.get("raw"):
        return {}
    degree = options.get("degree", 1)
    alpha: list[float] = []
    norms: list[float] = []
    one, before = np.ones_like(x), np.zeros_like(x)
    for k in range(degree + 1):
        norms.append(float(np.sum(one**2)))
        if k < degree:
            alpha.append(float(np.sum(x * one**2) / np.float64(norms[k])))
            one, before = _next(x, one, before, alpha, norms, k), one
    return {name: {str(k): v for k, v in enumerate(of)} for name, of in (("alpha", alpha), ("norms2", norms))}


def _next(x: np.ndarray, one: np.ndarray, before: np.ndarray, alpha: Any, norms: Any, k: int) -> np.ndarray:
    """The polynomial of degree ``k + 1`` from the two before it."""
    out = (x - alpha[k]) * one
    return out - norms[k] / np.float64(norms[k - 1]) * before if k else out


def _poly(x: np.ndarray, options: Options, state: State) -> np.ndarray:
    degree = options.get("degree", 1)
    if options.get("raw"):
        return np.stack([x**k for k in range(1, degree + 1)], axis=1)
    alpha, norms = ([state[name][str(k)] for k in range(len(state[name]))] for name in ("alpha", "norms2"))
    kept = [np.ones_like(x)]
    for k in range(degree):
        kept.append(_next(x, kept[k], kept[k - 1], alpha, norms, k))
    return np.stack(kept[1:], axis=1) / np.sqrt(norms[1:])


# ---- splines ---------------------------------------------------------------------------------------------------------


def _bounds(x: np.ndarray, options: Options, way: str) -> tuple[float, float, np.ndarray]:
    """Bounds of a spline, and the cells that its knots are chosen by."""
    if "df" in options and "knots" in options:
        raise ValueError("df= and knots= are both given: give one")
    if not len(x):
        raise ValueError("there are no cells to choose knots by")
    lower, upper = float(options.get("lower_bound", x.min())), float(options.get("upper_bound", x.max()))
    if lower >= upper:
        raise ValueError(f"a spline from {lower} to {upper} is none: the column has one value, or its bounds are wrong")
    inside = (x >= lower) & (x <= upper)
    _within(inside, lower, upper, way)
    inner = options.get("knots", ())
    if any(k < lower or k > upper for k in inner):
        raise ValueError(f"knots={list(inner)} are not all between {lower} and {upper}")
    return lower, upper, x[inside]


def _within(inside: np.ndarray, lower: float, upper: float, way: str) -> None:
    if way == "raise" and not inside.all():
        raise ValueError(
            f"{int((~inside).sum())} cells have values outside of the bounds of a spline, {lower:.4g} to {upper:.4g}: "
            "write extrapolation='clip' or 'extend'"
        )


def _learn_bs(x: np.ndarray, options: Options) -> State:
    way, degree = options.get("extrapolation", "raise"), options.get("degree", 3)
    lower, upper, inside = _bounds(x, options, way)
    inner = sorted(map(float, options.get("knots", ())))
    if "df" in options:
        least = degree + bool(options.get("include_intercept"))
        if options["df"] < least:
            raise ValueError(f"df={options['df']} is less than {least}, the least of a spline of degree {degree}")
        by = x if way == "extend" else inside
        if not len(by):
            raise ValueError(f"no cell has a value from {lower} to {upper} to choose knots by")
        inner = np.quantile(by, np.linspace(0, 1, options["df"] - least + 2))[1:-1].tolist()
    return {
        "lower_bound": lower, "upper_bound": upper, "knots": [lower] * (degree + 1) + inner + [upper] * (degree + 1),
    }  # fmt: skip


def _bs(x: np.ndarray, options: Options, state: State) -> np.ndarray:
    """B-splines by the recursion of Cox and de Boor."""
    way, degree = options.get("extrapolation", "raise"), options.get("degree", 3)
    lower, upper, knots = state["lower_bound"], state["upper_bound"], state["knots"]
    _within((x >= lower) & (x <= upper), lower, upper, way)
    if way == "clip":
        x = np.clip(x, lower, upper)
    last = len(knots) - degree - 2  # the interval that holds its upper end
    low, high = (-np.inf, np.inf) if way == "extend" else (lower, upper)
    basis = []
    for i in range(len(knots) - 1):
        above = x >= (low if i == degree else knots[i])
        basis.append((above & (x <= high if i == last else x < knots[i + 1])).astype(float))
    for d in range(1, degree + 1):
        share = [_share(x, knots[i], knots[i + d]) for i in range(len(knots) - d)]
        basis = [share[i] * basis[i] + (1 - share[i + 1]) * basis[i + 1] for i in range(len(knots) - d - 1)]
    return np.stack(basis[0 if options.get("include_intercept") else 1 :], axis=1)


def _share(x: np.ndarray, start: float, end: float) -> np.ndarray:
    return (x - start) / (end - start) if end != start else np.zeros_like(x)


def _learn_cr(x: np.ndarray, options: Options) -> State:
    way, centred = options.get("extrapolation", "extend"), "constraints" in options
    lower, upper, inside = _bounds(x, options, way)
    if "df" not in options and "knots" not in options:
        raise ValueError("cr() needs df= or knots=")
    inner = np.unique(options.get("knots", ()))
    if "df" in options:
        n = options["df"] - 2 + centred
        if n < 0:
            raise ValueError(f"df={options['df']} is less than 2, the least of a natural spline that is not centred")
        if not len(inside) and n:
            raise ValueError(f"no cell has a value from {lower} to {upper} to choose knots by")
        inner = np.percentile(np.unique(inside), np.linspace(0, 100, n + 2)[1:-1]) if n else np.zeros(0)
    knots = np.unique(np.concatenate([[lower, upper], inner]))
    if len(knots) != len(inner) + 2:
        raise ValueError(f"{len(inner) + 2} different knots cannot be found: write a smaller df=, or other knots=")
    constraints = None
    if centred:
        by = np.clip(x, lower, upper) if way == "clip" else x
        constraints = [_natural(by, knots).mean(0).tolist()]
    return {"lower_bound": lower, "upper_bound": upper, "constraints": constraints, "knots": knots.tolist()}


def _cr(x: np.ndarray, options: Options, state: State) -> np.ndarray:
    """Natural cubic splines by their values at the knots, linear beyond them."""
    way, lower, upper = options.get("extrapolation", "extend"), state["lower_bound"], state["upper_bound"]
    inside = (x >= lower) & (x <= upper)
    _within(inside, lower, upper, way)
    out = _natural(np.clip(x, lower, upper) if way == "clip" else x, np.asarray(state["knots"]))
    if state["constraints"] is not None:
        constraints = np.asarray(state["constraints"])
        out = out @ np.linalg.qr(constraints.T, mode="complete")[0][:, len(constraints) :]
    if way == "zero":
        out[~inside] = 0.0
    return out


def _natural(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """``(N, K)`` splines that are 1 at one knot and 0 at the others."""
    from scipy.interpolate import CubicSpline

    spline = CubicSpline(knots, np.eye(len(knots)), bc_type="natural")
    nearest = np.clip(x, knots[0], knots[-1])
    return spline(nearest) + (x - nearest)[:, None] * spline(nearest, 1)


KEEPING: Mapping[str, tuple[Callable[[np.ndarray, Options], State], Callable[..., np.ndarray]]] = {
    "bs": (_learn_bs, _bs), "center": (_learn_center, _scale), "cr": (_learn_cr, _cr), "poly": (_learn_poly, _poly),
    "scale": (_learn_scale, _scale),
}  # fmt: skip
