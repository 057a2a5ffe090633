"""A folder with one file per target, so that a screen which was interrupted goes on where it was.

A manifest says which data and settings the parts are of. A part is there as a whole or not at all: it is written under
another name first. Several processes may work on one store; the one that holds the lock of a target fits it.
"""

from __future__ import annotations

import json
import os
import re
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import FileLock

from dream_sc._checkpoint import acquired, digest
from dream_sc._logging import logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT = "1"
MANIFEST, PARTS, LOCKS = "screen.json", "parts", ".locks"
ABOUT = "about"  # of a part: what is known of its target, as JSON in the attributes of its table
OF = "store"  # of a part: fingerprint of the data and settings that it is of
SAFE = re.compile(r"[^\w.\-]+")
LONGEST = 60  # characters of a target in the name of its file


@dataclass(frozen=True)
class Part:
    """What the fit of one target gave: a row per feature, and numbers of the target itself."""

    frame: pd.DataFrame
    about: dict[str, Any]


@dataclass(frozen=True)
class Store:
    """The parts of one screen."""

    path: Path
    content: str  # fingerprint of data and settings

    def file(self, name: str, of: Any) -> Path:
        """Where the part of a target is, `of` what its fit takes beside the settings of all."""
        return self.path / PARTS / f"{SAFE.sub('_', name)[:LONGEST]}.{digest((self.content, name, of))[:12]}.parquet"

    def load(self, name: str, of: Any) -> Part | None:
        """The part of a target, None where it has to be made."""
        file = self.file(name, of)
        return read_part(file, "its target is fitted again") if file.exists() else None

    def save(self, name: str, of: Any, part: Part) -> None:
        """Write the part of a target."""
        whole_parquet(part.frame, self.file(name, of), {ABOUT: json.dumps(part.about), OF: self.content})

    def free(self, name: str, of: Any) -> bool:
        """Whether no process is at a target just now."""
        with self.claimed(name, of) as mine:
            return mine

    @contextmanager
    def claimed(self, name: str, of: Any) -> Iterator[bool]:
        """Whether this process is the one to fit a target; the system frees the claim of a process that died.

        On a file system without locks nobody claims anything: a target may be fitted twice, with the same result.
        """
        file = self.file(name, of)
        lock = FileLock(self.path / LOCKS / f"{file.stem}.lock")
        mine = acquired(lock, 0.0)
        try:
            if mine:
                _tidy(file)
            yield mine is not False
        finally:
            if mine:
                lock.release()


def open_store(path: Any, settings: Mapping[str, Any], data: Mapping[str, Any]) -> Store:
    """The store of a screen, a new one or one to go on with.

    Parameters
    ----------
    settings
        What results depend on beside the data, compared by how it is written.
    data
        Arrays, and nested tuples and dicts of them, by the names that a message uses.

    Raises
    ------
    ValueError
        If the folder is of other settings or data, or holds other files.
    """
    folder = _usable(path)
    wanted = {"format of the store": FORMAT} | {name: str(value) for name, value in settings.items()}
    prints = {name: digest(value) for name, value in data.items()}
    try:
        for name in (PARTS, LOCKS):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"store: {folder} cannot be made ({error.strerror}): name a folder that you may write"
        raise OSError(error.errno, text) from error
    _write_manifest(folder, json.dumps({"settings": wanted, "data": prints}, indent=1))
    stored = _manifest(folder)
    differ = [
        f"{name} is {stored['settings'].get(name)} there and {wanted.get(name)} here"
        for name in {**stored["settings"], **wanted}
        if stored["settings"].get(name) != wanted.get(name)
    ]
    there = stored["data"]
    differ += [f"the {name} differ" for name in {**there, **prints} if there.get(name) != prints.get(name)]
    if differ:
        raise ValueError(
            f"store={str(path)!r} is of another screen: {'; '.join(differ)}. Call with what it is of, or name another "
            "folder, or delete it"
        )
    return Store(folder, _content(wanted, prints))


def _content(settings: Mapping[str, str], data: Mapping[str, str]) -> str:
    """A fingerprint of both."""
    return digest((dict(settings), dict(data)))


def _write_manifest(folder: Path, text: str) -> None:
    """Write the manifest of a new store; that of one that is there stays."""
    lock = FileLock(folder / LOCKS / "manifest.lock")
    mine = acquired(lock, -1.0)  # it is held for a moment only
    if mine is None:
        logger.warning("store: %s is on a file system without locks: targets may be fitted twice", folder)
    try:
        if mine:
            _tidy(folder / MANIFEST)
        if not (folder / MANIFEST).exists():
            _whole(folder / MANIFEST, lambda file: file.write_text(text, encoding="utf-8"))
    finally:
        if mine:
            lock.release()


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {"settings": dict(found["settings"]), "data": dict(found["data"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"store: {file} is damaged ({error}): delete the folder") from error


def _usable(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"store={path!r} is no path: name a folder for the parts of the screen")
    folder = Path(path).expanduser()
    if not str(path).strip():
        raise ValueError(f"store={str(path)!r} is no name: name a folder for the parts of the screen")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"store={str(path)!r} is a file: name a folder that is empty or does not exist")
    own = (MANIFEST, PARTS)
    if folder.exists() and not (folder / MANIFEST).exists():
        if any(not f.name.startswith((".", *own)) for f in folder.iterdir()):
            raise ValueError(
                f"store={str(path)!r} is a folder with other files: name one that is empty or does not exist"
            )
    return folder


def read_parts(path: Any) -> list[Part]:
    """All parts of a store, by the names of their targets; damaged ones and those of others are left out.

    Raises
    ------
    FileNotFoundError
        If the folder is no store.
    ValueError
        If its manifest is damaged, or a target is there more than once, with other labels.
    """
    folder = Path(path).expanduser()
    if not (folder / MANIFEST).exists():
        raise FileNotFoundError(
            f"{folder} is no store of a screen: give the folder that tl.screen or `dream-sc screen` wrote"
        )
    content = _content(**_manifest(folder))
    files = sorted((folder / PARTS).glob("*.parquet"))
    found = {file.name: p for file in files if (p := read_part(file, "it is left out", content)) is not None}
    names = pd.Series({file: str(p.about["target"]) for file, p in found.items()}, dtype=object)
    twice = names[names.duplicated(keep=False)].sort_values()
    if len(twice):
        labels = [found[str(file)].about.get("labels") for file in twice.index[:2]]
        raise ValueError(
            f"store: {folder / PARTS} has more than one file of the target {twice.iloc[0]!r}, of the labels "
            f"{labels[0]} and {labels[1]}: {', '.join(map(str, twice.index[:8]))}. Delete those that are not wanted"
        )
    return sorted(found.values(), key=lambda p: str(p.about["target"]))


def read_part(file: Path, then: str, content: str | None = None) -> Part | None:
    """The part in a file; None where it is damaged, or not of the store with this `content`, with `then` to say so."""
    try:
        frame = pd.read_parquet(file, engine="pyarrow", page_checksum_verification=True)
        about = json.loads(frame.attrs[ABOUT])
        if len(frame) != about["n_rows"]:
            raise ValueError(f"{len(frame)} rows, {about['n_rows']} were written")
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged (%s): %s", file, error, then)
        return None
    if content is not None and frame.attrs.get(OF, content) != content:
        logger.warning("%s is of other data or settings than the store: %s", file, then)
        return None
    frame.attrs = {}
    return Part(frame, about)


def whole_parquet(frame: pd.DataFrame, path: Path, attributes: Mapping[str, str]) -> None:
    """Write a table as parquet, with texts beside it; the file is there as a whole or not at all."""
    frame = frame.copy(deep=False)
    frame.attrs = dict(attributes)
    _whole(path, lambda file: frame.to_parquet(file, engine="pyarrow", index=False, write_page_checksum=True))


def _tidy(path: Path) -> None:
    """Remove what a process that died in the middle of a write left of a file, whose lock is this process's."""
    for part in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError):  # it does no harm
            part.unlink()


def _whole(path: Path, write: Any) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        part.unlink(missing_ok=True)  # never through a link that someone put there
        write(part)
        os.replace(part, path)
    except OSError as error:
        text = f"{path} cannot be written ({error.strerror or error}). Parts that are finished stay, so that the "
        text += "same call goes on with them once that is mended; or name another folder"
        raise OSError(error.errno, text) from error
    finally:
        part.unlink(missing_ok=True)
