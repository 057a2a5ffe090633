"""Dose-response curves: one file each; the list below is the registry."""

from __future__ import annotations

from . import additive_hill, null, polynomial, single_hill
from ._base import LN2, Curve

CURVES: tuple[Curve, ...] = (null.CURVE, single_hill.CURVE, additive_hill.CURVE, polynomial.CURVE)


def curve(name: str | int) -> Curve:
    """Return the curve of this name or code."""
    for candidate in CURVES:
        if name in (candidate.name, candidate.code):
            return candidate
    raise ValueError(f"unknown curve {name!r}; there are {[c.name for c in CURVES]}")


__all__ = ["CURVES", "LN2", "Curve", "curve"]
