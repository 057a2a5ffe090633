"""`tl.screen`: the numbers of single fits, one false discovery rate, a store that goes on and refuses other screens."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psutil
import pytest
from filelock import FileLock
from scipy import sparse

import dream_sc as ds
from dream_sc._screen import tasks
from dream_sc._screen.store import Part, open_store, read_parts
from dream_sc._screen.union import over_all

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


SECOND = [f"GFI1B_g{i:02d}" for i in (2, 5, 8, 11)]
NULL = [f"NTC_{i:02d}" for i in (7, 8, 9, 10)]
SMALL = {"nsamples": 100, "progress": False}


def _library() -> AnnData:
    """Guides of GFI1B under two targets, NTC guides as a target without effect, and targets that cannot be fitted."""
    adata = ds.datasets.titration(1200, 40, rng=0, n_ntc_guides=11)
    guide, target = (adata.obs[c].astype(str).to_numpy(object) for c in ("guide", "target"))
    target[np.isin(guide, SECOND)] = "promoter"
    target[np.isin(guide, NULL)] = "gene_0002"
    target[guide == "NTC_11"] = "gene_0004"
    adata.obs["guide"], adata.obs["target"] = pd.Categorical(guide), pd.Categorical(target)
    return adata


@pytest.fixture(scope="module")
def library() -> AnnData:
    adata = _library()
    ds.tl.fit_technical(adata, batch_key="batch")
    return adata


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("screen") / "store"


@pytest.fixture(scope="module")
def table(library: AnnData, store: Path) -> pd.DataFrame:
    return ds.tl.screen(library, store=store, **SMALL)


def _same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, rtol=1e-6, check_categorical=False)


def test_numbers_are_those_of_single_fits(library: AnnData, table: pd.DataFrame) -> None:
    for target in ("GFI1B", "gene_0002"):
        single = library.copy()
        ds.tl.fit_cis(single, target)
        ds.tl.fit_trans(single, nsamples=100)
        expected, found = ds.get.trans(single), ds.get.screen(table, targets=target)
        assert list(found["feature"]) == list(expected.index)
        for column in found.columns.difference(["target", "feature", "qvalue_union"]):
            left, right = found[column].to_numpy(), expected[column].to_numpy()
            if left.dtype.kind == "f":
                np.testing.assert_allclose(left, right, rtol=1e-6, err_msg=column)
            else:
                assert (pd.Series(left).fillna("") == pd.Series(right).fillna("")).all(), column
        row = ds.get.screen(table, "targets", targets=target).iloc[0]
        assert row["n_calls"] == (expected["qvalue"] < 0.05).sum()
        guides = ds.get.guides(single)
        acting = guides["log2_dosage"][~guides["is_control"]]
        assert row["log2_dosage_min"] == pytest.approx(acting.min(), rel=1e-6)
        assert row[["n_guides", "n_cells"]].tolist() == [len(acting), guides["n_cells"][~guides["is_control"]].sum()]


def test_what_is_left_out_has_its_reason(table: pd.DataFrame, store: Path) -> None:
    for source in (table, store):
        targets = ds.get.screen(source, "targets").set_index("target")
        assert targets["status"].to_dict() == {
            "GFI1B": "fitted",
            "gene_0002": "fitted",
            "gene_0004": "few_guides",
            "promoter": "fitted",
        }
        assert targets["dosage"].to_dict()["promoter"] == "none"
        assert set(targets["dosage"].drop("promoter")) == {"guide"}
        assert "no feature" in targets.loc["promoter", "reason"]
        assert np.isnan(targets.loc["promoter", "log2_dosage_min"])
        assert targets.loc["gene_0004", "reason"] == "1 of 1 guides have at least 5 cells, 2 needed"
        assert np.isnan(targets.loc["gene_0004", "n_calls_union"])
        assert targets.loc["promoter", "n_calls_union"] >= 0


def test_a_target_without_a_dosage_is_perturbed_or_not(library: AnnData) -> None:
    """The guides of the titration by another name: the same as a fit without dosages."""
    hidden = library.copy()
    hidden.obs["target"] = hidden.obs["target"].astype(str).replace("GFI1B", "hidden")
    table = ds.tl.screen(hidden, "hidden", **SMALL)
    single = hidden[hidden.obs["target"].isin(["hidden", "NTC"])].copy()
    ds.tl.fit_trans(single, dosage="none", cis_targets="hidden", nsamples=100)
    want = ds.get.trans(single).reset_index()
    np.testing.assert_allclose(table["log_bf"], want["log_bf"], rtol=1e-6)
    assert set(table["model"].dropna()) <= {"null", "switch"}


def test_low_counts_and_few_cells_are_left_out(library: AnnData) -> None:
    mean = library.varm["technical"]["mu"]["gene_0002"]
    low = ds.tl.screen(library, "gene_0002", min_count=2 * mean, **SMALL)
    row = ds.get.screen(low, "targets").iloc[0]
    assert row[["status", "dosage"]].tolist() == ["fitted", "none"]
    assert "needed for dosages (min_count)" in row["reason"]
    assert np.isnan(low.set_index("feature").loc["gene_0002", "qvalue"])  # what guides act on themselves
    few = ds.tl.screen(library, "gene_0002", min_cells=10_000, **SMALL)
    assert ds.get.screen(few, "targets")["status"].tolist() == ["few_cells"]


def test_a_target_without_effect_has_no_calls(table: pd.DataFrame) -> None:
    targets = ds.get.screen(table, "targets").set_index("target")
    assert targets.loc["GFI1B", "n_calls_union"] >= 5
    assert targets.loc["gene_0002", ["n_calls", "n_calls_union"]].tolist() == [0, 0]


def test_qvalue_union_is_the_running_mean_over_all_pairs(table: pd.DataFrame) -> None:
    some = table[table["qvalue"].notna()]
    lfdr = some["lfdr"].to_numpy()
    expected = np.array([x if x > 0.5 else lfdr[lfdr <= x].mean() for x in lfdr])
    np.testing.assert_allclose(some["qvalue_union"], expected, rtol=1e-9)
    assert table.loc[table["qvalue"].isna(), "qvalue_union"].isna().all()
    # a direct target has evidence, and takes no part
    pairs = pd.DataFrame({"lfdr": [0.1, 0.5, 0.0], "qvalue": [0.1, 0.3, np.nan]})
    np.testing.assert_allclose(over_all(pairs), [0.1, 0.3, np.nan])
    calls = ds.get.screen(table, q=0.05)
    assert (calls["qvalue_union"] < 0.05).all()
    assert calls["lfdr"].is_monotonic_increasing
    assert len(calls) == (table["qvalue_union"] < 0.05).sum()


def test_one_target_does_not_depend_on_the_others(library: AnnData, table: pd.DataFrame, store: Path) -> None:
    alone = ds.tl.screen(library, ["GFI1B"], **SMALL)
    both = ds.get.screen(table, targets="GFI1B").reset_index(drop=True)
    for column in ("lfdr", "qvalue", "log_bf", "log2fc_full", "log2_ec50"):
        np.testing.assert_allclose(alone[column], both[column], rtol=1e-6)
    _same(ds.get.screen(store), table)


def test_the_second_call_fits_nothing(
    library: AnnData, table: pd.DataFrame, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "fit_target", lambda *_: pytest.fail("a finished target is fitted again"))
    again = ds.tl.screen(library, store=store, **SMALL)
    _same(again, table)
    assert ds.get.screen(again, "targets").equals(ds.get.screen(table, "targets"))


def test_the_log_says_of_each_target_what_was_found(library: AnnData, caplog: pytest.LogCaptureFixture) -> None:
    """Why a target has no dosages is no failure: its calls are said all the same."""
    with caplog.at_level("INFO", logger="dream_sc"):
        ds.tl.screen(library, ["promoter", "gene_0004"], **SMALL)
    assert re.search(
        r"tl.screen: 1 of 1, promoter, without dosages \('promoter' is no feature of the data\): \d+ calls? of \d+ "
        r"features, \d+\.\d s",
        caplog.text,
    )


def test_a_damaged_part_is_made_again(
    library: AnnData, table: pd.DataFrame, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = next((store / "parts").glob("gene_0002.*.parquet"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with caplog.at_level("WARNING", logger="dream_sc"):
        assert len(read_parts(store)) == 3
        _same(ds.tl.screen(library, store=store, **SMALL), table)
    assert "is damaged" in caplog.text
    assert len(read_parts(store)) == 4
    assert not list(store.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rng": 1}, "rng is 0 there and 1 here"),
        ({"function_type": "single_hill"}, "function_type is auto there and single_hill here"),
        ({"min_cells": 30}, "min_cells is 20 there and 30 here"),
    ],
)
def test_a_store_of_other_settings_is_refused(
    library: AnnData, table: pd.DataFrame, store: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ds.tl.screen(library, store=store, **SMALL | change)


def test_a_store_of_other_data_is_refused(library: AnnData, table: pd.DataFrame, store: Path, tmp_path: Path) -> None:
    other = library.copy()
    acting = np.flatnonzero(other.obs["target"] == "GFI1B")
    other.obs.iloc[acting, other.obs.columns.get_loc("guide")] = "GFI1B_g01"
    with pytest.raises(ValueError, match="the guides and targets of cells differ"):
        ds.tl.screen(other, store=store, **SMALL)
    (tmp_path / "mine.txt").write_text("notes")
    with pytest.raises(ValueError, match="a folder with other files"):
        ds.tl.screen(library, store=tmp_path, **SMALL)


def test_arguments_against_the_technical_fit_are_refused(library: AnnData) -> None:
    with pytest.raises(ValueError, match="batch_key='lane', but the technical fit"):
        ds.tl.screen(library, batch_key="lane", **SMALL)
    with pytest.raises(ValueError, match=r"cis_genes= names no targets \['GFI1'\].*did you mean"):
        ds.tl.screen(library, ["GFI1"], **SMALL)
    with pytest.raises(ValueError, match="n_jobs=0"):
        ds.tl.screen(library, n_jobs=0, **SMALL)


def test_names_of_targets(library: AnnData, table: pd.DataFrame) -> None:
    """A label may be a symbol, and a mapping names the cis gene of other labels."""
    ids = library.copy()
    ids.var["gene_symbols"] = ids.var_names
    ids.var_names = [f"ENSG{i:05d}" for i in range(ids.n_vars)]
    ids.obs_names_make_unique()
    del ids.uns["technical"], ids.varm["technical"]
    found = ds.tl.screen(ids, ["gene_0002"], batch_key="batch", **SMALL)
    assert ds.get.screen(found, "targets")["cis_gene"].tolist() == ["ENSG00002"]
    expected = ds.get.screen(table, targets="gene_0002")
    np.testing.assert_allclose(found["log_bf"], expected["log_bf"], rtol=1e-6)
    mapped = ds.tl.screen(library, {"GFI1B": ["GFI1B", "promoter"]}, **SMALL)
    assert ds.get.screen(mapped, "targets")["n_guides"].tolist() == [12]


def test_features_are_what_is_reported(library: AnnData, table: pd.DataFrame) -> None:
    some = ["gene_0001", "gene_0005", "gene_0007"]
    found = ds.tl.screen(library, "GFI1B", features=some, **SMALL)
    assert found["feature"].tolist() == some
    expected = ds.get.screen(table, targets="GFI1B", features=some)
    for column in ("lfdr", "qvalue", "log_bf"):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-6)
    worst = found["lfdr"].max()
    assert found["qvalue_union"].max() == pytest.approx(worst if worst > 0.5 else found["lfdr"].mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": ["gene_1"]}, "features 'gene_1' is not in var_names"),
        ({"function_type": "hill"}, "function_type='hill' is not known"),
        ({"pooling": "guide"}, "pooling='guide' is not known"),
        ({"min_guides": 0}, "min_guides=0 is not allowed"),
        ({"guides": "carried"}, "guides='carried', but the technical fit"),
    ],
)
def test_arguments_are_refused_before_the_first_target(
    library: AnnData, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, KeyError), match=message):
        ds.tl.screen(library, **SMALL | arguments)


def test_processes_give_the_same_table(library: AnnData, table: pd.DataFrame) -> None:
    _same(ds.tl.screen(library, n_jobs=2, **SMALL), table)


def test_a_matrix_of_guides_and_a_backed_file(library: AnnData, table: pd.DataFrame, tmp_path: Path) -> None:
    import anndata as ad

    bare = _library()
    codes = bare.obs["guide"].cat.codes.to_numpy()
    names = bare.obs["guide"].cat.categories
    target = bare.obs.drop_duplicates("guide").set_index("guide")["target"].astype(str)
    bare.obsm["guides"] = sparse.csr_matrix((np.ones(len(codes)), (np.arange(len(codes)), codes)))
    bare.uns["guides_ids"], bare.uns["guides_target"] = list(names), [target[name] for name in names]
    bare.write_h5ad(tmp_path / "bare.h5ad")
    backed = ad.read_h5ad(tmp_path / "bare.h5ad", backed="r")
    found = ds.tl.screen(backed, ["gene_0002"], batch_key="batch", guides="guides", **SMALL)
    expected = ds.get.screen(table, targets="gene_0002")
    np.testing.assert_allclose(found["log_bf"], expected["log_bf"], rtol=1e-6)
    backed.file.close()


def test_a_target_that_fails_does_not_stop_the_others(
    library: AnnData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fit_cis = ds.tl.fit_cis

    def fails(adata: AnnData, gene: str, **how: Any) -> None:
        if gene == "GFI1B":
            raise ValueError("nothing fits")
        fit_cis(adata, gene, **how)

    monkeypatch.setattr(ds.tl, "fit_cis", fails)
    found = ds.tl.screen(library, ["GFI1B", "gene_0002"], store=tmp_path / "store", **SMALL)
    targets = ds.get.screen(found, "targets").set_index("target")
    assert targets["status"].to_dict() == {"GFI1B": "failed", "gene_0002": "fitted"}
    assert targets.loc["GFI1B", "reason"] == "nothing fits"
    assert set(found["target"]) == {"gene_0002"}
    # it is in the store with its reason, and tried again
    assert ds.get.screen(tmp_path / "store", "targets").equals(ds.get.screen(found, "targets"))
    monkeypatch.undo()
    again = ds.tl.screen(library, ["GFI1B", "gene_0002"], store=tmp_path / "store", **SMALL)
    assert ds.get.screen(again, "targets")["status"].tolist() == ["fitted", "fitted"]


def test_a_screen_that_was_killed_goes_on(library: AnnData, table: pd.DataFrame, tmp_path: Path) -> None:
    library.write_h5ad(tmp_path / "library.h5ad")
    store = tmp_path / "store"
    code = f"""
import anndata, dream_sc as ds
from dream_sc._screen import tasks
save = tasks.fit_target
def slow(cells, target, steps):
    if target.name != "GFI1B":
        print("second", flush=True)
        import time; time.sleep(600)
    return save(cells, target, steps)
tasks.fit_target = slow
ds.tl.screen(anndata.read_h5ad({str(tmp_path / "library.h5ad")!r}), store={str(store)!r}, nsamples=100, progress=False)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "second\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    before = {file.name: file.stat().st_mtime_ns for file in (store / "parts").glob("*.parquet")}
    assert [name.split(".")[0] for name in before] == ["GFI1B"]
    _same(ds.tl.screen(library, store=store, **SMALL), table)
    after = {file.name: file.stat().st_mtime_ns for file in (store / "parts").glob("*.parquet")}
    assert before.items() <= after.items()
    assert len(after) == 4


def test_workers_end_with_a_master_that_is_killed(library: AnnData, tmp_path: Path) -> None:
    library.write_h5ad(tmp_path / "library.h5ad")
    code = f"""
import time, anndata, dream_sc as ds
if __name__ == "__main__":
    adata = anndata.read_h5ad({str(tmp_path / "library.h5ad")!r})
    ds.tl.screen(adata, ["GFI1B", "promoter"], n_jobs=2, nsamples=100, progress=False)
    print("fitted", flush=True)
    time.sleep(600)
"""
    (tmp_path / "master.py").write_text(code)
    with subprocess.Popen([sys.executable, tmp_path / "master.py"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "fitted\n"
        workers = [p for p in psutil.Process(process.pid).children() if "loky" in " ".join(p.cmdline())]
        os.kill(process.pid, signal.SIGKILL)
    assert len(workers) >= 2
    _, alive = psutil.wait_procs(workers, timeout=30)
    for each in alive:
        each.kill()
    assert not alive


def test_a_store_on_a_file_system_without_locks(
    library: AnnData,
    table: pd.DataFrame,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As some over a network: the log says so, and what is missing is fitted all the same."""
    new = tmp_path / "store"
    shutil.copytree(store, new)
    missing = next((new / "parts").glob("gene_0002.*"))
    missing.unlink()
    (new / "screen.json").unlink()

    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    monkeypatch.setattr(logging.getLogger("dream_sc"), "propagate", True)
    _same(ds.tl.screen(library, store=new, **SMALL), table)
    assert "is on a file system without locks: targets may be fitted twice" in caplog.text
    assert missing.is_file()


def test_what_a_killed_process_left_is_removed(
    library: AnnData, table: pd.DataFrame, store: Path, tmp_path: Path
) -> None:
    new = tmp_path / "store"
    shutil.copytree(store, new)
    missing = next((new / "parts").glob("gene_0002.*"))
    missing.unlink()
    left = [missing.with_name(f".{missing.name}.12.34.tmp"), new / ".screen.json.12.34.tmp"]
    other = missing.with_name(".mine.tmp")
    for file in (*left, other):
        file.write_bytes(b"half")
    _same(ds.tl.screen(library, store=new, **SMALL), table)
    assert not any(file.exists() for file in left)
    assert other.exists()


def test_what_another_process_fits_is_waited_for(
    library: AnnData, table: pd.DataFrame, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target in other hands is left to them, and read once it is there."""
    monkeypatch.setattr(tasks, "PAUSE", 0.02)
    shutil.copytree(store, tmp_path / "store")
    file = next((tmp_path / "store" / "parts").glob("gene_0002.*"))
    lock = FileLock(tmp_path / "store" / ".locks" / f"{file.stem}.lock", thread_local=False)
    whole = file.read_bytes()
    file.unlink()
    lock.acquire()

    def finish() -> None:
        file.with_suffix(".tmp").write_bytes(whole)
        file.with_suffix(".tmp").rename(file)
        lock.release()

    monkeypatch.setattr(tasks, "fit_target", lambda *_: pytest.fail("it is in other hands"))
    timer = threading.Timer(0.5, finish)
    timer.start()
    _same(ds.tl.screen(library, store=tmp_path / "store", **SMALL), table)
    timer.join()


def test_two_processes_on_one_store_share_the_targets(library: AnnData, table: pd.DataFrame, tmp_path: Path) -> None:
    library.write_h5ad(tmp_path / "library.h5ad")
    code = f"""
import sys, anndata, dream_sc as ds
from dream_sc._screen import tasks
save = tasks.fit_target
def told(cells, target, steps):
    print(target.name, flush=True)
    return save(cells, target, steps)
tasks.fit_target = told
data = anndata.read_h5ad({str(tmp_path / "library.h5ad")!r})
table = ds.tl.screen(data, store={str(tmp_path / "store")!r}, nsamples=100, progress=False)
table.to_pickle(sys.argv[1])
"""
    tables = [tmp_path / "one.pkl", tmp_path / "other.pkl"]
    both = [subprocess.Popen([sys.executable, "-c", code, str(at)], stdout=subprocess.PIPE, text=True) for at in tables]
    fitted = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(fitted[0] + fitted[1]) == sorted(table["target"].astype(str).unique())
    for at in tables:
        _same(pd.read_pickle(at), table)


def test_a_claim_is_of_one_process_at_a_time(tmp_path: Path) -> None:
    one = open_store(tmp_path / "s", {"rng": 0}, {"x": np.arange(3)})
    other = open_store(tmp_path / "s", {"rng": 0}, {"x": np.arange(3)})
    with one.claimed("a", ()) as mine, other.claimed("a", ()) as too, other.claimed("b", ()) as another:
        assert (mine, too, another) == (True, False, True)
    with other.claimed("a", ()) as mine:
        assert mine
    assert one.file("a/b: c", ()).name.startswith("a_b_c.")
    with pytest.raises(ValueError, match="the x differ"):
        open_store(tmp_path / "s", {"rng": 0}, {"x": np.arange(4)})
    (tmp_path / "s" / "screen.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        open_store(tmp_path / "s", {"rng": 0}, {"x": np.arange(3)})


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path / "s", {}, {})
    part = Part(pd.DataFrame({"lfdr": [0.1]}), {"target": "a", "n_rows": 1})
    outside = tmp_path / "outside"
    outside.write_bytes(b"of someone else")
    file = store.file("a", ())
    file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}.tmp").symlink_to(outside)
    store.save("a", (), part)
    assert store.load("a", ()).about["target"] == "a"
    assert outside.read_bytes() == b"of someone else"

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(
            OSError, match=r"parts/b\..*cannot be written \(No space left on device\). Parts that are finished stay"
        ):
            store.save("b", (), part)
    assert [f.name for f in (tmp_path / "s" / "parts").iterdir()] == [file.name]
    (tmp_path / "s" / "screen.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is damaged"):
        open_store(tmp_path / "s", {}, {})
    with pytest.raises(ValueError, match="is no name"):
        open_store("", {}, {})
    with pytest.raises(OSError, match="store: /proc/none/s cannot be made"):
        open_store("/proc/none/s", {}, {})


def test_what_goes_with_the_table_is_in_its_file(table: pd.DataFrame, tmp_path: Path) -> None:
    table.to_parquet(tmp_path / "screen.parquet")
    back = ds.get.screen(tmp_path / "screen.parquet")
    _same(back, table)
    assert len(json.loads(back.attrs["targets"])) == 4
    with pytest.raises(KeyError, match="does not go with this table"):
        ds.get.screen(pd.DataFrame(table.to_dict("list")), "targets")
    with pytest.raises(FileNotFoundError, match="is no store"):
        ds.get.screen(tmp_path)
    with pytest.raises(KeyError, match="no target"):
        ds.get.screen(table, targets="GFI1")


def test_parts_of_another_screen_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, other = (open_store(tmp_path / str(rng), {"rng": rng}, {}) for rng in (0, 1))
    for store in (one, other):
        frame = pd.DataFrame({"lfdr": [float(store is other)]})
        store.save("a", (), Part(frame, {"target": "a", "n_rows": 1, "labels": ["a"]}))
    shutil.copy(other.file("a", ()), one.path / "parts")
    (part,) = read_parts(one.path)
    assert part.frame["lfdr"].tolist() == [0.0]
    assert f"{other.file('a', ()).name} is of other data or settings than the store: it is left out" in caplog.text


def test_a_target_of_two_sets_of_labels_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s", {}, {})
    for labels in (["a"], ["a", "b"]):
        store.save("a", labels, Part(pd.DataFrame({"lfdr": [0.1]}), {"target": "a", "n_rows": 1, "labels": labels}))
    with pytest.raises(ValueError, match=r"more than one file of the target 'a', of the labels \['a"):
        ds.get.screen(store.path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cis_genes": []}, "cis_genes= names no label; targets are"),
        ({"cis_genes": {"GFI1B": []}}, "cis_genes= names no label of 'GFI1B'"),
        ({"cis_genes": ["GFI1"]}, "cis_genes= names no targets"),
        ({"features": []}, "features= names no feature"),
        ({"batch_key": "lane"}, "batch_key='lane' is not a column"),
        ({"guide_key": "sgRNA"}, "guide_key='sgRNA' is not a column"),
    ],
)
def test_what_is_wrong_is_said_before_the_technical_fit(given: dict[str, Any], message: str) -> None:
    adata = _library()
    with pytest.raises((ValueError, KeyError), match=message):
        ds.tl.screen(adata, **given, **SMALL)
    assert "technical" not in adata.uns
