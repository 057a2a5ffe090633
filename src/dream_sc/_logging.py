"""The package's logger, and the one message that every step ends with: what was written where.

Nothing is configured here: ``dream_sc.settings.verbosity = "info"`` or the `logging` module shows them.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ._settings import LOGGER_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

logger = logging.getLogger(LOGGER_NAME)


def wrote(step: str, slots: Sequence[str], seconds: float | None = None) -> None:
    """Say what a step wrote, at level info.

    Parameters
    ----------
    step
        Name of the function, such as ``"tl.fit_trans"``.
    slots
        The slots as a user would type them, such as ``".varm['trans']"``; a remark may follow.
    seconds
        How long the step took.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    lines = [f"{step}: done" + ("" if seconds is None else f" ({duration(seconds)})")]
    lines += [f"    added {slot}" for slot in slots]
    logger.info("\n".join(lines))


@contextmanager
def about(what: str) -> Iterator[None]:
    """For a time, let every message begin with what it is about, such as ``"target MYB"``."""

    def named(record: logging.LogRecord) -> bool:
        record.msg, record.args = f"{what}: {record.getMessage()}", None
        return True

    logger.addFilter(named)
    try:
        yield
    finally:
        logger.removeFilter(named)


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
