"""Dose-response curves: one file each, with its numpy, compiled and torch form; the list below is the registry.

A new curve is appended to the list: its place stands for it in kernels and in posterior records, which outlive
versions.
"""

from __future__ import annotations

from typing import Literal

from . import additive_hill, null, polynomial, single_hill, switch
from ._base import LN2, Curve, Step

CURVES: tuple[Curve, ...] = (null.CURVE, single_hill.CURVE, additive_hill.CURVE, polynomial.CURVE, switch.CURVE)
NULL = CURVES[0]
RESPONSES = tuple(sorted(CURVES[1:], key=lambda c: not c.by_acting))  # simpler ones first
SWITCH = switch.CURVE
FunctionType = Literal["auto", "single_hill", "additive_hill", "polynomial"]
FUNCTION_TYPES: tuple[str, ...] = ("auto", *(c.name for c in RESPONSES if not c.by_acting))
ENTRIES = tuple(each for c in CURVES if c.factor is not None for each in c.factor.entries)  # compiled ahead


def curve(name: str) -> Curve:
    """Return the curve of this name."""
    for candidate in CURVES:
        if name == candidate.name:
            return candidate
    raise ValueError(f"unknown curve {name!r}; there are {[c.name for c in CURVES]}")


def place(c: Curve) -> int:
    """Where a curve is in the list."""
    return [each.name for each in CURVES].index(c.name)


__all__ = [
    "CURVES",
    "ENTRIES",
    "FUNCTION_TYPES",
    "LN2",
    "NULL",
    "RESPONSES",
    "SWITCH",
    "Curve",
    "FunctionType",
    "Step",
    "curve",
    "place",
]
