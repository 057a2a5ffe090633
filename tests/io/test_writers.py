"""What is written: the columns that other tools read, and values equal to those of `get.trans`."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import kstest, nbinom, poisson

import dream_sc as ds
from dream_sc.io._results import two_sided


def _others(fitted: ad.AnnData) -> pd.DataFrame:
    return ds.get.trans(fitted).drop(index="GFI1B")


def test_tables_of_igvf(fitted: ad.AnnData, tmp_path: Path) -> None:
    paths = ds.io.to_igvf(fitted, tmp_path / "new" / "folder")
    assert [p.name for p in paths.values()] == ["per_element_output.tsv", "per_guide_output.tsv"]
    element = pd.read_csv(paths["element"], sep="\t")
    assert element.columns[:4].tolist() == ["gene_id", "intended_target_name", "log2_fc", "p_value"]
    want = _others(fitted)
    assert element["gene_id"].tolist() == want.index.tolist()
    assert set(element["intended_target_name"]) == {"GFI1B"}
    np.testing.assert_allclose(element["log2_fc"], want["log2fc_full"])
    np.testing.assert_allclose(element["p_value"], want["pvalue"])
    np.testing.assert_allclose(element["dream_sc_lfdr"], want["lfdr"])
    lowest = ds.get.guides(fitted).query("~is_control")["log2_dosage"].min()
    np.testing.assert_allclose(element["dream_sc_log2_dosage"], lowest)
    guide = pd.read_csv(paths["guide"], sep="\t")
    assert guide.columns[:4].tolist() == ["gene_id", "guide_id", "log2_fc", "p_value"]
    assert len(guide) == 23 * 12


def test_guides_are_compared_as_the_plot_shows_them(fitted: ad.AnnData, tmp_path: Path) -> None:
    """Ratios of the means that `pl.dose_response_data` gives, by another road."""
    table = pd.read_csv(ds.io.to_igvf(fitted, tmp_path)["guide"], sep="\t").set_index(["gene_id", "guide_id"])
    for gene in fitted.var_names[1:6]:
        points = ds.pl.dose_response_data(fitted, gene).set_index("guide")
        control = points["is_control"]
        level = np.average(points["mean"][control], weights=points["n_cells"][control])
        ratio = np.log2(points["mean"][~control] / level)
        np.testing.assert_allclose(table.loc[gene, "log2_fc"][ratio.index], ratio, atol=0.12)


def test_p_values_of_counts_are_those_of_scipy() -> None:
    total, expected = np.array([0, 1, 3, 10, 100.0]), np.array([0.2, 0.5, 3, 20, 80.0])
    beyond = np.array([0.3, 0.01, 1e-12, 0.5, 0.02])
    n = 1 / np.maximum(beyond, 1e-9)
    law = nbinom(n, n / (n + expected))
    lower, upper = law.cdf(total) - 0.5 * law.pmf(total), law.sf(total) + 0.5 * law.pmf(total)
    want = np.minimum(1, 2 * np.minimum(lower, upper))
    np.testing.assert_allclose(two_sided(total, expected, beyond), want, rtol=1e-8)
    middle = poisson(3)  # without anything beyond, counts are Poisson
    np.testing.assert_allclose(want[2], 2 * min(middle.cdf(3), middle.sf(2)) - middle.pmf(3), rtol=1e-6)


def test_p_values_of_guides_hold_for_genes_without_a_response(tmp_path: Path) -> None:
    adata = ds.datasets.titration(2500, 150, rng=8, single_fraction=0.0, additive_fraction=0.0, mean_range=(-1.0, 4.0))
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=50)
    p = pd.read_csv(ds.io.to_igvf(adata, tmp_path)["guide"], sep="\t")["p_value"].dropna()
    assert len(p) > 1500
    assert (p < 0.05).mean() < 0.07
    assert (p < 0.001).mean() < 0.005
    assert kstest(p, "uniform").statistic < 0.12


def test_ids_and_places_of_igvf(fitted: ad.AnnData, tmp_path: Path) -> None:
    adata = fitted.copy()
    adata.var["gene_ids"] = [f"ENSG{i}" for i in range(adata.n_vars)]
    place = {"intended_target_chr": "chr9", "intended_target_start": 10.0, "intended_target_end": 20.0}
    adata.uns["igvf_targets"] = pd.DataFrame({"intended_target_name": ["GFI1B"] * 2, **place}, ["a", "b"])
    element = pd.read_csv(ds.io.to_igvf(adata, tmp_path)["element"], sep="\t")
    assert element["gene_id"].tolist()[:2] == ["ENSG1", "ENSG2"]
    assert element.iloc[0, 2:5].tolist() == ["chr9", 10, 20]
    with pytest.raises(KeyError, match="gene_ids='no' is not a column"):
        ds.io.to_igvf(adata, tmp_path, gene_ids="no")


def test_table_of_sceptre(fitted: ad.AnnData, tmp_path: Path) -> None:
    table = ds.io.to_sceptre(fitted, tmp_path / "x.csv")
    assert table.columns.tolist() == [
        "response_id",
        "grna_target",
        "n_nonzero_trt",
        "n_nonzero_cntrl",
        "pass_qc",
        "p_value",
        "log_2_fold_change",
        "significant",
    ]
    want = _others(fitted).loc[table["response_id"]]
    np.testing.assert_allclose(table["p_value"], want["pvalue"])
    assert table["significant"].tolist() == (want["qvalue"] < 0.1).tolist()
    assert table["p_value"].is_monotonic_increasing
    gene, used = table["response_id"][0], fitted.obs["cis_guide"].notna().to_numpy()
    positive = fitted[:, gene].X.toarray().ravel() > 0
    control = (fitted.obs["target"] == "NTC").to_numpy()
    assert table["n_nonzero_trt"][0] == (positive & used & ~control).sum()
    assert table["n_nonzero_cntrl"][0] == (positive & used & control).sum()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "x.csv"), table)


def test_table_of_pertpy(fitted: ad.AnnData) -> None:
    table = ds.io.to_pertpy(fitted)
    assert table.columns.tolist() == ["variable", "p_value", "adj_p_value", "log_fc", "contrast"]
    want = _others(fitted).loc[table["variable"]]
    np.testing.assert_allclose(table["adj_p_value"], want["qvalue"])
    np.testing.assert_allclose(table["log_fc"], want["log2fc_full"])
    assert set(table["contrast"]) == {"GFI1B_vs_NTC"}


def test_tsv(fitted: ad.AnnData, tmp_path: Path) -> None:
    table = pd.read_csv(ds.io.to_tsv(fitted, tmp_path / "t.tsv.gz"), sep="\t")
    assert table.columns[0] == "gene"
    want = ds.get.trans(fitted, sort=True)
    assert table["gene"].tolist() == want.index.tolist()
    np.testing.assert_allclose(table["log2_ec50"], want["log2_ec50"])
    called = pd.read_csv(ds.io.to_tsv(fitted, tmp_path / "r.csv", table="responders"))
    assert called["gene"].tolist() == want.index[want["qvalue"] < 0.05].tolist()
    guides = pd.read_csv(ds.io.to_tsv(fitted, tmp_path / "g.tsv", table="guides"), sep="\t")
    assert guides.columns[0] == "guide"
    with pytest.raises(ValueError, match="table='cis' is not known"):
        ds.io.to_tsv(fitted, tmp_path / "t.tsv", table="cis")  # type: ignore[arg-type]


def test_other_distributions(modalities: Any, tmp_path: Path) -> None:
    table = pd.read_csv(ds.io.to_tsv(modalities, tmp_path / "t.tsv", mod="psi"), sep="\t")
    assert table.columns[0] == "feature"
    usage = pd.read_csv(ds.io.to_tsv(modalities, tmp_path / "u.tsv", mod="usage"), sep="\t")
    assert len(usage) == 8
    assert len(ds.io.to_multiqc(modalities, tmp_path, mod="score")) == 3
    for write in (ds.io.to_sceptre, ds.io.to_pertpy):
        with pytest.raises(ValueError, match="this fit is with 'binomial', but the format holds fold changes"):
            write(modalities, mod="psi")


def test_workbook(fitted: ad.AnnData, tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    adata = fitted.copy()
    names = adata.var_names.tolist()
    adata.var["symbol"] = ["MARCH1" if n == names[3] else "=1+1" if n == names[4] else n for n in names]
    path = ds.io.to_excel(adata, tmp_path / "x.xlsx", gene_symbols="symbol")
    book = openpyxl.load_workbook(path)
    assert book.sheetnames == ["responders", "trans", "guides", "columns", "run"]
    sheets = pd.read_excel(path, sheet_name=None, keep_default_na=False, na_values=[""])
    want = ds.get.trans(adata, sort=True, gene_symbols="symbol")
    assert sheets["trans"]["gene"].tolist() == want.index.tolist()
    np.testing.assert_allclose(sheets["trans"]["lfdr"], want["lfdr"])
    assert {"MARCH1", "=1+1"} <= set(sheets["trans"]["gene"])
    cell = next(c for c in book["trans"]["A"] if c.value == "=1+1")
    assert cell.data_type == "s"
    meaning = sheets["columns"].set_index("column")["meaning"]
    assert meaning.index.tolist() == sheets["trans"].columns.tolist()[1:] or "gene" in meaning.index
    known = ds.get.columns()
    assert meaning["log2_ec50_q025"] == known["log2_ec50_q025"]
    assert (meaning.drop("gene", errors="ignore") != "").all()
    run = sheets["run"].set_index("what")["value"]
    assert run["cis gene"] == "GFI1B"
    assert str(run["features"]) == "24"
    with pytest.raises(ValueError, match=r"does not end in \.xlsx"):
        ds.io.to_excel(adata, tmp_path / "x.xls")
    assert zipfile.is_zipfile(path)


def test_workbook_without_the_extra(fitted: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(ImportError, match=r"dream-sc\[excel\]"):
        ds.io.to_excel(fitted, tmp_path / "x.xlsx")


def test_multiqc(fitted: ad.AnnData, tmp_path: Path) -> None:
    paths = ds.io.to_multiqc(fitted, tmp_path, sample="run 1", n_genes=3)
    assert [p.name for p in paths] == [f"run 1_dream_sc_{n}_mqc.tsv" for n in ("summary", "guides", "responders")]
    for path in paths:
        lines = path.read_text().splitlines()
        head = yaml.safe_load("\n".join(line[1:] for line in lines if line.startswith("#")))
        assert head["plot_type"] == "table"
        assert head["pconfig"]["id"] == head["id"] + "_table"
    summary = pd.read_csv(paths[0], sep="\t", comment="#", index_col=0)
    called = (ds.get.trans(fitted)["qvalue"] < 0.05).sum()
    assert summary.loc["run 1", ["guides", "ntc_guides", "features", "responders"]].tolist() == [12, 6, 24, called]
    assert len(pd.read_csv(paths[2], sep="\t", comment="#")) == 3
    with pytest.raises(ValueError, match="cannot be part of the name of a file"):
        ds.io.to_multiqc(fitted, tmp_path, sample="a/b")


def test_before_a_fit(tmp_path: Path) -> None:
    adata = ds.datasets.titration(200, 5, rng=0)
    for write in (ds.io.to_igvf, ds.io.to_multiqc, ds.io.to_tsv):
        with pytest.raises(KeyError, match="fit_trans"):
            write(adata, tmp_path / "x")
