"""Stored tables by their slot."""

from __future__ import annotations

from typing import Any

from dream_sc import _validate


def table(data: Any, mod: str | None, slot: str, key: str, call: str) -> Any:
    """A stored table and its object; a missing one names the function to call."""
    adata = _validate.readable(data, mod)
    store = getattr(adata, slot)
    if key not in store:
        raise KeyError(f".{slot}[{key!r}] is not there: call dream_sc.tl.{call} first, or name another key=")
    return adata, store[key]
