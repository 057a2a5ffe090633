"""The shell command ``dream-sc``: the package's functions for people who do not write Python."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import said

if TYPE_CHECKING:
    from collections.abc import Sequence

INFO_PACKAGES = ("anndata", "mudata", "scanpy", "numpy", "scipy", "pandas", "numba", "torch", "pyro-ppl", "matplotlib")


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(
        prog="dream-sc", description="Dosage response of every gene to a graded perturbation of one gene."
    )
    top.add_argument("--version", action="store_true", help="print the version and leave")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="simulate a titration, fit it, and show the estimates beside the truth",
        description="Simulate a CRISPRi / CRISPRa titration, run the three fits, print a table of the "
        "responding genes, and write the table, figures and an h5ad file.",
    )
    demo.add_argument("--output", type=Path, default=Path("demo_output"), metavar="DIR", help="default: %(default)s")
    demo.add_argument("--n-cells", type=_positive, default=3000, metavar="N", help="default: %(default)s")
    demo.add_argument("--n-genes", type=_positive, default=300, metavar="N", help="default: %(default)s")
    demo.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    demo.add_argument("--quiet", action="store_true", help="no progress bars, only the table")

    from . import compare, config, fit, power, report, screen
    from .memory import add_parser

    fit.add_parser(commands)
    screen.add_parser(commands)
    config.add_parser(commands)
    report.add_parser(commands)
    compare.add_parser(commands)
    add_parser(commands, _positive)
    power.add_parser(commands, _positive)
    compiling = commands.add_parser(
        "compile",
        help="compile ahead what the fits need, as for an image of a container or a shared installation",
        description="Compile the functions that the fits of counts and shares need, on all cores granted, and keep "
        "them: else the first fit does it. Set NUMBA_CACHE_DIR to keep them in a folder of your choice, the same when "
        "fits run. What is kept holds for one version of this package, of numba and of Python, and one kind of "
        "processor.",
    )
    compiling.add_argument("--quiet", action="store_true", help="no progress bar")
    commands.add_parser("info", help="print the versions of the package, of Python and of what it rests on")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    Parameters
    ----------
    arguments
        Words after the program's name; by default those of the process.
    """
    command_line = parser()
    given = command_line.parse_args(arguments)
    if given.version:
        import dream_sc

        print(dream_sc.__version__)
        return 0
    if given.command == "demo":
        return _demo(given)
    if given.command == "info":
        return _info()
    if given.command == "compile":
        return _compile(given)
    if given.command in ("fit", "config", "memory", "power", "report", "compare"):
        from importlib import import_module

        return int(import_module(f".{given.command}", __package__).run(given))
    if given.command in ("screen", "collect"):
        from . import screen

        return screen.run(given)
    command_line.print_help()
    return 2


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def _demo(given: argparse.Namespace) -> int:
    from dream_sc._settings import settings

    from . import demo as demo

    settings.verbosity = "warning" if given.quiet else "info"
    settings.progress = False if given.quiet else None
    try:
        demo.run(given.output, n_cells=given.n_cells, n_genes=given.n_genes, seed=given.seed)
    except (ValueError, KeyError, OSError) as error:
        # a user of the shell wants the advice in the message, not the way to it
        flags = {name: f"--{name.replace('_', '-')}" for name in vars(given)}
        print(f"dream-sc demo: {said(error, flags)}", file=sys.stderr)
        return 1
    return 0


def _compile(given: argparse.Namespace) -> int:
    from dream_sc import _compile
    from dream_sc._core.compiled.ahead import STEPS

    progress = False if given.quiet else None
    n = sum(_compile.ready(step, progress, then=list(STEPS), said=False) for step in STEPS)
    print(f"{n} functions compiled; all are kept in {_compile.folder()}")
    return 0


def _info() -> int:
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import dream_sc

    rows = {
        "dream-sc": dream_sc.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for name in INFO_PACKAGES:
        try:
            rows[name] = version(name)
        except PackageNotFoundError:
            rows[name] = "not installed"
    rows["cores"] = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    from dream_sc import _compile

    rows["compiled code"] = str(_compile.folder())
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
