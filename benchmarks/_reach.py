"""Which tests and frozen tables reach which lines of the method, and how long they take."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import coverage
import pytest

if TYPE_CHECKING:
    from _mutants import Mutant

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src"
ROOMS = ("response", "dosage", "likelihoods", "curves")
QUIET = [
    "-x",
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:randomly",
    "--no-header",
    "--hypothesis-profile=ci",
    "-m",
    "not gpu and not data",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
]
ELSEWHERE = {  # tests of modules that no test imports
    "all_categories": ["core/response/categories/test_categories.py"],
    "proposals": ["core/response/categories/test_categories.py", "core/response/test_contexts.py"],
    "modes": ["core/response/test_contexts.py"],
    "ntc_level": ["core/response/test_evidence.py", "core/response/test_departures.py"],
    "targeting_noise": ["core/response/test_departures.py", "tl/test_screen_noisy_guides.py"],
    "prepare_scores": ["tl/test_units.py", "core/likelihoods/test_units.py"],
    "overdispersion": ["core/response/test_evidence.py"],
}

Reach = dict[str, list[int]]  # lines of each file


def lines_of(cov: coverage.Coverage, context: str | None = None) -> Reach:
    data = cov.get_data()
    data.set_query_contexts(None if context is None else [f"^{re.escape(context)}$"])
    found = {str(Path(f).relative_to(SOURCES)): sorted(data.lines(f) or []) for f in data.measured_files()}
    data.set_query_contexts(None)
    return found


def watched() -> coverage.Coverage:
    rooms = [str(SOURCES / "dream_sc" / "_core" / room / "*") for room in ROOMS]
    return coverage.Coverage(data_file=None, include=rooms, config_file=False)


def reaches(lines: Reach, mutant: Mutant) -> bool:
    first, last = mutant.statement
    return any(first <= line <= last for line in lines.get(mutant.path, ()))


class Watch:
    """A plugin of pytest: which lines each test reaches, and how long it takes."""

    def __init__(self, cov: coverage.Coverage) -> None:
        self.cov, self.seconds = cov, {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: Any) -> Any:
        self.cov.switch_context("setup")
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: Any) -> Any:
        self.cov.switch_context(item.nodeid)
        begin = time.process_time()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.process_time() - begin


def watch_tests(file: str) -> dict[str, Any]:
    """Lines and seconds of the tests of a file, and the lines of what they share; all of them pass."""
    cov = watched()
    plugin = Watch(cov)
    cov.start()
    code = pytest.main([*QUIET, file], plugins=[plugin])
    cov.stop()
    tests = {name: {"seconds": s, "lines": lines_of(cov, name)} for name, s in plugin.seconds.items()}
    return {"passed": int(code) == 0, "setup": lines_of(cov, "setup"), "tests": tests}


def nearest(mutant: Mutant) -> list[str]:
    """Files of tests that import the module; those of its room before those of the steps, and where none does, all."""
    stem, room = Path(mutant.path).stem, Path(mutant.path).parts[2]
    package = re.escape(mutant.module.removesuffix(f".{stem}"))
    own = re.compile(rf"from {package}\.{stem}\b|from {package} import (\([^)]*|[^\n]*)\b{stem}\b")
    near = sorted((ROOT / "tests" / "core" / room).rglob("test_*.py"))
    steps = sorted((ROOT / "tests" / "tl").glob("test_*.py"))
    for files in (near, steps):
        files = [f for f in files if "subprocess" not in f.read_text()]  # which have the package as it is on disk
        if found := [f for f in files if own.search(f.read_text()) or f.stem == f"test_{stem}"]:
            break
    else:
        found = [f for f in near if "subprocess" not in f.read_text()] if room != "response" else []
    return [str(f.relative_to(ROOT)) for f in found] or [f"tests/{f}" for f in ELSEWHERE.get(stem, ())]
