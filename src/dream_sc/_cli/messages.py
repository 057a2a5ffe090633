"""What the commands of the shell say, how they end, and files that are whole or not there."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DONE, FAILED, INTERRUPTED, TERMINATED = 0, 1, 130, 143


class Terminated(KeyboardInterrupt):
    """The command was told to end (SIGTERM), as schedulers and containers do: it tidies up as on Ctrl-C."""


def ended(why: KeyboardInterrupt, then: str = "the same command goes on where it was") -> int:
    """Say that the command was interrupted, and give its exit status."""
    say(f"interrupted: {then}", level="error")
    return TERMINATED if isinstance(why, Terminated) else INTERRUPTED


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: to tidy up takes a moment
    raise Terminated


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write to, that gets its name once it is whole."""
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def folder_of(output: str | Path) -> Path:
    """The folder to write into; a file of that name is refused before anything is computed."""
    folder = Path(output)
    for part in (folder, *folder.parents):
        if part.exists():
            if not part.is_dir():
                raise ValueError(f"output={str(output)!r} names no folder: {part} is a file; name another folder")
            break
    return folder


class _AsJson(logging.Formatter):
    """A record as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": round(record.created, 3), "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(line)


def say(text: str, level: str = "info") -> None:
    from dream_sc._logging import logger

    logger.log(getattr(logging, level.upper()), text)


@contextmanager
def messages(*, as_json: bool, quiet: bool) -> Iterator[None]:
    """Messages on standard error for the time of the command; bars on a terminal only."""
    from dream_sc._logging import logger
    from dream_sc._settings import settings

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_AsJson() if as_json else logging.Formatter("%(message)s"))
    before = logger.level, logger.propagate, settings.progress, logger.handlers[:]
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    settings.progress = False if quiet or as_json else before[2]
    of_main = threading.current_thread() is threading.main_thread()
    by_others = signal.signal(signal.SIGTERM, _terminate) if of_main else None
    try:
        yield
    finally:
        if of_main:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if by_others is None else by_others)
        logger.setLevel(before[0])
        logger.propagate, settings.progress, logger.handlers = before[1:]
