"""Small faults in the code of the method, put in one at a time: how many of them do the tests see?

    python benchmarks/mutation.py [--sample 120 | --only FILE] [--seed 0] [--seconds S] [--results FOLDER] [--report]

A random sample of all places in `_core/response`, `dosage`, `likelihoods` and `curves` where a number, a comparison, an
operator, a sign or a name such as `minimum` can be changed. Each fault has a process of its own, in which the frozen
tables that reach its line are computed anew; what these do not see goes to the tests of `tests/core` and `tests/tl`
that import its module and reach its line. A fault is killed where a test fails, or takes far longer than without it.

Nothing on disk is changed. Processes are forked from one in which the package, with its compiled code, is loaded
already; where the fault is in compiled code, or at the level of a module, from one in which it is not.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import importlib.util
import io
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import _mutants
import _reach
import anndata  # noqa: F401  as many libraries as can be, before processes are forked
import formulaic  # noqa: F401
import mudata  # noqa: F401
import numba  # noqa: F401
import numpy as np
import pandas  # noqa: F401
import pytest
import scipy.optimize
import scipy.stats  # noqa: F401

ROOT, SOURCES, ROOMS = _reach.ROOT, _reach.SOURCES, _reach.ROOMS
RESULTS = Path(tempfile.gettempdir()) / "dream_sc_mutation"
KILLED, SURVIVED, UNREACHED = "killed", "survived", "not reached"
LONGER = 10.0  # times what a test takes without a fault, after which it is taken to have no end
SPARE = 60.0  # seconds of processor time besides
COSTLY = 20.0  # seconds of a design, which is asked only where no other one reaches the line
COMPILED = ("counts", "binomial", "normal", "polynomial")  # designs for lines whose execution nobody sees
OF_FOLDERS = {"contexts": ["two_contexts"], "ordered": ["ordered_contexts"], "categories": ["multinomial"]}


def sample(n: int, seed: int, only: Path | None = None) -> tuple[list[_mutants.Mutant], int]:
    """A random sample of all mutants, in random order, or those that a file names; and how many there are."""
    files = sorted(path for room in ROOMS for path in (SOURCES / "dream_sc" / "_core" / room).rglob("*.py"))
    every = [mutant for path in files for mutant in _mutants.mutants(SOURCES, path)]
    if only is not None:
        by_name = {mutant.name: mutant for mutant in every}
        return [by_name[line] for line in only.read_text().splitlines()], len(every)
    order = np.random.default_rng(seed).permutation(len(every))
    return [every[i] for i in order[:n]], len(every)


# ---- one mutant -----------------------------------------------------------------------------------------------------


class Judge:
    """What is known of the tests, and what they say of a mutant."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "reach.json"
        known = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.designs: dict[str, Any] = known.get("designs", {})
        self.tests: dict[str, Any] = known.get("tests", {})
        self.named: dict[str, list[str]] = {}  # tests that were written for a mutant

    def keep(self) -> None:
        if self.file.exists():  # what another process found meanwhile
            self.tests = json.loads(self.file.read_text())["tests"] | self.tests
        self.file.write_text(json.dumps({"designs": self.designs, "tests": self.tests}))

    def frozen(self) -> Any:
        spec = importlib.util.spec_from_file_location("frozen", ROOT / "tests" / "test_frozen_numbers.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def watch_designs(self) -> None:
        """Lines and seconds of each frozen table that nobody watched yet; all of them are as they were."""
        frozen = self.frozen()
        for design in frozen.DESIGNS:
            if design.__name__ in self.designs:
                continue
            cov, begin = _reach.watched(), time.process_time()
            cov.start()
            run_design(frozen, design)
            cov.stop()
            seconds = time.process_time() - begin
            self.designs[design.__name__] = {"seconds": seconds, "lines": _reach.lines_of(cov)}
            print(f"{design.__name__}: {seconds:.1f} s", flush=True)
            self.keep()

    def of_designs(self, mutant: _mutants.Mutant, seen: bool) -> list[str]:
        """The designs that reach a mutant, the cheapest first."""
        cost = {name: about["seconds"] for name, about in self.designs.items()}
        if seen:
            found = sorted((n for n in cost if _reach.reaches(self.designs[n]["lines"], mutant)), key=cost.__getitem__)
            return [n for n in found if n == found[0] or cost[n] < COSTLY]
        own = OF_FOLDERS.get(Path(mutant.path).parent.name) or [n for n in cost if n == Path(mutant.path).stem]
        return own + [name for name in COMPILED if name not in own]

    def of_tests(self, mutant: _mutants.Mutant, seen: bool) -> list[str]:
        """The nearest tests that reach a mutant, the cheapest first; whole files where what they share does."""
        found: dict[str, float] = {}
        for file in _reach.nearest(mutant):
            about = self.watched(file)
            if not about["passed"]:
                continue
            whole = not seen or _reach.reaches(about["setup"], mutant)
            found |= {n: t["seconds"] for n, t in about["tests"].items() if whole or _reach.reaches(t["lines"], mutant)}
        return sorted(found, key=found.__getitem__)

    def watched(self, file: str) -> dict[str, Any]:
        """Lines and seconds of the tests of a file, which are run without a fault where nobody did yet."""
        if file not in self.tests:
            found = forked(lambda: _reach.watch_tests(file), 3600.0)
            self.tests[file] = found or {"passed": False, "setup": {}, "tests": {}}
            self.keep()
            seconds = sum(t["seconds"] for t in self.tests[file]["tests"].values())
            print(f"{file}: passed {self.tests[file]['passed']}, {seconds:.0f} s", flush=True)
        return self.tests[file]

    def seconds(self, designs: list[str], tests: list[str]) -> float:
        every = {n: t["seconds"] for about in self.tests.values() for n, t in about["tests"].items()}
        return sum(self.designs[d]["seconds"] for d in designs) + sum(every.get(t, 1.0) for t in tests)


def run_design(frozen: Any, design: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as in the tests
        for kind, module in ((UserWarning, ""), (DeprecationWarning, r"(anndata|mudata)\.")):
            warnings.filterwarnings("ignore", category=kind, module=module)
        warnings.filterwarnings("ignore", message="The 'mode.chained_assignment' option", category=DeprecationWarning)
        frozen.test_tables_are_as_they_were(design)


def by_designs(judge: Judge, designs: list[str]) -> dict[str, str]:
    """In the process of a mutant: the first frozen table that is another one."""
    frozen = judge.frozen()
    for name in designs:
        try:
            run_design(frozen, getattr(frozen, name))
        except BaseException as error:  # noqa: BLE001  whatever it is, it was not there before
            return {"result": KILLED, "by": f"frozen: {name}", "why": f"{type(error).__name__}: {error}"[:200]}
    return {"result": SURVIVED if designs else UNREACHED, "by": "", "why": ""}


def by_tests(tests: list[str]) -> dict[str, str]:
    """In the process of a mutant: the first test that fails."""
    failed: list[str] = []

    class Plugin:
        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                failed.append(report.nodeid)

    if code := int(pytest.main([*_reach.QUIET, *tests], plugins=[Plugin()])):
        return {"result": KILLED, "by": (failed or ["pytest"])[0], "why": f"exit code {code}"}
    return {"result": SURVIVED, "by": "", "why": ""}


def forked(work: Any, limit: float) -> Any:
    """What a function gives in a process of its own, within seconds of processor time; None where that ends."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 2))
        signal.alarm(int(20 * limit))  # of one that sleeps
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                out = json.dumps(work())
            with os.fdopen(writer, "w") as stream:
                stream.write(out)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else None


# ---- all of them ----------------------------------------------------------------------------------------------------


def one(judge: Judge, mutant: _mutants.Mutant, loaded: bool, by: str) -> dict[str, Any]:
    """What the frozen tables, or the nearest tests, say of a mutant."""

    def with_fault(work: Any) -> Any:
        if loaded:
            _mutants.put_in(mutant, SOURCES)
        else:
            _mutants.import_with(mutant, SOURCES)
            from dream_sc._core.compiled import _folder

            _folder._chosen[:] = [replace(each, writable=False) for each in _folder.folders()]
        return work()

    designs = judge.of_designs(mutant, loaded) if by == "tables" else []
    tests = judge.of_tests(mutant, loaded) if by == "tests" else judge.named[mutant.name] if by == "named" else []
    begin, said = time.perf_counter(), {"result": UNREACHED, "by": "", "why": ""}
    if designs or tests:
        work = (lambda: by_designs(judge, designs)) if designs else (lambda: by_tests(tests))
        said = forked(lambda: with_fault(work), SPARE + LONGER * judge.seconds(designs, tests))
    said = said or {"result": KILLED, "by": "no end, or the end of the process", "why": ""}
    print(f"{said['result']:11} {mutant.name} ({mutant.function})  {said['by']}", flush=True)
    return {"mutant": mutant.name, "function": mutant.function, "asked": by, "loaded": loaded, **said} | {
        "seconds": round(time.perf_counter() - begin, 1)
    }


def all_of(judge: Judge, todo: list[_mutants.Mutant], loaded: bool, results: Path, until: float) -> None:
    """Tests that were named are asked first, then the frozen tables; then the nearest tests of what was not killed."""
    for by in ("named", "tables", "tests"):
        if by == "tables" and loaded and time.perf_counter() < until:
            judge.watch_designs()
        for mutant in todo:
            if by == "named" and mutant.name not in judge.named:
                continue
            row = kept(results).get(mutant.name, {"result": "", "asked": ""})
            if row["result"] == KILLED or row["asked"] in (by, "tests") or time.perf_counter() > until:
                continue
            new = one(judge, mutant, loaded, by)
            if new["result"] == UNREACHED and row["result"] == SURVIVED:
                new["result"] = SURVIVED
            with results.open("a") as stream:
                stream.write(json.dumps(new) + "\n")


def kept(results: Path) -> dict[str, dict[str, Any]]:
    """The last row of each mutant that was tried."""
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    return {row["mutant"]: row for row in rows}


def load_all() -> None:
    """Load the package with its compiled code."""
    import dream_sc  # noqa: F401
    from dream_sc._compile import ready

    for step in ("technical", "cis", "trans", "shares"):
        ready(step, progress=False, then=("cis", "trans", "shares"))
    for room in ROOMS:
        for path in (SOURCES / "dream_sc" / "_core" / room).rglob("[a-z_]*.py"):
            importlib.import_module(".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__"))


def report(results: Path, total: int) -> None:
    rows, count = list(kept(results).values()), collections.defaultdict(collections.Counter)
    for row in rows:
        count[row["mutant"].split("/")[2]][row["result"]] += 1
        count["all"][row["result"]] += 1
    print(f"{len(rows)} of {total} mutants")
    for room, found in count.items():
        said = ", ".join(f"{found[k]} {k}" for k in (KILLED, SURVIVED, UNREACHED))
        print(f"{room:12} {sum(found.values()):4} tried: {said}")
    print(f"killed by frozen tables: {sum(row['by'].startswith('frozen') for row in rows)}")
    for row in rows:
        if row["result"] != KILLED:
            print(f"{row['result']} ({row['asked']}): {row['mutant']} ({row['function']})")


def with_package(judge: Judge, folder: Path, todo: list[_mutants.Mutant], until: float) -> None:
    """In a process of its own: load the package, and judge what can be put into it as it is there."""
    load_all()
    ours = [m for m in todo if _mutants.changed_function(m, SOURCES)]
    (folder / "left.json").write_text(json.dumps([m.name for m in todo if m not in ours]))
    all_of(judge, ours, True, folder / "mutants.jsonl", until)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=Path, help="file with names of mutants, one a line, instead of a random sample")
    parser.add_argument("--ask", type=Path, help="JSON file with the tests that are to see a mutant, by its name")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no further mutant after so many")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of what was tried already")
    parser.add_argument("--compiled", action="store_true", help="go on with those in compiled code only")
    parser.add_argument("--backwards", action="store_true", help="from the end of the sample, beside another process")
    parser.add_argument("--again", action="store_true", help="try those again that were not killed")
    parser.add_argument("--report", action="store_true", help="print what is kept only")
    args = parser.parse_args()
    folder, until = args.results.resolve(), time.perf_counter() + args.seconds
    folder.mkdir(exist_ok=True, parents=True)
    results = folder / "mutants.jsonl"
    os.chdir(ROOT)  # names of tests start there
    todo, total = sample(args.sample, args.seed, args.only)
    judge = Judge(folder)
    judge.named = json.loads(args.ask.read_text()) if args.ask else {}
    if args.backwards:
        todo = todo[::-1]
    if args.again:
        rows = [row for row in kept(results).values() if row["result"] == KILLED]
        results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if not args.report and not args.compiled:
        sys.stdout.flush()
        server = os.fork()
        if server == 0:
            code = 1
            try:
                with_package(judge, folder, todo, until)
                code = 0
            finally:
                if code:
                    traceback.print_exc()
                sys.stderr.flush()
                os._exit(code)
        if os.waitpid(server, 0)[1]:
            raise SystemExit(1)
    if not args.report:
        left = set(json.loads((folder / "left.json").read_text()))
        all_of(judge, [m for m in todo if m.name in left], False, results, until)
    report(results, total)


if __name__ == "__main__":
    main()
