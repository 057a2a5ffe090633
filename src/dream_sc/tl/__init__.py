"""The three steps: technical effects, latent dosage, dose-response of every feature; their calibration; confounding."""

from ._calibrate import calibrate
from ._check_confounding import check_confounding
from ._fit_cis import fit_cis
from ._fit_technical import fit_technical
from ._fit_trans import fit_trans

__all__ = ["calibrate", "check_confounding", "fit_cis", "fit_technical", "fit_trans"]
