"""Likelihoods: one file each; the list below is the registry."""

from __future__ import annotations

from . import binomial, multinomial, negbinom, normal, studentt
from ._base import Likelihood, Rows

LIKELIHOODS: tuple[Likelihood, ...] = tuple(m.LIKELIHOOD for m in (negbinom, binomial, multinomial, normal, studentt))
DISTRIBUTIONS: tuple[str, ...] = tuple(each.name for each in LIKELIHOODS)


def likelihood(name: str) -> Likelihood:
    """Return the likelihood of this name."""
    return LIKELIHOODS[DISTRIBUTIONS.index(name)]


def place(like: Likelihood) -> int:
    """Where a likelihood is in the list."""
    return DISTRIBUTIONS.index(like.name)


__all__ = [
    "DISTRIBUTIONS",
    "LIKELIHOODS",
    "Likelihood",
    "Rows",
    "binomial",
    "likelihood",
    "multinomial",
    "negbinom",
    "normal",
    "place",
    "studentt",
]
