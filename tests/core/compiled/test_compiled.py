"""The door to compiled code: never stale, compiled once, and what happens where nothing can be kept."""

from __future__ import annotations

import ast
import errno
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.errors import TypingError

import dream_sc
from dream_sc._core import compiled
from dream_sc._core.compiled import Matrix, Vector, _folder, ahead, entry, from_python, inline, load_part, one_of, part
from dream_sc._core.compiled._functions import registry
from dream_sc._core.laplace import modes

PACKAGE = Path(dream_sc.__file__).parent
# curvatures of 40 cells: `cells.curvatures`, `cells.integrate`, `cells.log_count`, `likelihoods.negbinom.log_density`
MODE = """
import sys, types
import numpy as np
package = types.ModuleType("dream_sc")  # all of it takes longer to import than what is looked at to compile
package.__path__ = [{package!r}]
sys.modules["dream_sc"] = package
from dream_sc._core.dosage.cells import curvatures
y = np.arange(40.0) % 5
print(curvatures(y, np.full(40, 2.0), 4.0, np.zeros(40), np.full(40, 0.3), np.array([-1.0, 1.0]), np.zeros(2)).sum())
"""


@inline
def _twice(x: float) -> float:
    return 2.0 * x


@part
def _sum(x: Vector, n: int) -> float:
    total = 0.0
    for i in range(n):
        total += _twice(x[i])
    if total < 0.0:
        raise ValueError("negative")
    return total


@part
def _sums(x: Matrix) -> Vector:
    out = np.zeros(x.shape[0])
    for i in range(x.shape[0]):
        out[i] = _sum(x[i], x.shape[1])
    return out


@entry
def _top(x: Matrix) -> Vector:
    return _sums(x)


@entry
def _any(x: Any) -> Any:
    return x.sum()


def _run(code: str, cache: Path | str | None, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | more.pop("env", {})
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = str(cache)
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=300, **more
    )


# ---- calls -----------------------------------------------------------------------------------------------------------


def test_parts_and_inline_functions_are_called_from_compiled_ones(rng: np.random.Generator) -> None:
    x = rng.random((3, 4))
    np.testing.assert_allclose(_top(x), 2 * x.sum(1))
    assert from_python(_twice)(3.0) == 6.0
    np.testing.assert_allclose(from_python(_sums)(x), 2 * x.sum(1))
    assert registry[f"{__name__}._top"].needs == [registry[f"{__name__}._sums"]]
    assert registry[f"{__name__}._sums"].needs == [registry[f"{__name__}._sum"]]


def test_an_error_in_a_part_is_raised() -> None:
    with pytest.raises(ValueError, match="negative"):
        _top(np.full((2, 2), -1.0))


@pytest.mark.parametrize("x", [np.ones((2, 2), dtype=np.float32), np.ones((2, 2), order="F"), np.ones(2)])
def test_other_types_are_refused_and_not_compiled(x: np.ndarray) -> None:
    with pytest.raises(TypeError, match="No matching definition"):
        _top(x)


def test_an_open_entry_takes_several_types() -> None:
    assert _any(np.arange(3)) == 3
    assert _any(np.ones(3, dtype=np.float32)) == 3.0


def test_nothing_without_a_wrapper_can_be_called_from_python(rng: np.random.Generator) -> None:
    _top(rng.random((2, 2)))  # compiled by now
    with pytest.raises(TypeError, match="from compiled functions only"):
        _twice(1.0)
    with pytest.raises(NotImplementedError):
        _sum(np.ones(2), 2)


def test_a_part_says_which_argument_is_wrong() -> None:
    def call(x, n):  # type: ignore[no-untyped-def]
        return _sum(x, n)

    with pytest.raises(TypingError, match=r"_sum takes x as array\(float64, 1d, C\)"):
        from_python(call)(np.ones(3, dtype=np.float32), 3)


def test_an_annotation_that_has_no_type_is_refused() -> None:
    def wrong(x: str) -> None: ...

    with pytest.raises(TypeError, match="no place in a compiled function"):
        compiled._signatures.signature(wrong)


def test_two_threads_may_be_first(rng: np.random.Generator) -> None:
    @entry
    def fresh(x: Matrix) -> Vector:
        return _sums(x)

    x = rng.random((5, 6))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fresh(x), range(8)))
    for one in found:
        np.testing.assert_array_equal(one, found[0])


# ---- one door --------------------------------------------------------------------------------------------------------


@part
def _double_of_first(x: Vector, k: float) -> float:
    return 2.0 * k * x[0]


@part
def _square_of_first(x: Vector, k: float) -> float:
    return k * x[0] * x[0]


@part
def _of_a_matrix(x: Matrix, k: float) -> float:
    return k * x[0, 0]


_either = one_of([_double_of_first, _square_of_first], ahead=[True, False])


@entry
def _call_one(which: int, x: Vector) -> float:
    return _either(which, x, 3.0)


def test_one_of_several_parts_is_called_by_its_place() -> None:
    x = np.array([5.0])
    assert _call_one(0, x) == 30.0
    with pytest.raises(RuntimeError, match=r"another form of .*_double_of_first was not loaded"):
        _call_one(1, x)
    load_part(_either, 1)
    assert _call_one(1, x) == 75.0
    assert _call_one(0, x) == 30.0
    with pytest.raises(TypeError, match="_of_a_matrix takes"):
        one_of([_double_of_first, _of_a_matrix])


def test_nobody_else_compiles() -> None:
    """Only the door names numba's decorators; two modules more use its types and settings."""
    users: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            names = (
                {alias.name for alias in node.names}
                if isinstance(node, ast.Import)
                else {f"{node.module}.{alias.name}" for alias in node.names}
                if isinstance(node, ast.ImportFrom)
                else set()
            )
            if found := {name for name in names if name.startswith(("numba", "llvmlite"))}:
                users.setdefault(path.relative_to(PACKAGE).as_posix(), set()).update(found)
        if "njit" in path.read_text().replace("numba's `njit`", "") and "compiled" not in path.parts:
            pytest.fail(f"{path} compiles by itself")
    assert {name for name in users if not name.startswith("_core/compiled/")} == {
        "_core/sums/kernels.py",
        "_core/parallel.py",
    }


def test_every_function_of_a_fit_is_compiled_ahead() -> None:
    """The entries of the package are those of the steps, but for what is compiled on demand."""
    mine = {f.name for f in ahead.functions(ahead.STEPS) if f.called_by == "python"}
    every = {name for name, f in registry.items() if f.called_by == "python" and name[0] != "t" and "tests" not in name}
    on_demand = {
        f"sums.kernels.{name}"
        for name in (
            "add_features",
            "add_tails_of_features",
            "compress_dense",
            "count_dense",
            "median_ratios",
            "minor_moments",
            "regroup",
        )
    }
    rooms = ("curves", "dosage", "laplace", "likelihoods", "response", "sums", "technical")
    extra = {n for n in every if n.startswith(rooms)} - mine
    assert extra == on_demand | {"dosage.cells.curvatures", "laplace.quadrature.log_joint"}


# ---- never stale -----------------------------------------------------------------------------------------------------


def test_the_sources_hold_what_kernels_call_and_their_constants() -> None:
    found = set(_folder.sources())
    assert {
        "likelihoods/negbinom.py",
        "laplace/modes.py",
        "compiled/vector_math.py",
        "sums/kernels.py",
        "curves/__init__.py",
        "compiled/_functions.py",
    } <= found
    assert "response/describe.py" not in found  # what only Python runs may change without compiling again


@pytest.mark.slow
def test_a_changed_formula_gives_new_numbers(tmp_path: Path) -> None:
    """The leaf of three nested functions changes in place, as an editable installation or an upgrade does."""
    package, cache = tmp_path / "installed" / "dream_sc", tmp_path / "cache"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = MODE.format(package=str(package))
    first = float(_run(code, cache).stdout)
    assert float(_run(code, cache).stdout) == first
    kept = sorted(cache.rglob("*.bin"))
    leaf = package / "_core" / "likelihoods" / "negbinom.py"
    text = leaf.read_text()
    assert "return y * (log_mean - log(phi))" in text
    leaf.write_text(text.replace("return y * (log_mean - log(phi))", "return 0.5 * y * (log_mean - log(phi))"))
    changed = float(_run(code, cache).stdout)
    assert abs(changed - first) > 1.0
    leaf.write_text(text)
    assert float(_run(code, cache).stdout) == first
    assert all(path.exists() for path in kept)
    assert len(list((cache / "dream_sc" / "compiled").iterdir())) == 2


def test_what_is_damaged_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _folder.Folder(tmp_path, True)
    folder.save("x", {"some": 1})
    assert folder.load("x") == {"some": 1}
    assert not list(tmp_path.glob("*.tmp"))
    whole = folder.file("x").read_bytes()
    for bad in (whole[:-1], b"", whole[:40] + b"?" + whole[41:]):
        folder.file("x").write_bytes(bad)
        assert folder.load("x") is None
    assert folder.load("y") is None


def test_what_changed_since_the_import_is_not_kept_for_others(tmp_path: Path) -> None:
    """An upgrade under a running notebook: it goes on with what it has imported, the next session has the new one."""
    package, cache = tmp_path / "installed" / "dream_sc", tmp_path / "cache"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    code, leaf = MODE.format(package=str(package)), package / "_core" / "likelihoods" / "negbinom.py"
    text = leaf.read_text()
    changed = text.replace("return y * (log_mean - log(phi))", "return 0.5 * y * (log_mean - log(phi))")
    upgrade = f"open({str(leaf)!r}, 'w').write({changed!r})\ny = np"
    old = float(_run(code.replace("y = np", upgrade, 1), cache).stdout)
    new = float(_run(code, cache).stdout)
    assert abs(new - old) > 1.0
    # nor is what a session does with a name that it has bound anew
    rebound = "from dream_sc._core.dosage import cells\ncells.LN2 = 0.1\ny = np"
    assert float(_run(code.replace("y = np", rebound, 1), cache).stdout) != new
    assert float(_run(code, cache).stdout) == new


def test_what_was_compiled_with_other_settings_is_not_kept(tmp_path: Path) -> None:
    changed = "import os\n_folder.fingerprint()\nos.environ['NUMBA_BOUNDSCHECK'] = '1'\ny = np"
    code = MODE.format(package=str(PACKAGE)).replace(
        "y = np", "from dream_sc._core.compiled import _folder\n" + changed, 1
    )
    _run(code, tmp_path)
    assert not list(tmp_path.rglob("*.bin"))


def test_parts_in_nested_code_and_of_enclosing_functions_are_found() -> None:
    own = _sum

    @entry
    def listed(x: Matrix) -> float:
        values = [own(x[i], x.shape[1]) for i in range(x.shape[0])]
        return values[0] + _sum(x[1], 1)

    assert registry[f"{__name__}.{listed.__dict__['source'].__qualname__}"].needs == [registry[f"{__name__}._sum"]]


def test_folders_that_nobody_uses_are_removed(tmp_path: Path) -> None:
    own, recent, old, link, data = (tmp_path / name for name in ("a" * 24, "b" * 24, "c" * 24, "d" * 24, "results"))
    for path in (own, recent, old, data):
        path.mkdir()
        (path / "f.bin").write_bytes(b"")
    link.symlink_to(data)
    long_ago = time.time() - (_folder.KEPT_DAYS + 1) * 86400
    for path in (old, data):
        os.utime(path, (long_ago, long_ago))
    _folder.tidy(own)
    assert [p.exists() for p in (own, recent, old, data, data / "f.bin")] == [True, True, False, True, True]
    _folder.tidy(tmp_path / "nowhere" / "x")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="there are no owners here")
def test_what_others_may_write_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    inner = tmp_path / "shared" / "inner"
    inner.mkdir(parents=True)
    assert _folder.trusted(inner)
    (tmp_path / "shared").chmod(0o777)  # the inner one is ours, but can be exchanged
    assert not _folder.trusted(inner)
    (tmp_path / "shared").chmod(0o1777)
    assert _folder.trusted(inner)
    inner.chmod(0o777)
    assert not _folder.trusted(inner)
    inner.chmod(0o755)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert _folder.trusted(inner) == (inner.stat().st_uid == 0)
    assert not _folder.trusted(tmp_path / "nowhere")


def test_a_file_of_numba_in_a_folder_of_data_names_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import config

    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    assert tmp_path not in (_folder.user_folder() or Path("/")).parents
    monkeypatch.setenv("NUMBA_CACHE_DIR", "relative")
    assert _folder.user_folder() == Path.cwd() / "relative" / "dream_sc" / "compiled"


def test_a_place_that_is_full_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = _folder.Folder(tmp_path / "gone", True)
    folder.save("x", 1)
    folder.save("y", 1)
    assert len(caplog.records) == 1
    assert not folder.holds("x")


# ---- places and processes --------------------------------------------------------------------------------------------


def test_without_a_place_it_compiles_for_the_session(tmp_path: Path) -> None:
    """A file stands where the folder would be; the message says what to do, and nothing is left behind."""
    (tmp_path / "file").write_text("")
    (tmp_path / "tmp").mkdir()
    done = _run(MODE.format(package=str(PACKAGE)), tmp_path / "file" / "below", env={"TMPDIR": str(tmp_path / "tmp")})
    assert np.isfinite(float(done.stdout))
    assert "set NUMBA_CACHE_DIR to a folder of yours" in done.stderr
    assert done.stderr.count("compiled code cannot be kept") == 1
    assert not list((tmp_path / "tmp").iterdir())


def test_what_lies_in_a_folder_that_cannot_be_written_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in an image whose root is read-only: no warning, since what was compiled there is there."""
    inside = tmp_path / "dream_sc" / "compiled" / _folder.fingerprint()
    inside.mkdir(parents=True)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(_folder.tempfile, "TemporaryFile", refused)
    with caplog.at_level("INFO", logger="dream_sc"):
        first, second = _folder._choose()
    assert (first.path, first.writable, second.writable) == (inside, False, True)
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_without_a_home_nothing_is_written_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that the system does not know has "~" for a home."""
    import platformdirs

    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *a, **k: Path("~/.cache/dream_sc"))
    assert _folder.user_folder() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_goes_on(tmp_path: Path) -> None:
    code = (
        MODE.format(package=str(PACKAGE))
        + """
import os
from dream_sc._core.parallel import in_runs, n_threads
in_runs(lambda a, b: None, 100, load=10**9)
child = os.fork()
if child == 0:
    from dream_sc._core.sums.kernels import transpose
    x, out = np.ones((3, 40)), np.zeros((40, 3))
    in_runs(transpose, 2, x, out, load=10**9)
    os._exit(0 if n_threads() > 0 and out.all() and np.isfinite(curvatures(
        y, np.full(40, 2.0), 4.0, np.zeros(40), np.full(40, 0.3), np.zeros(2), np.zeros(2))).all() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    assert _run(code, None).stdout.split()[1] == "0"


@pytest.mark.slow
def test_programs_that_start_together_share_the_work(tmp_path: Path) -> None:
    code = (
        MODE.format(package=str(PACKAGE))
        + """
from dream_sc._core.compiled import ahead
ahead.ready(["technical", "cis"], 1)
wanted = [f for f in ahead.functions(["technical", "cis"]) if not f.open]
print(len(wanted), sum(sum(f.dispatcher._cache_misses.values()) for f in wanted))
"""
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [p.communicate(timeout=300)[0].split() for p in running]
    assert [p.returncode for p in running] == [0, 0]
    (mode, n, compiled_by_one), (same, _, compiled_by_other) = outputs
    assert mode == same
    assert int(compiled_by_one) + int(compiled_by_other) == int(n)


def test_progress_tells_every_function_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    ahead.ready(["trans"], 1, lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(f.loaded for f in ahead.functions(["trans"]))
    assert registry["laplace.modes.run"].source.__module__ == modes.__name__


def test_one_process_leaves_nothing_that_the_next_session_would_tell_of() -> None:
    ahead.ready(["technical"], 1)
    assert [f.name for f in ahead.functions(["technical"]) if f.missing()] == []


def test_a_child_that_is_forked_while_a_thread_compiles_goes_on(tmp_path: Path) -> None:
    code = (
        MODE.format(package=str(PACKAGE)).replace("print(", "go = lambda: (", 1)
        + """
import os, signal, threading, time
threading.Thread(target=go).start()
time.sleep(0.5)
child = os.fork()
if child == 0:
    signal.alarm(100)
    go()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    assert _run(code, tmp_path).stdout.strip() == "0"


def test_a_program_that_is_no_python_starts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ahead._can_start() or not _folder.folders()[-1].writable
    monkeypatch.setattr(sys, "executable", "/usr/bin/napari")
    assert not ahead._can_start()
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert not ahead._can_start()
