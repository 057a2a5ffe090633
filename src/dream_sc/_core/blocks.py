"""Features in blocks of a fixed size, on all threads: what is dense is never larger than a block for each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from threadpoolctl import threadpool_limits

from .threads import n_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Item = TypeVar("Item")
    Result = TypeVar("Result")

BLOCK = 64


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
