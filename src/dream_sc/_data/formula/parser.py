"""Formulas of covariates: a text is read into a tree of data, and only that tree is ever evaluated.

- sum: ``["+" | "-"] product {("+" | "-") product}``
- product: ``interaction {"*" interaction}``
- interaction: ``atom {":" atom}``
- atom: ``"0" | "1" | factor | "(" sum ")"``
- factor: ``column | function "(" factor {"," [option "="] value} ")"``
- column: a name, or any text in backticks
- value: ``number | text | "True" | "False" | "[" number {"," number} "]" | contrast``
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dream_sc import _validate

from . import allowed as most
from .allowed import CONTRASTS, FUNCTIONS, OUTERMOST, Option, plain_function, refused
from .tokens import Token, tokens
from .tree import (
    Argument,
    Call,
    Column,
    Contrast,
    Factor,
    Formula,
    Interaction,
    Node,
    Number,
    Product,
    Sum,
    quoted,
    terms_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData


def formula_of(adata: AnnData, covariates: str | Sequence[str] | None) -> str | None:
    """The right-hand side of a formula: that given, or the sum of the columns named."""
    if covariates is None:
        return None
    if isinstance(covariates, str):
        text = covariates.strip().removeprefix("~").strip()
        if text in adata.obs:
            return quoted(text)
        if "~" in re.sub("`[^`]*`|'[^']*'|\"[^\"]*\"", "", text):
            raise refused(covariates, "it has a left-hand side: give what stands to the right of '~' only")
    else:
        names = list(covariates)
        for name in names:
            _validate.column(adata, name, "covariates")
        text = " + ".join(quoted(name) for name in names)
    if not text:
        raise ValueError("covariates= is empty: name columns of .obs, give a formula, or leave it out")
    return text


def read(formula: object) -> Formula:
    """Read a formula.

    Raises
    ------
    ValueError
        If it holds anything else than what is allowed.
    """
    if not isinstance(formula, str):
        raise refused(formula, f"it is of type {type(formula).__name__}, not text")
    if len(formula) > most.MOST_CHARACTERS:
        raise refused(formula, f"it has {len(formula)} characters, more than {most.MOST_CHARACTERS}")
    tree = _Parser(formula).whole()
    terms = sorted(terms_of(tree, formula).values(), key=len)
    return Formula(formula, tree, tuple(terms))


def refuse_unknown(adata: AnnData, formula: Formula) -> None:
    """Refuse columns that `.obs` lacks; with a dot they may be meant for attributes."""
    for name in formula.columns:
        if "." in name and name not in adata.obs:
            close = _validate.close(name, map(str, adata.obs.columns))
            raise refused(formula.text, f"{name!r} is not a column of .obs{close}")
        _validate.column(adata, name, "covariates")


class _Parser:
    """A parser by recursive descent. Only brackets recurse, and their depth is limited."""

    def __init__(self, formula: str) -> None:
        self.formula = formula
        self.tokens = tokens(formula)
        self.at = 0
        self.depth = 0

    def whole(self) -> Node:
        tree = self.sum()
        if self.token.kind != "end":
            raise self.unexpected()
        return tree

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def take(self, *signs: str) -> str | None:
        """The next token, if it is one of these signs."""
        if self.token.kind != "sign" or self.token.text not in signs:
            return None
        self.at += 1
        return self.tokens[self.at - 1].text

    def close(self, sign: str) -> None:
        if self.take(sign) is None:
            raise self.unexpected(f", where {sign!r} or ',' was expected")
        self.depth -= 1

    def open(self) -> None:
        self.depth += 1
        if self.depth > most.DEEPEST:
            raise refused(self.formula, f"it has more than {most.DEEPEST} brackets in brackets")

    def unexpected(self, more: str = "") -> ValueError:
        what = "its end" if self.token.kind == "end" else f"{self.token.text[:100]!r} at character {self.token.at + 1}"
        return refused(self.formula, f"{what} is not allowed there{more}")

    def sum(self) -> Node:
        parts = [(self.take("+", "-") or "+", self.product())]
        while sign := self.take("+", "-"):
            parts.append((sign, self.product()))
        return parts[0][1] if len(parts) == 1 and parts[0][0] == "+" else Sum(tuple(parts))

    def product(self) -> Node:
        parts = [self.interaction()]
        while self.take("*"):
            parts.append(self.interaction())
        return parts[0] if len(parts) == 1 else Product(tuple(parts))

    def interaction(self) -> Node:
        parts = [self.atom()]
        while self.take(":"):
            parts.append(self.atom())
        return parts[0] if len(parts) == 1 else Interaction(tuple(parts))

    def atom(self) -> Node:
        if self.take("("):
            self.open()
            inner = self.sum()
            self.close(")")
            return inner
        if self.token.kind == "number" and self.token.text in ("0", "1"):
            self.at += 1
            return Number(int(self.tokens[self.at - 1].text))
        return self.factor()

    def factor(self) -> Factor:
        token = self.token
        if token.kind not in ("name", "column"):
            raise self.unexpected()
        self.at += 1
        if token.kind == "column" or not self.take("("):
            return Column(token.text)
        function = plain_function(token.text)
        if function is None:
            raise refused(self.formula, f"{token.text[:100] + '()'!r} is not allowed")
        self.open()
        of = self.factor()
        if isinstance(of, Call) and (function == "C" or of.function in OUTERMOST):
            raise refused(self.formula, f"{function}() of {of.function}() is not allowed")
        options = self.options(token.text, FUNCTIONS[function]) if self.take(",") else ()
        self.close(")")
        return Call(token.text, of, options)

    def options(self, function: str, known: Mapping[str, Option]) -> tuple[Argument, ...]:
        """Options up to the closing bracket."""
        found: dict[str, Argument] = {}
        named, more = False, True
        while more:
            has_name = self.token.kind == "name" and self.tokens[self.at + 1][:2] == ("sign", "=")
            if named and not has_name:
                raise self.unexpected(", after an option with its name")
            named = has_name
            name = self.token.text if named else next(iter(list(known)[len(found) :]), "")
            if name not in known or name in found:
                what = "twice" if name in found else "not an option"
                raise self.unexpected(f": {what}, {function}() has the options {list(known)}")
            self.at += 2 if named else 0
            at = self.at
            value = self.value()
            if not known[name].allows(value):
                self.at = at
                raise self.unexpected(f": {name}= of {function}() is {known[name].text}")
            found[name] = Argument(name, value, named)
            more = self.take(",") is not None
        return tuple(found.values())

    def value(self) -> Any:
        if self.take("["):
            self.open()
            numbers = [self.number()]
            while self.take(","):
                numbers.append(self.number())
            self.close("]")
            return tuple(numbers)
        token = self.token
        if token.kind == "text" or (token.kind == "name" and token.text in ("True", "False")):
            self.at += 1
            return token.text if token.kind == "text" else token.text == "True"
        if token.kind == "name" and token.text in CONTRASTS:
            self.at += 1
            if not self.take("("):
                raise refused(self.formula, f"{token.text} without brackets is not allowed, write {token.text}()")
            self.open()
            closes = self.token.kind == "sign" and self.token.text == ")"
            options = () if closes else self.options(token.text, CONTRASTS[token.text])
            self.close(")")
            return Contrast(token.text, options)
        return self.number()

    def number(self) -> int | float:
        sign = -1 if self.take("-") else 1
        if self.token.kind != "number":
            raise self.unexpected(", where a plain number, text, list, True or False was expected")
        text = self.token.text
        self.at += 1
        return sign * (int(text) if text.isdigit() else float(text))
