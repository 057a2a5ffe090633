"""What compiled functions take and give, read off their annotations.

Every part and most entries have one signature, so that they are compiled once, before there are data, and in any order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import numba as nb
import numpy as np
from numba.core.typing.templates import Signature
from numpy.typing import NDArray


class Held(NamedTuple):
    """The numba type of an array: of what, and with how many axes, in C order."""

    dtype: Any
    ndim: int


Vector = Annotated[NDArray[np.float64], Held(nb.float64, 1)]
Matrix = Annotated[NDArray[np.float64], Held(nb.float64, 2)]
Cube = Annotated[NDArray[np.float64], Held(nb.float64, 3)]
Stack = Annotated[NDArray[np.float64], Held(nb.float64, 4)]
Block = Annotated[NDArray[np.float64], Held(nb.float64, 5)]
Singles = Annotated[NDArray[np.float32], Held(nb.float32, 1)]
SingleMatrix = Annotated[NDArray[np.float32], Held(nb.float32, 2)]
Indices = Annotated[NDArray[np.int64], Held(nb.int64, 1)]
IndexMatrix = Annotated[NDArray[np.int64], Held(nb.int64, 2)]
Flags = Annotated[NDArray[np.bool_], Held(nb.boolean, 1)]

SCALARS = {int: nb.int64, float: nb.float64, bool: nb.boolean, type(None): nb.none}


def numba_type(hint: Any) -> Any:
    """The numba type of an annotation."""
    if hint in SCALARS:
        return SCALARS[hint]
    if get_origin(hint) is Annotated:
        held = next(extra for extra in get_args(hint) if isinstance(extra, Held))
        return nb.types.Array(held.dtype, held.ndim, "C")
    if get_origin(hint) is tuple:
        return nb.types.Tuple([numba_type(each) for each in get_args(hint)])
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        fields = get_type_hints(hint, include_extras=True)
        return nb.types.NamedTuple([numba_type(fields[name]) for name in hint._fields], hint)
    raise TypeError(f"{hint!r} has no place in a compiled function: see dream_sc._core.compiled")


def is_open(function: Callable[..., Any]) -> bool:
    """Whether a function takes arrays of several types, annotated as `Any`."""
    hints = get_type_hints(function, include_extras=True)
    return any(hints[name] is Any for name in inspect.signature(function).parameters)


def signature(function: Callable[..., Any], given: Mapping[str, Any] | None = None) -> Signature:
    """The signature that a function's annotations give, and `given` types of arguments that have none."""
    hints, given = get_type_hints(function, include_extras=True), given or {}
    names = inspect.signature(function).parameters
    arguments = [given[name] if name in given else numba_type(hints[name]) for name in names]
    return numba_type(hints["return"])(*arguments)
