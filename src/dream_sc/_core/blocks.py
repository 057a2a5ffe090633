"""Features in blocks of a fixed size: what is dense is never larger than one."""

from __future__ import annotations

BLOCK = 64


def blocks(n: int) -> list[slice]:
    """Slices that cover `n` features."""
    return [slice(i, min(i + BLOCK, n)) for i in range(0, n, BLOCK)]
