"""Counts in a file: how often each stored value is read, by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc._data import counts as _reading
from dream_sc._data import made_from

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("few_null_features")

N_CELLS, N_GENES = 3000, 240


def _fitted(form: Callable[[Any], Any], n_cells: int = N_CELLS, n_genes: int = N_GENES) -> ad.AnnData:
    adata = ds.datasets.titration(n_cells, n_genes, rng=3)
    adata.X = form(adata.X)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    return adata


@pytest.fixture(scope="module", params=["csr", "csc"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    adata = _fitted({"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[request.param])
    out = tmp_path_factory.mktemp("reads") / f"{request.param}.h5ad"
    adata.write_h5ad(out)
    return out


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """How often each stored value of `.X`, and the index of each, was read by passes over the counts.

    Steps notice counts that changed by the totals of some cells; these reads are checked here to be few.
    """
    found: dict[str, np.ndarray] = {}
    get, totals = h5py.Dataset.__getitem__, made_from._totals
    by_totals = False

    def noted(self: Any, part: Any, **more: Any) -> Any:
        if self.name in ("/X/data", "/X/indices") and not by_totals:
            times = found.setdefault(self.name.rsplit("/", 1)[1], np.zeros(self.shape[0], dtype=int))
            np.add.at(times, np.arange(self.shape[0])[part], 1)
        return get(self, part, **more)

    def of_some(adata: ad.AnnData, layer: str, at: np.ndarray) -> np.ndarray | None:
        nonlocal by_totals
        assert len(at) <= made_from.SAMPLE
        by_totals = True
        try:
            return totals(adata, layer, at)
        finally:
            by_totals = False

    def unknown(*_: Any) -> None:
        raise AssertionError("a way of reading that is not counted")

    monkeypatch.setattr(made_from, "_totals", of_some)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", noted)
    monkeypatch.setattr(h5py.Dataset, "read_direct", unknown)
    monkeypatch.setattr(_reading, "LARGEST_BLOCK", 40_000)  # so that there are many blocks
    return found


@pytest.mark.parametrize("stored", [False, True])
def test_a_screen_reads_each_value_once(path: Path, read: dict[str, np.ndarray], stored: bool, tmp_path: Path) -> None:
    adata = ad.read_h5ad(path, backed="r")
    store = tmp_path / "store" if stored else None
    ds.tl.screen(adata, effort="first_pass", store=store, progress=False)
    assert sorted(read) == ["data", "indices"]
    for times in read.values():
        assert (times == 1).all()
    adata.file.close()


def test_each_step_reads_no_value_twice(path: Path, read: dict[str, np.ndarray]) -> None:
    adata = ad.read_h5ad(path, backed="r")
    calls = {
        "fit_technical": lambda: ds.tl.fit_technical(adata, batch_key="batch", key_added="t"),
        "fit_trans": lambda: ds.tl.fit_trans(adata, function_type="single_hill"),
    }
    for step, call in calls.items():
        read.clear()
        call()
        for times in read.values():
            assert times.max() == 1, step
            assert times.sum() > 0.2 * len(times), step
    adata.file.close()


def _contexts(adata: ad.AnnData) -> pd.DataFrame:
    adata.obs["line"] = np.where(np.arange(adata.n_obs) % 2, "A", "B")
    ds.tl.fit_trans(adata, function_type="single_hill")
    ds.tl.compare(adata, "line", n_null=0)
    return ds.get.compare(adata)


def test_contexts_of_a_file_are_those_of_memory(tmp_path: Path) -> None:
    in_memory = _contexts(_fitted(sparse.csr_matrix, 1500, 60))
    assert (in_memory["status"] == "compared").sum() > 20
    for form in (sparse.csr_matrix, sparse.csc_matrix):
        file = tmp_path / f"{form.__name__}.h5ad"
        _fitted(form, 1500, 60).write_h5ad(file)
        adata = ad.read_h5ad(file, backed="r")
        pd.testing.assert_frame_equal(_contexts(adata), in_memory)
        adata.file.close()
