"""Simulated data with their truth."""

from typing import TYPE_CHECKING

from dream_sc._lazy import lazy

if TYPE_CHECKING:
    from ._high_moi import high_moi
    from ._titration import titration, true_curve

__all__ = ["high_moi", "titration", "true_curve"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "_high_moi": ("high_moi",),
        "_titration": (
            "titration",
            "true_curve",
        ),
    },
)
