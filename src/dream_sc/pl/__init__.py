"""Plots: each is a table (`<name>_data`) and a few lines that draw it."""

from ._calibration import calibration, calibration_data
from ._cis import cis, cis_data
from ._confounding import confounding, confounding_data
from ._dose_response import dose_response, dose_response_data
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
    "memory",
    "memory_data",
    "technical",
    "technical_data",
]
