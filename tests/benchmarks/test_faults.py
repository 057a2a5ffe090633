"""The scripts that look for what accidents and long use leave behind run, and find nothing in a few trials."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the repository is not around the package"),
]


def _run(*words: str) -> str:
    command = [sys.executable, str(BENCHMARKS / words[0]), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_a_fit_with_a_checkpoint_survives_every_kind_of_fault() -> None:
    text = _run("faults.py", "fit", "--faults", "3")
    same, of = re.search(r"(\d+) of (\d+) runs ended with the same table", text).groups()  # type: ignore[union-attr]
    assert same == of
    assert int(of) >= 1
    assert all(f"{name}: " in text for name in ("kill", "interrupt", "full disk"))
    assert "temporary files left 0" in text


def test_fits_leave_nothing_behind() -> None:
    text = _run("soak.py", "--fits", "15")
    assert text.startswith("after 3 fits")
    assert "15 fits; from the end of the warm-up" in text
    assert "left in the temporary folder: nothing" in text
