"""What is read of a Cell Ranger run, and what is refused."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.io import mmwrite

import dream_sc as ds

CELLS = ["AAAC-1", "AAAG-1", "AACA-1", "AACC-1"]
# genes, an antibody and guides, as Cell Ranger has them in one matrix: features x cells
FEATURES = pd.DataFrame(
    [
        ("ENSG1", "GFI1B", "Gene Expression", "", ""),
        ("ENSG2", "TBCE", "Gene Expression", "", ""),
        ("ENSG3", "TBCE", "Gene Expression", "", ""),
        ("CD3", "CD3_TotalA", "Antibody Capture", "", ""),
        ("sg1", "sg1", "CRISPR Guide Capture", "ENSG1", "GFI1B"),
        ("sg2", "sg2", "CRISPR Guide Capture", "ENSG1", "GFI1B"),
        ("nt1", "nt1", "CRISPR Guide Capture", "Non-Targeting", "Non-Targeting"),
    ],
    columns=["id", "name", "feature_type", "target_gene_id", "target_gene_name"],
)
MATRIX = np.array(
    [[3, 0, 1, 2], [0, 4, 0, 1], [1, 1, 0, 0], [9, 9, 9, 9], [20, 0, 1, 0], [0, 7, 9, 0], [0, 0, 30, 0]], dtype=int
)
CALLS = "cell_barcode,num_features,feature_call,num_umis\n"


def write_h5(path: Path, *, tags: bool = True) -> Path:
    """The file ``filtered_feature_bc_matrix.h5``."""
    x = sparse.csc_matrix(MATRIX)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(CELLS, dtype="S18")
        group["data"], group["indices"], group["indptr"] = x.data.astype("i4"), x.indices.astype("i8"), x.indptr
        group["shape"] = np.array(MATRIX.shape, dtype="i4")
        features = group.create_group("features")
        for name in FEATURES.columns[: 5 if tags else 3]:
            features[name] = FEATURES[name].to_numpy(dtype="S32")
        features["genome"] = np.array(["GRCh38"] * 3 + [""] * 4, dtype="S8")
        features["_all_tag_keys"] = np.array(["genome", *FEATURES.columns[3:]], dtype="S20")
    return path


def write_folder(folder: Path, zipped: bool = True) -> Path:
    """The folder ``filtered_feature_bc_matrix``."""
    folder.mkdir(parents=True)
    mmwrite(folder / "matrix.mtx", sparse.coo_matrix(MATRIX))
    FEATURES.iloc[:, :3].to_csv(folder / "features.tsv", sep="\t", header=False, index=False)
    (folder / "barcodes.tsv").write_text("\n".join(CELLS) + "\n")
    if zipped:
        for path in list(folder.iterdir()):
            with gzip.open(f"{path}.gz", "wb") as file:
                file.write(path.read_bytes())
            path.unlink()
    return folder


def write_reference(path: Path, targets: Any = ("GFI1B", "GFI1B", "Non-Targeting")) -> Path:
    """The feature reference CSV."""
    rows = [
        f"{guide},{guide},R2,(BC)GTTTAAGAGCTAAGCTGGAA,ACGT,CRISPR Guide Capture,{'ENSG1' if t == 'GFI1B' else t},{t}"
        for guide, t in zip(["sg1", "sg2", "nt1"], targets, strict=True)
    ]
    head = "id,name,read,pattern,sequence,feature_type,target_gene_id,target_gene_name"
    antibody = "CD3,CD3_TotalA,R2,^(BC),ACGT,Antibody Capture,,"
    path.write_text("\n".join([head, antibody, *rows]) + "\n")
    return path


@pytest.fixture
def outs(tmp_path: Path) -> Path:
    """The folder ``outs`` of a run: matrix, calls, reference."""
    folder = tmp_path / "outs"
    folder.mkdir()
    write_h5(folder / "filtered_feature_bc_matrix.h5", tags=False)
    write_folder(folder / "filtered_feature_bc_matrix")
    (folder / "crispr_analysis").mkdir()
    text = CALLS + "AAAC-1,1,sg1,20\nAAAG-1,1,sg2,7\nAACA-1,2,nt1|sg2,30|9\n"
    (folder / "crispr_analysis" / "protospacer_calls_per_cell.csv").write_text(text)
    return folder


def _genes_are_right(adata: ad.AnnData) -> None:
    assert adata.obs_names.tolist() == CELLS
    assert adata.var_names.tolist() == ["GFI1B", "TBCE", "TBCE-1"]
    assert adata.var["gene_ids"].tolist() == ["ENSG1", "ENSG2", "ENSG3"]
    assert adata.X.format == "csr"
    np.testing.assert_array_equal(adata.X.toarray(), MATRIX[:3].T)


def test_h5_with_targets_among_its_features(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dream_sc"):
        adata = ds.io.read_cellranger(write_h5(tmp_path / "m.h5"))
    _genes_are_right(adata)
    assert adata.var["genome"].tolist() == ["GRCh38"] * 3
    np.testing.assert_array_equal(adata.obsm["guides"].toarray(), MATRIX[4:].T)
    assert list(adata.uns["guides_ids"]) == ["sg1", "sg2", "nt1"]
    assert list(adata.uns["guides_target"]) == ["GFI1B", "GFI1B", "NTC"]
    assert adata.obs["n_guides"].tolist() == [1, 1, 3, 0]
    said = caplog.text
    assert "neither genes nor guides are left out: 1 of type Antibody Capture" in said
    assert "holds all UMIs, background too" in said
    assert "1 of 4 cells have no guide. They are no NTC cells" in said
    kept = ds.io.read_cellranger(tmp_path / "m.h5", min_umis=5)
    np.testing.assert_array_equal(kept.obsm["guides"].toarray(), np.where(MATRIX[4:].T >= 5, MATRIX[4:].T, 0))
    by_id = ds.io.read_cellranger(tmp_path / "m.h5", var_names="gene_ids")
    assert by_id.var_names.tolist() == ["ENSG1", "ENSG2", "ENSG3"]
    assert list(by_id.uns["guides_target"]) == ["ENSG1", "ENSG1", "NTC"]


@pytest.mark.parametrize("zipped", [True, False])
def test_folder(tmp_path: Path, zipped: bool) -> None:
    folder = write_folder(tmp_path / "filtered_feature_bc_matrix", zipped)
    adata = ds.io.read_cellranger(folder, write_reference(tmp_path / "ref.csv"))
    _genes_are_right(adata)
    assert list(adata.uns["guides_target"]) == ["GFI1B", "GFI1B", "NTC"]
    without = ds.io.read_cellranger(folder)
    assert "guides_target" not in without.uns
    assert list(without.uns["guides_ids"]) == ["sg1", "sg2", "nt1"]


@pytest.mark.parametrize("which", ["", "filtered_feature_bc_matrix.h5", "filtered_feature_bc_matrix"])
def test_outs_with_calls(outs: Path, which: str, tmp_path: Path) -> None:
    adata = ds.io.read_cellranger(outs / which, write_reference(tmp_path / "ref.csv"))
    _genes_are_right(adata)
    assert list(adata.uns["guides_ids"]) == ["nt1", "sg1", "sg2"]
    assert list(adata.uns["guides_target"]) == ["NTC", "GFI1B", "GFI1B"]
    assert adata.obsm["guides"].toarray().tolist() == [[0, 20, 0], [0, 0, 7], [30, 0, 9], [0, 0, 0]]
    ds.pp.assign_guides(adata, "guides")
    assert adata.obs["guide"].astype(object).where(adata.obs["guide"].notna(), "").tolist() == ["sg1", "sg2", "", ""]
    assert not (adata.obs["target"] == "NTC").any()


def test_the_reference_of_the_run_is_found(outs: Path, tmp_path: Path) -> None:
    write_reference(outs / "feature_reference.csv")
    adata = ds.io.read_cellranger(outs)
    assert list(adata.uns["guides_target"]) == ["NTC", "GFI1B", "GFI1B"]
    adata.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad")
    assert list(again.uns["guides_target"]) == ["NTC", "GFI1B", "GFI1B"]


@pytest.mark.parametrize("which", ["outs", "run", "sample", "count", "h5", "folder"])
def test_a_sample_of_cellranger_multi(which: str, tmp_path: Path) -> None:
    """Matrix and calls are in the folder of the sample, the reference in that of the run."""
    outs = tmp_path / "run" / "outs"
    sample = outs / "per_sample_outs" / "screen"
    (sample / "count" / "crispr_analysis").mkdir(parents=True)
    (outs / "multi" / "count").mkdir(parents=True)
    write_h5(sample / "count" / "sample_filtered_feature_bc_matrix.h5", tags=False)
    write_folder(sample / "count" / "sample_filtered_feature_bc_matrix")
    text = CALLS + "AAAC-1,1,sg1,20\nAAAG-1,1,sg2,7\nAACA-1,2,nt1|sg2,30|9\n"
    (sample / "count" / "crispr_analysis" / "protospacer_calls_per_cell.csv").write_text(text)
    write_reference(outs / "multi" / "count" / "feature_reference.csv")
    (outs / "config.csv").write_text("[gene-expression]\n")
    name = "sample_filtered_feature_bc_matrix"
    places = {"outs": outs, "run": tmp_path / "run", "sample": sample, "count": sample / "count"}
    places |= {"h5": sample / "count" / f"{name}.h5", "folder": sample / "count" / name}
    adata = ds.io.read_cellranger(places[which])
    _genes_are_right(adata)
    assert list(adata.uns["guides_ids"]) == ["nt1", "sg1", "sg2"]
    assert list(adata.uns["guides_target"]) == ["NTC", "GFI1B", "GFI1B"]
    assert adata.obs["n_guides"].tolist() == [1, 1, 2, 0]


def test_several_samples_of_cellranger_multi_are_named(tmp_path: Path) -> None:
    for sample in ("day_1", "day_2"):
        folder = tmp_path / "outs" / "per_sample_outs" / sample / "count"
        folder.mkdir(parents=True)
        write_h5(folder / "sample_filtered_feature_bc_matrix.h5")
    with pytest.raises(ValueError, match=r"2 samples, \['day_1', 'day_2'\] among them: name one of their folders"):
        ds.io.read_cellranger(tmp_path / "outs")


def test_targets_in_place_of_a_reference(tmp_path: Path) -> None:
    """Where Cell Ranger was run with a reference that calls all guides Non-Targeting, they can be given."""
    h5 = write_h5(tmp_path / "m.h5")
    with h5py.File(h5, "r+") as file:
        for name in ("target_gene_id", "target_gene_name"):
            values = file["matrix/features"][name][:]
            file["matrix/features"][name][:] = np.where(values == b"", b"", b"Non-Targeting")
    with pytest.raises(ValueError, match=r"all 3 guides of the features of the matrix .* or pass targets="):
        ds.io.read_cellranger(h5)
    adata = ds.io.read_cellranger(h5, targets={"sg1": "GFI1B", "sg2": "GFI1B", "nt1": "NTC", "other": "A"})
    assert list(adata.uns["guides_target"]) == ["GFI1B", "GFI1B", "NTC"]
    with pytest.raises(ValueError, match="lacks 2 of 3 guides"):
        ds.io.read_cellranger(h5, targets={"sg1": "GFI1B"})


def test_reference_that_does_not_fit(tmp_path: Path) -> None:
    h5 = write_h5(tmp_path / "m.h5")
    every = write_reference(tmp_path / "ref.csv", ["Non-Targeting"] * 3)
    with pytest.raises(ValueError, match=r"all 3 guides of .*ref.csv are non-targeting: there is no gene"):
        ds.io.read_cellranger(h5, every)
    text = write_reference(tmp_path / "ref.csv").read_text()
    (tmp_path / "ref.csv").write_text(text.replace("sg2,sg2", "sg9,sg9"))
    with pytest.raises(ValueError, match=r"lacks 1 of 3 guides, \['sg2'\] among them; did you mean"):
        ds.io.read_cellranger(h5, tmp_path / "ref.csv")
    (tmp_path / "ref.csv").write_text(text.replace("sg2,sg2", "sg1,sg1"))
    with pytest.raises(ValueError, match=r"guide 'sg1' is in .* more than once"):
        ds.io.read_cellranger(h5, tmp_path / "ref.csv")
    (tmp_path / "ref.csv").write_text(text.replace("target_gene_id", "gene"))
    with pytest.raises(ValueError, match=r"no columns \['target_gene_id'\]"):
        ds.io.read_cellranger(h5, tmp_path / "ref.csv")
    (tmp_path / "ref.csv").write_text(text.replace(",GFI1B\n", ",\n").replace("ENSG1", ""))
    with pytest.raises(ValueError, match="says no target of 2 guides"):
        ds.io.read_cellranger(h5, tmp_path / "ref.csv")


def test_no_matrix_or_a_torn_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not there"):
        ds.io.read_cellranger(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="the folder outs of a run"):
        ds.io.read_cellranger(tmp_path / "empty")
    folder = write_folder(tmp_path / "m", zipped=False)
    (folder / "barcodes.tsv").write_text("a\nb\n")
    with pytest.raises(ValueError, match="is 7 x 4, but there are 7 features and 2 barcodes"):
        ds.io.read_cellranger(folder)
    (folder / "barcodes.tsv").write_text("a\nb\na\nc\n")
    with pytest.raises(ValueError, match=r"barcode 'a' is in .* more than once"):
        ds.io.read_cellranger(folder)


def _calls(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "calls.csv"
    path.write_text(CALLS + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def genes() -> ad.AnnData:
    return ad.AnnData(MATRIX[:3].T.copy(), pd.DataFrame(index=CELLS))


def test_calls_are_added_to_genes(genes: ad.AnnData, tmp_path: Path) -> None:
    path = _calls(tmp_path, "AAAC-1,1,sg1,20", "AACA-1,2,nt1|sg1,30|9", "ZZZZ-1,1,sg1,3")
    ds.io.protospacer_calls(genes, path, targets={"sg1": "GFI1B", "nt1": "non-targeting"})
    assert genes.obsm["guides"].toarray().tolist() == [[0, 20], [0, 0], [30, 9], [0, 0]]
    assert list(genes.uns["guides_target"]) == ["NTC", "GFI1B"]
    assert genes.obs["n_guides"].tolist() == [1, 0, 2, 0]
    other = ds.io.protospacer_calls(genes, path, feature_reference=write_reference(tmp_path / "r.csv"), copy=True)
    assert list(other.uns["guides_target"]) == ["NTC", "GFI1B"]
    with pytest.raises(ValueError, match="has no effect with targets="):
        ds.io.protospacer_calls(genes, path, feature_reference="r.csv", targets={})
    with pytest.raises(ValueError, match=r"targets= lacks 1 of 2 guides, \['nt1'\]"):
        ds.io.protospacer_calls(genes, path, targets={"sg1": "GFI1B"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("AAAG-1,1,sg1", "it has 3 fields, the header 4"),
        ("AAAG-1,1,sg1,4,5", "it has 5 fields, the header 4"),
        ("AAAG-1,1,sg1,-4", "num_umis '-4' of guide 'sg1' is not above 0"),
        ("AAAG-1,1,sg1,4.5", "num_umis '4.5' is no whole number"),
        ("AAAC-1,1,sg2,4", "cell 'AAAC-1' was in line 2 already"),
        (",1,sg2,4", "the cell has no name"),
        ("AAAG-1,1,,4", "a guide has no name"),
        ("AAAG-1,2,sg1|,4|5", "a guide has no name"),
        ("AAAG-1,2,sg1|sg1,4|5", "guide 'sg1' is there twice"),
        ("AAAG-1,2,sg1|sg2,4", "not as many UMIs as guides"),
        ("AAAG-1,3,sg1|sg2,4|5", "num_features is '3', but there are 2 guides"),
    ],
)
def test_a_wrong_line_is_named(genes: ad.AnnData, tmp_path: Path, row: str, message: str) -> None:
    path = _calls(tmp_path, "AAAC-1,1,sg1,20", row)
    with pytest.raises(ValueError, match=r"line 3 of .*calls\.csv: ") as error:
        ds.io.protospacer_calls(genes, path)
    assert message in str(error.value)
    assert not genes.obsm


def test_calls_of_other_cells(genes: ad.AnnData, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no name in common: \['x'\] and \['AAAC-1'"):
        ds.io.protospacer_calls(genes, _calls(tmp_path, "x,1,sg1,20"))


def test_the_old_name_reads_the_same(tmp_path: Path, genes: ad.AnnData) -> None:
    path = _calls(tmp_path, "AAAC-1,1,sg1,20", "AACA-1,2,nt1|sg1,30|9")
    zipped = tmp_path / "calls.csv.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    read: Any = ds.pp.read_protospacer_calls(zipped)
    assert read.to_df().loc["AACA-1"].to_dict() == {"nt1": 30, "sg1": 9}
    assert read.obs_names.name == "cell_barcode"


DAMAGES = {
    "text": lambda path: path.write_text("no HDF5"),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2]),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_h5_is_named(how: str, tmp_path: Path) -> None:
    path = write_h5(tmp_path / "filtered_feature_bc_matrix.h5")
    DAMAGES[how](path)
    with pytest.raises(ValueError, match=r"filtered_feature_bc_matrix\.h5 cannot be read as .* damaged, cut short"):
        ds.io.read_cellranger(path)


@pytest.mark.parametrize("lacks", ["data", "indptr", "shape", "barcodes", "features/id", "features/feature_type"])
def test_an_h5_that_lacks_an_array_is_named(lacks: str, tmp_path: Path) -> None:
    path = write_h5(tmp_path / "filtered_feature_bc_matrix.h5")
    with h5py.File(path, "a") as file:
        del file["matrix"][lacks]
    with pytest.raises(ValueError, match=r"filtered_feature_bc_matrix\.h5 cannot be read as"):
        ds.io.read_cellranger(path)


@pytest.mark.parametrize("name", ["matrix.mtx", "features.tsv", "barcodes.tsv"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_of_a_folder_is_named(name: str, zipped: bool, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "filtered_feature_bc_matrix", zipped=zipped)
    path = folder / (f"{name}.gz" if zipped else name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if zipped else b"\xff\xfe\x00 not a matrix")
    with pytest.raises(ValueError, match=r"filtered_feature_bc_matrix"):
        ds.io.read_cellranger(folder)


def test_a_feature_reference_that_is_no_table(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "filtered_feature_bc_matrix.h5")
    for content in (b"", b"\xff\xfe\x00\x01", b'id,"name\n'):
        (tmp_path / "reference.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"reference\.csv"):
            ds.io.read_cellranger(path, tmp_path / "reference.csv")
