"""The report of the calibration study is made from rows alone; the parts of the other tests that are our own."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

FOLDER = Path(__file__).parents[2] / "benchmarks" / "calibration"
NAMES = ("screens", "scenarios", "store", "simulated", "real", "peers", "summary")

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the benchmarks are not here")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch):
    """Import a module of the study; none of them stays imported."""
    monkeypatch.syspath_prepend(FOLDER)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(NAMES) & (set(sys.modules) - before):
        del sys.modules[name]


def _simulated(seeds: int, rng: np.random.Generator) -> pd.DataFrame:
    kinds = {"nulls": 300, "single": 60, "two": 10, "responders": 180}
    rows = pd.DataFrame({"seed": range(seeds), "called": 100, "false": rng.integers(2, 8, seeds), **kinds})
    rows["p05"], rows["single_called"], rows["two_called"], rows["responders_called"] = 15, 59, 9, 96
    rows["ec50_error"], rows["oracle_ec50_error"] = 0.15, 0.14
    for name in ("log2_ec50", "hill_n", "log2fc_full"):
        rows[f"in_{name}"], rows[f"of_{name}"] = 57, 60
    return rows


def test_report_from_rows(tmp_path: Path) -> None:
    results, docs = tmp_path / "results", tmp_path / "docs"
    (results / "simulated").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("plain", "guides_6"):
        _simulated(5, rng).to_csv(results / "simulated" / f"{name}.csv", index=False)
    command = [sys.executable, str(FOLDER), "--parts", "report", "--results", str(results), "--docs", str(docs)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    out = docs / "_static" / "calibration"
    table = (out / "errors.inc").read_text(encoding="utf-8")
    assert "| no nuisance | 5 |" in table
    assert "0.98" in table
    assert "_static/calibration/errors.png" in table
    assert {p.stem for p in out.glob("*.png")} == {"errors", "coverage", "designs"}
    assert (out / "peers.inc").read_text(encoding="utf-8") == "*No results yet.*\n"


def test_error_of_a_share_is_that_between_seeds_where_seeds_differ(study) -> None:
    summary = study("summary")
    same = pd.DataFrame({"hits": [5, 5, 5, 5], "of": [10, 10, 10, 10]})
    apart = pd.DataFrame({"hits": [0, 10, 0, 10], "of": [10, 10, 10, 10]})
    assert summary.pooled(same, "hits", "of") == pytest.approx((0.5, np.sqrt(0.25 / 40), 40))
    assert summary.pooled(apart, "hits", "of").se == pytest.approx(np.std([0, 1, 0, 1], ddof=1) / 2)
    assert not summary.pooled(same.iloc[:0], "hits", "of").known


def test_nb_regression_keeps_its_level_on_independent_cells(study) -> None:
    peers = study("peers")
    rng = np.random.default_rng(1)
    n, genes, size = 600, 200, 4.0
    depth = rng.lognormal(0, 0.3, n)
    counts = rng.poisson(rng.gamma(size, 2.0 / size, (n, genes)) * depth[:, None])
    obs = pd.DataFrame(
        {"batch": rng.choice(["a", "b"], n), "size_factor": depth, "guide": "g"}, index=np.arange(n).astype(str)
    )
    adata = ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs)
    targeted = np.arange(n) < 200
    p = peers.nb_glm(adata, targeted, ~targeted, None)
    assert 0.01 <= (p < 0.05).mean() <= 0.10
    alpha = peers.control_overdispersion(counts[:, 0].astype(float), 2.0 * depth)
    assert 0.1 < alpha < 0.5
