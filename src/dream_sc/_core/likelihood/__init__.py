"""Likelihoods: one file each; the list below is the registry, `row` the dispatch inside kernels."""

from __future__ import annotations

from . import negbinom

DISTRIBUTIONS: tuple[str, ...] = (negbinom.NAME,)

__all__ = ["DISTRIBUTIONS", "negbinom"]
