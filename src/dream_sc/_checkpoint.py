"""Finished blocks of a long fit in a folder, so that a fit which was interrupted goes on where it was.

A manifest says which data and settings the blocks are of. Every file is written under another name first, and starts
with a checksum over all that follows: the block of a damaged one is computed again. One process works on a folder.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import struct
import threading
import tokenize
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from ._data.results import versions
from ._logging import logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT = "2"
MANIFEST, LOCK = "checkpoint.json", ".lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what file systems over a network say that have none
LARGEST_MANIFEST = 2**24  # bytes; a manifest has some kB
START = b"dream_sc block\n"
N_CHECK = 32  # bytes of the checksum of a block
OWN = re.compile(r"([a-z]+-)+\d{5,}\.block(\.\d+\.\d+\.tmp)?|checkpoint\.json\.\d+\.\d+\.tmp")
DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    SyntaxError,
    EOFError,
    RuntimeError,  # with RecursionError and NotImplementedError
    MemoryError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Checkpoint:
    """The blocks of one fit; `stage` starts the names of their files."""

    path: Path
    stage: str = ""

    def under(self, name: str) -> Checkpoint:
        """The blocks of one stage of the work."""
        return replace(self, stage=f"{self.stage}{name}-")

    def load(self, i: int) -> Any:
        """The result of a block, None where it has to be computed."""
        file = self._file(i)
        if not file.exists():
            return None
        try:
            with np.load(io.BytesIO(_content(file)), allow_pickle=False) as stored:
                leaves = dict(stored)
            return _joined(json.loads(str(leaves.pop("tree"))), leaves)
        except DAMAGE as error:
            logger.warning("%s is damaged (%s): its block is computed again", file, error)
            return None

    def save(self, i: int, result: Any) -> None:
        """Write the result of a block: nested tuples and dicts of arrays of numbers or text."""
        leaves: dict[str, Any] = {}
        leaves["tree"] = np.array(json.dumps(_split(result, leaves)))
        body = io.BytesIO()
        np.savez(body, **leaves)
        _write(self._file(i), START + _check(body.getvalue()), body.getvalue())

    def remove(self) -> None:
        """Take all of it away, the manifest last: what is left by an interruption is still a checkpoint.

        Results are in the object by now, so that a file that cannot be removed is said and is no error.
        """
        try:
            made = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))["made"] is True
            for file in self.path.iterdir():
                if OWN.fullmatch(file.name):
                    file.unlink(missing_ok=True)
            for name in (MANIFEST, LOCK):
                (self.path / name).unlink(missing_ok=True)
            if made and not self.path.is_symlink() and not any(self.path.iterdir()):
                self.path.rmdir()
        except (OSError, ValueError, LookupError, TypeError) as error:
            logger.warning("checkpoint: %s cannot be removed (%s): delete it by hand", self.path, error)

    def _file(self, i: int) -> Path:
        return self.path / f"{self.stage}{i:05d}.block"


def _check(body: bytes) -> bytes:
    return blake2b(body, digest_size=N_CHECK).digest()


def _content(file: Path) -> bytes:
    """What follows the checksum of a file, never more than the file has bytes."""
    if not file.is_file():
        raise ValueError("it is no file")
    whole = file.read_bytes()
    start = len(START) + N_CHECK
    body = whole[start:]
    if whole[:start] != START + _check(body):
        raise ValueError("its checksum is of other bytes")
    with zipfile.ZipFile(io.BytesIO(body)) as members:
        infos = members.infolist()
        if any(m.compress_type for m in infos) or sum(m.file_size for m in infos) > len(body):
            raise ValueError("it is compressed, which blocks never are")
    return body


def usable(path: Any) -> Path:
    """The folder, if there is none or if it is one of a checkpoint."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"checkpoint={path!r} is no path: name a folder for finished blocks")
    if not str(path).strip():
        raise ValueError(f"checkpoint={str(path)!r} is no name: name a folder for finished blocks")
    folder = Path(path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"checkpoint={str(path)!r} is a file: name a folder that is empty or does not exist")
    if folder.is_symlink() and not folder.exists():
        raise ValueError(f"checkpoint={str(path)!r} is a link to what does not exist: name a folder")
    known = not folder.exists() or (folder / MANIFEST).exists()
    if not known and any(not file.name.startswith((".", MANIFEST)) for file in folder.iterdir()):
        raise ValueError(
            f"checkpoint={str(path)!r} is a folder with other files: name one that is empty or does not exist"
        )
    return folder


@contextmanager
def opened(path: Path, settings: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[Checkpoint]:
    """The checkpoint of a fit, as of `open_checkpoint`; no other process may use it meanwhile."""
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = _locked(path)
    except OSError as error:
        raise _explained(error, path) from error
    try:
        yield open_checkpoint(path, settings, data, made=made)
    finally:
        if lock is not None:
            lock.release()


def _locked(path: Path) -> FileLock | None:
    """The lock of a folder; the system takes it back from a process that died."""
    if (path / LOCK).is_symlink():
        raise ValueError(f"checkpoint: {path / LOCK} is a link: delete the folder")
    lock = FileLock(path / LOCK)
    mine = acquired(lock, 0.0)
    if mine is None:
        logger.warning("checkpoint: %s is on a file system without locks: start one fit only with it", path)
        return None
    if not mine:
        raise ValueError(f"checkpoint={str(path)!r} is in use by another fit: wait for it, or name another folder")
    return lock


def acquired(lock: FileLock, seconds: float) -> bool | None:
    """Whether a lock is this process's within so long; None where the file system has no locks."""
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    except NotImplementedError:
        return None
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def open_checkpoint(
    path: Path, settings: Mapping[str, Any], data: Mapping[str, Any], *, made: bool = True
) -> Checkpoint:
    """The checkpoint of a fit, a new one or one to go on with.

    Parameters
    ----------
    settings
        What the result depends on beside the data, compared by how it is written.
    data
        Arrays, and nested tuples, dicts and dataclasses of them, by the names that a message uses.
    made
        Whether the folder is removed with a new checkpoint: it was not there before.

    Raises
    ------
    ValueError
        If a checkpoint is there that is of other settings, data or versions, or cannot be read.
    """
    wanted = {"format of the checkpoint": FORMAT} | {f"version of {k}": v for k, v in versions().items()}
    wanted |= {name: str(value) for name, value in settings.items()}
    prints = {name: digest(value) for name, value in data.items()}
    manifest = path / MANIFEST
    if manifest.exists():
        try:
            if not manifest.is_file() or manifest.stat().st_size > LARGEST_MANIFEST:
                raise ValueError("it is no file, or far too large")
            stored = json.loads(manifest.read_text(encoding="utf-8"))
            differences = _differences(stored["settings"], wanted) + _different_data(stored["data"], prints)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError) as error:
            raise ValueError(f"checkpoint: {manifest} is damaged ({error}): delete the folder") from error
        if differences:
            raise ValueError(
                f"checkpoint={str(path)!r} is of another fit: {'; '.join(differences)}. Call with what it is of, or "
                "name another folder, or delete it"
            )
        logger.info("%d finished blocks are in %s", len(list(path.glob("*.block"))), path)
    else:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _explained(error, path) from error
        text = json.dumps({"settings": wanted, "data": prints, "made": made}, indent=1)
        _write(manifest, text.encode())
    return Checkpoint(path)


def digest(x: Any) -> str:
    """A fingerprint of arrays, and of nested tuples, dicts and dataclasses of them."""
    out = blake2b(digest_size=16)
    _add(x, out)
    return out.hexdigest()


def _add(x: Any, out: Any) -> None:
    if is_dataclass(x) and not isinstance(x, type):
        _add({field.name: getattr(x, field.name) for field in fields(x)}, out)
    elif isinstance(x, dict):
        for name, value in x.items():
            _add(name, out)
            _add(value, out)
    elif isinstance(x, tuple | list):
        out.update(f"{len(x)} values".encode())
        for value in x:
            _add(value, out)
    elif isinstance(x, np.ndarray) and not x.dtype.hasobject:
        out.update(f"{x.dtype.str} {x.shape}".encode())
        out.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8))
    elif isinstance(x, np.ndarray):
        _add(x.ravel().tolist(), out)
    else:
        out.update(f"{type(x).__name__} {x!r};".encode())


def _differences(stored: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    names = [name for name in {**stored, **wanted} if stored.get(name) != wanted.get(name)]
    return [f"{name} is {stored.get(name)} there and {wanted.get(name)} here" for name in names]


def _different_data(stored: Mapping[str, str], prints: Mapping[str, str]) -> list[str]:
    names = [name for name in {**stored, **prints} if stored.get(name) != prints.get(name)]
    return [f"the {name} differ" for name in names]


def _explained(error: OSError, path: Path) -> OSError:
    """What the system says of a file, with the argument that it comes from."""
    text = f"checkpoint: {path} cannot be written ({error.strerror or error}). Blocks that are finished stay, so that "
    text += "the same call goes on with them once that is mended; or name another folder"
    return OSError(error.errno, text)


def _write(path: Path, *parts: bytes) -> None:
    """Write a file that is there as a whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # never through a link that someone put there
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part)
        os.replace(temporary, path)
    except OSError as error:
        raise _explained(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def _split(x: Any, leaves: dict[str, Any]) -> Any:
    """How a result is nested, with the names of its arrays, which go into `leaves`."""
    if isinstance(x, dict):
        return {name: _split(value, leaves) for name, value in x.items()}
    if isinstance(x, tuple | list):
        return [_split(value, leaves) for value in x]
    array = np.asarray(x)
    name = f"x{len(leaves)}"
    leaves[name] = array.astype(str) if array.dtype.hasobject else array
    return name


def _joined(tree: Any, leaves: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _joined(value, leaves) for name, value in tree.items()}
    if isinstance(tree, list):
        return tuple(_joined(value, leaves) for value in tree)
    return leaves.pop(tree)  # each is named once
