"""How many threads a kernel may use."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOAD = 50_000  # values that are worth a thread
MOST: ContextVar[int | None] = ContextVar("threads to keep to", default=None)


def n_threads() -> int:
    """Threads granted to this process: by affinity and cgroup, by Slurm, and by numba's own settings.

    Results do not depend on it.
    """
    import joblib
    import numba
    from numba.core import config
    from numba.np.ufunc import parallel

    # to ask numba before its threads have started would start them, and they do not survive a fork
    started = getattr(parallel, "_is_initialized", False)
    most = numba.get_num_threads() if started else getattr(config, "NUMBA_NUM_THREADS", 1)
    granted = [joblib.cpu_count(), most]
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdecimal():
        granted.append(int(slurm))
    told = MOST.get()
    if told is not None:
        granted.append(told)
    return max(1, min(granted))


@contextmanager
def at_most(n: int | None) -> Iterator[None]:
    """Keep to so many threads for a while, each of which needs memory of its own; None: to all granted."""
    before = MOST.set(n)
    try:
        yield
    finally:
        MOST.reset(before)


def n_threads_for(load: int) -> int:
    """Threads for so many values: few of them are not worth waiting for another thread."""
    return min(n_threads(), 1 + load // LOAD)


def in_runs(kernel: Callable[..., None], n_items: int, *arguments: Any, load: int) -> None:
    """Call ``kernel(first, last, *arguments)`` for runs that cover `n_items`, each on a thread of its own.

    Threads of Python's, which end with the call: those that numba keeps do not survive a fork. Kernels release the
    lock.
    """
    n = min(n_threads_for(load), n_items)
    if n <= 1:
        kernel(0, n_items, *arguments)
        return
    ends = [i * n_items // n for i in range(n + 1)]
    with ThreadPoolExecutor(n - 1, thread_name_prefix="dream_sc") as pool:
        others = [pool.submit(kernel, a, b, *arguments) for a, b in pairwise(ends[1:])]
        kernel(0, ends[1], *arguments)
        for other in others:
            other.result()
