"""``dream-sc report``: a fitted file as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import said
from .messages import DONE, FAILED, messages, say

if TYPE_CHECKING:
    import argparse

SAYS = "dream-sc report"
NAME = "report.html"  # that `dream-sc fit` writes
NAMES = {"mod": "--mod", "key": "--key", "fdr": "--fdr", "title": "--title", "gene_symbols": "--gene-symbols"}


def add_parser(commands: Any) -> None:
    """Describe the command."""
    p = commands.add_parser(
        "report",
        help="write a fit as one HTML file, for people who do not run Python",
        description="Write what was fitted as one HTML file that holds all that it shows: what was found, how far it "
        "can be trusted, a volcano plot, a table to search, the curve of each gene, dosages of the guides, methods.",
    )
    p.add_argument("data", metavar="FITTED", type=Path, help="h5ad, h5mu or zarr file with a fit, such as fitted.h5ad")
    p.add_argument(
        "-o", "--output", type=Path, metavar="OUT.html", help=f"the file to write; {NAME} beside the data by default"
    )
    p.add_argument("--title", metavar="TEXT", help="title of the page; by default it names the cis gene")
    p.add_argument("--fdr", type=float, metavar="NUMBER", help="features with a smaller q-value are called; 0.05")
    p.add_argument("--key", metavar="KEY", help="key_added of the fit; trans by default")
    p.add_argument("--mod", metavar="NAME", help="modality of an h5mu file")
    p.add_argument("--gene-symbols", metavar="COLUMN", help="column of .var with the names to show")
    p.add_argument("--json", action="store_true", help="messages as lines of JSON on standard error")
    p.add_argument("--quiet", action="store_true", help="warnings and errors only")


def run(given: argparse.Namespace) -> int:
    """Write it; 0 where it was written, 1 where it failed."""
    import dream_sc

    from .read import read

    how = {name: getattr(given, name) for name in NAMES if getattr(given, name) is not None}
    with messages(as_json=given.json, quiet=given.quiet):
        try:
            dream_sc.report(read(given.data), given.output or given.data.parent / NAME, **how)
        except (ValueError, KeyError, TypeError, OSError, MemoryError, ImportError) as error:
            say(f"{SAYS}: {said(error, NAMES)}", level="error")
            return FAILED
    return DONE


def beside(data: Any, folder: Path, **how: Any) -> None:
    """The report of a fit in its folder, where what it needs is installed; else the log says what to install."""
    import dream_sc

    try:
        dream_sc.report(data, folder / NAME, **how)
    except ImportError as error:
        say(f"no {NAME}: {error}")
