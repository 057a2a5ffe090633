"""Before the next screen: what a plan would find, which one is the cheapest, and what to have more of."""

from typing import TYPE_CHECKING

from dream_sc._lazy import lazy

if TYPE_CHECKING:
    from ._cheapest import cheapest
    from ._power import power
    from ._what_helps import what_helps

__all__ = ["cheapest", "power", "what_helps"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "_cheapest": ("cheapest",),
        "_power": ("power",),
        "_what_helps": ("what_helps",),
    },
)
