"""What a technical fit stored of its covariates, read as data: everything in it is checked before it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from dream_sc._data.stored import texts

from .allowed import MOST_COLUMNS, allowed, is_number, shown
from .parser import read
from .tree import Call, Formula, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .columns import States

MOST_CHARACTERS = 1_000_000  # of the state
KEYS = ("names", "columns", "centre", "scale", "state")


@dataclass(frozen=True)
class Stored:
    """The covariates of a technical fit, as `.uns` has them."""

    formula: Formula
    names: list[str]  # of columns
    centre: np.ndarray  # (Q,)
    scale: np.ndarray  # (Q,)
    levels: dict[str, list[Any]]
    states: States
    text: str  # levels and states as json


def written(levels: dict[str, list[Any]], states: States) -> str:
    """Levels and states as json."""
    return json.dumps({"levels": levels, "transforms": states})


def stored(technical: Any, entry: Any) -> Stored:
    """The covariates of a technical fit.

    Raises
    ------
    ValueError
        If anything is not what a technical fit would have written.
    """
    if not isinstance(entry, Mapping) or any(key not in entry for key in KEYS):
        _bad(f"it is {shown(entry)}, not a dict with {list(KEYS)}")
    params = technical.get("params")
    try:
        formula = read(params.get("covariates") if isinstance(params, Mapping) else None)
    except ValueError as error:
        _bad(str(error))
    names, columns = (_texts(entry[key], key) for key in ("names", "columns"))
    if set(columns) != set(formula.columns):
        _bad(f"its formula {shown(formula.text)} names the columns {formula.columns}, not {columns}; {allowed()}")
    centre, scale = (_numbers(entry[key], key, len(names)) for key in ("centre", "scale"))
    if not (scale > 0).all():
        _bad("'scale' is not above 0 for each column")
    levels, states = state_of(entry["state"], formula)
    return Stored(formula, names, centre, scale, levels, states, str(entry["state"]))


def state_of(text: Any, formula: Formula) -> tuple[dict[str, list[Any]], States]:
    """Levels of factors, and what functions have learned, by their texts.

    Raises
    ------
    ValueError
        If there is anything else in it, or something of it is not there.
    """
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        _bad(f"'state' is no text of up to {MOST_CHARACTERS} characters: {shown(text)}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        _bad(f"'state' is no json: {error}")
    _keys(found, ("levels", "transforms"), "'state'")
    levels, kept = found["levels"], found["transforms"]
    if not isinstance(levels, dict) or not formula.labels <= set(levels) <= formula.labels | formula.bare:
        _bad(f"'levels' are {shown(levels)}, not those of columns of the formula")
    for name, known in levels.items():
        _levels(name, known)
    calls = {text_of(call): call for call in formula.stateful}
    here = set(kept) if isinstance(kept, dict) else set()
    there = {name: name if name in here else text_of(call, _old_quote) for name, call in calls.items()}
    if len(set(there.values())) < len(there):
        _bad(f"'transforms' is {shown(kept)}, not a dict with {list(calls)}")
    _keys(kept, tuple(there.values()), "'transforms'")
    return levels, {name: _state(call, kept[there[name]], name) for name, call in calls.items()}


def _bad(why: str) -> NoReturn:
    raise ValueError(
        f"what the technical fit has stored of its covariates cannot be used: {why}. Call "
        "dream_sc.tl.fit_technical again"
    )


def _old_quote(name: str) -> str:
    """Columns as states of earlier versions name them, with other signs replaced."""
    if name.isidentifier():
        return name
    plain = re.sub(r"\W", "_", name)
    return "_" + plain if plain[0].isdigit() else plain


def _keys(found: Any, wanted: tuple[str, ...], what: str) -> None:
    if not isinstance(found, dict) or set(found) != set(wanted):
        _bad(f"{what} is {shown(found)}, not a dict with {list(wanted)}")


def _texts(values: Any, key: str) -> list[str]:
    if not texts(values):
        _bad(f"{key!r} is {shown(values)}, not a list of texts")
    return [str(value) for value in values]


def _numbers(values: Any, key: str, n: int) -> np.ndarray:
    try:
        out = np.array(values, dtype=float)
    except (TypeError, ValueError, OverflowError):
        out = np.zeros(0)
    if isinstance(values, str) or out.shape != (n,) or not np.isfinite(out).all():
        _bad(f"{key!r} is {shown(values)}, not {n} numbers")
    return out


def _levels(name: str, known: Any) -> None:
    fits = isinstance(known, list) and 0 < len(known) <= MOST_COLUMNS
    if not fits or not all(isinstance(level, str | bool) or is_number(level) for level in known):
        _bad(f"the levels of {name!r} are {shown(known)}, not a list of up to {MOST_COLUMNS} texts and numbers")
    if len(set(known)) < len(known):
        _bad(f"the levels of {name!r} are not all different: {shown(known)}")


# ---- what each function learns ---------------------------------------------------------------------------------------


def _state(call: Call, found: Any, name: str) -> dict[str, Any]:
    """What one function has learned, as it is used."""
    wanted, fits = SHAPES[call.function]
    options = call.values
    if call.function == "poly" and options.get("raw"):
        wanted, fits = (), lambda state, options: True
    if isinstance(found, dict) and call.function == "cr" and found.get("cyclic") is False:
        found = {key: value for key, value in found.items() if key != "cyclic"}  # earlier versions had it
    _keys(found, wanted, f"what {name} has learned")
    if not fits(found, options):
        _bad(f"what {name} has learned is {shown(found)}, which does not fit to it")
    return dict(found)


def _fits_scale(state: dict[str, Any], options: dict[str, Any]) -> bool:
    asked = [("center", options.get("center", True)), ("scale", options.get("scale", True))]
    if not all(is_number(state[key]) if wanted else state[key] is None for key, wanted in asked):
        return False
    positive = state["scale"] is None or state["scale"] > 0
    return positive and is_number(state["ddof"]) and state["ddof"] == options.get("ddof", 1)


def _fits_poly(state: dict[str, Any], options: dict[str, Any]) -> bool:
    degree = options.get("degree", 1)
    alpha, norms = state["alpha"], state["norms2"]
    return (
        all(isinstance(of, dict) and all(map(is_number, of.values())) for of in (alpha, norms))
        and set(alpha) == {str(k) for k in range(degree)}
        and set(norms) == {str(k) for k in range(degree + 1)}
        and all(norm > 0 for norm in norms.values())
    )


def _fits_knots(state: dict[str, Any], options: dict[str, Any], ends: int, n: int) -> bool:
    """Whether knots ascend from bound to bound, which are there `ends` times each, with `n` strictly between them."""
    lower, upper, knots = state["lower_bound"], state["upper_bound"], state["knots"]
    if not (is_number(lower) and is_number(upper) and lower < upper):
        return False
    if any(state[key] != options.get(key, state[key]) for key in ("lower_bound", "upper_bound")):
        return False
    if not isinstance(knots, list) or not all(map(is_number, knots)) or len(knots) != 2 * ends + n:
        return False
    inner = knots[ends : ends + n]
    return knots == [lower] * ends + sorted(inner) + [upper] * ends and all(lower < knot < upper for knot in inner)


def _fits_bs(state: dict[str, Any], options: dict[str, Any]) -> bool:
    degree, given = options.get("degree", 3), sorted(options.get("knots", ()))
    n = len(given)
    if "df" in options:
        n = options["df"] - degree - bool(options.get("include_intercept"))
    ends = degree + 1
    return _fits_knots(state, options, ends, n) and (not given or state["knots"][ends : ends + n] == given)


def _fits_cr(state: dict[str, Any], options: dict[str, Any]) -> bool:
    centred = "constraints" in options
    given = sorted(set(options.get("knots", ())))
    n = options["df"] - 2 + centred if "df" in options else len(given)
    if not _fits_knots(state, options, 1, n) or len(set(state["knots"])) != n + 2:
        return False
    if given and state["knots"][1:-1] != given:
        return False
    rows = state["constraints"]
    if not centred:
        return rows is None
    one = isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], list)
    return one and len(rows[0]) == n + 2 and all(map(is_number, rows[0])) and any(rows[0])


SHAPES: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any], dict[str, Any]], bool]]] = {
    "bs": (("lower_bound", "upper_bound", "knots"), _fits_bs),
    "center": (("ddof", "center", "scale"), lambda state, options: _fits_scale(state, {"scale": False})),
    "cr": (("lower_bound", "upper_bound", "constraints", "knots"), _fits_cr),
    "poly": (("alpha", "norms2"), _fits_poly),
    "scale": (("ddof", "center", "scale"), _fits_scale),
}
