"""Readers of what the steps stored: tables, curves and posterior draws."""

from typing import TYPE_CHECKING

from dream_sc._lazy import lazy

if TYPE_CHECKING:
    from ._curves import dose_response, posterior
    from ._tables import calibration, cis, confounding, guides, technical, trans

__all__ = ["calibration", "cis", "confounding", "dose_response", "guides", "posterior", "technical", "trans"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "_curves": (
            "dose_response",
            "posterior",
        ),
        "_tables": (
            "calibration",
            "cis",
            "confounding",
            "guides",
            "technical",
            "trans",
        ),
    },
)
