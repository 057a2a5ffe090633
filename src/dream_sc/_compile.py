"""Compiled code made ready before a fit, with a bar or a message, as long as it takes once for each version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._logging import logger
from ._progress import shown, stage
from ._settings import settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def ready(step: str, progress: bool | None = None, *, then: Sequence[str] = (), said: bool = True) -> int:
    """Compile what a step lacks, and start with what later ones will.

    Parameters
    ----------
    step
        "technical", "cis", "trans" or "shares".
    progress
        See `_progress.shown`; where no bar is shown a message says what takes the time.
    then
        Steps that are compiled beside this one's work.
    said
        Whether a message stands in for a bar that is not shown.

    Returns
    -------
    The number of functions that had to be compiled.
    """
    from ._core.compiled import ahead
    from ._core.parallel import n_threads

    running, seen, number = None, 0, 0

    def tell(done: int, total: int) -> None:
        nonlocal running, seen, number
        if running is None and done < total:
            number = total
            silent = (settings.progress if progress is None else progress) is False  # was asked for
            if said and not silent and not shown(progress):
                _say(total)
            running = stage(progress, "compiling", total, "functions", estimate=False)
        if running is not None:
            running.advance(done - seen)
            seen = done

    try:
        ahead.ready([step], n_threads(), tell, then)
    finally:
        if running is not None:
            running.close()
    return number


def _say(total: int) -> None:
    # at a level that is shown by default: silence before the first result looks like a fault
    logger.warning(
        "compiling %d functions, once for this version on this machine; they are kept in %s", total, folder()
    )


def folder() -> Path:
    """Where compiled code is kept."""
    from ._core.compiled import _folder

    return _folder.folders()[-1].path
