"""Values by themselves: names, numbers and options; each error says what was seen and what is allowed."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

PLAIN = (str, int, float, bool, type(None), np.integer, np.floating, np.bool_)
SHORT = (*PLAIN, list, tuple, dict, set, frozenset, range, bytes)
LONGEST = 120  # characters of a value in a message


def close(name: str, names: Iterable[str], cutoff: float = 0.5, *, listed: bool = False) -> str:
    """Say which of the names come close to an unknown one; not all of them, if the message has `listed` them."""
    known = [str(n) for n in names]
    same = [n for n in known if n.casefold() == str(name).casefold()]  # but for upper and lower case
    matches = [*same, *(m for m in get_close_matches(str(name), known, n=4, cutoff=cutoff) if m not in same)]
    told = listed and len(matches) == len(set(known)) > 1
    return f"; did you mean {matches}?" if matches and not told else ""


def text(name: str, value: Any) -> str:
    """Refuse what is no name; gives it."""
    if not isinstance(value, str):
        raise TypeError(f"{name}= is a {type(value).__name__}, {shown(value)}: use one name, a text")
    return value


def names(name: str, value: Any) -> list[str]:
    """One name or several as a list; none where None is given."""
    if value is None:
        return []
    found = [value] if isinstance(value, str) else list(value)
    for each in found:
        text(name, each)
    return found


def numbers(name: str, value: Any, below: float = 0.0) -> np.ndarray:
    """One number or several ``(N,)``; refuses others, and such as are not finite, but for `below`."""
    try:
        found = np.atleast_1d(np.asarray(value, dtype=float))
    except (ValueError, TypeError):
        raise TypeError(f"{name}={shown(value)} is not allowed: use a number or a list of numbers") from None
    if found.ndim > 1 or not (np.isfinite(found) | (found == below)).all():
        raise ValueError(f"{name}={shown(value)} is not allowed: use a number or a list of numbers, all finite")
    return found


def at_least(name: str, value: Any, least: float) -> None:
    """Refuse a number below `least`."""
    if not number(name, value) >= least:
        raise ValueError(f"{name}={value!r} is not allowed: use a number, {least:g} or more")


def whole(name: str, value: Any, least: int = 1) -> None:
    """Refuse what is no whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}={value!r} is not allowed: use a whole number, {least} or more")


def number(name: str, value: Any) -> float:
    """Refuse what is no number; gives it."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}={value!r} is not allowed: use a number")
    return float(value)


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Refuse a value that is not among the allowed ones."""
    options = list(allowed)
    if not isinstance(value, PLAIN):
        raise TypeError(f"{name}= is a {type(value).__name__}, {shown(value)}; use one of {options}")
    if value not in options or (isinstance(value, bool) and not any(value is each for each in options)):
        near = close(value, [o for o in options if isinstance(o, str)], listed=True) if isinstance(value, str) else ""
        raise ValueError(f"{name}={value!r} is not known; use one of {options}{near}")


def shown(value: Any) -> str:
    """A value in a message, cut short, on one line."""
    if isinstance(value, type):
        return value.__name__
    text = " ".join(reprlib.repr(value).split()) if isinstance(value, SHORT) else f"<{type(value).__name__}>"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def without_effect(given: Mapping[str, Any], why: str) -> None:
    """Refuse arguments that were given, which are those that are not None, but would do nothing.

    `why` says with what they do nothing, and what they are for.
    """
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}={value!r} has no effect {why}: leave it out")
