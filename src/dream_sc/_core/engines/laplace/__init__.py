"""The fast engine: deterministic nested Laplace on sufficient statistics, in compiled kernels."""

from __future__ import annotations

from . import ntc
from .cis import cis
from .draws import draws
from .scores import technical_normal, technical_studentt
from .shares import technical_shares
from .technical import technical
from .trans import Problem, evidence, null_evidence, problem

__all__ = [
    "Problem", "cis", "draws", "evidence", "ntc", "null_evidence", "problem", "technical",
    "technical_normal", "technical_shares", "technical_studentt",
]  # fmt: skip
