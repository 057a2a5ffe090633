"""Dosage response of every gene in single-cell CRISPR titrations."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from . import datasets, get, pl, pp, tl

try:
    __version__ = version("dream-sc")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__", "datasets", "get", "pl", "pp", "tl"]
