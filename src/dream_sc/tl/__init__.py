"""The three steps: technical effects, latent dosage, dose-response of every feature; and their calibration."""

from ._calibrate import calibrate
from ._fit_cis import fit_cis
from ._fit_technical import fit_technical
from ._fit_trans import fit_trans

__all__ = ["calibrate", "fit_cis", "fit_technical", "fit_trans"]
