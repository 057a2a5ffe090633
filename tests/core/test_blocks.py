"""The same result whatever the size of blocks and the number of threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dream_sc._core import parallel
from dream_sc._core.response import decision
from dream_sc._core.response.fit import fit
from dream_sc._core.response.prepare import Prepared
from dream_sc._core.response.settings import Settings
from dream_sc._core.types import Axis, GuideStats, RowDosage

if TYPE_CHECKING:
    from dream_sc._core.parallel import Kept
    from dream_sc._core.response.describe import Described

N, N_CIS = 40, 6
COLUMNS = ("log_bf", "qvalue", "pvalue", "log2_ec50", "log2fc_full", "log2fc_full_q025", "guide_sd", "pareto_k")


def _fit(n_ntc: int, kept: Kept | None = None) -> Described:
    rng = np.random.default_rng(5)
    doses = np.r_[np.linspace(-2.5, 1.0, N_CIS), np.zeros(n_ntc)]
    n_g = len(doses)
    slope = np.where(np.arange(N) % 4 == 0, rng.normal(0, 0.5, N), 0.0)
    log_mean = rng.uniform(-2, 2, N)[:, None] + slope[:, None] * doses + rng.normal(0, 0.1, (N, n_g))
    w = rng.uniform(40, 60, n_g)
    counts = rng.poisson(np.exp(log_mean) * w).astype(float)
    guide = np.arange(n_g)
    stats = GuideStats(counts, w, 1.1 * w, guide, np.zeros(n_g, dtype=np.int64), n_g, 1)
    control = guide >= N_CIS
    dosage = RowDosage(doses, np.where(control, 0.0, 0.2), np.where(control, 0.02, 0.08), control)
    prepared = Prepared.of_sums(stats, dosage, np.full(N, 0.4), axis=Axis.of(doses[:N_CIS]), group_effect_sd=0.3)
    return fit(prepared, Settings(nsamples=200), kept=kept)


@pytest.mark.parametrize("n_ntc", [4, 60])
def test_blocks_and_threads_change_nothing(n_ntc: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision, "N_NULL", 100)
    monkeypatch.setattr(parallel, "n_threads", lambda: 1)
    one = _fit(n_ntc)
    monkeypatch.setattr(parallel, "n_threads", lambda: 3)
    monkeypatch.setattr(parallel, "BLOCK", 7)
    other = _fit(n_ntc)
    assert (one.columns["model"] != "null").sum() >= 3
    for name in COLUMNS:
        np.testing.assert_allclose(other.columns[name], one.columns[name], rtol=1e-6, atol=1e-9, err_msg=name)
    np.testing.assert_array_equal(other.records, one.records)


def test_an_interruption_stops_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "n_threads", lambda: 2)
    begun = []

    def call(i: int) -> int:
        begun.append(i)
        if i == 1:
            raise KeyboardInterrupt
        time.sleep(0.005)  # long enough to be interrupted, also where other processes take the cores
        return i

    with pytest.raises(KeyboardInterrupt):
        list(parallel.each(call, list(range(1000))))
    assert len(begun) < 1000


def test_results_come_in_order() -> None:
    assert list(parallel.each(lambda i: i * i, [3, 1, 2])) == [(3, 9), (1, 1), (2, 4)]


class _Memory:
    """Results of blocks in a dict, as the core hands them over."""

    def __init__(self, results: dict[str, Any], stage: str = "") -> None:
        self.results, self.stage = results, stage

    def under(self, name: str) -> _Memory:
        return _Memory(self.results, f"{self.stage}{name}-")

    def load(self, i: int) -> Any:
        return self.results.get(f"{self.stage}{i}")

    def save(self, i: int, result: Any) -> None:
        self.results[f"{self.stage}{i}"] = result


@pytest.mark.parametrize("n_ntc", [4, 60])
def test_a_fit_goes_on_from_any_part_of_its_blocks(n_ntc: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision, "N_NULL", 100)
    monkeypatch.setattr(parallel, "BLOCK", 16)
    results: dict[str, Any] = {}
    whole = _fit(n_ntc)
    stages = {"evidence", "simulated-evidence", "rows"} | ({"ntc", "simulated-ntc"} if n_ntc == 60 else set())
    for left in (0, 3, 2, 1):
        results = dict(list(results.items())[:: left or 1])
        fit = _fit(n_ntc, _Memory(results))
        assert {name.rpartition("-")[0] for name in results} == stages
        for name, values in whole.columns.items():
            np.testing.assert_array_equal(fit.columns[name], values, err_msg=name)
        np.testing.assert_array_equal(fit.records, whole.records)
