"""Likelihoods: one file each; the list below is the registry, `row` the dispatch inside kernels."""

from __future__ import annotations

from . import binomial, negbinom

DISTRIBUTIONS: tuple[str, ...] = (negbinom.NAME, binomial.NAME, "multinomial", "normal", "studentt")

__all__ = ["DISTRIBUTIONS", "binomial", "negbinom"]
