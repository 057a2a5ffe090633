"""Likelihoods: one file each; the list below is the registry, and nothing else knows their names."""

from __future__ import annotations

from typing import Literal

from . import binomial, multinomial, negbinom, normal, studentt
from ._base import Likelihood, Rows, Statistics, Words

LIKELIHOODS: tuple[Likelihood, ...] = tuple(m.LIKELIHOOD for m in (negbinom, binomial, multinomial, normal, studentt))
DISTRIBUTIONS: tuple[str, ...] = tuple(each.name for each in LIKELIHOODS)
Distribution = Literal["negbinom", "binomial", "multinomial", "normal", "studentt"]


def likelihood(name: str | None = None) -> Likelihood:
    """Return the likelihood of this name; by default the first one, that of counts.

    Raises
    ------
    ValueError
        If there is none of this name.
    """
    for candidate in LIKELIHOODS:
        if name in (None, candidate.name):
            return candidate
    raise ValueError(f"distribution={name!r} is not known; use one of {list(DISTRIBUTIONS)}")


def named(**facts: object) -> list[str]:
    """Names of the likelihoods with these facts, such as ``statistics="shares"``."""
    return [each.name for each in LIKELIHOODS if all(getattr(each, fact) == value for fact, value in facts.items())]


def place(like: Likelihood) -> int:
    """Where a likelihood is in the list."""
    return DISTRIBUTIONS.index(like.name)


__all__ = [
    "DISTRIBUTIONS",
    "LIKELIHOODS",
    "Distribution",
    "Likelihood",
    "Rows",
    "Statistics",
    "Words",
    "binomial",
    "likelihood",
    "multinomial",
    "named",
    "negbinom",
    "normal",
    "place",
    "studentt",
]
