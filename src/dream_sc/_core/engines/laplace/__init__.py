"""The fast engine: deterministic nested Laplace on sufficient statistics, in compiled kernels."""

from __future__ import annotations

from .cis import cis
from .technical import technical
from .trans import draws, evidence, problem

__all__ = ["cis", "draws", "evidence", "problem", "technical"]
