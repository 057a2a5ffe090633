"""The tree of a formula of covariates: data, the terms that it stands for, and its text."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from . import allowed as most
from .allowed import STATEFUL, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Column:
    """A column of `.obs`."""

    name: str


@dataclass(frozen=True)
class Argument:
    """An option of a function with its value: a number, a text, a truth value, a tuple of numbers or a contrast."""

    name: str
    value: Any
    named: bool = field(compare=False)  # whether its name is written


@dataclass(frozen=True)
class Contrast:
    """How the levels of a factor become columns."""

    name: str
    options: tuple[Argument, ...]


@dataclass(frozen=True)
class Call:
    """A function of a column, or of another function of one."""

    function: str = field(compare=False)  # as it is written
    of: Column | Call
    options: tuple[Argument, ...]
    plain: str = field(init=False, repr=False)  # the function without "np.": `log(x)` and `np.log(x)` are one

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", self.function.removeprefix("np."))

    @property
    def values(self) -> dict[str, Any]:
        """The options by name."""
        return {option.name: option.value for option in self.options}


@dataclass(frozen=True)
class Number:
    """0 or 1. Neither changes anything, since every feature has a baseline."""

    value: int


@dataclass(frozen=True)
class Sum:
    """Terms that are added or taken away."""

    parts: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class Product:
    """Terms and all their interactions."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Interaction:
    """Interactions of terms."""

    parts: tuple[Node, ...]


Factor = Column | Call
Node = Column | Call | Number | Sum | Product | Interaction
Term = tuple[Factor, ...]


@dataclass(frozen=True)
class Formula:
    """A formula that was read."""

    text: str
    tree: Node
    terms: tuple[Term, ...]  # by the number of their factors

    @property
    def factors(self) -> list[Factor]:
        """Columns and calls that terms are made of."""
        return list(dict.fromkeys(chain.from_iterable(self.terms)))

    @property
    def columns(self) -> list[str]:
        """Columns of `.obs` that are named."""
        return list(dict.fromkeys(column_of(factor) for factor in self.factors))

    @property
    def bare(self) -> set[str]:
        """Columns of `.obs` that are terms as they are: factors where they hold labels."""
        return {factor.name for factor in self.factors if isinstance(factor, Column)}

    @property
    def labels(self) -> set[str]:
        """Columns of `.obs` that are made factors."""
        return {column_of(f) for f in self.factors if isinstance(f, Call) and f.function == "C"}

    @property
    def stateful(self) -> list[Call]:
        """Calls that keep what they learn, each text once."""
        calls = chain.from_iterable(_calls(factor) for factor in self.factors)
        return list({text_of(call): call for call in calls if call.function in STATEFUL}.values())


def column_of(factor: Factor) -> str:
    """The column of `.obs` that a factor is made of."""
    while isinstance(factor, Call):
        factor = factor.of
    return factor.name


def _calls(factor: Factor) -> Iterator[Call]:
    while isinstance(factor, Call):
        yield factor
        factor = factor.of


# ---- tree to terms ---------------------------------------------------------------------------------------------------

Terms = dict[frozenset[Factor], Term]


def terms_of(node: Node, formula: str) -> Terms:
    """The terms of a tree, in order of first appearance."""
    if isinstance(node, Column | Call):
        return {frozenset((node,)): (node,)}
    out: Terms = {}
    if isinstance(node, Sum):
        for sign, part in node.parts:
            for key, term in terms_of(part, formula).items():
                out.pop(key, None) if sign == "-" else out.setdefault(key, term)
            _limit(len(out), formula)
    elif isinstance(node, Product | Interaction):
        if any(map(_has_number, node.parts)):
            raise refused(formula, "0 and 1 may be added or taken away only, not multiplied")
        out = terms_of(node.parts[0], formula)
        for part in node.parts[1:]:
            right = terms_of(part, formula)
            both = _crossed(out, right, formula)
            out = _union(out, right, both) if isinstance(node, Product) else both
            _limit(len(out), formula)
    return out


def _union(*sets: Terms) -> Terms:
    """Terms of all, each as it was first written."""
    out: Terms = {}
    for key, term in chain.from_iterable(terms.items() for terms in sets):
        out.setdefault(key, term)
    return out


def _crossed(left: Terms, right: Terms, formula: str) -> Terms:
    _limit(len(left) * len(right), formula)
    out: Terms = {}
    for one in left.values():
        for other in right.values():
            term = tuple(dict.fromkeys((*one, *other)))
            if len(term) > most.MOST_FACTORS:
                raise refused(formula, f"it has an interaction of more than {most.MOST_FACTORS} columns")
            out.setdefault(frozenset(term), term)
    return out


def _limit(n: int, formula: str) -> None:
    if n > most.MOST_TERMS:
        raise refused(formula, f"written out it has more than {most.MOST_TERMS} terms")


def _has_number(node: Node) -> bool:
    if isinstance(node, Sum):
        return any(_has_number(part) for _, part in node.parts)
    if isinstance(node, Product | Interaction):
        return any(map(_has_number, node.parts))
    return isinstance(node, Number)


# ---- tree to text ----------------------------------------------------------------------------------------------------


def quoted(name: str) -> str:
    """A column as it is written in a formula."""
    if not isinstance(name, str) or "`" in name or not name:
        raise ValueError(
            f"covariates= names the column {name!r} of .obs, which is empty, no text or holds a backtick: rename the "
            "column"
        )
    return name if name.isidentifier() else f"`{name}`"


def text_of(node: Node, quote: Callable[[str], str] = quoted) -> str:
    """A tree as text, which is read into the same tree; `quote` writes the columns."""
    if isinstance(node, Column):
        return quote(node.name)
    if isinstance(node, Call):
        return f"{node.function}({', '.join([text_of(node.of, quote), *map(_option, node.options)])})"
    if isinstance(node, Number):
        return str(node.value)
    if isinstance(node, Sum):
        signs = [(f" {sign} ", _bracketed(part, Sum, quote)) for sign, part in node.parts]
        return "".join(chain.from_iterable(signs)).removeprefix(" + ").strip()
    inner = Product if isinstance(node, Product) else Interaction
    bracketed = (_bracketed(part, inner, quote) for part in node.parts)
    return (" * " if inner is Product else ":").join(bracketed)


def _bracketed(node: Node, within: type, quote: Callable[[str], str]) -> str:
    rank = {Sum: 0, Product: 1, Interaction: 2}
    text = text_of(node, quote)
    return f"({text})" if rank.get(type(node), 3) <= rank[within] else text


def _option(option: Argument) -> str:
    value = option.value
    if isinstance(value, str):
        text = f'"{value}"' if "'" in value else f"'{value}'"
    elif isinstance(value, Contrast):
        text = f"{value.name}({', '.join(map(_option, value.options))})"
    else:
        text = str(list(value)) if isinstance(value, tuple) else repr(value)
    return f"{option.name}={text}" if option.named else text
