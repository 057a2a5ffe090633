"""Dosage response of every gene to a graded perturbation of one gene, from single-cell CRISPR screens."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from . import datasets, get, memory, pl, pp, tl
from ._settings import settings

try:
    __version__ = version("dream-sc")
except PackageNotFoundError:  # a source tree on the path that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__", "datasets", "get", "memory", "pl", "pp", "settings", "tl"]
