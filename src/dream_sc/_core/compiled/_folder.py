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
import uuid
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
HASH = 24  # hexadecimal digits of a folder's name
OURS = re.compile(f"[0-9a-f]{{{HASH}}}")
KEPT_DAYS = 30.0  # a folder that nobody has used for so long is removed
DIGEST = 32  # bytes of a sha256 in front of what is kept
FORMAT = 1
# settings of numba that change machine code
SETTINGS = (
    "OPT",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    "BOUNDSCHECK",
    "DEBUGINFO_DEFAULT",
    "USING_SVML",
    "DISABLE_JIT",
    "LLVM_REFPRUNE_PASS",
    "CPU_NAME",
    "CPU_FEATURES",
    "ENABLE_AVX",
)


# one thread loads, compiles or looks for a place at a time; who forks waits for it, so that no child finds it taken
LOCK = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)
_chosen: list[Folder] = []
_first_settings: dict[str, Any] = {}
_full: set[Path] = set()  # where something could not be written


@dataclass(frozen=True)
class Folder:
    """A folder of compiled functions; `writable` says whether new ones are kept there."""

    path: Path
    writable: bool

    def file(self, name: str) -> Path:
        return self.path / f"{name}.bin"

    def holds(self, name: str) -> bool:
        try:
            return self.file(name).is_file()
        except OSError:
            return False

    def load(self, name: str) -> Any:
        """What was kept under a name; None if there is nothing, or it is damaged."""
        try:
            data = self.file(name).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data[DIGEST:]).digest() != data[:DIGEST]:
            return None
        try:
            return pickle.loads(data[DIGEST:])  # machine code of a folder that others cannot write: see `trusted`
        except (pickle.UnpicklingError, AttributeError, ImportError, EOFError, IndexError, TypeError, ValueError):
            return None  # of another version of a package that is not in the fingerprint

    def save(self, name: str, value: Any) -> None:
        """Keep something; other processes see all of it or nothing. What cannot be written is not kept."""
        if not self.writable or self.path in _full:
            return
        data = dumps(value)
        whole = self.file(name)
        part = whole.with_name(f"{whole.name}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            part.write_bytes(hashlib.sha256(data).digest() + data)
            part.replace(whole)
        except OSError as error:
            _full.add(self.path)
            part.unlink(missing_ok=True)
            logger.warning("compiled code cannot be kept in %s: %s", self.path, error.strerror)


def _setting(name: str) -> Any:
    return getattr(config, name, None)


def named_folder() -> Path | None:
    """The folder that the environment names. numba would also read a file in the current folder: that is data."""
    named = os.environ.get("NUMBA_CACHE_DIR", "")
    return Path(named).absolute() if named else None


def user_folder() -> Path | None:
    """The folder for compiled code, that which the environment names, else of this user; None where there is none."""
    named = named_folder()
    if named is not None:
        return named / "dream_sc" / "compiled"
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


def settings() -> dict[str, Any]:
    """Settings of numba that change machine code, as they are now."""
    return {name: _setting(name) for name in SETTINGS}


@cache
def fingerprint() -> str:
    """Hash over all that machine code depends on, but for what `Function.content` knows."""
    codegen = cpu_target.target_context.codegen()
    _first_settings.update(settings())
    known = [FORMAT, numba.__version__, llvmlite.__version__, sys.version, codegen.magic_tuple(), _first_settings]
    text = hashlib.sha256(repr(known).encode())
    for name, source in sources().items():
        text.update(f"\n{name} {len(source)}\n".encode())
        text.update(source)
    return text.hexdigest()[:HASH]


def as_at_first() -> bool:
    """Whether numba's settings are those of the fingerprint; numba reads them anew each time that it compiles."""
    fingerprint()
    return settings() == _first_settings


def trusted(path: Path) -> bool:
    """Whether what lies in a folder may be run: nobody but this user and the system can put anything there.

    That is asked of the folder and of all above it. The owner of the folder that the environment names is trusted too.
    """
    if not hasattr(os, "getuid"):
        return True
    named = named_folder()
    try:
        owners = {0, os.getuid()}
        if named is not None and not named.stat().st_mode & stat.S_IWOTH:
            owners.add(named.stat().st_uid)
        path = path.resolve()
        about = [each.lstat() for each in (path, *path.parents)]
    except OSError:
        return False
    return all(each.st_uid in owners and not _open_to_others(each) for each in about)


def _open_to_others(about: os.stat_result) -> bool:
    """Whether others may rename or replace what a folder holds; in a sticky one they may not."""
    if about.st_mode & stat.S_ISVTX:
        return False
    by_group = about.st_mode & stat.S_IWGRP and about.st_gid not in (0, os.getgid())
    return bool(about.st_mode & stat.S_IWOTH or by_group)


def _in(base: Path) -> Folder | None:
    """The folder for this very code below a base, if it can be read or written."""
    path = base / fingerprint()
    try:
        # what others are to use is named, and open to them
        path.mkdir(parents=True, exist_ok=True, mode=0o700 if named_folder() is None else 0o755)
        with tempfile.TemporaryFile(dir=path):
            pass
        os.utime(path)
        writable = True
    except OSError:
        writable = False
    usable = os.access(path, os.R_OK | os.X_OK) and trusted(path)
    return Folder(path, writable) if usable else None


def folders() -> tuple[Folder, ...]:
    """Folders to look in, the last of which takes what is compiled now."""
    with LOCK:
        if not _chosen:
            _chosen.extend(_choose())
        return tuple(_chosen)


def use(paths: Sequence[str]) -> bool:
    """Work in the folders of another process; False if this one would give other machine code."""
    with LOCK:
        _chosen[:] = [Folder(Path(path), True) for path in paths]
    return all(Path(path).name == fingerprint() for path in paths)


def _choose() -> list[Folder]:
    base = user_folder()
    first = None if base is None else _in(base)
    if first is not None and first.writable:
        tidy(first.path)
        return [first]
    if first is None:
        logger.warning(
            "compiled code cannot be kept: %s. It is compiled again in every session; to keep it, set NUMBA_CACHE_DIR "
            "to a folder of yours",
            "there is no home folder" if base is None else f"{base} cannot be written, or others can write there",
        )
    else:  # as in an image that was built with it
        logger.info("%s cannot be written: what is not there is compiled again in every session", first.path)
    try:
        own = Path(tempfile.mkdtemp(prefix="dream_sc-"))
        atexit.register(_remove, own, os.getpid())
        temporary = Folder(own / fingerprint(), True)
        temporary.path.mkdir()
    except OSError:  # then it stays in this process
        temporary = Folder(Path(os.devnull) / fingerprint(), False)
    return [*([] if first is None else [first]), temporary]


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
    """Remove folders of other versions, told by their names, that nobody has used for long."""
    try:
        others = [path for path in own.parent.iterdir() if path != own and OURS.fullmatch(path.name)]
    except OSError:
        return
    for path in others:
        try:
            old = time.time() - path.lstat().st_mtime > KEPT_DAYS * 86400
        except OSError:
            continue
        if old and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
