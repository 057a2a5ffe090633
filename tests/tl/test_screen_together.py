"""`tl.screen` with a first pass over all pairs: calls of full fits, one pass over the counts, any number of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from scipy import sparse

import dream_sc as ds
from dream_sc._core.sums import guide_sums
from dream_sc._core.sums.block import CountBlock
from dream_sc._data import results
from dream_sc._screen import tasks
from dream_sc._screen.all_targets import Kept
from dream_sc._screen.workers import Workers, remove_left_behind
from dream_sc.tl import _fit_technical

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

NULL = [f"NTC_{i:02d}" for i in (11, 12, 13, 14)]
SILENT = {"progress": False}


@pytest.fixture(scope="module")
def library() -> AnnData:
    """Guides of GFI1B under two targets, and NTC guides as a target without effect."""
    adata = ds.datasets.titration(1800, 260, rng=0, n_ntc_guides=14)
    guide, target = (adata.obs[c].astype(str).to_numpy(object) for c in ("guide", "target"))
    target[np.isin(guide, [f"GFI1B_g{i:02d}" for i in (2, 5, 8, 11)])] = "promoter"
    target[np.isin(guide, NULL)] = "gene_0002"
    adata.obs["target"] = pd.Categorical(target)
    ds.tl.fit_technical(adata, batch_key="batch", progress=False)
    return adata


@pytest.fixture(scope="module")
def table(library: AnnData) -> pd.DataFrame:
    return ds.tl.screen(library, **SILENT)


def _same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, rtol=1e-6, check_categorical=False)


def test_calls_are_those_of_full_fits(library: AnnData, table: pd.DataFrame) -> None:
    full = ds.tl.screen(library, effort="full", nsamples=250, **SILENT).set_index(["target", "feature"])
    mine = table.set_index(["target", "feature"]).loc[full.index]
    assert (mine["qvalue"].isna() == full["qvalue"].isna()).all()
    fitted = full["qvalue"].notna()
    here, there = full["qvalue"] < 0.05, mine["qvalue"] < 0.05
    assert here.sum() > 20
    assert (here == there)[fitted].mean() >= 0.99
    assert there[full["confidence"] == "high"].all()
    both = here & there
    width = full["log2fc_full_q975"] - full["log2fc_full_q025"]
    assert ((mine["log2fc_full"] - full["log2fc_full"]).abs() / width)[both].max() < 0.5
    assert (mine["on_knockdown"].astype(str) == full["on_knockdown"].astype(str))[both].mean() > 0.95
    assert (np.sign(mine["log2fc_full"]) == np.sign(full["log2fc_full"]))[both].all()
    assert (mine["status"].astype(str) == full["status"].astype(str)).mean() > 0.95


def test_what_is_not_described_has_the_numbers_of_the_first_pass(table: pd.DataFrame) -> None:
    left = table[table["note"].astype(str).str.contains("the first pass left it")]
    assert len(left) > 0.5 * len(table)
    assert (left["lfdr"] > 0.5).all()
    assert set(left["model"].astype(str)) == set(left["class"].astype(str)) == {"null"}
    assert left[["pvalue", "qvalue", "log_bf", "baseline"]].notna().all(axis=None)
    assert left["log2_ec50"].isna().all()
    with_dosage = left[left["target"] == "GFI1B"]
    assert (with_dosage["log2fc_full_q025"] < with_dosage["log2fc_full_q975"]).all()


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_counts_of_the_cis_genes_are_those_of_the_matrix(form: str) -> None:
    x = sparse.random(60, 40, 0.3, random_state=np.random.default_rng(0), format=form)
    columns = np.array([31, 4, 17])
    if form == "csr":
        parts = [CountBlock.of(x[:25], 0, 0), CountBlock.of(x[25:], 25, 0)]
    else:
        parts = [CountBlock.of(x[:, :20], 0, 0), CountBlock.of(x[:, 20:], 0, 20)]
    kept = Kept(columns, x.shape)
    assert list(kept.noting(parts)) == parts
    np.testing.assert_array_equal(kept.matrix().toarray(), x.toarray()[:, columns])
    assert Kept(np.array([], dtype=int), x.shape).matrix().shape == (60, 0)


def test_counts_are_read_once(library: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of targets, for the sums and for the cis genes."""
    passes: list[str] = []
    entries: list[int] = []
    fits: list[Any] = []
    counts, add, fit_technical = results.counts, guide_sums.RowSums.add, _fit_technical.fit_technical

    def counted(*given: Any, **how: Any) -> Any:
        passes.append("pass")
        return counts(*given, **how)

    def added(self: Any, block: Any) -> None:
        entries.append(block.data.size)
        add(self, block)

    def fitted(*given: Any, **how: Any) -> Any:
        fits.append(given)
        return fit_technical(*given, **how)

    monkeypatch.setattr(results, "counts", counted)
    monkeypatch.setattr(guide_sums.RowSums, "add", added)
    ds.tl.screen(library, **SILENT)
    assert passes == ["pass"]
    assert sum(entries) == library.X.nnz
    without = library.copy()
    del without.uns["technical"], without.varm["technical"]
    monkeypatch.setattr(_fit_technical, "fit_technical", fitted)
    ds.tl.screen(without, ["GFI1B", "gene_0002"], batch_key="batch", **SILENT)
    assert len(fits) == 1


def test_one_target_does_not_depend_on_the_others(library: AnnData, table: pd.DataFrame) -> None:
    alone = ds.tl.screen(library, ["promoter"], **SILENT)
    both = ds.get.screen(table, targets="promoter").reset_index(drop=True)
    for column in ("lfdr", "pvalue", "log_bf", "log2fc_full", "n_guides_support"):
        np.testing.assert_allclose(alone[column], both[column], rtol=1e-6)


def test_processes_and_a_store(library: AnnData, table: pd.DataFrame, tmp_path: Path) -> None:
    _same(ds.tl.screen(library, n_jobs=2, store=tmp_path / "store", **SILENT), table)
    assert not list((tmp_path / "store" / ".shared").glob("*"))
    _same(ds.get.screen(tmp_path / "store"), table)
    with pytest.raises(ValueError, match="effort is first_pass there and full here"):
        ds.tl.screen(library, effort="full", nsamples=250, store=tmp_path / "store", **SILENT)


def test_a_finished_screen_is_not_measured_again(
    library: AnnData, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds.tl.screen(library, store=tmp_path / "store", **SILENT)
    monkeypatch.setattr(tasks, "fit_together", lambda *_: pytest.fail("a finished target is fitted again"))
    monkeypatch.setattr(results, "counts", lambda *_, **__: pytest.fail("the counts are read again"))
    _same(ds.tl.screen(library, store=tmp_path / "store", **SILENT), table)


def test_null_targets_have_no_calls(library: AnnData) -> None:
    table = ds.tl.screen(library, ["gene_0002"], n_null_targets=4, **SILENT)
    targets = ds.get.screen(table, "targets").set_index("target")
    assert [name for name in targets.index if name.startswith("null_")] == [f"null_{i}" for i in range(1, 5)]
    null = table[table["target"].astype(str).str.startswith("null_")]
    assert (null["qvalue_union"] < 0.05).sum() == 0
    assert (null["pvalue"] < 0.05).mean() == pytest.approx(0.05, abs=0.04)
    assert (targets["n_control_cells"].drop("gene_0002") < targets.loc["gene_0002", "n_control_cells"]).all()


def test_null_targets_are_those_of_the_library(library: AnnData) -> None:
    """The same whichever targets are asked for, and how many of them: jobs on one store have the same ones."""
    tables = [ds.tl.screen(library, [t], n_null_targets=n, **SILENT) for t, n in (("promoter", 1), ("gene_0002", 11))]
    one, other = (t[t["target"] == "null_1"].drop(columns="qvalue_union").reset_index(drop=True) for t in tables)
    _same(one, other)


def test_what_a_killed_process_wrote_for_workers_is_removed(tmp_path: Path) -> None:
    for name in ("measured-dead", "measured-live"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "measured.joblib").write_bytes(b"sums")
    with FileLock(tmp_path / "measured-live.lock"):
        remove_left_behind(tmp_path)
        assert sorted(f.name for f in tmp_path.iterdir()) == ["measured-live", "measured-live.lock"]


def test_a_target_whose_process_is_killed_is_fitted_again(
    library: AnnData, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, each = [], Workers.each

    def killed(self: Workers, *given: Any) -> Any:
        asked.append(1)
        if len(asked) > most:
            yield from each(self, *given)
        else:
            yield next(iter(each(self, *given)))
            raise tasks.WorkerLostError

    monkeypatch.setattr(Workers, "each", killed)
    most = 1
    _same(ds.tl.screen(library, **SILENT), table)
    assert len(asked) == 2
    asked, most = [], 99
    monkeypatch.setattr(tasks, "RETRIES", 0)
    with pytest.raises(ChildProcessError, match="fewer, n_jobs="):
        ds.tl.screen(library, store=tmp_path / "s", **SILENT)
    assert len(list((tmp_path / "s" / "parts").iterdir())) == 1


def test_a_group_of_ntc_guides_does_not_depend_on_which_came_before(library: AnnData, tmp_path: Path) -> None:
    ds.tl.screen(library, ["gene_0002"], n_null_targets=1, store=tmp_path / "store", **SILENT)
    found = ds.tl.screen(library, ["gene_0002"], n_null_targets=2, store=tmp_path / "store", **SILENT)
    wanted = ds.tl.screen(library, ["gene_0002"], n_null_targets=2, **SILENT)
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-6, check_categorical=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"effort": "quick"}, "effort='quick' is not known"),
        ({"effort": "first_pass", "function_type": "polynomial"}, "not offered: function_type='polynomial'"),
        ({"effort": "full", "n_null_targets": 2}, "n_null_targets= needs the first pass"),
        ({"n_null_targets": -1}, "n_null_targets=-1 is not allowed"),
    ],
)
def test_what_cannot_be_had_is_refused(library: AnnData, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ds.tl.screen(library, **SILENT | given)


def test_a_panel_of_few_features_has_full_fits(library: AnnData) -> None:
    few = library[:, :100].copy()
    with pytest.raises(ValueError, match="features with counts in control cells are fewer than 200"):
        ds.tl.screen(few, ["GFI1B"], effort="first_pass", **SILENT)


def test_cells_without_a_label_are_counted_in_the_log(library: AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata = library.copy()
    targets = adata.obs["target"].astype(object)
    acting = np.flatnonzero((targets == "promoter").to_numpy())
    targets.iloc[acting[:7]] = None
    adata.obs["target"] = pd.Categorical(targets)
    del adata.uns["technical"]
    ds.tl.screen(adata, ["promoter"], batch_key="batch", min_cells=100000, **SILENT)
    assert "7 of 1800 cells have no label of their target or guide, and take no part" in caplog.text
