"""Doors to the formats of other tools: one line in, one line out."""

from typing import TYPE_CHECKING

from dream_sc._lazy import lazy

if TYPE_CHECKING:
    from ._cellranger import read_cellranger
    from ._excel import to_excel, to_tsv
    from ._igvf import from_igvf, to_igvf
    from ._mageck import guide_strengths
    from ._multiqc import to_multiqc
    from ._pertpy import from_pertpy, to_pertpy
    from ._protospacer_calls import protospacer_calls
    from ._sceptre import from_sceptre, to_sceptre
    from ._scperturb import from_scperturb

__all__ = [
    "from_igvf",
    "from_pertpy",
    "from_sceptre",
    "from_scperturb",
    "guide_strengths",
    "protospacer_calls",
    "read_cellranger",
    "to_excel",
    "to_igvf",
    "to_multiqc",
    "to_pertpy",
    "to_sceptre",
    "to_tsv",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "_cellranger": ("read_cellranger",),
        "_excel": ("to_excel", "to_tsv"),
        "_igvf": ("from_igvf", "to_igvf"),
        "_mageck": ("guide_strengths",),
        "_multiqc": ("to_multiqc",),
        "_pertpy": ("from_pertpy", "to_pertpy"),
        "_protospacer_calls": ("protospacer_calls",),
        "_sceptre": ("from_sceptre", "to_sceptre"),
        "_scperturb": ("from_scperturb",),
    },
)
