"""``dream-sc screen``: every target of a library, from a file to one table; ``dream-sc collect``: the finished ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options, said
from .messages import DONE, FAILED, INTERRUPTED, folder_of, messages, say

if TYPE_CHECKING:
    import argparse

    import pandas as pd

SAYS = "dream-sc screen"
TABLE, TARGETS = "screen.parquet", "targets.tsv"
# of the options of `dream-sc fit` those that `tl.screen` has; others in a file do nothing here
TAKEN = (
    "mod",
    "layer",
    "target_key",
    "control",
    "guide_key",
    "guides",
    "control_group",
    "batch_key",
    "covariates",
    "size_factor_key",
    "use_all_cells",
    "pooling",
    "min_cells_per_guide",
    "min_count",
    "function_type",
    "rng",
    "memory_limit",
)
OWN = {"cis_genes": "--targets"} | {
    name: f"--{name.replace('_', '-')}" for name in ("n_jobs", "min_guides", "min_cells", "effort", "n_null_targets")
}


def add_parser(commands: Any) -> None:
    """Describe both commands."""
    p = commands.add_parser(
        "screen",
        help="fit every target of a library: from a file of counts to one table",
        description="Fit technical effects once, then for every target the dosage and the response of every gene. Each "
        "target is a file in the folder, so that the same command goes on where it was interrupted, and several may "
        "work on one folder, each on its --targets. The table of all is screen.parquet.",
    )
    p.add_argument("data", nargs="?", help=options.OWN[0].text)
    p.add_argument("-o", "--output", metavar="FOLDER", help="folder of the store and the tables")
    p.add_argument("--config", type=Path, metavar="FILE.toml", help="options, as of `dream-sc fit`; flags go over them")
    p.add_argument("--targets", nargs="+", metavar="TEXT", help="labels of the targets to fit; all by default")
    p.add_argument("--n-jobs", type=int, metavar="WHOLE", help="processes, -1 for one per core; 1 by default")
    p.add_argument("--min-guides", type=int, metavar="WHOLE", help="targets with fewer guides are left out (2)")
    p.add_argument("--min-cells", type=int, metavar="WHOLE", help="targets with fewer cells are left out (20)")
    p.add_argument("--effort", metavar="TEXT", help="auto, first_pass or full: see dream_sc.tl.screen")
    p.add_argument(
        "--n-null-targets", type=int, metavar="WHOLE", help="groups of NTC guides that are fitted as targets"
    )
    _add_talk(p)
    options.add_flags(p, ("backed", *TAKEN))

    c = commands.add_parser(
        "collect",
        help="make one table of the finished targets of a screen",
        description="Read the finished targets in the folder of `dream-sc screen` and write the table of all again, as "
        "after several commands that each fitted some --targets.",
    )
    c.add_argument("folder", help="the folder of `dream-sc screen`, or a store of tl.screen")
    c.add_argument("-o", "--output", metavar="FILE.parquet", help=f"{TABLE} in the folder by default")
    _add_talk(c)


def _add_talk(p: Any) -> None:
    p.add_argument("--json", action="store_true", help="messages as lines of JSON on standard error")
    p.add_argument("--quiet", action="store_true", help="warnings and errors only, no progress bars")


def run(given: argparse.Namespace) -> int:
    """Fit, or collect; 0 where all was written, 1 where it failed, 130 where it was interrupted."""
    flags = {name: f"--{name.replace('_', '-')}" for name in TAKEN} | OWN | {"store": "--output", "output": "--output"}
    with messages(as_json=given.json, quiet=given.quiet):
        try:
            _collect(given) if given.command == "collect" else _screen(given)
        except KeyboardInterrupt:
            say("interrupted: the same command goes on where it was", level="error")
            return INTERRUPTED
        except (ValueError, KeyError, TypeError, OSError, MemoryError, ImportError) as error:
            # a user of the shell wants the advice in the message, not the way to it
            say(f"dream-sc {given.command}: {said(error, flags)}", level="error")
            return FAILED
    return DONE


def _screen(given: argparse.Namespace) -> None:
    from dream_sc import tl

    from .fit import with_size_factors
    from .read import read

    chosen = options.merged(vars(given), given.config)
    lacking = [
        text for name, text in (("data", "the file of the data"), ("output", "--output")) if not chosen.get(name)
    ]
    if lacking:
        raise ValueError(f"give {' and '.join(lacking)}, as flags or with --config")
    started = time.perf_counter()
    folder = folder_of(chosen["output"])
    data = read(chosen["data"], backed=bool(chosen.get("backed")) or _are_large(chosen))
    with_size_factors(data, chosen)
    arguments = {name: chosen[name] for name in TAKEN if chosen.get(name) is not None}
    arguments |= {name: vars(given)[name] for name in OWN if name != "cis_genes" and vars(given)[name]}
    if isinstance(arguments.get("control"), list) and len(arguments["control"]) == 1:
        arguments["control"] = arguments["control"][0]
    table = tl.screen(data, given.targets, store=folder, **arguments)
    _write(table, folder / TABLE)
    say(f"done in {time.perf_counter() - started:.0f} s: {folder}")


def _are_large(chosen: dict[str, Any]) -> bool:
    """Whether the counts of a file alone are more than the limit of memory: then they stay there, and it is said."""
    from dream_sc._memory.budget import in_words, memory_budget

    from .read import count_bytes

    limit, size = chosen.get("memory_limit"), count_bytes(chosen["data"])
    if limit is None or size <= memory_budget(limit):
        return False
    say(f"the counts are {in_words(size)}, more than --memory-limit {limit}: they stay in the file, as with --backed")
    return True


def _collect(given: argparse.Namespace) -> None:
    from dream_sc import get

    folder = Path(given.folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: give that of `{SAYS}`")
    table = get.screen(folder)
    path = folder / TABLE if given.output is None else Path(given.output)
    _write(table, path)
    n = table["target"].nunique()
    say(f"{n} {'target' if n == 1 else 'targets'}: {path}")


def _write(table: pd.DataFrame, path: Path) -> None:
    """The table of pairs, and that of targets as text beside it."""
    from dream_sc import get
    from dream_sc._screen.store import whole_parquet

    from .messages import whole

    whole_parquet(table, path, table.attrs)
    with whole(path.with_name(TARGETS)) as part:
        get.screen(table, "targets").to_csv(part, sep="\t", index=False, float_format="%.6g")
