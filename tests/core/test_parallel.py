"""No more threads than were granted, and none that stays."""

from __future__ import annotations

import threading

import numba
import numpy as np
import pytest

from dream_sc._core.parallel import LOAD, in_runs, n_threads, n_threads_for


def test_at_most_what_was_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    import joblib
    from numba.np.ufunc import parallel

    monkeypatch.setattr(parallel, "_is_initialized", False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert 1 <= n_threads() <= min(joblib.cpu_count(), numba.config.NUMBA_NUM_THREADS)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 64)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 48)
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


def test_few_values_take_one_thread() -> None:
    assert n_threads_for(LOAD - 1) == 1
    assert n_threads_for(1000 * LOAD) == n_threads()


@pytest.mark.parametrize("n_items", [0, 1, 2, 7, 1000])
def test_runs_cover_every_item_once(n_items: int) -> None:
    seen, before = np.zeros(n_items, dtype=int), threading.active_count()

    def kernel(first: int, last: int, add: int) -> None:
        seen[first:last] += add

    in_runs(kernel, n_items, 3, load=1000 * LOAD)
    assert (seen == 3).all()
    assert threading.active_count() == before  # none is left that a fork would lose


def test_an_error_in_a_run_is_raised() -> None:
    def kernel(first: int, last: int) -> None:
        if last == 100:
            raise KeyError(last)

    with pytest.raises(KeyError):
        in_runs(kernel, 100, load=1000 * LOAD)
