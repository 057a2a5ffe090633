"""Progress bars: shown on a terminal, silent in a log file unless asked for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ._settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LOG_FILE_INTERVAL = 30.0  # seconds between two updates where each of them is a new line


def shown(progress: bool | None) -> bool:
    """Whether a bar is shown: as told, else by `settings.progress`, else if standard error is a terminal."""
    if progress is None:
        progress = settings.progress
    return _is_terminal() if progress is None else progress


def bar(progress: bool | None, label: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """Return a wrapper of iterables that shows a bar, or does nothing.

    Parameters
    ----------
    progress
        True: shown, False: silent, None: see `shown`.
    label
        What is being done.
    """
    if not shown(progress):
        return lambda items: items

    def wrap(items: Iterable[Any]) -> Iterable[Any]:
        from tqdm.auto import tqdm

        return tqdm(items, desc=label, leave=False, mininterval=0.2 if _is_terminal() else LOG_FILE_INTERVAL)

    return wrap


def _is_terminal() -> bool:
    stream = sys.stderr
    return stream is not None and stream.isatty()
