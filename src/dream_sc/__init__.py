"""Dosage response of every gene to a graded perturbation of one gene, from single-cell CRISPR screens.

Examples
--------
>>> import dream_sc as ds
>>> adata = ds.datasets.titration(600, 20, rng=0)
>>> ds.pp.size_factors(adata)
>>> ds.tl.fit_technical(adata, batch_key="batch")
>>> ds.tl.fit_cis(adata, "GFI1B")
>>> ds.tl.fit_trans(adata)
>>> table = ds.get.trans(adata, columns="main")
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ._settings import settings

if TYPE_CHECKING:
    from . import datasets, design, get, io, memory, pl, pp, tl
    from ._report import report

try:
    __version__ = version("dream-sc")
except PackageNotFoundError:  # a source tree on the path that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__", "datasets", "design", "get", "io", "memory", "pl", "pp", "report", "settings", "tl"]


def __getattr__(name: str) -> Any:
    """Load a part of the package when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "report":  # a function, and not a part
        from ._report import report

        return report
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
