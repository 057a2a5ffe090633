"""``dream-sc memory``: the estimate of a file or of sizes, from a shell."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from . import said

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

SIZES = {
    "groups": "technical groups",
    "guides": "guides that take part: of the cis gene, and NTC",
    "cis-guides": "those of the cis gene",
    "guide-sets": "sets of guides of the cis gene, where cells carry several",
    "categories": "of a multinomial feature",
    "ntc-cells": "control cells",
    "nsamples": "posterior draws",
    "minibatch-size": "of svi",
    "threads": "by default those granted",
    "contexts": "that tl.compare compares; 2 or more",
}
CHOICES = ("distribution", "function-type", "inference", "autoguide", "storage")
COLUMNS = (
    "layer",
    "batch-key",
    "target-key",
    "control",
    "guide-key",
    "guide-matrix",
    "cis-gene",
    "denominator-layer",
    "category-key",
)
NAMES = {
    "groups": "n_groups",
    "guides": "n_guides",
    "cis-guides": "n_cis_guides",
    "guide-sets": "n_guide_sets",
    "categories": "n_categories",
    "ntc-cells": "n_ntc_cells",
    "threads": "n_threads",
    "contexts": "n_contexts",
    "guide-matrix": "guides",
}


class Known:
    """What an option may be, looked up when it is asked for: other commands load none of the package."""

    def __init__(self, option: str) -> None:
        self.option = option.replace("-", "_")

    def __iter__(self) -> Iterator[str]:
        from dream_sc._memory.sizes import choices

        return iter(choices()[self.option])


def add_parser(commands: Any, positive: Callable[[str], int]) -> None:
    """Describe the command."""
    p = commands.add_parser(
        "memory",
        help="estimate the memory of the three fits",
        description="Estimate the memory of the three fits for an h5ad file, of which only shapes and labels are read, "
        "or for sizes.",
    )
    p.add_argument("data", nargs="?", help="h5ad file")
    p.add_argument("--features", type=positive, metavar="T")
    p.add_argument("--cells", type=positive, metavar="N")
    p.add_argument("--sparsity", type=float, metavar="SHARE", help="share of zeros, 0 to 1")
    for name, text in SIZES.items():
        p.add_argument(f"--{name}", type=positive, metavar="N", help=text)
    for name in CHOICES:
        p.add_argument(f"--{name}", choices=Known(name), metavar="NAME", help="one of %(choices)s")
    for name in COLUMNS:
        p.add_argument(f"--{name}", metavar="NAME", help="of the file, as in the fits")
    p.add_argument("--use-all-cells", action="store_true", default=None)
    p.add_argument("--ordered-contexts", action="store_true", default=None, help="3 or more, along an order")
    p.add_argument("--backed", action="store_true", help="leave the counts of the file on disk")
    p.add_argument("--device", metavar="NAME", help="cpu, cuda or auto")
    p.add_argument("--memory-limit", metavar="SIZE", help="as in the fits, such as 2GB")
    p.add_argument("--ram", metavar="SIZE", help="of the machine that is planned with; this one's by default")
    p.add_argument("--vram", metavar="SIZE", help="of its GPU")


def run(given: argparse.Namespace) -> int:
    """Print the table and the advice; 0 where it fits, 1 where it does not, 2 for bad input."""
    from dream_sc import memory

    def options(names: Any) -> dict[str, Any]:
        pairs = ((NAMES.get(n, n.replace("-", "_")), getattr(given, n.replace("-", "_"))) for n in names)
        return {name: value for name, value in pairs if value is not None}

    choices = options((*SIZES, *CHOICES, "sparsity", "use-all-cells", "ordered-contexts", "device", "memory-limit"))
    try:
        where = [f"--{n}" for n, v in (("features", given.features), ("cells", given.cells)) if v is not None]
        if given.data is not None and where:
            raise ValueError(f"{' and '.join(where)} are read off {given.data}: leave them out")
        columns = [f"--{n}" for n in COLUMNS if getattr(given, n.replace("-", "_")) is not None]
        if given.data is None and (columns := columns + ["--backed"] * given.backed):
            raise ValueError(f"{', '.join(columns)} are of an h5ad file: give one")
        if given.data is None:
            if given.features is None or given.cells is None:
                raise ValueError("give an h5ad file, or both --features and --cells")
            estimate = memory.estimate(given.features, given.cells, **choices)
        else:
            estimate = memory.estimate_for(given.data, backed=given.backed, **options(COLUMNS), **choices)
        fits, advice = estimate.fits(given.ram, given.vram), estimate.advice(given.ram, given.vram)
    except (ValueError, KeyError, TypeError, OSError) as error:
        names = [name.replace("_", "-") for name in vars(given) if name != "data"]
        flags = {NAMES.get(name, name.replace("-", "_")): f"--{name}" for name in names}
        print(f"dream-sc memory: {said(error, flags)}", file=sys.stderr)
        return 2
    print(repr(estimate).rpartition("\n\n")[0] + "\n\n" + advice)
    return 0 if fits else 1
