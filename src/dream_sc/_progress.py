"""Progress bars: shown in a terminal, silent in a log file, forced by ``progress=True``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any


def bar(progress: bool | None, label: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """Return a wrapper for iterables that shows a bar, or does nothing."""
    if progress is False or (progress is None and not sys.stderr.isatty()):
        return lambda items: items
    from tqdm.auto import tqdm

    return partial(tqdm, desc=label, leave=False)
