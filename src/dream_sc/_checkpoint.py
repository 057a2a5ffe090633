"""Finished blocks of a long fit in a folder, so that a fit which was interrupted goes on where it was.

A manifest says which data and settings the blocks are of. Every file is written under another name first, and the
zip format's checksums tell a damaged one: its block is computed again.
"""

from __future__ import annotations

import json
import os
import threading
import zipfile
import zlib
from dataclasses import dataclass, fields, is_dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._data.results import versions
from ._logging import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FORMAT = "1"
MANIFEST = "checkpoint.json"
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RecursionError,
    MemoryError,
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
            with file.open("rb") as raw, np.load(raw, allow_pickle=False) as stored:
                return _joined(json.loads(str(stored["tree"])), stored)
        except DAMAGE as error:
            logger.warning("%s is damaged (%s): its block is computed again", file, error)
            return None

    def save(self, i: int, result: Any) -> None:
        """Write the result of a block: nested tuples and dicts of arrays of numbers or text."""
        leaves: dict[str, Any] = {}
        leaves["tree"] = np.array(json.dumps(_split(result, leaves)))
        _write(self._file(i), lambda file: np.savez(file, **leaves))

    def remove(self) -> None:
        """Take all of it away, the manifest last: what is left by an interruption is still a checkpoint."""
        for file in [*self.path.glob("*.npz"), *self.path.glob("*.tmp"), self.path / MANIFEST]:
            file.unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def _file(self, i: int) -> Path:
        return self.path / f"{self.stage}{i:05d}.npz"


def usable(path: Any) -> Path:
    """The folder, if there is none or if it is one of a checkpoint."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"checkpoint={path!r} is no path: name a folder for finished blocks")
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"checkpoint={str(path)!r} is a file: name a folder that is empty or does not exist")
    known = not folder.exists() or (folder / MANIFEST).exists()
    if not known and any(not file.name.startswith((".", MANIFEST)) for file in folder.iterdir()):
        raise ValueError(
            f"checkpoint={str(path)!r} is a folder with other files: name one that is empty or does not exist"
        )
    return folder


def open_checkpoint(path: Path, settings: Mapping[str, Any], data: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint of a fit, a new one or one to go on with.

    Parameters
    ----------
    settings
        What the result depends on beside the data, compared by how it is written.
    data
        Arrays, and nested tuples, dicts and dataclasses of them, by the names that a message uses.

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
            stored = json.loads(manifest.read_text(encoding="utf-8"))
            differences = _differences(stored["settings"], wanted) + _different_data(stored["data"], prints)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"checkpoint: {manifest} is damaged ({error}): delete the folder") from error
        if differences:
            raise ValueError(
                f"checkpoint={str(path)!r} is of another fit: {'; '.join(differences)}. Call with what it is of, or "
                "name another folder, or delete it"
            )
        logger.info("%d finished blocks are in %s", len(list(path.glob("*.npz"))), path)
    else:
        path.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"settings": wanted, "data": prints}, indent=1)
        _write(manifest, lambda file: file.write(text.encode()))
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


def _write(path: Path, fill: Callable[[Any], Any]) -> None:
    """Write a file that is there as a whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    with temporary.open("wb") as file:
        fill(file)
    os.replace(temporary, path)


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
    return leaves[tree]
