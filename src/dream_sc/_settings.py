"""What a user may set for a session: how much is said, and whether progress bars are shown."""

from __future__ import annotations

import logging
import sys
from difflib import get_close_matches
from typing import Literal

LOGGER_NAME = "dream_sc"
LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}

NAMES = ("verbosity", "progress")  # of the settings
Verbosity = Literal["error", "warning", "info", "debug"]
NUMBERS: tuple[Verbosity, ...] = ("error", "warning", "info", "info", "debug")  # those of scanpy, where 3 is "hint"


class Settings:
    """Settings of the session, reached as ``dream_sc.settings``.

    Nothing is configured on import: messages go through the standard logger ``"dream_sc"``, so an application
    decides what becomes of them. Setting `verbosity` is the short way for a notebook or a script.

    Examples
    --------
    >>> ds.settings.verbosity = "info"
    >>> ds.settings.progress = False
    >>> ds.settings
    Settings(verbosity='info', progress=False)
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name not in NAMES:
            close = get_close_matches(name, NAMES, n=1, cutoff=0.4)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise AttributeError(f"dream_sc.settings has no {name!r}, only {' and '.join(map(repr, NAMES))}{hint}")
        super().__setattr__(name, value)

    def __init__(self) -> None:
        self._handler: logging.Handler | None = None
        self._progress: bool | None = None

    @property
    def verbosity(self) -> Verbosity:
        """``"error"``, ``"warning"`` (default), ``"info"`` (says what was written where) or ``"debug"``.

        Setting it sends the messages to standard error. scanpy's numbers do as well: 0 is "error", 1 "warning", 2 and 3
        (its "hint") "info", 4 "debug".
        """
        level = logging.getLogger(LOGGER_NAME).getEffectiveLevel()
        known: tuple[Verbosity, ...] = ("debug", "info", "warning")
        return next((name for name in known if level <= LEVELS[name]), "error")

    @verbosity.setter
    def verbosity(self, value: Verbosity | int) -> None:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(NUMBERS):
            value = NUMBERS[value]
        if not isinstance(value, str) or value not in LEVELS:
            raise ValueError(f"verbosity={value!r} is not known; use one of {list(LEVELS)}, or scanpy's 0 to 4")
        logger = logging.getLogger(LOGGER_NAME)
        if self._handler is None:
            self._handler = _StderrHandler()
            self._handler.setFormatter(logging.Formatter("%(message)s"))
            logger.addHandler(self._handler)
            # else a root handler of the application would say it a second time
            logger.propagate = False
        logger.setLevel(LEVELS[value])

    @property
    def progress(self) -> bool | None:
        """Whether progress bars are shown where a call says ``progress=None``.

        None: on a terminal and in a notebook, unless the environment variable TQDM_DISABLE is set. True also shows
        them in a log file, as a line each half minute.
        """
        return self._progress

    @progress.setter
    def progress(self, value: bool | None) -> None:
        if value is not None and not isinstance(value, bool):
            raise TypeError(f"progress={value!r} is not True, False or None")
        self._progress = value

    def __repr__(self) -> str:
        return f"Settings(verbosity={self.verbosity!r}, progress={self.progress!r})"


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what `sys.stderr` is now, not to what it was: notebooks and tests exchange it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> object:
        return sys.stderr


settings = Settings()
