"""Files of others: what cannot be read is an error that names the file, whichever library found it out."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def path_of(path: Any, name: str = "path") -> Path:
    """A path; refuses what is none."""
    try:
        return Path(path)
    except TypeError:
        raise TypeError(f"{name}= is a {type(path).__name__}: give the path of a file or a folder") from None


def file_to_write(path: Any) -> Path:
    """The path of a file to write; refuses folders, and folders that are not there."""
    out = path_of(path)
    if not str(path) or out.is_dir():
        raise ValueError(f"path={str(path)!r} names no file: give the name of a file to write")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: the folder {out.parent} is not there, make it first")
    return out


def folder_to_write(folder: Any) -> Path:
    """The path of a folder to write into, made where it is missing; refuses files."""
    out = path_of(folder, "folder")
    if not str(folder):
        raise ValueError("folder='' names no folder: give one, '.' for that where you are")
    made = next((part for part in (out, *out.parents) if part.exists()), out)
    if made.exists() and not made.is_dir():
        raise ValueError(f"folder={str(folder)!r} names no folder: {made} is a file")
    out.mkdir(parents=True, exist_ok=True)
    return out


@contextmanager
def readable(path: Any, what: str) -> Iterator[None]:
    """Turn whatever goes wrong in reading a file into an error that names it, and what it should be.

    Errors that say so already, files that are not there and libraries that are missing pass. Of damaged files h5py,
    zarr, anndata, scipy, pandas, gzip and zlib raise errors of a dozen kinds, some derived from Exception alone.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError, ImportError):
        raise
    except Exception as error:
        if str(path) in str(error) and isinstance(error, ValueError):
            raise
        text = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} cannot be read as {what} ({type(error).__name__}: {text}): it is damaged, cut short or of another "
            "kind"
        ) from error
