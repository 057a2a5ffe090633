"""Rows of results in CSV files: written one by one, so that a run that was ended goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd


def read(path: Path) -> pd.DataFrame:
    """The rows so far; an empty frame if there are none."""
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def done(path: Path, column: str = "seed") -> set[Any]:
    """Which values of `column` have a row."""
    rows = read(path)
    return set(rows[column]) if column in rows else set()


def append(path: Path, rows: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Add rows. Columns that the file does not have yet are added to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = pd.DataFrame(rows if isinstance(rows, list) else [rows])
    old = read(path)
    pd.concat([old, new], ignore_index=True).to_csv(path, index=False, float_format="%.5g", lineterminator="\n")


def folder(root: Path, part: str) -> list[Path]:
    """The files of one part, sorted."""
    return sorted((root / part).glob("*.csv"))
