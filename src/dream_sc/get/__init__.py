"""Readers of what the steps stored: tables, curves and posterior draws."""

from typing import TYPE_CHECKING

from dream_sc._lazy import lazy

if TYPE_CHECKING:
    from ._columns import columns
    from ._contexts import compare
    from ._curves import dose_response, posterior
    from ._doses import doses
    from ._groups import groups
    from ._guide_effects import guide_effects
    from ._responders import rank_genes_groups, responders
    from ._screen import screen
    from ._summary import summary
    from ._tables import calibration, cis, confounding, guides, technical, trans

__all__ = [
    "calibration",
    "cis",
    "columns",
    "compare",
    "confounding",
    "dose_response",
    "doses",
    "groups",
    "guide_effects",
    "guides",
    "posterior",
    "rank_genes_groups",
    "responders",
    "screen",
    "summary",
    "technical",
    "trans",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "_columns": ("columns",),
        "_contexts": ("compare",),
        "_curves": (
            "dose_response",
            "posterior",
        ),
        "_doses": ("doses",),
        "_groups": ("groups",),
        "_guide_effects": ("guide_effects",),
        "_responders": (
            "rank_genes_groups",
            "responders",
        ),
        "_screen": ("screen",),
        "_summary": ("summary",),
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
