"""Compiling ahead: what a step needs, on several processes at once, each function by one of them.

A function is claimed by a lock beside the place where it is kept, so that workers of one program, and programs that
start at the same time, share the work and none does it twice.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path

from . import _folder
from ._folder import LOCK
from ._functions import Function

CORE = "dream_sc._core"
SUMS = ("check", "add_cells", "add_tails_of_cells", "close_tails", "transpose", "major_moments")
# functions that Python calls in each step of counts, by module; what these call goes with them
STEPS: dict[str, dict[str, tuple[str, ...]]] = {
    "technical": {f"{CORE}.sums.kernels": SUMS, f"{CORE}.technical.count_kernels": ("fit_counts",)},
    "cis": {
        f"{CORE}.sums.kernels": ("pick",),
        f"{CORE}.dosage.cells": ("each_cell",),
    },
    "trans": {
        f"{CORE}.laplace.modes": ("run",),
        f"{CORE}.laplace.lookup": ("run",),
        f"{CORE}.laplace.departures": ("by_component",),
        f"{CORE}.sums.capped": ("note",),
        f"{CORE}.laplace.quadrature": ("log_marginal",),
        f"{CORE}.curves": ("ENTRIES",),
        f"{CORE}.laplace.kernel_density": ("log_kernels",),
    },
    "shares": {
        f"{CORE}.technical.share_kernels": ("fit_shares",),
        f"{CORE}.likelihoods.chosen": ("OTHERS",),
        f"{CORE}.curves.chosen": ("OTHERS",),
    },
}
MOST_WORKERS = 4  # of all programs that use a folder; each takes 0.3 GB
PATIENCE = 60.0  # seconds without a function that is done, after which this process goes on alone
PAUSE = 0.1  # seconds between two looks at what is done

_workers: list[subprocess.Popen[bytes]] = []


def functions(steps: Iterable[str]) -> list[Function]:
    """What steps need, the functions that others call before these."""
    found: dict[Function, None] = {}

    def add(function: Function) -> None:
        if function not in found:
            for part in function.needs:
                add(part)
            found[function] = None

    for step in steps:
        for module, names in STEPS[step].items():
            for name in names:
                named = getattr(import_module(module), name)
                for each in named if isinstance(named, tuple) else (named,):
                    add(each)
    return list(found)


def missing(wanted: Iterable[Function]) -> list[Function]:
    """Those of which something has to be compiled."""
    return [f for f in wanted if not f.loaded and f.missing()]


def ready(
    steps: Sequence[str],
    n_processes: int,
    tell: Callable[[int, int], None] = lambda done, total: None,
    then: Sequence[str] = (),
) -> None:
    """Compile what steps lack, and load it.

    Parameters
    ----------
    n_processes
        How many may compile; with one it is this one.
    tell
        Called with the number of functions that are done and that of all, as it goes on.
    then
        Steps that other processes go on with.
    """
    wanted = functions(steps)
    todo = missing(wanted)
    if n_processes > 1 and _can_start() and (todo or (then and missing(functions(then)))):
        with LOCK:
            if not _alive():
                _start([*steps, *then], n_processes)
    tell(0, len(todo))
    seen, since = len(todo), time.monotonic()
    while _alive() and (left := missing(todo)) and time.monotonic() - since < PATIENCE:
        if len(left) < seen:
            seen, since = len(left), time.monotonic()
        tell(len(todo) - len(left), len(todo))
        time.sleep(PAUSE)
    for function in wanted:
        function.load()
        if function.open and function in todo:  # no other process did: it would be told of in each session
            function.compile_missing()
        tell(len(todo) - len(missing(todo)), len(todo))


def _can_start() -> bool:
    """Whether this program is a Python that can be started again, and there is a folder in which they meet."""
    name = Path(sys.executable or "").name
    return name.startswith("python") and not getattr(sys, "frozen", False) and _folder.folders()[-1].writable


def _alive() -> bool:
    with LOCK:
        _workers[:] = [w for w in _workers if w.poll() is None]
        return bool(_workers)


def _start(steps: Sequence[str], n: int) -> None:
    told = {
        "path": [each for each in sys.path if isinstance(each, str)],
        "package": str(_folder.PACKAGE),
        "folders": [str(f.path) for f in _folder.folders()],
        "steps": list(steps),
        "parent": os.getpid(),
    }
    atexit.register(_stop, os.getpid())
    for _ in range(min(n, MOST_WORKERS)):
        try:
            worker = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("_worker.py")), json.dumps(told)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError:  # no memory, no processes left: this process does it
            return
        _workers.append(worker)


def _stop(pid: int) -> None:
    """End the workers with their program; a forked child leaves them alone."""
    if os.getpid() == pid:
        for worker in _workers:
            worker.terminate()


def compile_all(steps: Sequence[str], folders: Sequence[str], parent: int) -> None:
    """What a worker does: every function that nobody has compiled or is compiling, as long as its parent lives."""
    if not _folder.use(folders):
        return
    for i in range(MOST_WORKERS):
        with _folder.claimed(f"worker-{i}", 0.0) as mine:
            if mine:
                for function in functions(steps):
                    if os.name == "posix" and os.getppid() != parent:
                        return
                    function.compile_only()
                return
