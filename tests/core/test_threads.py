"""No more threads than were granted."""

from __future__ import annotations

import numba
import pytest

from dream_sc._core.threads import LOAD, granted, n_threads


def test_at_most_what_was_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    import joblib

    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert 1 <= n_threads() <= min(joblib.cpu_count(), numba.get_num_threads())
    monkeypatch.setattr(joblib, "cpu_count", lambda: 64)
    monkeypatch.setattr(numba, "get_num_threads", lambda: 48)
    assert n_threads() == 48
    for value, expected in (("16", 16), ("0", 1), ("", 48), ("100", 48), ("two", 48)):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", value)
        assert n_threads() == expected
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    monkeypatch.setattr(joblib, "cpu_count", lambda: 3)
    assert n_threads() == 3


def test_numba_is_obeyed() -> None:
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert n_threads() == 1
    finally:
        numba.set_num_threads(before)


def test_few_values_take_one_thread_and_numba_is_left_as_it_was() -> None:
    before = numba.get_num_threads()
    with granted(LOAD - 1) as n:
        assert n == numba.get_num_threads() == 1
    with granted(1000 * LOAD) as n:
        assert n == numba.get_num_threads() == n_threads()
    with pytest.raises(KeyError), granted(0):
        raise KeyError
    assert numba.get_num_threads() == before
