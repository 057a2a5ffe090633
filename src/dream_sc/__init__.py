"""Dosage response of every gene to a graded perturbation of one gene, from single-cell CRISPR screens."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ._settings import settings

_SUBMODULES = ("datasets", "get", "pl", "pp", "tl")

try:
    __version__ = version("dream-sc")
except PackageNotFoundError:  # a source tree on the path that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__", "datasets", "get", "pl", "pp", "settings", "tl"]  # noqa: F822


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
