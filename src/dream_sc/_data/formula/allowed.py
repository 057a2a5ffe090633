"""What a formula of covariates may hold: its functions, their options, and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_CHARACTERS = 20_000  # of a formula
DEEPEST = 20  # brackets in brackets
MOST_TERMS = 500  # of a formula that is written out
MOST_FACTORS = 5  # in an interaction
MOST_COLUMNS = 1_000  # that a formula makes, and levels of a factor
MOST_VALUES = 100  # of a list
LARGEST = {"df": 100, "degree": 10, "ddof": 10}
SHOWN = 300  # characters of a formula in a message


@dataclass(frozen=True)
class Option:
    """Values that an option of a function may have."""

    text: str
    allows: Callable[[Any], bool]


def _whole(least: int, most: int) -> Option:
    return Option(f"a whole number, {least} to {most}", lambda v: type(v) is int and least <= v <= most)


def _among(*values: Any) -> Option:
    return Option(" or ".join(map(repr, values)), lambda v: type(v) in map(type, values) and v in values)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no truth value."""
    return type(value) in (int, float) and abs(value) < 1e300


TRUTH = _among(True, False)
NUMBER = Option("a number", is_number)
NUMBERS = Option(
    f"a list of up to {MOST_VALUES} numbers",
    lambda v: isinstance(v, tuple) and 0 < len(v) <= MOST_VALUES and all(map(is_number, v)),
)
LEVEL = Option("a level: a text, a number, True or False", lambda v: isinstance(v, str | bool) or is_number(v))
CONTRASTS: dict[str, dict[str, Option]] = {"contr.treatment": {"base": LEVEL}, "contr.sum": {}}
CONTRAST = Option("contr.treatment(base=...) or contr.sum()", lambda v: getattr(v, "name", None) in CONTRASTS)

# options in the order in which they may stand without their names
FUNCTIONS: dict[str, dict[str, Option]] = {
    "C": {"contrasts": CONTRAST},
    "bs": {
        "df": _whole(1, LARGEST["df"]),
        "knots": NUMBERS,
        "degree": _whole(0, LARGEST["degree"]),
        "include_intercept": TRUTH,
        "lower_bound": NUMBER,
        "upper_bound": NUMBER,
        "extrapolation": _among("raise", "clip", "zero", "extend"),
    },
    "cr": {
        "df": _whole(1, LARGEST["df"]),
        "knots": NUMBERS,
        "lower_bound": NUMBER,
        "upper_bound": NUMBER,
        "constraints": _among("center"),
        "extrapolation": _among("raise", "clip", "zero", "extend"),
    },
    "poly": {"degree": _whole(1, LARGEST["degree"]), "raw": TRUTH},
    "center": {},
    "scale": {"center": TRUTH, "scale": TRUTH, "ddof": _whole(0, LARGEST["ddof"])},
    "log": {},
    "log2": {},
    "log10": {},
    "log1p": {},
    "sqrt": {},
}
OUTERMOST = frozenset(("C", "bs", "cr", "poly"))  # these make several columns: other functions cannot take them
STATEFUL = frozenset(("bs", "cr", "poly", "center", "scale"))  # these keep what they learn on the technical cells
NUMPY = frozenset(("log", "log2", "log10", "log1p", "sqrt"))  # these may also be written np.log


def plain_function(name: str) -> str | None:
    """The function that a name in a formula stands for, None if it is not allowed."""
    bare = name.removeprefix("np.")
    return bare if bare in FUNCTIONS and (bare == name or bare in NUMPY) else None


def allowed() -> str:
    """What a formula may hold, as messages say it."""
    return (
        "allowed are names of columns of .obs (in backticks where they hold other signs than letters, digits, '_' and "
        "'.', or start with a digit or '.'), "
        f"+ - * : ( ), 0, 1 and the functions {sorted(FUNCTIONS)} with plain numbers, texts and lists as options; "
        "put what else is needed into a column of .obs"
    )


def shown(text: object) -> str:
    """The start of what was given, as messages show it."""
    whole = repr(text[: SHOWN + 1] if isinstance(text, str) else text)
    return whole if len(whole) <= SHOWN else whole[:SHOWN] + " ..."


def refused(formula: object, why: str) -> ValueError:
    """The error for a formula that holds something else."""
    return ValueError(f"covariates={shown(formula)} is no formula: {why}; {allowed()}")
