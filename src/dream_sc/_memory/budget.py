"""How much memory a step may take."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
SMALL = 100_000_000  # limits below it bound the reading only
# of a limit, what blocks of a file leave to all else: code and buffers of HDF5 and small pieces that the allocator
# keeps, vectors over cells, and what it keeps between larger pieces
BESIDE_BLOCKS, BESIDE_CELL, BESIDE_SHARE = 40_000_000, 112, 0.05
CGROUP = Path("/sys/fs/cgroup")
CGROUP_OF_PROCESS = Path("/proc/self/cgroup")


def memory_budget(limit: int | str | None = None, name: str = "memory_limit") -> int:
    """Bytes that a step may take beside what is in memory already.

    Parameters
    ----------
    limit
        Bytes, or a text such as "4GB" (10^9) or "500MiB" (2^20). None: half of what is available, that is free or
        quickly freed, in the machine and in the cgroup (a container's or a job's share).
    name
        What the argument is called, for messages.

    Raises
    ------
    ValueError
        If it is no amount of memory.
    """
    if limit is None:
        return available() // 2
    wrong = f'{name}={limit!r} is no amount of memory: use bytes, or a text like "4GB" or "500MB"'
    if isinstance(limit, str):
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kmgt]?)(i?)b?\s*", limit.lower())
        if match is None or (match[3] and not match[2]):
            raise ValueError(wrong)
        limit = int(float(match[1]) * (BINARY if match[3] else UNITS)[match[2]])
    if isinstance(limit, bool) or not isinstance(limit, int | np.integer) or limit < 1:
        raise ValueError(wrong)
    return int(limit)


def beside_blocks(budget: int, n_cells: int) -> int:
    """Bytes of a limit that blocks of counts from a file do not take; limits below 100 MB bound these only."""
    return 0 if budget < SMALL else round(BESIDE_BLOCKS + BESIDE_CELL * n_cells + BESIDE_SHARE * budget)


def available() -> int:
    """Bytes that are free or quickly freed, in the machine and in each cgroup around this process."""
    import psutil

    free = [int(psutil.virtual_memory().available)]
    return max(0, min(free + [rest for folder in _cgroups() if (rest := _rest(folder)) is not None]))


def _cgroups() -> list[Path]:
    """Folders of the cgroups (version 2, or the memory controller of version 1) that this process is in."""
    try:
        lines = CGROUP_OF_PROCESS.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root = CGROUP / controllers
            inner = root / path.lstrip("/")
            # within a container the path may be that of the host, and only the root is there
            found += [p for p in (inner, *inner.parents) if p == root or root in p.parents]
    return found


def _rest(folder: Path) -> int | None:
    """Bytes that a cgroup has left, its file cache taken for free; None without a limit."""
    for limit, current in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        try:
            most = (folder / limit).read_text().strip()
            used = int((folder / current).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most == "max":
            return None
        cache = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
        return int(most) - used + cache
    return None


def highest_resident() -> int:
    """The highest resident set of this process since it began, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_words(n_bytes: float) -> str:
    """A number of bytes for a message."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes / 1000:.3g} kB"
