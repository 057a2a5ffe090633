"""Functions of formulas of covariates: what they learn on the cells of the technical fit, and their columns.

Splines, polynomials and scales are formulaic's, called as plain functions with checked options and numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .tree import Call

Options = dict[str, Any]
State = dict[str, Any]  # as json has it
PLAIN: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
}


def columns(call: Call, x: np.ndarray, state: State | None) -> tuple[np.ndarray, list[str], State]:
    """Columns ``(N, K)`` of a function of numbers, what they are called, and what it has learned.

    Parameters
    ----------
    state
        What it learned before. None: it learns from `x`.
    """
    options, name = call.values, call.plain
    if name in PLAIN:
        return PLAIN[name](x)[:, None], [""], {}
    if not np.isfinite(x).all():
        raise ValueError(f"{name}() is of values that are NaN or infinite in {int((~np.isfinite(x)).sum())} cells")
    if name in ("bs", "cr"):
        options = _spline_options(options)
        _check_spline(name, x, options, state)
    kept = {} if state is None else _for_formulaic(state)
    try:
        made = _function(name)(x, **options, _state=kept)
    except ValueError as error:
        raise ValueError(
            f"{name}() finds too few different knots between its bounds: write a smaller df=, or other knots= ({error})"
        ) from error
    if state is None:
        state = _as_json({key: value for key, value in kept.items() if key != "cyclic"})
        if name == "bs":
            _check_knots(state, options.get("degree", 3))
    if name in ("center", "scale"):
        return np.asarray(made)[:, None], [""], state
    values = np.asarray(made) if name == "poly" else np.array([*made.values()]).reshape(len(made), len(x)).T
    first = {"bs": 0 if options.get("include_intercept") else 1, "poly": 0 if options.get("raw") else 1}.get(name, 1)
    return values, [f"[{i + first}]" for i in range(values.shape[1])], state


def _function(name: str) -> Callable[..., Any]:
    from formulaic import transforms

    return {
        "bs": transforms.basis_spline,
        "center": transforms.center,
        "cr": transforms.natural_cubic_spline,
        "poly": transforms.poly,
        "scale": transforms.scale,
    }[name]


def _for_formulaic(value: Any) -> Any:
    """What was learned, from json: lists are arrays, and the keys of a polynomial are numbers."""
    if isinstance(value, dict):
        return {int(key) if key.isdigit() else key: _for_formulaic(of) for key, of in value.items()}
    if isinstance(value, list):
        return np.array(value, dtype=float)
    return None if value is None else float(value)


def _as_json(value: Any) -> Any:
    """What was learned, as json has it."""
    if isinstance(value, dict):
        return {str(key): _as_json(of) for key, of in value.items()}
    return np.asarray(value).tolist()


# ---- what is said of splines before they are made --------------------------------------------------------------------


def _spline_options(options: Options) -> Options:
    """Options with knots that ascend, and bounds and knots that are no whole numbers."""
    out = dict(options)
    for key in ("lower_bound", "upper_bound"):
        if key in out:
            out[key] = float(out[key])
    if "knots" in out:
        out["knots"] = sorted(map(float, out["knots"]))
    return out


def _check_spline(name: str, x: np.ndarray, options: Options, state: State | None) -> None:
    """Refuse what formulaic cannot make, or what it would take without a word."""
    df, knots = options.get("df"), options.get("knots", [])
    if df is not None and knots:
        raise ValueError("df= and knots= are both given: give one")
    if name == "cr" and df is None and not knots:
        raise ValueError("cr() needs df= or knots=")
    if name == "bs":
        least = options.get("degree", 3) + bool(options.get("include_intercept"))
    else:
        least = 2 if "constraints" in options else 3
    if df is not None and df < least:
        raise ValueError(f"df={df} is less than {least}, the least that {name}() can have with these options")
    if state is None and not len(x):
        raise ValueError("there are no cells to choose knots by")
    bounds = {"lower_bound": float(x.min()), "upper_bound": float(x.max())} | options if state is None else state
    lower, upper = bounds["lower_bound"], bounds["upper_bound"]
    if lower >= upper:
        raise ValueError(f"a spline from {lower} to {upper} is none: the column has one value, or its bounds are wrong")
    if any(k < lower or k > upper for k in knots):
        raise ValueError(f"knots={knots} are not all between {lower} and {upper}")
    outside = int(((x < lower) | (x > upper)).sum())
    if outside and options.get("extrapolation", "raise" if name == "bs" else "extend") == "raise":
        raise ValueError(
            f"{outside} cells have values outside of the bounds of a spline, {lower:.4g} to {upper:.4g}: "
            "write extrapolation='clip' or 'extend'"
        )


def _check_knots(state: State, degree: int) -> None:
    """Refuse knots of a B-spline that are not between its bounds: it would have columns of zeros."""
    lower, upper = state["lower_bound"], state["upper_bound"]
    inner = state["knots"][degree + 1 : -degree - 1]
    out = [knot for knot in inner if not lower < knot < upper]
    if out:
        raise ValueError(
            f"knots of bs() are at {out}, not between its bounds {lower:.4g} and {upper:.4g}, as where many cells have "
            "one value: write a smaller df=, other knots= or wider bounds"
        )
