"""Files that are cut short, overwritten in part or lack a piece: read, or refused by name; never another error."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from dream_sc._cli.read import read

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("h5ad", "h5ad, compressed", "h5mu", "zarr 2", "zarr 3")
N_DAMAGES = 8


def _small() -> ad.AnnData:
    counts = sparse.random(30, 6, 0.4, format="csr", dtype=np.float32, rng=np.random.default_rng(1))
    obs = pd.DataFrame({"guide": pd.Categorical(list("abc") * 10)}, index=[f"c{i}" for i in range(30)])
    adata = ad.AnnData(counts, obs, pd.DataFrame(index=[f"g{i}" for i in range(6)]))
    adata.varm["trans"] = pd.DataFrame({"x": np.arange(6.0)}, index=adata.var_names)
    adata.uns["technical"] = {"params": {"layer": "counts"}}
    return adata


def _written(kind: str, folder: Path) -> Path:
    adata = _small()
    if kind.startswith("zarr"):
        with ad.settings.override(zarr_write_format=int(kind[-1])):
            adata.write_zarr(folder / "a.zarr")
        return folder / "a.zarr"
    if kind == "h5mu":
        md.MuData({"rna": adata}).write(folder / "a.h5mu")
        return folder / "a.h5mu"
    adata.write_h5ad(folder / "a.h5ad", compression="gzip" if "," in kind else None)
    return folder / "a.h5ad"


def damage(path: Path, rng: np.random.Generator) -> None:
    """Cut a file, or one of a folder, flip a bit of it, overwrite or take out a part of it, or the whole."""
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    file, how = files[rng.integers(len(files))], rng.integers(5)
    content = bytearray(file.read_bytes())
    at = int(rng.integers(max(len(content), 1)))
    if how == 0 and path.is_dir():
        file.unlink()
        return
    if how == 1 and content:
        content[at] ^= 1 << int(rng.integers(8))
    elif how == 2:
        content[at : at + 64] = rng.bytes(len(content[at : at + 64]))
    elif how == 3:
        del content[at : at + 200]
    else:
        del content[at:]
    file.write_bytes(bytes(content))


@pytest.mark.filterwarnings("ignore")  # of zarr and anndata, about their own formats and what is damaged
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_named(kind: str, tmp_path: Path) -> None:
    whole, rng, refused = _written(kind, tmp_path), np.random.default_rng(3), 0
    assert read(whole) is not None
    for i in range(N_DAMAGES):
        path = tmp_path / f"damaged_{i}{whole.suffix}"
        shutil.copytree(whole, path) if whole.is_dir() else shutil.copy(whole, path)
        damage(path, rng)
        try:
            read(path)
        except (ValueError, FileNotFoundError) as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
    assert refused > 0


@pytest.mark.parametrize(
    "error", [RuntimeError("Unable to get group info"), SystemError("returned NULL"), Exception("x")]
)
def test_errors_of_any_kind_name_the_file(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    path = _written("h5ad", tmp_path)
    monkeypatch.setattr(ad, "read_h5ad", fails)
    with pytest.raises(ValueError, match=r"a.h5ad cannot be read as .*damaged, cut short or of another kind"):
        read(path)
