"""Amounts of memory: as given, as half of what is available, in the machine and in its cgroups."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from dream_sc._memory import budget
from dream_sc._memory.budget import available, in_words, memory_budget

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1, 1),
        (4_000_000_000, 4_000_000_000),
        ("4GB", 4 * 10**9),
        ("500 MB", 5 * 10**8),
        ("1.5gib", 3 * 2**29),
        ("2k", 2000),
        ("64KiB", 65536),
        (" .5 TB ", 5 * 10**11),
        ("12345", 12345),
        ("7b", 7),
    ],
)
def test_amounts(limit: Any, expected: int) -> None:
    assert memory_budget(limit) == expected


@pytest.mark.parametrize("limit", ["", "much", "4 gigs", "-1GB", "1e9", "GB", "5ib", 0, -5, True, 2.5, "0MB", [1]])
def test_what_is_no_amount(limit: Any) -> None:
    with pytest.raises(ValueError, match=r'memory_limit=.* is no amount of memory: use bytes, or a text like "4GB"'):
        memory_budget(limit)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """10,000 bytes available, and cgroups in a folder of our own."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    monkeypatch.setattr(budget, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(budget, "CGROUP_OF_PROCESS", tmp_path / "self")
    (tmp_path / "cgroup" / "job" / "step").mkdir(parents=True)
    return tmp_path


def _limit(folder: Path, most: str, used: int, cache: int, names: tuple[str, str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{most}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")


V2 = "memory.max", "memory.current", "inactive_file"
V1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"


def test_half_of_what_is_available(machine: Path) -> None:
    assert memory_budget() == 5000  # no file that says which cgroup this is
    (machine / "self").write_text("0::/job/step\n")
    assert available() == 10_000
    _limit(machine / "cgroup" / "job" / "step", "max", 100, 0, V2)
    assert available() == 10_000
    _limit(machine / "cgroup" / "job", "3000", 2500, 300, V2)
    assert available() == 800
    assert memory_budget() == 400
    _limit(machine / "cgroup" / "job", "3000", 4000, 0, V2)
    assert available() == 0


def test_cgroups_of_version_1(machine: Path) -> None:
    (machine / "self").write_text("5:cpu:/a\n4:memory:/docker/abc\n0::/\n")
    # inside the container its own folder is the root
    _limit(machine / "cgroup" / "memory", "2000", 500, 100, V1)
    assert available() == 1600


def test_here() -> None:
    assert 0 < memory_budget() <= psutil.virtual_memory().total


def test_in_words() -> None:
    assert [in_words(n) for n in (4.2e9, 999e6, 1_500_000, 500)] == ["4.2 GB", "999 MB", "1.5 MB", "0.5 kB"]
