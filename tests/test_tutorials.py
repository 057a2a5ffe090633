"""The tutorials run, and are committed with their outputs and without traces of a machine."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import dream_sc

FOLDER = Path(__file__).parents[1] / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MACHINE = re.compile(r"/(home|root|tmp|usr|var|opt|work|Users)\b|site-packages|\.pyenv|127\.0\.0\.1|localhost")
MAX_BYTES = 600_000
DATA = "DREAM_SC_DATA"
# features behind the p-values, on whose numbers nothing here rests; they take most of the time of a small fit
FEW_NULL_FEATURES = """
from dream_sc._core.response import calibration, decision
from dream_sc._core.screen import null_draws
calibration.N_NULL = decision.N_NULL = decision.N_NULL_OF_SETS = null_draws.N_NULL = 100
"""
# what is committed was computed at the sizes that it shows; whether it runs is seen with less
LESS = {
    "01_titration": {"titration(2500, 150,": "titration(1200, 80,", "n=15": "n=3"},
    "02_many_guides": {"high_moi(8000, 200,": "high_moi(3000, 40,"},
    "04_trustworthy": {"titration(3000, 150,": "titration(1500, 60,", "n=15": "n=3"},
    "05_known_dosages": {"titration(2500, 120,": "titration(1200, 40,"},
    "07_library": {
        "n_null_targets=5": "n_null_targets=2",
        "range(1, 9)": "range(1, 5)",
        '["TF1", "TF2", "TF3", "TF4"], ["TF5", "TF6", "TF7", "TF8"]': '["TF1", "TF2"], ["TF3", "TF4"]',
    },
}


def _with_less(notebook: nbformat.NotebookNode, name: str) -> None:
    for before, after in LESS.get(name, {}).items():
        cells = [cell for cell in _code(notebook) if before in cell.source]
        assert cells, f"LESS names what {name} does not hold: {before}"
        for cell in cells:
            cell.source = cell.source.replace(before, after)


def _code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _without_images(notebook: nbformat.NotebookNode) -> str:
    """The notebook as text; base64 may hold any word."""
    for cell in _code(notebook):
        for output in cell.outputs:
            output.get("data", {}).pop("image/png", None)
    return json.dumps(notebook)


def test_there_are_tutorials() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_is_committed_with_clean_outputs(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    code = _code(notebook)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert not [cell.id for cell in notebook.cells if cell.metadata], "timings: run tutorials/execute.py"
    assert path.stat().st_size < MAX_BYTES
    found = MACHINE.search(_without_images(notebook))
    assert found is None, found


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the kernel starts in another folder, where a relative PYTHONPATH would lead nowhere
    start, package = tmp_path / "start", Path(dream_sc.__file__).parents[1]
    start.mkdir()
    (start / "sitecustomize.py").write_text(FEW_NULL_FEATURES)  # read by the processes that the kernel starts too
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (start, package))))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    committed, notebook = nbformat.read(path, 4), nbformat.read(path, 4)
    _with_less(notebook, path.stem)
    if any(DATA in cell.source for cell in _code(notebook)) and DATA not in os.environ:
        pytest.skip(f"{path.stem} needs a file in the folder that {DATA} names")
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    for old, new in zip(_code(committed), _code(notebook), strict=True):
        # the first fit of an installation says that it compiles
        outputs = [o for o in new.outputs if "compiling its kernel" not in o.get("text", "")]
        assert [o.output_type for o in outputs] == [o.output_type for o in old.outputs], new.source
