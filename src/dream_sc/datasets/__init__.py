"""Simulated data with their truth."""

from ._high_moi import high_moi
from ._titration import titration, true_curve

__all__ = ["high_moi", "titration", "true_curve"]
