"""Preprocessing: size factors."""

from ._size_factors import size_factors

__all__ = ["size_factors"]
