"""The matrix of guides from tables, files and modalities, with bad input."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds

GUIDES = ["a1", "a2", "n1"]
TARGETS = {"a1": "A", "a2": "A", "n1": "NTC"}
UMIS = np.array([[9, 4, 0], [0, 0, 5], [1, 0, 0], [0, 0, 0]])


@pytest.fixture
def adata() -> ad.AnnData:
    out = ad.AnnData(np.ones((4, 2), dtype=np.float32))
    out.obs_names = [f"c{i}" for i in range(4)]
    return out


def _frame(order: list[int]) -> pd.DataFrame:
    return pd.DataFrame(UMIS[order], [f"c{i}" for i in order], GUIDES)


@pytest.mark.parametrize("kind", ["frame", "sparse", "anndata"])
def test_cells_are_matched_by_name(adata: ad.AnnData, kind: str) -> None:
    frame = _frame([2, 0, 1])
    if kind == "sparse":
        frame = frame.astype(pd.SparseDtype(int, 0))
    guides = ad.AnnData(sparse.csr_matrix(frame), frame[[]], pd.DataFrame(index=GUIDES)) if kind == "anndata" else frame
    ds.pp.guide_matrix(adata, guides, targets=TARGETS, min_umis=4)
    assert sparse.issparse(adata.obsm["guides"])
    assert adata.obsm["guides"].toarray().tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert adata.uns["guides_ids"].tolist() == GUIDES
    assert adata.uns["guides_target"].tolist() == ["A", "A", "NTC"]


def test_targets_may_be_a_series(adata: ad.AnnData) -> None:
    ds.pp.guide_matrix(adata, _frame([0, 1, 2, 3]), targets=pd.Series(TARGETS))
    assert adata.uns["guides_target"].tolist() == ["A", "A", "NTC"]


def test_umis_are_not_overwritten(adata: ad.AnnData) -> None:
    adata.obsm["guides"], adata.uns["guides_target"] = _frame([0, 1, 2, 3]), list(TARGETS.values())
    with pytest.raises(ValueError, match=r"\.obsm\['guides'\] has UMIs or guides that would be lost"):
        ds.pp.guide_matrix(adata, "guides", min_umis=4)
    assert adata.obsm["guides"].to_numpy().max() == 9
    ds.pp.guide_matrix(adata, "guides", min_umis=4, key_added="carried")
    with pytest.raises(ValueError, match="would be lost"):
        ds.pp.guide_matrix(adata, "carried", exclude="a1", key_added="carried")
    ds.pp.guide_matrix(adata, "carried", key_added="carried")  # nothing is lost
    assert adata.obsm["carried"].toarray().tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_targets_may_be_a_long_table(adata: ad.AnnData) -> None:
    """A row for each guide and target."""
    table = pd.DataFrame({"guide": ["a1", "n1", "a2", "a1"], "gene": ["A", "NTC", "A", "B"]})
    ds.pp.guide_matrix(adata, _frame([0, 1, 2, 3]), targets=table.set_index("guide")["gene"])
    assert adata.uns["guides_target"].tolist() == ["A;B", "A", "NTC"]


def test_cells_that_the_table_lacks_are_named(adata: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    ds.pp.guide_matrix(adata, _frame([0, 1]), targets=TARGETS)
    assert "lacks 2 of 4 cells, 'c2' for one: they count as cells with no guide" in caplog.text
    assert caplog.records[0].levelname == "WARNING"


@pytest.mark.parametrize("readable", [True, False])
def test_the_matrix_of_the_user_is_only_read(adata: ad.AnnData, readable: bool) -> None:
    x = sparse.csr_matrix(UMIS)
    x.data[0] = 0  # stored, but no guide
    if not readable:
        for part in (x.data, x.indices, x.indptr):
            part.flags.writeable = False
    adata.obsm["umis"], adata.uns["umis_ids"] = x, GUIDES
    ds.pp.guide_matrix(adata, "umis", targets=TARGETS)
    assert adata.obsm["guides"].toarray().tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert adata.obsm["umis"].nnz == 4
    ds.pp.assign_guides(adata, "guides")
    assert adata.obs["guide"].isna().sum() == 1


def test_guides_are_left_out_and_have_several_targets(adata: ad.AnnData, tmp_path: Path) -> None:
    targets = TARGETS | {"a1": ["A", "B"]}
    ds.pp.guide_matrix(adata, _frame([0, 1, 2, 3]), targets=targets, exclude="a2", key_added="g")
    assert adata.obsm["g"].toarray().tolist() == [[1, 0], [0, 1], [1, 0], [0, 0]]
    assert adata.uns["g_target"].tolist() == ["A;B", "NTC"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    ds.pp.guide_matrix(again, "g", key_added="h")  # from what it stored itself
    assert (again.obsm["h"] != adata.obsm["g"]).nnz == 0


def test_bad_input(adata: ad.AnnData) -> None:
    frame = _frame([0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"1 of 3 guides .* have no target, \['n1'\]"):
        ds.pp.guide_matrix(adata, frame, targets={"a1": "A", "a2": "A"})
    with pytest.raises(ValueError, match="negative"):
        ds.pp.guide_matrix(adata, frame - 1, targets=TARGETS)
    with pytest.raises(ValueError, match="fraction"):
        ds.pp.guide_matrix(adata, frame / 2, targets=TARGETS)
    with pytest.raises(ValueError, match="NaN"):
        ds.pp.guide_matrix(adata, frame.astype(float).replace(9, np.nan), targets=TARGETS)
    with pytest.raises(ValueError, match="no name in common: \\['x0'"):
        ds.pp.guide_matrix(adata, frame.rename(index=lambda n: n.replace("c", "x")), targets=TARGETS)
    with pytest.raises(ValueError, match="cells more than once, 'c0'"):
        ds.pp.guide_matrix(adata, pd.concat([frame, frame.iloc[:1]]), targets=TARGETS)
    with pytest.raises(ValueError, match="exclude= names no guides of 'guides': \\['a3'\\]"):
        ds.pp.guide_matrix(adata, frame, targets=TARGETS, exclude=["a3"])
    with pytest.raises(ValueError, match="no cell has a guide"):
        ds.pp.guide_matrix(adata, frame, targets=TARGETS, min_umis=100)
    with pytest.raises(KeyError, match="neither a key"):
        ds.pp.guide_matrix(adata, "nothing")
    assert not adata.obsm
    assert not adata.uns


def _calls(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["cell_barcode,num_features,feature_call,num_umis", *rows]) + "\n")
    return path


def test_cellranger(adata: ad.AnnData, tmp_path: Path) -> None:
    path = _calls(tmp_path / "calls.csv", "c0,2,a1|a2,9|4", "c1,1,n1,5", "c2,1,a1,1", "c9,1,n1,3")
    guides = ds.pp.read_protospacer_calls(path)
    assert guides.obs_names.tolist() == ["c0", "c1", "c2", "c9"]
    assert guides.to_df().loc["c0"].to_dict() == {"a1": 9, "a2": 4, "n1": 0}
    ds.pp.guide_matrix(adata, guides, targets=TARGETS)
    assert adata.obsm["guides"].toarray().tolist() == (UMIS > 0).astype(int).tolist()
    (tmp_path / "x.csv").write_text("cell_barcode,other\nc0,1\n")
    with pytest.raises(ValueError, match=r"no columns \['feature_call', 'num_umis'\]"):
        ds.pp.read_protospacer_calls(tmp_path / "x.csv")
    with pytest.raises(ValueError, match="not as many UMIs as guides, \\['c0'\\]"):
        ds.pp.read_protospacer_calls(_calls(tmp_path / "y.csv", "c0,2,a1|a2,9"))
    with pytest.raises(ValueError, match="no whole number"):
        ds.pp.read_protospacer_calls(_calls(tmp_path / "z.csv", "c0,1,a1,many"))
