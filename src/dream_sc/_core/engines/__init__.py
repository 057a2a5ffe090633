"""Engines: one module each; the list below is the registry. Each offers `technical`, `cis` and `trans`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

ENGINES = ("laplace", "svi", "nuts")


def engine(name: str) -> Any:
    """Load an engine by name; the Pyro ones bring torch, so each loads on first use."""
    if name not in ENGINES:
        raise ValueError(f"inference={name!r} is not known; use one of {list(ENGINES)}")
    return import_module(f".{name}", __name__)
