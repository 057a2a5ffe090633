"""A fit as one HTML file, for people who do not run Python."""

from ._report import report

__all__ = ["report"]
