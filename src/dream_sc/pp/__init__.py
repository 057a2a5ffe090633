"""Preprocessing: guides, size factors, splice modalities."""

from typing import TYPE_CHECKING

from dream_sc._lazy import lazy

if TYPE_CHECKING:
    from ._adjust import adjust_size_factors, refit_size_factors
    from ._combine_guides import combine_guides
    from ._exons import exon_skipping
    from ._guide_matrix import guide_matrix, read_protospacer_calls
    from ._guides import assign_guides
    from ._psi import junction_psi
    from ._size_factors import size_factors
    from ._starsolo import read_starsolo_sj
    from ._usage import acceptor_usage, donor_usage, isoform_usage

__all__ = [
    "acceptor_usage",
    "adjust_size_factors",
    "assign_guides",
    "combine_guides",
    "donor_usage",
    "exon_skipping",
    "guide_matrix",
    "isoform_usage",
    "junction_psi",
    "read_protospacer_calls",
    "read_starsolo_sj",
    "refit_size_factors",
    "size_factors",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "_adjust": (
            "adjust_size_factors",
            "refit_size_factors",
        ),
        "_combine_guides": ("combine_guides",),
        "_exons": ("exon_skipping",),
        "_guide_matrix": (
            "guide_matrix",
            "read_protospacer_calls",
        ),
        "_guides": ("assign_guides",),
        "_psi": ("junction_psi",),
        "_size_factors": ("size_factors",),
        "_starsolo": ("read_starsolo_sj",),
        "_usage": (
            "acceptor_usage",
            "donor_usage",
            "isoform_usage",
        ),
    },
)
