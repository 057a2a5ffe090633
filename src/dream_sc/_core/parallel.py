"""Work on several threads: features in blocks of a fixed size, and kernels in runs.

What is dense is never larger than a block for each thread. Results depend neither on blocks nor on threads.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Item = TypeVar("Item")
    Result = TypeVar("Result")

BLOCK = 64  # features
LOAD = 50_000  # values that are worth a thread
MOST: ContextVar[int | None] = ContextVar("threads to keep to", default=None)


# ---- threads --------------------------------------------------------------------------------------------------------


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


# ---- blocks of features ---------------------------------------------------------------------------------------------


class Kept(Protocol):
    """Results of blocks that outlive an interruption: nested tuples and dicts of arrays."""

    def under(self, name: str) -> Kept:
        """Those of one stage of the work."""

    def load(self, i: int) -> Any:
        """That of a block, None where it is not there."""

    def save(self, i: int, result: Any) -> None:
        """Keep that of a block; several threads may."""


def under(kept: Kept | None, name: str) -> Kept | None:
    """Where the results of a stage are kept, if any are."""
    return None if kept is None else kept.under(name)


def blocks(n: int, size: int = BLOCK) -> list[slice]:
    """Slices that cover `n` features."""
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def each(
    call: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Callable[[Any], Any] = lambda x: x,
    *,
    alone: bool = False,
    kept: Kept | None = None,
) -> Iterator[tuple[Item, Result]]:
    """Call for every item on all threads; yields items and results in their order.

    Kernels release the lock, and linear algebra inside is kept to one thread. `progress` wraps the sequence of items.
    An interruption lets the running calls end and drops the others. `alone`: one call at a time. What is `kept`
    is not called again.
    """
    if kept is not None:
        numbered = list(enumerate(items))
        for (_, item), result in each(_keeping(call, kept), numbered, progress, alone=alone):
            yield item, result
        return
    n = 1 if alone else min(n_threads(), len(items))
    if n <= 1:
        with threadpool_limits(1, user_api="blas"):
            for item in progress(items):
                yield item, call(item)
        return
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n, thread_name_prefix="dream_sc") as pool:
        futures = [pool.submit(call, item) for item in items]
        try:
            for item, future in zip(progress(items), futures, strict=True):
                yield item, future.result()
        finally:
            for future in futures:
                future.cancel()


def _keeping(call: Callable[[Item], Result], kept: Kept) -> Callable[[tuple[int, Item]], Result]:
    """The call for numbered items, made only where there is no result yet."""

    def either(numbered: tuple[int, Item]) -> Result:
        i, item = numbered
        result: Result | None = kept.load(i)
        if result is None:
            result = call(item)
            kept.save(i, result)
        return result

    return either


def each_block(
    call: Callable[[slice], Result],
    n: int,
    progress: Callable[[Any], Any] = lambda x: x,
    *,
    kept: Kept | None = None,
) -> list[Result]:
    """Results of all blocks of `n` features."""
    return [result for _, result in each(call, blocks(n), progress, kept=kept)]
