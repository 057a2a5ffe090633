"""A trans fit that is interrupted goes on where it was, and never with blocks of another fit or half of one."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import pickle
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import dream_sc as ds
from dream_sc import _checkpoint
from dream_sc._core import parallel
from dream_sc._core.response import decision, evidence
from dream_sc._core.response import describe as trans_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad

SMALL = {"nsamples": 100, "progress": False}


@pytest.fixture(scope="module")
def ready() -> ad.AnnData:
    adata = ds.datasets.titration(800, 24, rng=5, single_fraction=0.4, mean_range=(0.0, 4.0))
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    return adata


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "BLOCK", 6)
    monkeypatch.setattr(parallel.blocks, "__defaults__", (6,))
    monkeypatch.setattr(decision, "N_NULL", 30)


def _counting(monkeypatch: pytest.MonkeyPatch, stop_rows: int | None = None) -> dict[str, int]:
    """Count blocks that are computed; interrupt at the so manieth block of rows."""
    done = {"evidence": 0, "rows": 0}
    block_evidence, describe = evidence.block_evidence, trans_rows._describe_block

    def looked(*args: Any, **kwargs: Any) -> Any:
        done["evidence"] += 1
        return block_evidence(*args, **kwargs)

    def described(*args: Any, **kwargs: Any) -> Any:
        if done["rows"] == stop_rows:
            raise KeyboardInterrupt
        done["rows"] += 1
        return describe(*args, **kwargs)

    monkeypatch.setattr(evidence, "block_evidence", looked)
    monkeypatch.setattr(trans_rows, "_describe_block", described)
    return done


def _interrupt(ready: ad.AnnData, folder: Path, **more: Any) -> dict[str, int]:
    """Start a fit of a copy and stop it in the middle; nothing is written into the object."""
    adata = ready.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "n_threads", lambda: 1)
        done = _counting(patch, stop_rows=2)
        with pytest.raises(KeyboardInterrupt):
            ds.tl.fit_trans(adata, checkpoint=folder, **{**SMALL, **more})
    assert "trans" not in adata.uns
    assert not {"trans", "trans_posterior"} & set(adata.varm)
    return done


def test_it_goes_on_with_what_is_missing_and_gives_the_same(
    ready: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, folder = ready.copy(), tmp_path / "checkpoint"
    total = _counting(monkeypatch)
    ds.tl.fit_trans(whole, **SMALL)
    total = dict(total)
    before = _interrupt(ready, folder)
    assert before == {"evidence": total["evidence"], "rows": 2}
    assert not list(folder.glob("*.tmp"))
    adata, after = ready.copy(), _counting(monkeypatch)
    ds.tl.fit_trans(adata, checkpoint=folder, **SMALL)
    assert after == {"evidence": 0, "rows": total["rows"] - 2}
    pd.testing.assert_frame_equal(adata.varm["trans"], whole.varm["trans"], check_exact=True)
    np.testing.assert_array_equal(adata.varm["trans_posterior"], whole.varm["trans_posterior"])
    assert adata.uns["trans"]["hyper"].keys() == whole.uns["trans"]["hyper"].keys()
    np.testing.assert_array_equal(
        adata.uns["trans"]["hyper"]["null_strength"], whole.uns["trans"]["hyper"]["null_strength"]
    )
    assert not folder.exists()


def _counts_change(adata: ad.AnnData) -> None:
    adata.X = adata.X.copy()
    adata.X.data[0] += 1


def _names_change(adata: ad.AnnData) -> None:
    adata.var_names = [f"x{name}" if name != "GFI1B" else name for name in adata.var_names]


@pytest.mark.parametrize(
    ("change", "settings", "named"),
    [
        (_counts_change, {}, "the sums of counts differ"),
        (_names_change, {}, "the names of features differ"),
        (None, {"rng": 1}, "rng is 0 there and 1 here"),
        (None, {"nsamples": 120}, "nsamples is 100 there and 120 here"),
        (None, {"function_type": "single_hill"}, "function_type is auto there and single_hill here"),
        (None, {"features": ["gene_0003"]}, r"features is None there and \['gene_0003'\] here"),
    ],
)
def test_blocks_of_another_fit_are_refused(
    ready: ad.AnnData, tmp_path: Path, change: Callable[[ad.AnnData], None] | None, settings: dict[str, Any], named: str
) -> None:
    folder, adata = tmp_path / "checkpoint", ready.copy()
    for key in ("technical", "cis"):
        del adata.uns[key]["made_from"]  # without which nothing but the checkpoint sees the change
    _interrupt(ready, folder)
    n = len(list(folder.iterdir()))
    if change is not None:
        change(adata)
    with pytest.raises(ValueError, match=named) as caught:
        ds.tl.fit_trans(adata, checkpoint=folder, **{**SMALL, **settings})
    assert str(folder) in str(caught.value)
    assert len(list(folder.iterdir())) == n  # it stays for the fit that it is of
    assert "trans" not in adata.uns


def test_blocks_of_another_version_are_refused(
    ready: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint"
    _interrupt(ready, folder)
    monkeypatch.setattr(_checkpoint, "versions", lambda: {"dream-sc": "99"})
    with pytest.raises(ValueError, match=r"version of dream-sc is .* there and 99 here"):
        ds.tl.fit_trans(ready.copy(), checkpoint=folder, **SMALL)


def test_a_damaged_block_is_computed_again(
    ready: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, folder = ready.copy(), tmp_path / "checkpoint"
    ds.tl.fit_trans(whole, **SMALL)
    _interrupt(ready, folder)
    first, second, third = sorted(folder.glob("evidence-*.block"))[:3]
    first.write_bytes(first.read_bytes()[:100])  # cut off
    content = bytearray(second.read_bytes())
    content[len(content) // 2] ^= 0xFF  # a bit of an array
    second.write_bytes(bytes(content))
    third.write_bytes(b"")
    (folder / "evidence-00000.block.1.2.tmp").write_bytes(b"half")  # of a writer that was killed
    adata, after = ready.copy(), _counting(monkeypatch)
    with caplog.at_level(logging.WARNING, "dream_sc"):
        ds.tl.fit_trans(adata, checkpoint=folder, **SMALL)
    assert after["evidence"] == 3
    assert caplog.text.count("is damaged") == 3
    pd.testing.assert_frame_equal(adata.varm["trans"], whole.varm["trans"], check_exact=True)
    assert not folder.exists()


def test_a_block_that_holds_objects_is_never_unpickled(tmp_path: Path) -> None:
    """Pickles run what they like: a block with one, or with a tree that nests without end, is computed again."""
    kept = _checkpoint.Checkpoint(tmp_path, "evidence-")
    ran = tmp_path / "ran"

    class Runs:
        def __reduce__(self) -> Any:
            return Path.touch, (ran,)

    objects = np.empty(1, dtype=object)
    objects[0] = Runs()
    file = tmp_path / "evidence-00000.block"

    def planted(body: bytes) -> None:
        """A block whose checksum is right: who can write there can make one."""
        file.write_bytes(_checkpoint.START + _checkpoint._check(body) + body)

    def npz(save: Any = np.savez, **arrays: Any) -> bytes:
        body = io.BytesIO()
        save(body, **arrays)
        return body.getvalue()

    for tree in ('"x1"', "[" * 100_000, "5", '{"a": ["x9"]}', "null"):
        planted(npz(tree=np.array(tree), x1=objects, allow_pickle=True))
        assert kept.load(0) is None
    planted(npz(tree=objects, allow_pickle=True))
    assert kept.load(0) is None
    planted(pickle.dumps(Runs()))
    assert kept.load(0) is None
    # what is small on disk and large in memory: compressed, and one array named many times
    planted(npz(np.savez_compressed, tree=np.array('"x1"'), x1=np.zeros(10**6)))
    assert file.stat().st_size < 10_000
    assert kept.load(0) is None
    planted(npz(tree=np.array(json.dumps(["x1"] * 1000)), x1=np.zeros(100)))
    assert kept.load(0) is None
    planted(npz(tree=np.array('"x1"'), x1=np.zeros(100)))
    assert kept.load(0).tolist() == [0.0] * 100
    assert not ran.exists()


def test_a_damaged_manifest_is_refused(ready: ad.AnnData, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for text in ("{", "[]", json.dumps({"settings": {}}), "[" * 100_000, "[" * 2**25, "folder"):
        (folder / _checkpoint.MANIFEST).unlink(missing_ok=True)
        (folder / _checkpoint.MANIFEST).mkdir() if text == "folder" else (folder / _checkpoint.MANIFEST).write_text(
            text
        )
        with pytest.raises(ValueError, match=r"checkpoint\.json is damaged .*delete the folder"):
            ds.tl.fit_trans(ready.copy(), checkpoint=folder, **SMALL)


def test_other_files_are_left_alone(ready: ad.AnnData, tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(b"mine")
    with pytest.raises(ValueError, match="a folder with other files"):
        ds.tl.fit_trans(ready.copy(), checkpoint=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="is a file"):
        ds.tl.fit_trans(ready.copy(), checkpoint=tmp_path / "mine.npz", **SMALL)
    with pytest.raises(TypeError, match="checkpoint=3, an int, is not allowed: use a text or a path"):
        ds.tl.fit_trans(ready.copy(), checkpoint=3, **SMALL)
    assert (tmp_path / "mine.npz").read_bytes() == b"mine"


def test_a_write_that_fails_leaves_no_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _checkpoint.open_checkpoint(tmp_path / "new", {}, {}).under("stage")

    def half(file: Any, **arrays: Any) -> None:
        file.write(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", half)
        with pytest.raises(KeyboardInterrupt):
            kept.save(0, (np.arange(3),))
    assert kept.load(0) is None
    text = np.array(["a", "bc"], dtype=object)
    result = (np.arange(3.0), {"text": text, "more": (np.float32(1.5), np.zeros((0, 2)))})
    kept.save(0, result)
    numbers, named = kept.load(0)
    np.testing.assert_array_equal(numbers, np.arange(3.0))
    assert named["text"].tolist() == ["a", "bc"]
    assert named["more"][0].dtype == np.float32
    assert named["more"][1].shape == (0, 2)
    kept.remove()
    assert not (tmp_path / "new").exists()


def test_every_flipped_bit_and_every_cut_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = _checkpoint.Checkpoint(tmp_path, "evidence-")
    kept.save(0, (np.arange(6.0).reshape(2, 3), {"text": np.array(["a", "bc"])}))
    file = tmp_path / "evidence-00000.block"
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for at in [*range(200), *rng.integers(len(whole), size=300)]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(damaged))
        assert kept.load(0) is None
        file.write_bytes(whole[:at])
        assert kept.load(0) is None
    assert caplog.text.count("is damaged") == 1000
    file.write_bytes(whole)
    assert kept.load(0)[0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_is_no_file_is_computed_again(tmp_path: Path) -> None:
    kept = _checkpoint.Checkpoint(tmp_path, "evidence-")
    outside = tmp_path / "outside"
    outside.write_bytes(b"of someone else")
    os.mkfifo(tmp_path / "evidence-00000.block")  # reading it would wait for ever
    (tmp_path / "evidence-00001.block").symlink_to(outside)
    for i in range(2):
        assert kept.load(i) is None
        temporary = f"evidence-0000{i}.block.{os.getpid()}.{threading.get_ident()}.tmp"
        (tmp_path / temporary).symlink_to(outside)
        kept.save(i, np.arange(3))
        assert kept.load(i).tolist() == [0, 1, 2]
    assert outside.read_bytes() == b"of someone else"
    (tmp_path / "evidence-00002.block").mkdir()
    assert kept.load(2) is None
    with pytest.raises(OSError, match=r"checkpoint: .*evidence-00002.block cannot be written"):
        kept.save(2, np.arange(3))


def test_files_of_the_user_stay(tmp_path: Path) -> None:
    """The folder is removed with all of it where the fit made it, and it holds nothing else."""
    before = tmp_path / "before"
    before.mkdir()
    with _checkpoint.opened(before, {}, {}) as kept:
        kept.under("evidence").save(0, np.arange(3))
        kept.remove()
    assert not list(before.iterdir())
    new = tmp_path / "new"
    for name in ("my_results.npz", "run-00001.npz", "notes.block", "a.tmp"):
        with _checkpoint.opened(new, {}, {}) as kept:
            kept.under("evidence").save(0, np.arange(3))
            (new / "evidence-00000.block.1.2.tmp").write_bytes(b"half")
            (new / name).write_bytes(b"mine")
            kept.remove()
        assert [file.name for file in new.iterdir()] == [name]
        (new / name).unlink()
        new.rmdir()
    with _checkpoint.opened(new, {}, {}) as kept:
        kept.remove()
    assert not new.exists()


def test_a_linked_folder_is_emptied_and_stays(ready: ad.AnnData, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    learned = {"function_type": "single_hill", "features": ["gene_0003"]}
    out = ds.tl.fit_trans(ready, checkpoint=tmp_path / "link", copy=True, **learned, **SMALL)
    assert "trans" in out.uns
    assert not list((tmp_path / "disk").iterdir())
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(("name", "message"), [("", "is no name"), (" ", "is no name"), ("dangling", "is a link to")])
def test_names_that_are_none(tmp_path: Path, name: str, message: str) -> None:
    if name == "dangling":
        (tmp_path / name).symlink_to(tmp_path / "nothing")
        name = str(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        _checkpoint.usable(name)


def test_the_home_folder_is_written_as_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _checkpoint.usable("~/x") == tmp_path / "x"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """As some over a network; the fit goes on, and its blocks are used by the next one."""

    def no_locks(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", no_locks)
    monkeypatch.setattr(logging.getLogger("dream_sc"), "propagate", True)
    with _checkpoint.opened(tmp_path / "new", {}, {}) as kept:
        kept.under("evidence").save(0, np.arange(3))
    assert "is on a file system without locks: start one fit only with it" in caplog.text
    with _checkpoint.opened(tmp_path / "new", {}, {}) as kept:
        np.testing.assert_array_equal(kept.under("evidence").load(0), np.arange(3))


def test_a_lock_that_cannot_be_taken_for_other_reasons_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", damaged)
    with (
        pytest.raises(OSError, match=r"checkpoint: .*new cannot be written \(Input/output error\)"),
        _checkpoint.opened(tmp_path / "new", {}, {}),
    ):
        pass


def test_one_fit_at_a_time_uses_a_folder(tmp_path: Path) -> None:
    with _checkpoint.opened(tmp_path / "new", {}, {}) as kept:
        kept.under("evidence").save(0, np.arange(3))
        with pytest.raises(ValueError, match="is in use by another fit: wait for it, or name another"):
            with _checkpoint.opened(tmp_path / "new", {}, {}):
                pass
    with pytest.raises(KeyboardInterrupt), _checkpoint.opened(tmp_path / "new", {}, {}):
        raise KeyboardInterrupt
    with _checkpoint.opened(tmp_path / "new", {}, {}) as kept:  # an interruption gives it back
        assert kept.under("evidence").load(0).tolist() == [0, 1, 2]


def test_a_full_disk_names_the_argument_and_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _checkpoint.opened(tmp_path / "new", {}, {}) as kept:
        kept = kept.under("evidence")
        kept.save(0, np.arange(3))

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(
            OSError, match=r"checkpoint: .*evidence-00001.block cannot be written \(No space left"
        ) as error:
            kept.save(1, np.arange(3))
        assert error.value.errno == errno.ENOSPC
        assert kept.load(0).tolist() == [0, 1, 2]
        assert not list((tmp_path / "new").glob("*.tmp"))


def test_features_with_categories_go_on_too(modalities: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dream_sc._core.response.categories import describe as chain_rows

    data, folder = modalities.copy(), tmp_path / "checkpoint"
    keys = {"mod": "usage", "cis_mod": "rna", "key_added": "again", "checkpoint": folder, **SMALL}

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(chain_rows, "_block", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ds.tl.fit_trans(data, **keys)
    assert list(folder.glob("evidence-*.block"))
    assert "again" not in data["usage"].varm
    whole = modalities.copy()
    ds.tl.fit_trans(whole, **{**keys, "checkpoint": None})
    with monkeypatch.context() as patch:
        patch.setattr(evidence, "block_evidence", interrupted)  # there is none left to compute
        ds.tl.fit_trans(data, **keys)
    pd.testing.assert_frame_equal(data["usage"].varm["again"], whole["usage"].varm["again"], check_exact=True)
    np.testing.assert_array_equal(data["usage"].varm["again_posterior"], whole["usage"].varm["again_posterior"])
    assert not folder.exists()
