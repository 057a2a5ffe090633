"""Every public function of the steps has an example, and it runs as written.

Each runs by itself, with `ds`, a titration with its fits as `adata`, and what else it names.
"""

from __future__ import annotations

import doctest
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

NAMESPACES = ("get", "pl", "pp", "tl")
FUNCTIONS = {
    f"{namespace}.{name}": f
    for namespace in NAMESPACES
    for name in import_module(f"dream_sc.{namespace}").__all__
    if inspect.isfunction(f := getattr(import_module(f"dream_sc.{namespace}"), name))
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


def _space(name: str, adata: ad.AnnData) -> dict[str, Any]:
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
