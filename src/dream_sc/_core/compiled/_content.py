"""What a compiled function is made of, as it stands in this process: the parts it calls, its code, its constants."""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, ModuleType
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher


def parts_in(function: Callable[..., Any]) -> Iterator[Any]:
    """Parts that a function calls, itself or through functions that become part of it."""
    for value in _called(function):
        if parts := _own_parts(value):
            yield from parts
        elif isinstance(value, Dispatcher):
            yield from parts_in(value.py_func)


def _own_parts(value: Any) -> list[Any]:
    """The parts that a name stands for: one, several of which one is called, or none."""
    parts = getattr(value, "parts", None)
    return parts if isinstance(parts, list) and parts and hasattr(parts[0], "symbol") else []


def _called(function: Callable[..., Any]) -> Iterator[Any]:
    """The globals and enclosing variables that a function names, and what it takes from those that are modules."""
    for cell in function.__closure__ or ():
        yield cell.cell_contents
    yield from _globals_in(function.__code__, function.__globals__)


def _globals_in(code: CodeType, known: dict[str, Any]) -> Iterator[Any]:
    """What the names in a code object stand for at this moment."""
    for name, *attributes in _names_in(code):
        value = known.get(name)
        yield value
        for attribute in attributes:
            if not isinstance(value, ModuleType):
                break
            value = getattr(value, attribute, None)
            yield value
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_in(constant, known)


@cache  # small functions become part of many, and each is read again for all of them
def _names_in(code: CodeType) -> tuple[tuple[str, ...], ...]:
    """The global names that a code object reads, each with the attributes that are taken from it in a row."""
    found: list[tuple[str, ...]] = []
    follows = False
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            found.append((step.argval,))
            follows = True
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD") and follows:
            found[-1] += (step.argval,)
        elif step.opname != "EXTENDED_ARG":
            follows = False
    return tuple(found)


def content_of(function: Callable[..., Any]) -> Iterator[str]:
    """Code, constants, and signatures of what is called, of a function and of those that become part of it."""
    yield from _codes(function.__code__)
    for value in _called(function):
        if parts := _own_parts(value):
            yield from (f"{own.symbol} {own.signature}" for own in parts)
        elif isinstance(value, Dispatcher):
            yield repr(sorted(value.targetoptions.items(), key=str))
            yield from content_of(value.py_func)
        elif isinstance(value, int | float | str | bytes | tuple | np.generic | np.ndarray):
            yield repr(value)


def _codes(code: CodeType) -> Iterator[str]:
    yield f"{code.co_code!r} {code.co_names} {[c for c in code.co_consts if not isinstance(c, CodeType)]!r}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
