"""Every public function has an example, and it runs as written; its page names neighbours.

Each runs by itself, with `ds`, a titration with its fits as `adata`, and what else it names.
"""

from __future__ import annotations

import doctest
import importlib.util
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.io import mmwrite

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")

NAMESPACES = ("datasets", "design", "get", "io", "memory", "pl", "pp", "tl")
FUNCTIONS = {
    f"{namespace}.{name}": f
    for namespace in NAMESPACES
    for name in import_module(f"dream_sc.{namespace}").__all__
    if callable(f := getattr(import_module(f"dream_sc.{namespace}"), name))
} | {"report": ds.report}
JUNCTIONS = {"left": (101, 200), "skip": (101, 300), "right": (261, 300)}  # of one cassette exon


def _junctions(cells: pd.Index) -> ad.AnnData:
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (len(cells), 3)))
    var = pd.DataFrame(list(JUNCTIONS.values()), list(JUNCTIONS), columns=["start", "end"])
    return ad.AnnData(counts, pd.DataFrame(index=cells), var.assign(chrom="chr1", strand="+", gene="g1"))


def _files(junctions: ad.AnnData) -> None:
    folder = Path("Solo.out/SJ/raw")
    folder.mkdir(parents=True)
    mmwrite(folder / "matrix.mtx", sparse.coo_matrix(junctions.X.T))
    (folder / "barcodes.tsv").write_text("\n".join(junctions.obs_names) + "\n")
    lines = [f"chr1\t{start}\t{end}\t1\t1\t1\t9\t0\t30\n" for start, end in JUNCTIONS.values()]
    (folder / "features.tsv").write_text("".join(lines))
    head = "cell_barcode,num_features,feature_call,num_umis\n"
    Path("protospacer_calls_per_cell.csv").write_text(f"{head}c1,1,GFI1B_g01,9\nc2,2,GFI1B_g01|NTC_01,9|7\n")


def _with_umis(adata: ad.AnnData, *, two: bool = False) -> dict[str, Any]:
    """Guides as counts in place of labels: one in each cell, or two of the same target."""
    one = 9 * pd.get_dummies(adata.obs["guide"].astype(str)).astype(int)
    target = adata.obs.drop_duplicates("guide").set_index("guide")["target"].astype(str)
    umis = pd.concat([one.add_suffix("_1"), one.add_suffix("_2")], axis=1) if two else one
    targets = [target[name.rsplit("_", 1)[0] if two else name] for name in umis]
    adata.obsm["guide_umis"], adata.uns["guide_umis_target"] = umis, targets
    return {"adata": adata, "library": pd.DataFrame({"gene": targets}, list(umis))}


def _bare(adata: ad.AnnData, *, two: bool) -> dict[str, Any]:
    """Cells whose guides are known as counts alone."""
    bare = ad.AnnData(adata.X, adata.obs[["guide", "target", "batch"]].copy(), adata.var[[]].copy())
    found = _with_umis(bare, two=two)
    del bare.obs["guide"], bare.obs["target"]
    return found


def _plate() -> ad.AnnData:
    """Wells of a knock-down that was measured elsewhere."""
    adata = ds.datasets.titration(600, 20, rng=0, n_guides=4)
    adata.obs["well"] = adata.obs["guide"].astype(str).str.replace("GFI1B_g0", "well_")
    adata.obs["treatment"] = np.where(adata.obs["target"] == "NTC", "DMSO", "drug")
    ds.tl.fit_technical(adata, target_key="treatment", control="DMSO")
    return adata


def _run_of_cellranger() -> None:
    """The folder `outs` of a run, with a feature reference beside it."""
    folder = Path("outs/filtered_feature_bc_matrix")
    folder.mkdir(parents=True)
    counts = np.array([[3, 0, 1], [1, 2, 0], [9, 0, 0], [0, 7, 8]])
    mmwrite(folder / "matrix.mtx", sparse.coo_matrix(counts))
    kinds = ["Gene Expression"] * 2 + ["CRISPR Guide Capture"] * 2
    rows = zip(["ENSG1", "ENSG2", "sg1", "nt1"], ["GFI1B", "TBCE", "sg1", "nt1"], kinds, strict=True)
    (folder / "features.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    (folder / "barcodes.tsv").write_text("c1\nc2\nc3\n")
    head = "id,name,read,pattern,sequence,feature_type,target_gene_id,target_gene_name\n"
    of_guides = (("sg1", "ENSG1", "GFI1B"), ("nt1", "Non-Targeting", "Non-Targeting"))
    lines = [f"{g},{g},R2,(BC),ACGT,CRISPR Guide Capture,{i},{name}\n" for g, i, name in of_guides]
    Path("feature_reference.csv").write_text(head + "".join(lines))


def _calls(cells: pd.Index, guides: Any) -> None:
    """The calls of guides of these cells, beside such a run."""
    folder = Path("outs/crispr_analysis")
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{cell},1,{guide},9\n" for cell, guide in zip(cells, guides, strict=True)]
    head = "cell_barcode,num_features,feature_call,num_umis\n"
    (folder / "protospacer_calls_per_cell.csv").write_text(head + "".join(lines))


def _of_others(adata: ad.AnnData) -> dict[str, Any]:
    """What other tools give: guides by pertpy, matrices of sceptre, files of IGVF, MAGeCK and scPerturb."""
    import mudata as md

    cells = adata.obs_names[:6]
    genes = ad.AnnData(adata.X[:6].astype(int), pd.DataFrame(index=cells), adata.var[[]].copy())
    umis = sparse.csr_matrix(9 * np.eye(3, dtype=int)[[0, 0, 1, 1, 2, 2]])
    var = pd.DataFrame({"gene": ["A", "A", "NT"]}, ["a1", "a2", "n1"])
    guides = ad.AnnData(umis, pd.DataFrame(index=cells), var)
    guides.layers["assigned_guides"] = umis.astype(bool).astype(np.int8)
    both = md.MuData({"gene": genes.copy(), "guide": guides.copy()})
    both["guide"].layers["guide_assignment"] = guides.layers["assigned_guides"]
    both["guide"].var["intended_target_name"] = ["GFI1B", "GFI1B", "non-targeting|1"]
    both["guide"].var["targeting"] = [True, True, False]
    both["guide"].uns["moi"] = np.array(["low"], dtype=object)
    Path("pipeline_outputs").mkdir()
    both.write("pipeline_outputs/inference_mudata.h5mu")
    perturbed = genes.copy()
    perturbed.obs["perturbation"] = ["GFI1B", "GFI1B", "TBCE", "TBCE", "control", "control"]
    perturbed.write_h5ad("ReplogleWeissman2022_K562_essential.h5ad")
    table = adata.obs.drop_duplicates("guide")[["guide", "target"]].astype(str)
    strength = pd.DataFrame(
        {"sgrna": table["guide"], "Gene": table["target"], "LFC": np.linspace(-3, -0.5, len(table))}
    )
    strength.to_csv("sgrna_summary.txt", sep="\t", index=False)
    response = pd.DataFrame(genes.X.toarray().T, genes.var_names, cells)
    targets = pd.DataFrame({"grna_id": var.index, "grna_target": ["A", "A", "non-targeting"]})
    return {
        "genes": genes,
        "guides": guides,
        "ad": ad,
        "response_matrix": response,
        "grna_matrix": pd.DataFrame(umis.toarray().T, var.index, cells),
        "targets": targets,
    }


def _space(name: str, adata: ad.AnnData) -> dict[str, Any]:
    if name == "io.read_cellranger":
        _run_of_cellranger()
        return {"ds": ds}
    if name == "io.protospacer_calls":
        _calls(adata.obs_names, adata.obs["guide"])
        library = adata.obs.drop_duplicates("guide").set_index("guide")["target"].astype(str).to_dict()
        return {"ds": ds, "adata": _bare(adata, two=False)["adata"], "library": library}
    if name.startswith("io."):
        return {"ds": ds, "adata": adata, **_of_others(adata)}
    if name == "tl.set_dosage":
        return {"ds": ds, "adata": _plate()}
    if name == "pp.combine_guides":
        return {"ds": ds, **_bare(adata, two=True)}
    space = _with_umis(adata) if name == "pp.guide_matrix" else {"adata": adata}
    if name == "pp.assign_guides":
        space = _bare(adata, two=False)
    junctions = _junctions(adata.obs_names)
    if name.startswith("pp.read"):
        _files(junctions)
    transcripts = junctions.copy()
    transcripts.var = pd.DataFrame({"gene": ["g1", "g1", "g2"]}, ["t1", "t2", "t3"])
    return {"ds": ds, "junctions": junctions, "transcripts": transcripts, **space}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_an_example(name: str) -> None:
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    assert "Examples\n--------" in text, name
    assert doctest.DocTestParser().get_examples(text), name


@pytest.fixture(scope="module")
def pages() -> Any:
    """The part of the documentation's configuration that names neighbours."""
    path = Path(ds.__file__).parents[2] / "docs" / "_see_also.py"
    if not path.exists():
        pytest.skip("the documentation is not beside the package")
    spec = importlib.util.spec_from_file_location("_see_also", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_page_names_neighbours(name: str, pages: Any) -> None:
    found = pages.public()
    near = pages.neighbours(name, found)
    assert near, f"{name}: put it into a group of docs/_see_also.py"
    assert name not in near
    lines = ["Do it."]
    pages.add_neighbours(None, "function", f"dream_sc.{name}", FUNCTIONS[name], None, lines)
    assert sum(line.startswith("   * :py:") for line in lines) == len(near)


def test_neighbours_are_public(pages: Any) -> None:
    assert {name for group in pages.TOGETHER for name in group} <= set(pages.public())
    assert set(pages.public()) == set(FUNCTIONS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:only .* NTC guides:UserWarning")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_example_runs_as_written(
    name: str, titration_fit: ad.AnnData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    function = FUNCTIONS[name]
    space = _space(name, titration_fit.copy())
    found = doctest.DocTestParser().get_doctest(inspect.getdoc(function) or "", space, name, None, 0)
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(found, out=said.append)
    assert result.failed == 0, "".join(said)


@pytest.mark.slow
@pytest.mark.parametrize("of", [ds, type(ds.settings)], ids=["dream_sc", "settings"])
def test_the_package_and_its_settings_have_examples_too(of: Any, restore_settings: None) -> None:
    name = of.__name__
    found = doctest.DocTestParser().get_doctest(inspect.getdoc(of) or "", {"ds": ds}, name, None, 0)
    assert found.examples
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(found, out=said.append)
    assert result.failed == 0, "".join(said)
