"""Scores with Student t noise of 3 degrees of freedom: robust means of rows, which then count as normal ones."""

from __future__ import annotations

from dataclasses import replace

from . import normal

WORDS = normal.WORDS._replace(
    level="location of control cells' scores",
    noise=r"scale $\sigma$ ± sd",
    observed="score (robust mean of cells)",
)
LIKELIHOOD = replace(normal.LIKELIHOOD, name="studentt", technical_step="technical_studentt", words=WORDS, robust=True)
