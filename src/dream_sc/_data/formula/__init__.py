"""Formulas of covariates: read into data, made columns of numbers, and read again from what a fit has stored.

No text of a formula or of a file is ever evaluated as code, here or by formulaic.
"""

from typing import TYPE_CHECKING

from dream_sc._lazy import lazy

if TYPE_CHECKING:
    from .columns import encode, factor_columns, is_numeric, plain_level
    from .parser import formula_of, read, refuse_unknown
    from .state import Stored, stored, written

__all__ = [
    "Stored",
    "encode",
    "factor_columns",
    "formula_of",
    "is_numeric",
    "plain_level",
    "read",
    "refuse_unknown",
    "stored",
    "written",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "columns": ("encode", "factor_columns", "is_numeric", "plain_level"),
        "parser": ("formula_of", "read", "refuse_unknown"),
        "state": ("Stored", "stored", "written"),
    },
)
