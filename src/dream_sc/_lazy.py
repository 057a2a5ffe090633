"""Names of a package that are loaded when they are first used, so that a step loads what it needs and no more.

Functions of public packages refuse arguments that do not fit their signatures.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy(package: str, names: Mapping[str, tuple[str, ...]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package, given the names that each of its modules has."""
    module_of = {name: module for module, its in names.items() for name in its}

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{module_of[name]}")
        value = getattr(module, name)
        if inspect.isfunction(value) and "._" not in package:
            from ._validate_types import checked

            value = checked(value)
            for where in (module, sys.modules[value.__module__]):  # which is where pickle looks for it
                setattr(where, name, value)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *module_of})
