"""Counts of several categories, as a chain of binomials: each category out of itself and all that come after it."""

from __future__ import annotations

from dataclasses import replace

from . import binomial

WORDS = binomial.WORDS._replace(
    level="usage in control cells", effect="effect of {} ± sd (log usage)", observed="usage (share of reads)"
)
LIKELIHOOD = replace(
    binomial.LIKELIHOOD,
    name="multinomial",
    words=WORDS,
    denominator=False,
    categories=True,
    trans_engines=("laplace", "svi"),
)
