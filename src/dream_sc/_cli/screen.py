"""``dream-sc screen``: every target of a library, from a file to one table; ``dream-sc collect``: the finished ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options, said
from .messages import DONE, FAILED, ended, folder_of, messages, say

if TYPE_CHECKING:
    import argparse

    import pandas as pd

SAYS = "dream-sc screen"
TABLE = "screen.parquet"
# of the options of `dream-sc fit` those that `tl.screen` has
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
OWN = tuple(option.name for option in options.OF_SCREEN)
# what `dream-sc fit` does to numbers and `tl.screen` does not
CHANGES_FITS = ("unit_key", "ambient", "guide_covariate_key", "dosage")


def add_parser(commands: Any) -> None:
    """Describe both commands."""
    p = commands.add_parser(
        "screen",
        help="fit every target of a library: from a file of counts to one table",
        description="Fit technical effects once, then for every target the dosage and the response of every gene. Each "
        "target is a file in the folder, so that the same command goes on where it was interrupted, and several may "
        "work on one folder, each on its --targets. The table of all is screen.parquet; beside it are "
        "targets.tsv, and without --targets summary.txt, figures and a table for MultiQC.",
    )
    p.add_argument("data", nargs="?", help=options.OWN[0].text)
    p.add_argument("-o", "--output", metavar="FOLDER", help="folder of the store and the tables")
    p.add_argument("--config", type=Path, metavar="FILE.toml", help="options, as of `dream-sc fit`; flags go over them")
    _add_talk(p)
    options.add_flags(p, (*OWN, "backed", *TAKEN))

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
    flags = {name: f"--{name.replace('_', '-')}" for name in (*TAKEN, *OWN, "output")}
    flags |= {"cis_genes": "--targets", "store": "--output"}
    with messages(as_json=given.json, quiet=given.quiet):
        try:
            _collect(given) if given.command == "collect" else _screen(given)
        except KeyboardInterrupt as why:
            return ended(why)
        except (ValueError, KeyError, TypeError, OSError, MemoryError, ImportError) as error:
            # a user of the shell wants the advice in the message, not the way to it
            say(f"dream-sc {given.command}: {said(error, flags)}", level="error")
            return FAILED
    return DONE


def _screen(given: argparse.Namespace) -> None:
    from dream_sc import tl
    from dream_sc.tl._screen_options import options_go_together

    from .fit import with_size_factors
    from .read import read

    chosen = options.merged(vars(given), given.config)
    lacking = [
        text for name, text in (("data", "the file of the data"), ("output", "--output")) if not chosen.get(name)
    ]
    if lacking:
        raise ValueError(f"give {' and '.join(lacking)}, as flags or with --config")
    started = time.perf_counter()
    folder, arguments = folder_of(chosen["output"]), _arguments(chosen)
    options_go_together(**arguments)  # before anything is read
    data = read(chosen["data"], backed=bool(chosen.get("backed")) or _are_large(chosen))
    _check_labels(data, chosen)
    with_size_factors(data, chosen)
    table = tl.screen(data, chosen.get("targets"), store=folder, **arguments)
    # figures of some targets, by each of many jobs, are of no use: `collect` makes those of all
    _write(table, folder / TABLE, all_files=chosen.get("targets") is None)
    say(f"done in {time.perf_counter() - started:.0f} s: {folder}")


def _arguments(chosen: dict[str, Any]) -> dict[str, Any]:
    """What `tl.screen` is told; what a file has beside it is said, where it would change numbers."""
    lost = [name for name in CHANGES_FITS if chosen.get(name) not in (None, options.NAMES[name].default)]
    if lost:
        say(f"--config: {', '.join(lost)} {'has' if len(lost) == 1 else 'have'} no effect in {SAYS}", level="warning")
    out = {name: chosen[name] for name in (*TAKEN, *OWN) if chosen.get(name) is not None and name != "targets"}
    if isinstance(out.get("control"), list) and len(out["control"]) == 1:
        out["control"] = out["control"][0]
    return out


def _check_labels(data: Any, chosen: dict[str, Any]) -> None:
    """Refuse columns and labels that are not there, before there are size factors."""
    from dream_sc import _validate
    from dream_sc._keys import GUIDE
    from dream_sc.tl._screen_options import check_labels

    adata = _validate.resolve(data, chosen.get("mod"))
    check_labels(adata, chosen, chosen.get("guide_key") or GUIDE, chosen.get("targets"))


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
    _write(table, path, all_files=path.parent.resolve() == folder.resolve())  # elsewhere are files of others
    n = table["target"].nunique()
    say(f"{n} {'target' if n == 1 else 'targets'}: {path}")


def _write(table: pd.DataFrame, path: Path, *, all_files: bool) -> None:
    """The table of pairs, that of targets beside it, and what else is made of them."""
    from dream_sc._screen.store import whole_parquet

    from .screen_files import write_beside, write_targets

    whole_parquet(table, path, table.attrs)
    targets = write_targets(table, path.parent)
    if all_files:
        write_beside(table, targets, path.parent)
