"""Simulated data with their truth."""

from ._titration import titration, true_curve

__all__ = ["titration", "true_curve"]
