"""Scores with Student t noise of 3 degrees of freedom: robust means of rows, which then count as normal ones."""

from __future__ import annotations

from dataclasses import replace

from . import normal

LIKELIHOOD = replace(normal.LIKELIHOOD, name="studentt")
