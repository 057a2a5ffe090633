"""What people read and pass on, counted: each row is what tests of the repository check, and how many of them passed.

    python benchmarks/reading.py [--parts docs questions formats stale signs]

"docs": blocks of code of README and the documentation, run page by page in a fresh name space. "questions": calls that
the answers of docs/questions.md take. "formats": tests of each format. "stale": kinds of change between two steps.
"signs": random tables in which direction, score, fold change and title have to agree.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
# format -> words of the names of its tests
IN = {
    "Cell Ranger": ("h5", "folder", "outs", "reference", "calls", "matrix", "line_is_named", "targets_in_place"),
    "IGVF pipeline": ("igvf_with", "igvf_controls", "igvf_that"),
    "pertpy": ("pertpy_layer", "pertpy_column"),
    "sceptre": ("sceptre_matrices",),
    "scPerturb": ("scperturb",),
    "MAGeCK": ("strengths",),
}
OUT = {
    "IGVF tables": ("tables_of_igvf", "of_igvf"),
    "sceptre": ("table_of_sceptre",),
    "pertpy": ("table_of_pertpy",),
    "scanpy": ("rank_genes", "scanpy"),
    "Excel": ("workbook",),
    "TSV": ("tsv",),
    "MultiQC": ("multiqc",),
}


def tested(*what: str) -> tuple[Counter[str], Counter[str], str]:
    """Passed and failed tests by their names without parameters, and what was printed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--hypothesis-show-statistics", f"--junitxml={report}", *what]
        text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
        passed: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for case in ElementTree.parse(report).iter("testcase"):
            name = str(case.get("name")).split("[")[0]
            if case.find("skipped") is None:
                (failed if case.find("failure") is not None or case.find("error") is not None else passed)[name] += 1
    return passed, failed, text


def row(what: str, number: int, bar: str, failed: int = 0) -> None:
    print(f"| {what} | {number}{f', {failed} failed' if failed else ''} | {bar} |", flush=True)


def docs() -> None:
    """Blocks of code, and the pages that ran."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    n = sum(len(re.findall(r"^```python$", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in pages)
    passed, failed, _ = tested("tests/test_docs.py")
    row(f"tests that run the {n} blocks of Python of README and docs", passed.total(), "all run", failed.total())


def questions() -> None:
    """Calls of dream_sc in the first block of each answer."""
    parts = re.split(r"^## ", (ROOT / "docs/questions.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    asked = [part for part in parts if part.splitlines()[0].endswith("?")]
    most = 0
    for part in asked:
        block = re.search(r"```python\n(.*?)```", part, re.DOTALL)
        calls = [] if block is None else [c for c in ast.walk(ast.parse(block.group(1))) if isinstance(c, ast.Call)]
        most = max(most, sum(bool(re.match(r"ds(\.\w+)+$", ast.unparse(call.func))) for call in calls))
    row("questions on one page", len(asked), "10")
    row("most calls of dream_sc in an answer", most, "<= 1")


def formats() -> None:
    """Tests of each format, in and out."""
    files = ("tests/io", "tests/get/test_responders.py")
    passed, failed, _ = tested(*files, "-m", "slow or not slow")
    for way, known in (("in", IN), ("out", OUT)):
        counts = {f: sum(n for t, n in passed.items() if any(w in t for w in words)) for f, words in known.items()}
        text = ", ".join(f"{name} {n}" for name, n in counts.items())
        row(f"formats {way} with passing tests ({text})", sum(n > 0 for n in counts.values()), ">= 4", failed.total())


def stale() -> None:
    """Kinds of change that the next step names, that readers name, and that are harmless."""
    passed, failed, _ = tested("tests/tl/test_changes_between_steps.py")
    named, warned = (
        passed[f"test_{n}"] for n in ("the_next_step_names_what_changed", "who_reads_the_results_is_warned")
    )
    harmless = passed["test_what_is_harmless_changes_no_number"]
    n_failed = failed.total()
    row("kinds of change between steps: refused by the next step, which names them", named, "", n_failed)
    row("of these, named in the log by `get` and `pl`", warned, "", n_failed)
    row("kinds of change that are harmless, and change no number", harmless, "", n_failed)
    row("kinds together", named + harmless, ">= 20", n_failed)


def signs() -> None:
    """Random rows, and features of simulated screens."""
    passed, failed, text = tested("tests/test_directions_agree.py", "-m", "slow or not slow")
    examples = sum(int(n) for n in re.findall(r"(\d+) passing", text))
    what = "random rows in which `on_knockdown`, `score`, fold change and title agree"
    row(what, examples, "always", failed.total())
    row("screens of which every call agrees so: tests", passed.total() - passed["test_whatever_is_found"], "all")


PARTS = {"docs": docs, "questions": questions, "formats": formats, "stale": stale, "signs": signs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    print("| what | passed | bar |", "|---|---|---|", sep="\n", flush=True)
    for part in parser.parse_args().parts:
        PARTS[part]()


if __name__ == "__main__":
    main()
