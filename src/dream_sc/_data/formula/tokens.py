"""The words of a formula of covariates."""

from __future__ import annotations

import re
from typing import NamedTuple

from .allowed import refused

SIGNS = "+-*:(),=[]"
SPACE = " \t\r\n"
QUOTES = {"`": "column", "'": "text", '"': "text"}
NUMBER = re.compile(r"(?:[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][+-]?[0-9]{1,3})?")


class Token(NamedTuple):
    """A word: a "sign", a "name", a "column" in backticks, a "number", a "text" in quotes, or the "end"."""

    kind: str
    text: str
    at: int


def tokens(formula: str) -> list[Token]:
    """The words of a formula, the end last. Names are taken as they are: letters that look alike stay different."""
    out = []
    at = 0
    while at < len(formula):
        char = formula[at]
        if char in SPACE:
            at += 1
            continue
        start = at
        if char in SIGNS:
            at += 1
            out.append(Token("sign", char, start))
        elif char in QUOTES:
            at = _closed(formula, start)
            out.append(Token(QUOTES[char], formula[start + 1 : at - 1], start))
        elif number := NUMBER.match(formula, at):
            at = number.end()
            out.append(Token("number", number[0], start))
        elif char.isidentifier():
            while at < len(formula) and _in_name(formula[at]):
                at += 1
            out.append(Token("name", formula[start:at], start))
        else:
            raise refused(formula, f"{char!r} at character {start + 1} is not allowed")
    return [*out, Token("end", "", len(formula))]


def _in_name(char: str) -> bool:
    return char == "." or ("a" + char).isidentifier()


def _closed(formula: str, start: int) -> int:
    """Where a quotation ends."""
    quote = formula[start]
    end = formula.find(quote, start + 1)
    if end < 0:
        raise refused(formula, f"{quote} at character {start + 1} is not closed")
    inside = formula[start + 1 : end]
    if quote == "`" and not inside:
        raise refused(formula, f"the backticks at character {start + 1} are empty")
    if quote != "`" and "\\" in inside:
        raise refused(formula, f"'\\' in the text at character {start + 1} is not allowed")
    return end + 1
