"""`tl.screen(client=)`: the workers of a cluster give the same table, also where one is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import dream_sc as ds
from dream_sc._core import parallel
from dream_sc._screen import tasks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData

    from dream_sc._screen.store import Part

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def library() -> AnnData:
    adata = ds.datasets.titration(1200, 210, rng=0, n_ntc_guides=14)
    guide, target = (adata.obs[c].astype(str).to_numpy(object) for c in ("guide", "target"))
    for name, numbers in (("promoter", (2, 5, 8, 11)), ("enhancer", (1, 4, 7))):
        target[np.isin(guide, [f"GFI1B_g{i:02d}" for i in numbers])] = name
    target[np.isin(guide, [f"NTC_{i:02d}" for i in (11, 12, 13, 14)])] = "gene_0002"
    adata.obs["target"] = pd.Categorical(target)
    ds.tl.fit_technical(adata, progress=False)
    return adata


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with cluster, distributed.Client(cluster) as found:
        yield found


def test_a_client_gives_the_same_table_though_a_worker_is_lost(library: AnnData, client: Any, tmp_path: Path) -> None:
    table = ds.tl.screen(library, progress=False)
    pids = client.run(os.getpid)
    asked = {}

    def kill() -> None:
        """The first worker that has got a target."""
        until = time.monotonic() + 120
        while time.monotonic() < until and not asked:
            asked.update({w: keys for w, keys in client.processing().items() if keys})
            time.sleep(0.02)
        os.kill(pids[next(iter(asked))], signal.SIGKILL)

    timer = threading.Thread(target=kill)
    timer.start()
    found = ds.tl.screen(library, client=client, store=tmp_path / "store", progress=False)
    timer.join()
    assert asked
    pd.testing.assert_frame_equal(found, table, rtol=1e-6, check_categorical=False)
    assert not list((tmp_path / "store" / ".shared").glob("*"))
    again = ds.tl.screen(library, client=client, store=tmp_path / "store", progress=False)
    pd.testing.assert_frame_equal(again, table, rtol=1e-6, check_categorical=False)


def test_a_task_keeps_to_one_thread(library: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker calls as many tasks at a time as it was given threads, whatever the cores of its machine."""
    seen, fit = [], tasks.fit_together

    def noting(*given: Any) -> Part:
        seen.append(parallel.n_threads_for(10**9))
        return fit(*given)

    monkeypatch.setattr(tasks, "fit_together", noting)
    monkeypatch.setattr(parallel, "n_threads", lambda: 8 if parallel.MOST.get() is None else parallel.MOST.get())
    how = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**how) as cluster, distributed.Client(cluster) as inside:
        ds.tl.screen(library, "promoter", client=inside, store=tmp_path / "s", progress=False)
    ds.tl.screen(library, "promoter", progress=False)
    assert seen == [1, 8]


def test_what_a_client_needs(library: AnnData, client: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="client= needs store="):
        ds.tl.screen(library, client=client, progress=False)
    with pytest.raises(ValueError, match="n_jobs= has no effect with client="):
        ds.tl.screen(library, client=client, n_jobs=2, store=tmp_path / "s", progress=False)
    with pytest.raises(TypeError, match=r"is no distributed\.Client"):
        ds.tl.screen(library, client="tcp://127.0.0.1:8786", store=tmp_path / "s", progress=False)
    with pytest.raises(ValueError, match="client= needs the first pass"):
        ds.tl.screen(library, client=client, effort="full", store=tmp_path / "s", progress=False)
    without = SimpleNamespace(submit=None, cancel=None, scheduler_info=lambda: {"workers": {}})
    with pytest.raises(ValueError, match="client= has no workers"):
        ds.tl.screen(library, client=without, store=tmp_path / "s", progress=False)
    assert not (tmp_path / "s").exists()
