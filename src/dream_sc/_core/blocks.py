"""Features in blocks of a fixed size, on all threads: what is dense is never larger than a block for each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from threadpoolctl import threadpool_limits

from .threads import n_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Item = TypeVar("Item")
    Result = TypeVar("Result")

BLOCK = 64
LARGE = 4096  # for a device, which has use for many features at a time


def blocks(n: int, size: int = BLOCK) -> list[slice]:
    """Slices that cover `n` features."""
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def each(
    call: Callable[[Item], Result], items: Sequence[Item], progress: Callable[[Any], Any] = lambda x: x, *,
    alone: bool = False,
) -> Iterator[tuple[Item, Result]]:  # fmt: skip
    """Call for every item on all threads; yields items and results in their order.

    Kernels release the lock, and linear algebra inside is kept to one thread. `progress` wraps the sequence of items.
    An interruption lets the running calls end and drops the others. `alone`: one call at a time.
    """
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


def each_block(
    call: Callable[[slice], Result], n: int, progress: Callable[[Any], Any] = lambda x: x, *, on_device: bool = False
) -> list[Result]:
    """Results of all blocks of `n` features; on a device blocks are large and run one at a time."""
    size = LARGE if on_device else BLOCK
    return [result for _, result in each(call, blocks(n, size), progress, alone=on_device)]
