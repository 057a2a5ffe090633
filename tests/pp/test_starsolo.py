"""The folder that STARsolo writes for junctions."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import sparse
from scipy.io import mmwrite

import dream_sc as ds

if TYPE_CHECKING:
    from pathlib import Path

JUNCTIONS = """chr1\t100\t200\t1\t1\t1\t7\t0\t30
chr1\t100\t300\t1\t3\t0\t3\t1\t20
chr1\t500\t600\t2\t2\t1\t9\t0\t40
chr2\t500\t600\t0\t0\t0\t1\t0\t12
"""
X = np.array([[1, 0, 2, 0], [0, 0, 0, 0], [3, 1, 0, 1]])
BARCODES = ["AAAC", "CCCG", "NANT"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    mmwrite(tmp_path / "matrix.mtx", sparse.coo_matrix(X.T))
    (tmp_path / "barcodes.tsv").write_text("\n".join(BARCODES) + "\n")
    (tmp_path / "features.tsv").write_text(JUNCTIONS)
    return tmp_path


def _zip(folder: Path) -> None:
    for path in list(folder.iterdir()):
        with gzip.open(f"{path}.gz", "wb") as out:
            out.write(path.read_bytes())
        path.unlink()


@pytest.mark.parametrize("zipped", [False, True])
def test_reads_and_decodes(folder: Path, zipped: bool) -> None:
    if zipped:
        _zip(folder)
    adata = ds.pp.read_starsolo_sj(folder)
    np.testing.assert_array_equal(adata.X.toarray(), X)
    assert (adata.X.format, adata.X.dtype) == ("csr", np.int32)
    assert list(adata.obs_names) == BARCODES
    assert list(adata.var_names) == ["chr1:100-200:+", "chr1:100-300:+", "chr1:500-600:-", "chr2:500-600:."]
    assert list(adata.var["strand"]) == ["+", "+", "-", "."]
    assert list(adata.var["motif"]) == ["GT/AG", "GC/AG", "CT/AC", "non-canonical"]
    assert list(adata.var["annotated"]) == [True, False, True, False]
    assert list(adata.var["unique_reads"]) == [7, 3, 9, 1]
    adata.write_h5ad(folder / "sj.h5ad")


def test_goes_on_to_a_modality(folder: Path) -> None:
    out = ds.pp.donor_usage(ds.pp.read_starsolo_sj(folder))
    assert list(out.var["donor"]) == ["chr1:100:+"] * 2
    np.testing.assert_array_equal(out.X.toarray(), X[:, :2])


def test_keeps_barcodes_in_their_order(folder: Path) -> None:
    adata = ds.pp.read_starsolo_sj(folder, barcodes=["NANT", "AAAC"])
    np.testing.assert_array_equal(adata.X.toarray(), X[[2, 0]])
    with pytest.raises(KeyError, match=r"1 of 1 barcodes are not in .*'AAAC-1' for one; they read like 'AAAC'"):
        ds.pp.read_starsolo_sj(folder, barcodes=["AAAC-1"])


def test_missing_features_come_from_the_run(folder: Path) -> None:
    table = folder / "features.tsv"
    table.rename(folder / "SJ.out.tab")
    with pytest.raises(FileNotFoundError, match=r"neither features.tsv nor features.tsv.gz .*features="):
        ds.pp.read_starsolo_sj(folder)
    table.symlink_to(folder / "gone")
    with pytest.raises(FileNotFoundError, match="It is a link to a file that is not there"):
        ds.pp.read_starsolo_sj(folder)
    adata = ds.pp.read_starsolo_sj(folder, features=folder / "SJ.out.tab")
    np.testing.assert_array_equal(adata.X.toarray(), X)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ENSG1\tA\tGene Expression\n" * 4, "not in the format of SJ.out.tab"),
        (JUNCTIONS.replace("\t2\t2\t1", "\t3\t2\t1"), "strand beyond 0 to 2"),
        (JUNCTIONS.replace("\t1\t3\t0", "\t1\t9\t0"), "motif beyond 0 to 6"),
        (JUNCTIONS + "chr3\t1\t9\t1\t1\t1\t1\t1\t1\n", "5 junctions in features.tsv"),
    ],
)
def test_what_is_no_junction_folder(folder: Path, text: str, message: str) -> None:
    (folder / "features.tsv").write_text(text)
    with pytest.raises(ValueError, match=message):
        ds.pp.read_starsolo_sj(folder)
