"""Progress bars: where they are shown, what they count, and that a notebook keeps nothing untrue of them."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import dream_sc
from dream_sc import _progress, settings
from dream_sc._progress import bar, features_of, place, shown, stage, values_of

pytestmark = pytest.mark.usefixtures("restore_settings", "no_wish")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def standard_error(monkeypatch, stream):
    # pytest sets that of `sys` between fixtures and test
    monkeypatch.setattr(_progress, "sys", SimpleNamespace(stderr=stream, modules=sys.modules))


@pytest.fixture
def no_wish(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.delenv("QT_API", raising=False)


@pytest.fixture
def terminal(monkeypatch):
    stream = Terminal()
    standard_error(monkeypatch, stream)
    monkeypatch.setattr(_progress, "INTERVAL", 0.0)
    return stream


@pytest.fixture
def log(monkeypatch):
    stream = io.StringIO()
    standard_error(monkeypatch, stream)
    return stream


def kernel(monkeypatch, name="ZMQInteractiveShell", running=True):
    """Have the modules that a kernel of IPython has."""
    shell = type("ZMQInteractiveShell", (), {})
    mine = type(name, (shell,), {})() if running else None
    of_kernel, of_ipython = ModuleType("ipykernel.zmqshell"), ModuleType("IPython")
    of_kernel.ZMQInteractiveShell, of_ipython.get_ipython = shell, lambda: mine
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", of_kernel)
    monkeypatch.setitem(sys.modules, "IPython", of_ipython)


# ---- where -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "setting", "expected"),
    [
        (None, None, False),
        (None, True, True),
        (True, False, True),
        (False, True, False),
    ],
)
def test_shown_in_a_log_file_only_if_asked_for(argument, setting, expected, log):
    settings.progress = setting
    assert place() == "log"
    assert shown(argument) is expected


def test_shown_on_a_terminal(terminal):
    assert place() == "terminal"
    assert shown(None)
    assert not shown(False)


def test_shown_in_a_notebook(monkeypatch, log):
    kernel(monkeypatch)
    assert place() == "notebook"
    assert shown(None)


def test_kernels_that_do_not_replace_what_they_show_are_consoles(monkeypatch, log):
    kernel(monkeypatch, "SpyderShell")
    assert place() == "console"
    kernel(monkeypatch)
    monkeypatch.setenv("QT_API", "pyqt5")
    assert place() == "console"


def test_a_script_that_imports_ipykernel_is_no_notebook(monkeypatch, log):
    kernel(monkeypatch, running=False)
    assert place() == "log"


def test_the_variable_of_tqdm_hides_what_was_not_asked_for(monkeypatch, terminal):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert not shown(None)
    assert shown(True)
    monkeypatch.setenv("TQDM_DISABLE", "0")
    assert shown(None)


def test_without_standard_error(monkeypatch):
    standard_error(monkeypatch, None)
    assert not shown(None)
    assert list(bar(None, "fitting")(range(3))) == [0, 1, 2]


# ---- what ------------------------------------------------------------------------------------------------------------


def test_a_silent_bar_is_nothing(log):
    items = range(5)
    assert bar(None, "fitting")(items) is items
    assert log.getvalue() == ""


def test_blocks_are_counted_by_their_features(terminal):
    blocks = [slice(0, 64), slice(64, 128), slice(128, 130)]
    assert list(bar(None, "evidence", "features", size=features_of)(blocks)) == blocks
    text = terminal.getvalue()
    assert "evidence: 0 of 130 features |" in text
    assert re.search(r"evidence: 64 of 130 features \|[█#]+.*\| \d\d:\d\d, \d\d:\d\d left", text)
    assert "evidence: 130 of 130 features" in text
    assert text.endswith("\r")  # and nothing stays on the line
    assert text.split("\r")[-2].strip() == ""


def test_sizes():
    job = (2, True, np.arange(7))
    assert features_of(job) == features_of((0, job)) == 7
    assert features_of((3, slice(5, 9))) == 4
    assert values_of(SimpleNamespace(cells=slice(0, 10), features=slice(5, 10))) == 50


def test_a_bar_of_several_iterables_has_a_label_for_each(terminal):
    wrap = bar(True, ["first", "second"], "guides")
    for _ in range(3):
        assert list(wrap(range(2))) == [0, 1]
    text = terminal.getvalue()
    assert text.count("first: 0 of 2 guides") == 1
    assert text.count("second: 0 of 2 guides") == 2


def test_an_iterable_without_length(terminal):
    assert list(bar(True, "permuting", "refits")(x for x in range(3))) == [0, 1, 2]
    assert "permuting: 2 refits  00:00" in terminal.getvalue()
    assert " of " not in terminal.getvalue()
    assert list(bar(True, "permuting", "refits", total=3)(x for x in range(3))) == [0, 1, 2]
    assert "permuting: 2 of 3 refits" in terminal.getvalue()


def test_large_numbers_are_short(terminal):
    reading = bar(True, "reading", "values", size=lambda _: 500_000_000, total=1_500_000_000)
    assert len(list(reading(range(2)))) == 2
    assert "reading: 500M of 1.50G values" in terminal.getvalue()
    assert "reading: 1.50G of 1.50G values" in terminal.getvalue()  # what was left out is done


def test_an_error_ends_the_bar(terminal):
    def fails() -> None:
        for item in bar(True, "fitting")(range(5)):
            if item == 2:
                raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    assert "5 of 5" not in terminal.getvalue()
    assert terminal.getvalue().split("\r")[-2].strip() == ""


@pytest.mark.slow
def test_the_steps_say_what_they_count(terminal):
    adata = dream_sc.datasets.titration(600, 10, rng=0)
    dream_sc.pp.size_factors(adata)
    n_acting, n_fitted = (
        adata.obs.loc[adata.obs["target"] != "NTC", "guide"].nunique(),
        adata.n_vars - 1,
    )  # without the cis gene
    hyper = None
    for stages in (["evidence", "evidence of simulated nulls", "curves"], ["evidence", "curves"]):
        terminal.truncate(0)
        dream_sc.tl.fit_technical(adata)
        dream_sc.tl.fit_cis(adata, "GFI1B")
        dream_sc.tl.fit_trans(adata, hyper=hyper)
        hyper = adata.uns["trans"]["hyper"]
        dream_sc.tl.calibrate(adata, n=2)
        text = terminal.getvalue()
        assert f"counts of controls: {adata.n_obs * adata.n_vars} of {adata.n_obs * adata.n_vars} values" in text
        assert f"technical fit: {adata.n_vars} of {adata.n_vars} features" in text
        assert f"dosage of GFI1B: {n_acting} of {n_acting} guides" in text
        assert "calibration: 2 of 2 null refits" in text
        for i, name in enumerate(stages, 1):
            n = 1000 if "nulls" in name else n_fitted
            assert f"fit_trans {i} of {len(stages)}, {name}: {n} of {n} features" in text
        assert f"fit_trans {len(stages) + 1}" not in text


# ---- stages ----------------------------------------------------------------------------------------------------------


def test_a_stage_says_how_many_of_how_many(terminal):
    with stage(None, "compiling", 17, "kernels", estimate=False) as running:
        for _ in range(4):
            running.advance()
    assert "compiling: 4 of 17 kernels |" in terminal.getvalue()
    assert "left" not in terminal.getvalue()


def test_a_silent_stage_takes_all_calls(log):
    running = stage(None, "compiling", 17)
    running.advance(3)
    running.complete()
    running.close()
    assert log.getvalue() == ""


def test_a_stage_may_be_told_from_many_threads_and_after_its_end(terminal):
    running = stage(True, "compiling", 4000, "kernels")
    threads = [threading.Thread(target=lambda: [running.advance() for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert running._bar.n == 4000
    running.close()
    running.close()
    length = len(terminal.getvalue())
    running.advance()
    assert len(terminal.getvalue()) == length


def test_two_stages_at_a_time_have_a_line_each(terminal):
    with stage(True, "compiling", 2) as compiling:
        for _ in bar(True, "fitting")(range(2)):
            compiling.advance()
    assert "\n" in terminal.getvalue()
    assert "compiling: 2 of 2" in terminal.getvalue()
    assert "fitting: 2 of 2" in terminal.getvalue()


# ---- log files -------------------------------------------------------------------------------------------------------


def test_a_log_file_sees_a_line_each_half_minute_and_the_last(log, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with stage(True, "fitting", 100, "features") as running:
        for _ in range(100):
            now[0] += 1.0
            running.advance()
    assert log.getvalue().splitlines() == [
        "fitting: 30 of 100 features (30 %) 00:30, 01:10 left",
        "fitting: 60 of 100 features (60 %) 01:00, 00:40 left",
        "fitting: 90 of 100 features (90 %) 01:30, 00:10 left",
        "fitting: 100 of 100 features (100 %) 01:40, 00:00 left",
    ]


def test_a_short_stage_is_one_line_of_a_log_file(log):
    assert len(list(bar(True, "fitting", "features")(range(1000)))) == 1000
    (line,) = log.getvalue().splitlines()
    assert line.startswith("fitting: 1000 of 1000 features (100 %) 00:0")


# ---- notebooks -------------------------------------------------------------------------------------------------------

LOOP = """
import threading, time
from dream_sc import _progress
_progress.INTERVAL = 0.0
shown = []
display = _progress._display
def spy(what, **options):
    handle = display(what, **options)
    update = handle.update
    def seen(what, **options):
        shown.append(what)
        return update(what, **options)
    handle.update = seen
    shown.append(what)
    return handle
_progress._display = spy
"""
RUN = """
for _ in _progress.bar(None, "evidence", "features", size=_progress.features_of)([slice(0, 64), slice(64, 100)]):
    pass
"""
THREAD = """
running = _progress.stage(None, "compiling", 17, "kernels", estimate=False)
thread = threading.Thread(target=lambda: [running.advance() for _ in range(17)])
thread.start(); thread.join(); running.close()
"""
BREAK = """
for i in _progress.bar(None, "fitting", "guides")(range(5)):
    if i == 3:
        raise KeyboardInterrupt
"""
SHOWN = "[str(what.get('text/plain')) if isinstance(what, dict) else type(what).__name__ for what in shown]"


def run_notebook(monkeypatch, path):
    """Outputs of each cell of a notebook in a real kernel, whose modules are looked for in `path` first."""
    nbformat, nbclient, _ = (pytest.importorskip(name) for name in ("nbformat", "nbclient", "ipykernel"))
    source = str(Path(dream_sc.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*path, source, os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(text) for text in (LOOP, RUN, THREAD, BREAK, SHOWN)]
    notebook.cells[3].metadata["tags"] = ["raises-exception"]
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return [cell.outputs for cell in notebook.cells]


def written(outputs):
    return [output for output in outputs if output.output_type == "stream"]


@pytest.mark.slow
def test_a_notebook_without_ipywidgets_shows_a_line_of_text(monkeypatch, tmp_path):
    # one that cannot be imported stands for none
    (tmp_path / "ipywidgets.py").write_text("raise ImportError('not there')")
    setup, ran, thread, broken, spied = run_notebook(monkeypatch, [str(tmp_path)])
    assert setup == []
    for outputs in (ran, thread):
        (output,) = outputs  # neither a warning nor a red line on standard error
        assert output.output_type == "display_data"
        assert output.data["text/plain"] == ""  # nothing stays of what has ended
    assert not written(broken)
    lines = eval(spied[0].data["text/plain"])
    assert lines[0].startswith("evidence: 0 of 100 features |")
    assert any(re.match(r"evidence: 64 of 100 features \|█+.*\| 00:0\d, 00:0\d left$", line) for line in lines)
    assert any(line.startswith("compiling: 4 of 17 kernels |") for line in lines)
    assert "left" not in next(line for line in lines if line.startswith("compiling"))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ipywidgets") is None, reason="ipywidgets is not installed")
def test_a_notebook_with_ipywidgets_shows_a_widget(monkeypatch):
    setup, ran, thread, broken, spied = run_notebook(monkeypatch, [])
    assert setup == []
    for outputs in (ran, thread):
        (output,) = outputs
        assert output.output_type == "display_data"
        assert output.data == {"text/plain": "", "text/html": ""}  # no widget that stands at its start
    assert not written(broken)
    assert broken[0].data["text/plain"].startswith("fitting: 3 of 5 guides |")
    assert eval(spied[0].data["text/plain"])[0] == "TqdmHBox"


@pytest.mark.slow
def test_a_bar_of_a_script_leaves_notebooks_alone():
    code = "from dream_sc._progress import bar\nlist(bar(True, 'fitting')(range(3)))\nimport sys\n"
    code += "assert 'IPython' not in sys.modules and 'tqdm.notebook' not in sys.modules"
    environment = os.environ | {"PYTHONPATH": str(Path(dream_sc.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("fitting: 3 of 3 steps")


@pytest.mark.slow
@pytest.mark.parametrize("columns", [0, 60, 120])
def test_the_line_is_as_wide_as_the_terminal(columns):
    import fcntl
    import pty
    import struct
    import termios

    try:
        outer, inner = pty.openpty()
    except OSError:
        pytest.skip("there are no pseudo-terminals")
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 30 if columns else 0, columns, 0, 0))
    code = "from dream_sc._progress import bar\nlist(bar(None, 'fitting', 'guides')(range(3)))"
    environment = os.environ | {"PYTHONPATH": str(Path(dream_sc.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], env=environment, stderr=inner, check=True)
    lines = os.read(outer, 10_000).decode().split("\r")
    os.close(inner)
    os.close(outer)
    assert lines[1].startswith("fitting: 0 of 3 guides |")
    assert abs(len(lines[1]) - (columns or 80)) <= 1
