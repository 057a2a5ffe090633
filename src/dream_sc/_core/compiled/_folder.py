"""Where compiled functions are kept between sessions, and how one is written and read.

numba's own file cache looks at the file of the function that is called, not at the files that this one calls: after an
upgrade it gives old numbers. Here the folder's name is a hash over the sources of all kernels, numba, llvmlite, Python
and the processor, so that anything that changes the machine code changes the folder.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import pickle
import re
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from filelock import FileLock, Timeout
from numba.core import config
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

logger = logging.getLogger("dream_sc")

PACKAGE = Path(__file__).parents[2]
CORE = PACKAGE / "_core"
# from .a.b import c, d: dots, module, names, which may stand in brackets over several lines
IMPORT = re.compile(r"^\s*from\s+(\.*)([\w.]*)\s+import\s+(\([^)]*\)|[^\n]*)", re.MULTILINE)
NAME = re.compile(r"\w+")
KEPT_DAYS = 30.0  # a folder that nobody has used for so long is removed
DIGEST = 32  # bytes of a sha256 in front of what is kept
FORMAT = 1
# settings of numba that change machine code
SETTINGS = (
    "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "USING_SVML", "DISABLE_JIT",
    "LLVM_REFPRUNE_PASS", "CPU_NAME", "CPU_FEATURES", "LLVM_PASS_TIMINGS",
)  # fmt: skip


_lock = threading.Lock()
_chosen: list[Folder] = []


@dataclass(frozen=True)
class Folder:
    """A folder of compiled functions; `writable` says whether new ones are kept there."""

    path: Path
    writable: bool

    def file(self, name: str) -> Path:
        return self.path / f"{name}.bin"

    def holds(self, name: str) -> bool:
        return self.file(name).is_file()

    def load(self, name: str) -> Any:
        """What was kept under a name; None if there is nothing, or it is damaged."""
        try:
            data = self.file(name).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data[DIGEST:]).digest() != data[:DIGEST]:
            return None
        return pickle.loads(data[DIGEST:])  # machine code of this user's own folder: see `trusted`

    def save(self, name: str, value: Any) -> None:
        """Keep something; other processes see all of it or nothing. What cannot be written is not kept."""
        if not self.writable:
            return
        data = dumps(value)
        whole = self.file(name)
        part = whole.with_name(f"{whole.name}.{os.getpid()}.tmp")
        try:
            part.write_bytes(hashlib.sha256(data).digest() + data)
            part.replace(whole)
        except OSError as error:
            part.unlink(missing_ok=True)
            logger.warning("compiled code cannot be kept in %s: %s", self.path, error.strerror)


def _setting(name: str) -> Any:
    return getattr(config, name, None)


def user_folder() -> Path | None:
    """The folder for compiled code, of numba where it names one, else of this user; None where there is no home."""
    named = _setting("CACHE_DIR")
    if named:
        return Path(named) / "dream_sc"
    import platformdirs

    path = platformdirs.user_cache_path("dream_sc", appauthor=False)
    return path / "compiled" if path.is_absolute() else None


def sources() -> dict[str, bytes]:
    """Every file that compiled functions may come from: those that use the door, and what they import of `_core`."""
    texts = {path: path.read_bytes() for path in sorted(CORE.rglob("*.py"))}
    found = {path for path, text in texts.items() if b"compiled import" in text}
    waiting = list(found)
    while waiting:
        path = waiting.pop()
        new = _imported(path, texts[path]) & texts.keys() - found
        found |= new
        waiting += new
    return {path.relative_to(CORE).as_posix(): texts[path] for path in sorted(found)}


def _imported(path: Path, text: bytes) -> set[Path]:
    """Files of `_core` that a module imports, in functions too."""
    package = ["dream_sc", *path.relative_to(PACKAGE).parent.parts]
    out: set[Path] = set()
    for dots, module, names in IMPORT.findall(text.decode()):
        above = package[: len(package) - len(dots) + 1] if dots else []
        base = ".".join([*above, *([module] if module else [])])
        for name in [base, *(f"{base}.{each}" for each in NAME.findall(names))]:
            if name.startswith("dream_sc._core"):
                place = PACKAGE.joinpath(*name.split(".")[1:])
                out |= {place.with_suffix(".py"), place / "__init__.py"}
    return out


@cache
def fingerprint() -> str:
    """Hash over all that machine code depends on."""
    codegen = cpu_target.target_context.codegen()
    settings = {name: _setting(name) for name in SETTINGS}
    known = [FORMAT, numba.__version__, llvmlite.__version__, sys.version, codegen.magic_tuple(), settings]
    text = hashlib.sha256(repr(known).encode())
    for name, source in sources().items():
        text.update(f"\n{name} {len(source)}\n".encode())
        text.update(source)
    return text.hexdigest()[:24]


def trusted(path: Path) -> bool:
    """Whether what lies in a folder may be run: it is this user's or the system's, and nobody else can write there."""
    if not hasattr(os, "getuid") or _setting("CACHE_DIR"):
        return True  # named by the user
    try:
        about = path.stat()
    except OSError:
        return False
    return about.st_uid in (os.getuid(), 0) and not about.st_mode & stat.S_IWOTH


def _in(base: Path) -> Folder | None:
    """The folder for this very code below a base, if it can be read or written."""
    path = base / fingerprint()
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=path):
            pass
        os.utime(path)
        writable = True
    except OSError:
        writable = False
    return Folder(path, writable) if path.is_dir() and trusted(path) else None


def folders() -> tuple[Folder, ...]:
    """Folders to look in, the last of which takes what is compiled now."""
    with _lock:
        if not _chosen:
            _chosen.extend(_choose())
        return tuple(_chosen)


def use(paths: Sequence[str]) -> bool:
    """Work in the folders of another process; False if this one would give other machine code."""
    with _lock:
        _chosen[:] = [Folder(Path(path), True) for path in paths]
    return all(Path(path).name == fingerprint() for path in paths)


def _choose() -> list[Folder]:
    base = user_folder()
    first = None if base is None else _in(base)
    if first is not None and first.writable:
        tidy(first.path)
        return [first]
    own = Path(tempfile.mkdtemp(prefix="dream_sc-"))
    atexit.register(_remove, own, os.getpid())
    logger.warning(
        "compiled code cannot be kept: %s. It is compiled again in every session; to keep it, set NUMBA_CACHE_DIR to "
        "a folder of yours",
        "there is no home folder" if base is None else f"{base} cannot be written",
    )
    temporary = own / fingerprint()
    temporary.mkdir()
    return [*([] if first is None else [first]), Folder(temporary, True)]


@contextmanager
def claimed(name: str, seconds: float) -> Iterator[bool]:
    """Claim a name among processes for a while; False if another one has kept it for so long.

    Where the file system knows no locks nobody claims anything: work may then be done twice, which does no harm.
    """
    lock = FileLock(folders()[-1].path / f"{name}.lock", timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):
        yield True
        return
    try:
        yield True
    finally:
        lock.release()


def _remove(path: Path, pid: int) -> None:
    if os.getpid() == pid:  # a forked child leaves it to its parent
        shutil.rmtree(path, ignore_errors=True)


def tidy(own: Path) -> None:
    """Remove folders of other versions that nobody has used for long."""
    for path in own.parent.iterdir():
        try:
            if path != own and path.is_dir() and time.time() - path.stat().st_mtime > KEPT_DAYS * 86400:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue
