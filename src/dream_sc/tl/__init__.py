"""The three steps: technical effects, dosage, dose-response of every feature; whole libraries; their calibration."""

from typing import TYPE_CHECKING

from dream_sc._lazy import lazy

if TYPE_CHECKING:
    from ._calibrate import calibrate
    from ._check_confounding import check_confounding
    from ._compare import compare
    from ._fit_cis import fit_cis
    from ._fit_technical import fit_technical
    from ._fit_trans import fit_trans
    from ._group_responses import group_responses
    from ._screen import screen
    from ._set_dosage import set_dosage

__all__ = [
    "calibrate",
    "check_confounding",
    "compare",
    "fit_cis",
    "fit_technical",
    "fit_trans",
    "group_responses",
    "screen",
    "set_dosage",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "_calibrate": ("calibrate",),
        "_check_confounding": ("check_confounding",),
        "_compare": ("compare",),
        "_fit_cis": ("fit_cis",),
        "_fit_technical": ("fit_technical",),
        "_fit_trans": ("fit_trans",),
        "_group_responses": ("group_responses",),
        "_screen": ("screen",),
        "_set_dosage": ("set_dosage",),
    },
)
