"""The shell command."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def said(error: BaseException, flags: Mapping[str, str]) -> str:
    """What an error says, with the flags of the shell in place of the arguments of Python that they stand for.

    Parameters
    ----------
    error
        As the functions raise it.
    flags
        Flag, with its dashes, by the name of the argument.
    """
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    for name, flag in sorted(flags.items(), key=lambda pair: -len(pair[0])):
        argument = rf"(?<![\w.\-]){re.escape(name)}="
        text = re.sub(rf"{argument}(?= ?(?:[,;:)`]|\.(?!\S)|$)) ?", flag, text)  # a name without a value
        text = re.sub(rf"{argument} ?", f"{flag} ", text)
    return text
