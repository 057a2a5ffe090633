"""The meanings of columns are those of the columns that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import pytest

import dream_sc as ds

# with positions of genes, and after tl.calibrate
OPTIONAL = {"near_cis", "pvalue_theory", "qvalue_theory", "qvalue_graded_theory"}


def test_columns_of_counts_are_explained(titration_fit: ad.AnnData) -> None:
    meaning = ds.get.columns()
    table = ds.get.trans(titration_fit)
    assert set(table) == set(meaning) - OPTIONAL
    assert [name for name in meaning if name in table] == list(table)
    assert list(ds.get.columns("main")) == list(ds.get.trans(titration_fit, columns="main"))
    assert list(ds.get.columns("guides")) == ["guide", *ds.get.guides(titration_fit)]
    assert list(ds.get.columns("cis")) == list(ds.get.cis(titration_fit))
    technical = [name for name in ds.get.technical(titration_fit) if not name.startswith("effect_")]
    assert list(ds.get.columns("technical")) == technical
    name = str(ds.get.responders(titration_fit).index[0])
    assert list(ds.get.columns("doses")) == list(ds.get.doses(titration_fit, name))
    assert list(ds.get.columns("guide_effects")) == list(ds.get.guide_effects(titration_fit, name))


def test_optional_columns_are_there_where_they_apply(titration_fit: ad.AnnData) -> None:
    adata = titration_fit.copy()
    adata.var["chrom"], adata.var["start"], adata.var["end"] = "1", range(adata.n_vars), range(1, adata.n_vars + 1)
    ds.tl.fit_trans(adata, features="gene_0002")
    ds.tl.calibrate(adata, n=2, replace=True)
    table = ds.get.trans(adata)
    assert set(table) == set(ds.get.columns())
    # the confidence is that of the q-values that are there
    assert (table["confidence"].notna() == (table["qvalue"] < 0.05)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mod", "distribution"),
    [
        ("psi", "binomial"),
        ("score", "normal"),
        ("robust", "studentt"),
        ("usage", "multinomial"),
        ("layers", "multinomial"),
    ],
)
def test_columns_of_other_distributions_are_explained(modalities: Any, mod: str, distribution: Any) -> None:
    meaning, table = ds.get.columns(distribution=distribution), ds.get.trans(modalities, mod=mod)
    assert set(table) <= set(meaning)
    lacking = set(meaning) - set(table) - OPTIONAL
    if distribution == "multinomial":  # a feature with categories has no slopes; categories that are layers no mean
        lacking -= {"slope_within", "slope_within_sd", "mean"}
    assert not lacking
    main = ds.get.trans(modalities, mod=mod, columns="main")
    assert list(ds.get.columns("main", distribution=distribution)) == list(main)


def test_every_meaning_is_one_text() -> None:
    for table in ("trans", "main", "guides", "cis", "technical", "doses", "guide_effects"):
        for name, text in ds.get.columns(table).items():
            assert len(text) > 8, name
            assert "{" not in text, name
    with pytest.raises(ValueError, match="table"):
        ds.get.columns("posterior")


def test_the_file_explains_its_columns(titration_fit: ad.AnnData, tmp_path: Path) -> None:
    titration_fit.write_h5ad(tmp_path / "fit.h5ad")
    stored = ad.read_h5ad(tmp_path / "fit.h5ad").uns["trans"]["columns"]
    assert dict(zip(stored["column"], stored["meaning"], strict=True)) == ds.get.columns()
    assert set(ds.get.trans(titration_fit)) <= set(stored["column"])
    assert stored.memory_usage(deep=True).sum() < 50_000


def test_the_workbook_explains_its_columns(titration_fit: ad.AnnData, tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    ds.io.to_excel(titration_fit, tmp_path / "fit.xlsx")
    rows = list(openpyxl.load_workbook(tmp_path / "fit.xlsx")["columns"].values)
    assert rows[0] == ("column", "meaning")
    meaning = ds.get.columns()
    assert {name: text for name, text in rows[1:] if name != "gene"} == {
        name: meaning[name] for name in ds.get.trans(titration_fit)
    }
    assert dict(rows[1:])["gene"]
