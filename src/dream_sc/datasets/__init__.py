"""Simulated data with their truth."""

from typing import TYPE_CHECKING

from dream_sc._lazy import lazy

if TYPE_CHECKING:
    from ._from_fit import from_fit
    from ._high_moi import high_moi
    from ._titration import titration, true_curve

__all__ = ["from_fit", "high_moi", "titration", "true_curve"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "_from_fit": ("from_fit",),
        "_high_moi": ("high_moi",),
        "_titration": (
            "titration",
            "true_curve",
        ),
    },
)
