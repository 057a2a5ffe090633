"""The three steps: technical effects, latent dosage, dose-response of every feature."""

from ._fit_cis import fit_cis
from ._fit_technical import fit_technical
from ._fit_trans import fit_trans

__all__ = ["fit_cis", "fit_technical", "fit_trans"]
