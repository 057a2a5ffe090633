"""How many threads a kernel may use."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOAD = 50_000  # values that are worth a thread
MOST: ContextVar[int | None] = ContextVar("threads to keep to", default=None)


def n_threads() -> int:
    """Threads granted to this process: by affinity and cgroup, by Slurm, and by numba's own settings.

    Results do not depend on it.
    """
    import joblib
    import numba

    granted = [joblib.cpu_count(), numba.get_num_threads()]
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdecimal():
        granted.append(int(slurm))
    most = MOST.get()
    if most is not None:
        granted.append(most)
    return max(1, min(granted))


@contextmanager
def at_most(n: int | None) -> Iterator[None]:
    """Keep to so many threads for a while, each of which needs memory of its own; None: to all granted."""
    before = MOST.set(n)
    try:
        yield
    finally:
        MOST.reset(before)


@contextmanager
def granted(load: int) -> Iterator[int]:
    """Let numba use the threads granted, and no more, for a while; gives their number.

    `load` is a number of values: few of them are not worth waiting for another thread.
    """
    import numba

    before, n = numba.get_num_threads(), min(n_threads(), 1 + load // LOAD)
    numba.set_num_threads(n)
    try:
        yield n
    finally:
        numba.set_num_threads(before)
