"""Arguments of public functions against the types in their signatures, before anything else is done.

What a signature says is what is enforced: a list where one name is expected, a text where a number is, a misspelt
option. What a value has to be beyond its type, each function checks itself.
"""

from __future__ import annotations

import ast
import functools
import inspect
import math
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_args, get_origin

import numpy as np

from . import _validate_values as _validate

if TYPE_CHECKING:
    from collections.abc import Callable

    Function = TypeVar("Function", bound=Callable[..., Any])

# labels of cells may be numbers and flags; of matrices of guides the functions say more
LABELS = ("control", "cis_targets", "reference")
OF_LISTS = ("function_type", "distribution")  # their names are in lists that a file may be added to
AS_THEY_ARE = ("data", *LABELS, *OF_LISTS, "cis_genes", "guides", "hyper", "client")
PACKAGE = "dream_sc"
CHECKED = "checks_types"  # attribute of a function that does already
DATA = ("AnnData", "MuData")
SEVERAL = ("Sequence", "Iterable", "list", "set", "Collection")
ARRAYS = ("ndarray", "Series", "Index", "ExtensionArray")
WORDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "None": "None",
    "Mapping": "a mapping",
    "dict": "a dict",
    "PathLike": "a path",
    "Generator": "a numpy Generator",
    "Axes": "matplotlib Axes",
    "DataFrame": "a DataFrame",
    "Series": "a Series",
    "ndarray": "an array",
}
PLURAL = {"str": "texts", "int": "whole numbers", "float": "numbers"}


class Kind(NamedTuple):
    """One of the types that an argument may have."""

    name: str
    of: tuple[Any, ...] = ()  # values of a Literal, kinds of elements

    @property
    def words(self) -> str:
        """What to use, for messages."""
        if self.name == "Literal":
            return f"one of {list(self.of)}"
        if self.name == "tuple":
            return f"{len(self.of)} numbers, as ({', '.join('x' for _ in self.of)})"
        if self.name in SEVERAL:
            return f"a list of {' or '.join(PLURAL.get(k.name, k.name) for k in self.of) or 'values'}"
        return WORDS.get(self.name, f"of type {self.name}")


def checked(function: Function) -> Function:
    """Make a function refuse arguments of other types than its signature says.

    Raises
    ------
    TypeError, ValueError
        By the function that comes back: it names the argument, what was seen and what is allowed.
    """
    if hasattr(function, CHECKED):
        return function

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            given = _signature(function).bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # which says it in its own name
        kinds = _kinds(function)
        for name, value in given.items():
            if name in kinds:
                _check(name, value, kinds[name])
            elif name in LABELS:
                _check_labels(name, value)
        return function(*args, **kwargs)

    setattr(run, CHECKED, True)
    return run  # type: ignore[return-value]


@functools.cache
def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(function)


@functools.cache
def _kinds(function: Any) -> dict[str, tuple[Kind, ...]]:
    """What each argument may be; those are left out that may be anything, or whose type is not known here."""
    out, names = {}, inspect.unwrap(function).__globals__
    for p in _signature(function).parameters.values():
        if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) or p.name in AS_THEY_ARE or not isinstance(p.annotation, str):
            continue
        found = _parsed(ast.parse(p.annotation, mode="eval").body, names)
        if found and not {kind.name for kind in found} <= {*DATA}:  # objects are looked at where they are opened
            out[p.name] = found
    return out


def _parsed(node: ast.expr, names: Mapping[str, Any]) -> tuple[Kind, ...]:
    """The types of an annotation; none where one of them may be anything."""
    if isinstance(node, ast.BinOp):
        left, right = _parsed(node.left, names), _parsed(node.right, names)
        return (*left, *right) if left and right else ()
    if isinstance(node, ast.Constant):
        return (Kind("None"),) if node.value is None else ()
    if isinstance(node, ast.Subscript):
        head = ast.unparse(node.value).split(".")[-1]
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if head == "Literal":
            return (Kind(head, tuple(ast.literal_eval(part) for part in parts)),)
        if head in SEVERAL:
            return (Kind(head, _parsed(parts[0], names)),)
        if head == "tuple" and not any(isinstance(part, ast.Constant) for part in parts):
            return (Kind(head, tuple(kind for part in parts for kind in _parsed(part, names))),)
        return (Kind(head),)
    name = ast.unparse(node).split(".")[-1]
    alias = _option(name, names)
    if get_origin(alias) is Literal:
        return (Kind("Literal", get_args(alias)),)
    return () if name in ("Any", "object") else (Kind(name),)


@functools.cache
def _for_type_checkers(module: str) -> dict[str, tuple[str, int]]:
    """Where the names come from that a module of this package imports from others of it: module, and dots before."""
    tree = ast.parse(inspect.getsource(import_module(module)))
    return {
        alias.asname or alias.name: (node.module or "", node.level)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.level or str(node.module).startswith(PACKAGE))
        for alias in node.names
    }


def _option(name: str, names: Mapping[str, Any]) -> Any:
    """What a name in an annotation stands for, if it is one of this package."""
    if name in names:
        return names[name]
    module = str(names["__name__"])
    found = _for_type_checkers(module).get(name) if module.startswith(PACKAGE) else None
    if found is None:
        return None
    return getattr(import_module("." * found[1] + found[0], str(names["__package__"])), name)


def _check(name: str, value: Any, kinds: tuple[Kind, ...]) -> None:
    """Refuse a value that is of none of the kinds."""
    options = [kind for kind in kinds if kind.name == "Literal"]
    if options and len(options) + any(kind.name == "None" for kind in kinds) == len(kinds):
        allowed = [each for kind in options for each in kind.of]
        _validate.one_of(name, value, [*allowed, *([None] if len(options) < len(kinds) else [])])
        return
    if any(_is(value, kind) for kind in kinds):
        _in_range(name, value)
        return
    if name == "rng":
        raise TypeError(f"rng={_validate.shown(value)} is not a seed: use an int or a numpy Generator")
    words = " or ".join(kind.words for kind in kinds)
    kind = type(value).__name__
    article = "an" if kind[0].lower() in "aeiou" else "a"
    seen = "" if value is None or isinstance(value, str) else f", {article} {kind},"
    message = f"{name}={_validate.shown(value)}{seen} is not allowed: use {words}"
    numbers = isinstance(value, int | float | np.number) and any(kind.name in ("int", "float") for kind in kinds)
    raise ValueError(message) if numbers else TypeError(message)


def _in_range(name: str, value: Any) -> None:
    """Refuse numbers that are none, and what is nowhere allowed under a name."""
    several = value if isinstance(value, list | tuple) else [value]
    for each in several if name != "doses" else ():  # dose 0 is at minus infinity
        if isinstance(each, float | np.floating) and not math.isfinite(each):
            raise ValueError(f"{name}={_validate.shown(value)} is not allowed: use a finite number")
    if name == "figsize" and value is not None and not min(value) > 0:
        raise ValueError(f"figsize={_validate.shown(value)} is not allowed: width and height in inches are above 0")
    if name == "rng" and isinstance(value, int | np.integer) and value < 0:
        raise ValueError(f"rng={value!r} is negative: a seed is 0 or more")


def _check_labels(name: str, value: Any) -> None:
    """Refuse what is neither a label of cells nor several: labels may be texts, numbers and flags."""
    plain = _validate.PLAIN
    several = isinstance(value, list | tuple | set | frozenset) or type(value).__name__ in ARRAYS
    if several and getattr(value, "ndim", 1) == 1 and all(isinstance(each, plain) for each in value):
        return
    if not isinstance(value, plain):
        raise TypeError(
            f"{name}= is a {type(value).__name__}, {_validate.shown(value)}: use a label or a list of labels"
        )


def _is(value: Any, kind: Kind) -> bool:
    """Whether a value is of a kind."""
    if kind.name == "None":
        return value is None
    if kind.name == "Literal":
        return isinstance(value, _validate.PLAIN) and any(type(value) is type(o) and value == o for o in kind.of)
    if kind.name == "bool":
        return isinstance(value, bool | np.bool_)
    if kind.name in ("int", "float"):
        numbers = int | np.integer if kind.name == "int" else int | float | np.integer | np.floating
        return isinstance(value, numbers) and not isinstance(value, bool | np.bool_)
    if kind.name == "tuple":
        pair = isinstance(value, tuple | list) or type(value).__name__ in ARRAYS
        return pair and len(value) == len(kind.of) and all(map(_is, value, kind.of))
    if kind.name in SEVERAL:
        return _several(value, kind.of, ordered=kind.name in ("Sequence", "list"))
    if kind.name in ("Mapping", "dict"):
        return isinstance(value, Mapping)
    if kind.name == "PathLike":
        return hasattr(value, "__fspath__")
    if kind.name in DATA:
        return hasattr(value, "obs") and hasattr(value, "varm")
    if kind.name == "ndarray" and isinstance(value, list | tuple):
        return True
    return any(each.__name__ == kind.name for each in type(value).__mro__)


def _several(value: Any, of: tuple[Kind, ...], *, ordered: bool) -> bool:
    """Whether a value is several of some kinds; what can be read only once is taken as it is."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return False
    if ordered and isinstance(value, set | frozenset):
        return False
    if any(each.__name__ in (*DATA, "DataFrame") for each in type(value).__mro__) or getattr(value, "ndim", 1) != 1:
        return False
    if not of or not (isinstance(value, list | tuple | set | frozenset) or type(value).__name__ in ARRAYS):
        return True
    return all(any(_is(each, kind) for kind in of) for each in value)
