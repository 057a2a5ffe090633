"""Readers of what the steps stored: tables, curves and posterior draws."""

from ._curves import dose_response, posterior
from ._tables import calibration, cis, confounding, guides, technical, trans

__all__ = ["calibration", "cis", "confounding", "dose_response", "guides", "posterior", "technical", "trans"]
