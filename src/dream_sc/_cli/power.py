"""``dream-sc power``: the forecast of a plan's power, from a shell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import said

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

PLAN = {
    "n-guides": ("N", "guides; as many as dosages by default"),
    "n-cells-per-guide": ("N", "cells of each guide"),
    "n-ntc-cells": ("N", "control cells; three of ten cells by default"),
    "n-ntc-guides": ("N", "non-targeting guides"),
}
RATIOS = {"depth": "reads per cell relative to the pilot", "moi": "guides per cell"}
PILOT = {
    "overdispersion": "of all genes",
    "guide-sd": "median sd of guide effects, log2",
    "responders": "share of the genes that respond",
}
ASKED = {
    "log2fc": "fold changes over the dosages, negative where a gene falls on knock-down",
    "means": "mean counts per control cell",
}


def add_parser(commands: Any, positive: Callable[[str], int]) -> None:
    """Describe the command."""
    p = commands.add_parser(
        "power",
        help="forecast what a planned screen would find",
        description="Forecast the power to call a response, and the width of the interval of its EC50, for a planned "
        "screen. Options with several values stand for all combinations. A pilot says what the flags do not.",
    )
    p.add_argument("pilot", nargs="?", help="h5ad or h5mu file with the three fits; usual numbers without one")
    for name, (meta, text) in PLAN.items():
        p.add_argument(f"--{name}", type=positive, nargs="+", metavar=meta, help=text)
    p.add_argument("--log2-dosages", type=float, nargs="+", metavar="X", help="of the guides, such as -3 -2 -1 -0.5")
    for name, text in RATIOS.items():
        p.add_argument(f"--{name}", type=float, nargs="+", metavar="X", help=text)
    for name, text in PILOT.items():
        p.add_argument(f"--{name}", type=float, metavar="X", help=f"{text}; without a pilot")
    for name, text in ASKED.items():
        p.add_argument(f"--{name}", type=float, nargs="+", metavar="X", help=text)
    p.add_argument("--fdr", type=float, default=0.05, metavar="X", help="default: %(default)s")
    p.add_argument("--mod", metavar="NAME", help="modality of an h5mu file")
    p.add_argument("--key", default="trans", metavar="NAME", help="of the trans fit; default: %(default)s")
    p.add_argument("--rng", type=int, default=0, metavar="N", help="seed; default: %(default)s")
    p.add_argument("--what-helps", action="store_true", help="power with 1.5 times the guides, cells or reads")
    p.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the table as TSV, too")


def run(given: argparse.Namespace) -> int:
    """Print the table; 0 where that worked, 2 for bad input."""
    from dream_sc import design

    def options(names: Any) -> dict[str, Any]:
        pairs = ((name.replace("-", "_"), getattr(given, name.replace("-", "_"))) for name in names)
        return {name: value for name, value in pairs if value is not None}

    flags = {
        name.replace("-", "_"): f"--{name}" for name in (*PLAN, "log2-dosages", *RATIOS, *PILOT, *ASKED, "fdr", "mod")
    }
    try:
        known = options(PILOT)
        if given.pilot is not None and known:
            named = ", ".join(flags[name] for name in known)
            raise ValueError(f"{named}: these are read off {given.pilot}, leave them out")
        pilot = known if given.pilot is None else _read(given.pilot)
        forecast = design.what_helps if given.what_helps else design.power
        asked = {"fdr": given.fdr, "rng": given.rng, "key": given.key, "mod": given.mod}
        table = forecast(pilot, options((*PLAN, "log2-dosages", *RATIOS)), **asked, **options(ASKED))
        if given.output is not None:
            table.to_csv(given.output, sep="\t", index=False)
    except (ValueError, KeyError, TypeError, OSError) as error:
        print(f"dream-sc power: {said(error, flags)}", file=sys.stderr)
        return 2
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    return 0


def _read(path: str) -> Any:
    """The pilot; what libraries say of files that are damaged, or not there, does not name them."""
    from dream_sc.io._files import readable

    if not Path(path).is_file():
        raise FileNotFoundError(f"no file at {path}: give an h5ad or h5mu file with the three fits")
    with readable(path, "an h5ad or h5mu file"):
        if path.endswith(".h5mu"):
            import mudata

            return mudata.read_h5mu(path)
        import anndata

        return anndata.read_h5ad(path)
