"""Plots: each is a table (`<name>_data`) and a few lines that draw it."""

from typing import TYPE_CHECKING

from dream_sc._lazy import lazy

if TYPE_CHECKING:
    from ._calibration import calibration, calibration_data
    from ._cis import cis, cis_data
    from ._confounding import confounding, confounding_data
    from ._dose_response import dose_response, dose_response_data
    from ._guides import guides_data
    from ._memory import memory, memory_data
    from ._technical import technical, technical_data

__all__ = [
    "calibration",
    "calibration_data",
    "cis",
    "cis_data",
    "confounding",
    "confounding_data",
    "dose_response",
    "dose_response_data",
    "guides_data",
    "memory",
    "memory_data",
    "technical",
    "technical_data",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "_calibration": (
            "calibration",
            "calibration_data",
        ),
        "_cis": (
            "cis",
            "cis_data",
        ),
        "_confounding": (
            "confounding",
            "confounding_data",
        ),
        "_dose_response": (
            "dose_response",
            "dose_response_data",
        ),
        "_guides": ("guides_data",),
        "_memory": (
            "memory",
            "memory_data",
        ),
        "_technical": (
            "technical",
            "technical_data",
        ),
    },
)
