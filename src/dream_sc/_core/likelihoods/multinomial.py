"""Counts of several categories, as a chain of binomials: each category out of itself and all that come after it."""

from __future__ import annotations

from dataclasses import replace

from . import binomial

LIKELIHOOD = replace(binomial.LIKELIHOOD, name="multinomial")
