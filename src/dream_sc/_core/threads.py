"""How many threads a kernel may use."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOAD = 50_000  # values that are worth a thread


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
    return max(1, min(granted))


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
