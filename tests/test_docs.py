"""Code of the documentation runs as written: each page's blocks of Python, in order, in one namespace.

A page may speak of the reader's own files and objects; these are made here, small, under the names that the page uses.
"""

from __future__ import annotations

import gzip
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.io import mmwrite

import dream_sc as ds
from dream_sc._core.response import calibration, decision
from dream_sc._core.screen import null_draws

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(ds.__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SIZE = 800, 20  # cells and genes where a page takes the titration as it is
LANGUAGES = {"python", "bash", "text", "toml", "bibtex"}

pytestmark = pytest.mark.skipif(not (ROOT / "docs").exists(), reason="the documentation is not beside the package")


def blocks(text: str) -> list[tuple[int, str]]:
    """The blocks of Python of a page, each with the line that it starts in."""
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, match.start(1)), match.group(1)) for match in found]


def _small() -> ad.AnnData:
    return ds.datasets.titration(*SIZE, rng=0)


def _screen() -> ad.AnnData:
    """A titration with the columns that pages on real data name."""
    adata, rng = _small(), np.random.default_rng(0)
    adata.obs["pct_counts_mt"] = rng.gamma(2.0, 2.0, adata.n_obs)
    adata.obs["phase"] = pd.Categorical(rng.choice(["G1", "G2M", "S"], adata.n_obs))
    adata.obs["lane"] = adata.obs["batch"].copy()
    return adata


def _modalities() -> dict[str, Any]:
    """A titration, and exons, donors and scores of the same cells."""
    rna, rng, f = _small(), np.random.default_rng(1), 6
    rise = 1 / (1 + np.exp2(-rna.obs["true_log2_dosage"].to_numpy() - 1))[:, None]
    share = 0.25 + 0.5 * np.where(np.arange(f) < 3, rise, 0.4)
    total = rng.poisson(3.0, (rna.n_obs, f))
    first = rng.binomial(total, share)
    exons = ad.AnnData(sparse.csr_matrix(first), rna.obs.copy(), pd.DataFrame(index=[f"exon{i}" for i in range(f)]))
    exons.layers["denominator"] = sparse.csr_matrix(total)
    var = pd.DataFrame({"donor": np.repeat([f"donor{i}" for i in range(f)], 2)}, [f"sj{i}" for i in range(2 * f)])
    both = np.stack([first, total - first], 2).reshape(rna.n_obs, -1)
    scores = ad.AnnData(rng.normal(4 * share), rna.obs.copy(), pd.DataFrame(index=[f"score{i}" for i in range(f)]))
    donors = ad.AnnData(sparse.csr_matrix(both), rna.obs.copy(), var)
    return {"adata": rna, "exons": exons, "donors": donors, "scores": scores}


def _files() -> dict[str, Any]:
    adata = _screen()
    adata.write_h5ad("screen.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # anndata 0.12 announces another version of the format
        adata.write_zarr("screen.zarr")
    return {"ds": ds, "adata": adata}


def _many_guides() -> dict[str, Any]:
    """A screen with several guides per cell, its guides in each form that the page names."""
    adata = ds.datasets.high_moi(2000, 20, rng=0, n_ntc_guides=24, n_other_guides=20)
    adata.obs["lane"] = adata.obs["batch"]
    names = [*adata.uns.pop("guides_ids"), "bad_guide"]
    targets = [*adata.uns.pop("guides_target"), "NTC"]
    carried = sparse.hstack([adata.obsm.pop("guides"), np.ones((2000, 1))]).tocsr()
    adata.obsm["guide_umi"] = pd.DataFrame(9 * carried.toarray().astype(int), adata.obs_names, names)
    guide = ad.AnnData(carried, adata.obs[[]].copy(), pd.DataFrame({"target": targets}, names))
    Path("crispr_analysis").mkdir()
    calls = [[name for name, one in zip(names, row, strict=True) if one] for row in carried.toarray()]
    lines = [
        f"{cell},{len(c)},{'|'.join(c)},{'|'.join('9' * len(c))}"
        for cell, c in zip(adata.obs_names, calls, strict=True)
    ]
    text = "\n".join(["cell_barcode,num_features,feature_call,num_umis", *lines])
    Path("crispr_analysis/protospacer_calls_per_cell.csv").write_text(text)
    mdata = md.MuData({"rna": adata.copy(), "guide": guide})
    library = pd.DataFrame({"gene": targets}, names)
    return {"adata": adata, "mdata": mdata, "library": library, "dual": _dual_guides()}


def _dual_guides() -> ad.AnnData:
    """A titration with two guides in place of each."""
    adata = _small()
    one = pd.get_dummies(adata.obs["guide"].astype(str)).astype(int)
    target = adata.obs.drop_duplicates("guide").set_index("guide")["target"]
    adata.obsm["guide_umi"] = pd.concat([9 * one.add_suffix(s) for s in ("_1", "_2")], axis=1)
    adata.uns["guide_umi_target"] = 2 * [str(target[g]) for g in one]
    del adata.obs["guide"], adata.obs["target"]
    return adata


def _junctions() -> dict[str, Any]:
    """Junctions of one cassette exon in each of three genes: as STARsolo, lanes, leafcutter and BRIE2 give them."""
    rna, rng = _small(), np.random.default_rng(2)
    rows = [(1000 * g + a, 1000 * g + b) for g in range(1, 4) for a, b in ((101, 200), (101, 300), (261, 300))]
    counts = sparse.csr_matrix(rng.poisson(1.0, (rna.n_obs, len(rows))))
    folder = Path("Solo.out/SJ/raw")
    folder.mkdir(parents=True)
    mmwrite(folder / "matrix.mtx", sparse.coo_matrix(counts.T))
    (folder / "barcodes.tsv").write_text("\n".join(rna.obs_names) + "\n")
    (folder / "features.tsv").write_text("".join(f"chr1\t{a}\t{b}\t1\t1\t1\t9\t0\t30\n" for a, b in rows))
    exons = [(1000 * g + a, 1000 * g + b, g) for g in range(1, 4) for a, b in ((1, 100), (201, 260), (301, 400))]
    line = 'chr1\tmade\texon\t{}\t{}\t.\t+\t.\tgene_id "G{}"; exon_number "1";\n'
    with gzip.open("genes.gtf.gz", "wt") as file:
        file.write("#!a comment\n" + "".join(line.format(*exon) for exon in exons))
    var = pd.DataFrame({"chrom": "chr1", "start": [a for a, _ in rows], "end": [b for _, b in rows], "strand": "+"})
    var.index = [f"chr1:{a}-{b}:+" for a, b in rows]
    lane1 = ad.AnnData(counts[:400, :6], rna.obs[:400].copy(), var[:6].copy())
    lane2 = ad.AnnData(counts[400:, 3:], rna.obs[400:].copy(), var[3:].copy())
    table = pd.DataFrame({"cell": ["c1", "c1", "c2"], "count": [1, 2, 3]})
    table["junction"] = ["chr1:100:200:clu_1_+", "chr1:100:300:clu_1_+", "chr1:100:300:clu_1_+"]
    layers = {"isoform1": counts.toarray(), "isoform2": counts.toarray() + 1}
    ad.AnnData(counts, rna.obs[[]].copy(), var[[]].copy(), layers=layers).write_h5ad("brie_count.h5ad")
    return {"rna": rna, "lane1": lane1, "lane2": lane2, "table": table}


def _other_tools() -> dict[str, Any]:
    """One screen, as the files and objects of other tools."""
    pytest.importorskip("openpyxl")
    adata = _small()
    one = pd.get_dummies(adata.obs["guide"].astype(str)).astype(int)
    target = adata.obs.drop_duplicates("guide").set_index("guide")["target"].astype(str).replace("NTC", "Non-Targeting")
    targets = [target[g] for g in one]
    folder = Path("outs/filtered_feature_bc_matrix")
    folder.mkdir(parents=True)
    mmwrite(folder / "matrix.mtx", sparse.coo_matrix(sparse.hstack([adata.X, 9 * one.to_numpy()]).T.astype(int)))
    rows = [f"{g}\t{g}\tGene Expression" for g in adata.var_names] + [f"{g}\t{g}\tCRISPR Guide Capture" for g in one]
    (folder / "features.tsv").write_text("\n".join(rows) + "\n")
    (folder / "barcodes.tsv").write_text("\n".join(adata.obs_names) + "\n")
    lines = [f"{cell},1,{guide},9" for cell, guide in adata.obs["guide"].items()]
    Path("outs/crispr_analysis").mkdir()
    text = "\n".join(["cell_barcode,num_features,feature_call,num_umis", *lines])
    Path("outs/crispr_analysis/protospacer_calls_per_cell.csv").write_text(text)
    head = "id,name,read,pattern,sequence,feature_type,target_gene_id,target_gene_name"
    lines = [f"{g},{g},R2,(BC),ACGT,CRISPR Guide Capture,{t},{t}" for g, t in zip(one, targets, strict=True)]
    Path("feature_reference.csv").write_text("\n".join([head, *lines]))
    strength = [f"{g}\t{t.replace('Non-Targeting', 'NTC')}\t{-0.2 * i}" for i, (g, t) in enumerate(target.items())]
    Path("sgrna_summary.txt").write_text("\n".join(["sgrna\tGene\tLFC", *strength]))
    bare = adata.obs[[]].copy()
    genes = ad.AnnData(adata.X.copy(), bare.copy(), adata.var[[]].copy())
    var = pd.DataFrame({"gene": targets, "intended_target_name": targets}, list(one)).replace("Non-Targeting", "NT")
    guides = ad.AnnData(sparse.csr_matrix(one.to_numpy()), bare.copy(), var)
    guides.layers["assigned_guides"] = guides.X.copy()
    of_igvf = guides.copy()
    of_igvf.layers["guide_assignment"] = of_igvf.layers.pop("assigned_guides")
    of_igvf.var["targeting"] = of_igvf.var["gene"] != "NT"
    of_igvf.uns["moi"] = np.array(["low"], dtype=object)
    md.MuData({"gene": genes, "guide": of_igvf}).write("inference_mudata.h5mu")
    screen = genes.copy()
    screen.obs["perturbation"] = adata.obs["target"].astype(str).replace("NTC", "control")
    screen.obs["guide_id"] = adata.obs["guide"].astype(str)
    return {
        "genes": genes,
        "guides": guides,
        "response": pd.DataFrame.sparse.from_spmatrix(genes.X.T, genes.var_names, genes.obs_names),
        "grna": (9 * one).T,
        "targets": pd.DataFrame({"grna_id": list(one), "grna_target": targets}),
        "screen": screen,
        "labels": adata.obs[["guide", "target"]].astype(str),
    }


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "confounding.md": lambda: {"adata": _screen()},
    "designs.md": _many_guides,
    "formats.md": _other_tools,
    "large_data.md": _files,
    "memory.md": _files,
    "modalities.md": _modalities,
    "screens.md": lambda: {"adata": _screen()},
    "splicing.md": _junctions,
}


def _run(page: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    space = GIVEN.get(page.name, dict)()
    for module in (calibration, decision, null_draws):  # features behind the p-values, which take most of the time
        monkeypatch.setattr(module, "N_NULL", 100)
    monkeypatch.setattr(decision, "N_NULL_OF_SETS", 100)
    titration = ds.datasets.titration
    monkeypatch.setattr(ds.datasets, "titration", lambda *size, **how: titration(*(size or SIZE), **how))
    for line, block in blocks(page.read_text()):
        # so that a traceback names the page and its line
        exec(compile("\n" * line + block, str(page), "exec"), space)
    return space


def _fitted(space: dict[str, Any]) -> None:
    adata = space["adata"]
    assert {"technical", "cis", "trans"} <= set(adata.uns)
    assert (ds.get.trans(adata)["status"] == "converged").sum() > 10


def _checked(space: dict[str, Any]) -> None:
    _fitted(space)
    if "own" in space:  # the same cells and genes under other names of columns
        pd.testing.assert_frame_equal(ds.get.trans(space["own"]), ds.get.trans(space["adata"]))
    assert {"calibration", "confounding"} <= set(space["adata"].uns)


def _all_modalities(space: dict[str, Any]) -> None:
    called = ds.get.trans(space["mdata"], mod="psi")["qvalue"] < 0.05
    assert called.iloc[:3].all()
    assert not called.iloc[3:].any()
    assert Path("psi.html").stat().st_size > 20_000


def _reported(space: dict[str, Any]) -> None:
    _fitted(space)
    text = Path("report.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert space["adata"].var_names[-1] in text


def _confounded(space: dict[str, Any]) -> None:
    assert {"depth", "pct_counts_mt", "phase"} <= set(space["table"]["what"].str.split(":").str[0])
    _fitted(space)


def _many(space: dict[str, Any]) -> None:
    _fitted(space)
    assert "bad_guide" not in space["adata"].uns["guides_ids"]
    assert "bad_guide" in space["mdata"]["rna"].uns["guides_ids"]


def _compared(space: dict[str, Any]) -> None:
    _fitted(space)
    assert len(space["table"]) == SIZE[1]
    assert (space["table"]["lfdr_differs"].dropna() > 0.05).all()
    assert space["trends"].attrs["order"] == {"6h": 6.0, "12h": 12.0, "24h": 24.0}
    assert (space["trends"]["lfdr_trend"].dropna() > 0.05).all()


def _gallery(space: dict[str, Any]) -> None:
    _fitted(space)
    assert Path("figure.pdf").stat().st_size > 5000


def _from_disk(space: dict[str, Any]) -> None:
    _fitted({"adata": ad.read_h5ad("fit.h5ad")})
    assert space["adata"].n_obs == SIZE[0]


def _splicing(space: dict[str, Any]) -> None:
    assert list(space["psi"].var["gene"].unique()) == ["G1", "G2", "G3"]
    assert space["exons"].n_vars == 3
    assert space["both"].shape == (SIZE[0], 9)
    assert int(space["events"].layers["denominator"].min()) == 1
    called = ds.get.trans(space["data"], mod="donor")["qvalue"] < 0.05
    assert called.iloc[:10].sum() >= 8
    assert called.iloc[10:].sum() <= 2
    assert called["chr1:90000:+"]
    assert ds.get.trans(space["data"], mod="donor").loc["chr1:90000:+", "category"] == "chr1:90000-90500"


def _known(space: dict[str, Any]) -> None:
    _fitted(space)
    for key in ("trans", "by_strength", "of_cells"):
        assert (ds.get.trans(space["adata"], key=key)["qvalue"] < 0.05).sum() > 2
    assert abs(float(ds.get.trans(space["plate"])["log2_ec50"].iloc[0]) - 1.585) < 0.5


def _acting(space: dict[str, Any]) -> None:
    adata = space["adata"]
    without, both = (ds.get.trans(adata, key=key) for key in ("acting", "trans"))
    assert (space["table"]["lfdr"].dropna() >= 0).all()
    called = without["qvalue"] < 0.05
    assert called.sum() >= 5
    assert set(without.loc[called, "class"]) == {"switch"}
    assert (both["qvalue"] < 0.05).sum() >= 5
    assert not adata.uns["acting"]["flags"].set_index("flag").loc["guides_disagree", "raised"]


def _same_by_every_door(space: dict[str, Any]) -> None:
    _fitted(space)
    for name in ("adata", "igvf", "assigned", "low_moi", "public"):
        found, labels = space[name], space["labels"]
        assert (found.obs["guide"].astype(str) == labels["guide"]).all(), name
        assert (found.obs["target"].astype(str) == labels["target"]).all(), name
        assert (found.X != space["genes"].X).nnz == 0, name
    assert list(space["genes"].uns["guides_target"]) == list(space["adata"].uns["guides_target"])
    assert "by_strength" in space["adata"].uns
    written, table = space["written"], ds.get.trans(space["adata"])
    for name in ("class", "model"):
        kept = table[name].astype(object).reindex(written.index)
        assert (written[name].fillna("") == kept.fillna("")).all(), name
    assert (written["model"] == "null").any()
    assert {p.name for p in Path("results").iterdir()} >= {"per_element_output.tsv", "trans.tsv", "results.xlsx"}
    assert len(list(Path("qc").glob("*_mqc.tsv"))) >= 2


def _questions(space: dict[str, Any]) -> None:
    _fitted(space)
    assert len(space["called"].columns) <= 12
    assert set(space["doses"]["level"].dropna()) == {0.1, 0.5, 0.9}
    assert space["ranking"].index[0] in set(space["called"].index)
    assert set(space["members"]) <= {"early", "proportional", "threshold", "buffered", "unclear"}
    assert space["weights"].shape == (len(space["background"]), 4)
    assert list(pd.read_excel("results.xlsx", sheet_name="responders").iloc[:, 0]) == list(space["called"].index)


def _planned(space: dict[str, Any]) -> None:
    _fitted({"adata": space["pilot"]})
    assert len(space["table"]) == 4 * 3 * 2
    assert space["table"]["power"].between(0, 1).all()
    assert space["best"]["reached"].all()
    assert space["best"]["cost"].is_monotonic_increasing


def _simulated_again(space: dict[str, Any]) -> None:
    again = space["again"]
    assert again.shape == space["adata"].shape
    found = ds.get.trans(again)["lfdr"]
    assert found.notna().equals(again.var["true_model"] != "cis_gene")


EXPECTED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "README.md": _reported,
    "api.md": lambda space: None if space["ds"] is ds else pytest.fail("the page imports something else"),
    "calibration.md": _simulated_again,
    "confounding.md": _confounded,
    "contexts.md": _compared,
    "designs.md": _many,
    "formats.md": _same_by_every_door,
    "gallery.md": _gallery,
    "index.md": _reported,
    "known_dosages.md": _known,
    "knock_outs.md": _acting,
    "large_data.md": _from_disk,
    "memory.md": lambda space: _whole_table(space["ds"].memory.estimate_for("screen.h5ad", backed=True)),
    "planning.md": _planned,
    "modalities.md": _all_modalities,
    "questions.md": _questions,
    "quickstart.md": _checked,
    "report.md": lambda space: [check(space) for check in (_checked, _reported)],
    "screens.md": lambda space: _whole_library(space["table"]),
    "splicing.md": _splicing,
}


def _whole_library(table: pd.DataFrame) -> None:
    assert set(table["target"]) == {"GFI1B"}
    assert (table["qvalue_union"] < 0.05).sum() > 2
    assert list(Path("my_screen/parts").glob("GFI1B.*.parquet"))


def _whole_table(estimate: Any) -> None:
    assert "total" in set(estimate["component"])


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p.read_text())], ids=lambda page: page.name)
def test_a_page_runs_as_written(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    space = _run(page, monkeypatch, tmp_path)
    EXPECTED[page.name](space)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_names_its_language(page: Path) -> None:
    """What is not Python, or cannot be run here, says so by its language; nothing is skipped unseen."""
    opening = re.findall(r"^[ ]*```(\S.*|)$", page.read_text(), re.MULTILINE)[::2]
    unknown = [language for language in opening if language not in LANGUAGES and not language.startswith("{")]
    assert not unknown


@pytest.mark.slow
def test_the_output_in_the_readme_is_what_its_code_prints(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With all cells and genes; the last digit may differ between machines."""
    text = (ROOT / "README.md").read_text()
    code, shown = blocks(text)[0][1], re.search(r"^```text\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert shown is not None
    monkeypatch.chdir(tmp_path)
    exec(code.split("ds.pl.dose_response")[0], {})
    found, wanted = (part.split() for part in (capsys.readouterr().out, shown.group(1)))
    number = re.compile(r"\(?(-?\d+\.\d+)\)?")
    assert [number.sub("n", word) for word in found] == [number.sub("n", word) for word in wanted]
    values = [[float(m.group(1)) for word in part if (m := number.fullmatch(word))] for part in (found, wanted)]
    np.testing.assert_allclose(*values, atol=0.02)


def test_the_example_report_has_the_present_page() -> None:
    from dream_sc._report import _report

    text = (ROOT / "docs" / "_extra" / "example_report.html").read_text(encoding="utf-8")
    for name in (*_report.SCRIPTS, "style.css"):
        part = (_report.PAGE / name).read_text(encoding="utf-8").strip()
        assert part in text, f"{name} has changed: run python docs/_landing.py"
