"""The package's logger. It is not configured here: `logging.basicConfig(level="INFO")` shows what is written where."""

from __future__ import annotations

import logging

logger = logging.getLogger("dream_sc")
logger.addHandler(logging.NullHandler())


def wrote(step: str, slots: list[str], seconds: float) -> None:
    """Log what a step added to the object."""
    logger.info("%s: added %s (%.1f s)", step, ", ".join(slots), seconds)
