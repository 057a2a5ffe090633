"""The one door to compiled code: nobody else in the package calls numba's `njit`.

`entry` is for functions that Python calls, `part` for the larger ones that only compiled code calls, `inline` for the
smallest, which become part of their callers; `one_of` several parts is called by its place among them. `Vector` and the
other types say what they take. Where the results are kept is a matter of `_folder`; `ahead` compiles many on several
processes.
"""

from __future__ import annotations

from ._functions import entry, from_python, inline, load_part, one_of, part
from ._signatures import Block, Cube, Flags, IndexMatrix, Indices, Matrix, SingleMatrix, Singles, Stack, Vector

__all__ = [
    "Block",
    "Cube",
    "Flags",
    "IndexMatrix",
    "Indices",
    "Matrix",
    "SingleMatrix",
    "Singles",
    "Stack",
    "Vector",
    "entry",
    "from_python",
    "inline",
    "load_part",
    "one_of",
    "part",
]
