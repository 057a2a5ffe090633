"""Plots: each is a table (`<name>_data`) and a few lines that draw it."""

from typing import TYPE_CHECKING

from dream_sc._lazy import lazy

if TYPE_CHECKING:
    from ._calibration import calibration, calibration_data
    from ._cis import cis, cis_data
    from ._classes import classes, classes_data
    from ._compare import compare, compare_data
    from ._confounding import confounding, confounding_data
    from ._convergence import convergence, convergence_data
    from ._de_comparison import de_comparison, de_comparison_data
    from ._dose_response import dose_response, dose_response_data
    from ._forest import forest, forest_data
    from ._guides import guides, guides_data
    from ._heatmap import heatmap, heatmap_data
    from ._memory import memory, memory_data
    from ._power import power, power_data
    from ._priors import priors, priors_data
    from ._screen import screen
    from ._screen_data import screen_data
    from ._technical import technical, technical_data
    from ._volcano import volcano, volcano_data

__all__ = [
    "calibration",
    "calibration_data",
    "cis",
    "cis_data",
    "classes",
    "classes_data",
    "compare",
    "compare_data",
    "confounding",
    "confounding_data",
    "convergence",
    "convergence_data",
    "de_comparison",
    "de_comparison_data",
    "dose_response",
    "dose_response_data",
    "forest",
    "forest_data",
    "guides",
    "guides_data",
    "heatmap",
    "heatmap_data",
    "memory",
    "memory_data",
    "power",
    "power_data",
    "priors",
    "priors_data",
    "screen",
    "screen_data",
    "technical",
    "technical_data",
    "volcano",
    "volcano_data",
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
        "_classes": (
            "classes",
            "classes_data",
        ),
        "_compare": (
            "compare",
            "compare_data",
        ),
        "_confounding": (
            "confounding",
            "confounding_data",
        ),
        "_convergence": (
            "convergence",
            "convergence_data",
        ),
        "_de_comparison": (
            "de_comparison",
            "de_comparison_data",
        ),
        "_dose_response": (
            "dose_response",
            "dose_response_data",
        ),
        "_forest": (
            "forest",
            "forest_data",
        ),
        "_guides": (
            "guides",
            "guides_data",
        ),
        "_heatmap": (
            "heatmap",
            "heatmap_data",
        ),
        "_memory": (
            "memory",
            "memory_data",
        ),
        "_power": (
            "power",
            "power_data",
        ),
        "_priors": (
            "priors",
            "priors_data",
        ),
        "_screen": ("screen",),
        "_screen_data": ("screen_data",),
        "_technical": (
            "technical",
            "technical_data",
        ),
        "_volcano": (
            "volcano",
            "volcano_data",
        ),
    },
)
