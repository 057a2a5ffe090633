"""`dream-sc compare`: from a fitted file to tables, a figure and a report of contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds
from dream_sc._cli.compare import numbers_of
from dream_sc._cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def fitted(titration_fit: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fitted") / "fitted.h5ad"
    adata = titration_fit.copy()
    adata.obs["line"] = pd.Categorical(np.array(["A", "B", "C"])[np.arange(adata.n_obs) % 3])
    adata.obs["one"] = "same"
    adata.write_h5ad(path)
    return path


def test_it_writes_what_python_finds(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    command = ["compare", str(fitted), "--by", "line", "--reference", "B", "--n-null", "0", "-o", str(folder)]
    assert main([*command, "--n-figures", "2", "--quiet"]) == 0
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    wanted = {"contexts.tsv", "any_context.tsv", "compared.h5ad", "report.html", "figures/compare.png"}
    assert files == wanted
    same = ad.read_h5ad(fitted)
    ds.tl.compare(same, "line", reference="B", n_null=0)
    for name, omnibus in (("contexts.tsv", False), ("any_context.tsv", True)):
        found = pd.read_csv(folder / name, sep="\t", keep_default_na=False, na_values=[""])
        table = ds.get.compare(same, sort=True, omnibus=omnibus)
        assert list(found["feature"]) == list(table.index)
        assert list(found["context"]) == list(table["context"].astype(str))
        np.testing.assert_allclose(found["lfdr_differs"], table["lfdr_differs"], rtol=1e-5)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "Do contexts respond differently?" in text
    assert "A against B" in text
    # a second time only where it is asked for
    assert main(command) == 1
    assert "give --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "lines"], "'lines'"),
        (["--by", "one"], "--by"),
        (["--by", "line", "--reference", "D"], "--reference 'D'"),
        (["--by", "line", "--n-null", "3"], "--n-null 3"),
        (["--by", "line", "--key", "other"], "'other'"),
        (["--by", "line", "--order", "A=1", "B=2"], "--order"),
        (["--by", "line", "--order", "A=1", "B"], "'B' is no name with a number"),
        (["--by", "line", "--n-figures", "-1"], "--n-figures -1"),
        (["--by", "line", "--gene-symbols", "names"], "'names'"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(
    fitted: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(fitted), *arguments, "-o", str(tmp_path / "out"), "--quiet"]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("dream-sc compare: ")
    assert message in said[-1]
    assert not list(tmp_path.iterdir())


def test_what_is_lacking_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "fitted.h5ad"])
    assert stopped.value.code == 2
    assert "--by" in capsys.readouterr().err


def test_the_numbers_of_contexts_are_given_in_a_shell(fitted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    command = ["compare", str(fitted), "--by", "line", "--order", "A=0", "B=1.5", "C=3", "--n-null", "0"]
    assert main([*command, "-o", str(folder), "--n-figures", "1", "--quiet"]) == 0
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {"contexts.tsv", "compared.h5ad", "report.html", "figures/compare.png"}
    written = ad.read_h5ad(folder / "compared.h5ad")
    table = ds.get.compare(written, sort=True)
    assert table.attrs["order"] == {"A": 0.0, "B": 1.5, "C": 3.0}
    found = pd.read_csv(folder / "contexts.tsv", sep="\t", keep_default_na=False, na_values=[""])
    assert list(found["feature"]) == list(table.index)
    np.testing.assert_allclose(found["lfdr_trend"], table["lfdr_trend"], rtol=1e-5)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "Do contexts respond differently?" in text
    assert "have a trend over line (q &lt; 0.05)" in text or "have a trend over line (q < 0.05)" in text
    assert "A = 0, B = 1.5, C = 3" in text


def test_numbers_of_contexts_in_a_shell() -> None:
    assert numbers_of(["labels"]) is True
    assert numbers_of(["6 h=6", "a=b=-1e-2"]) == {"6 h": 6.0, "a=b": -0.01}
    for wrong in ("6h", "6h=", "6h=late"):
        with pytest.raises(ValueError, match="no name with a number"):
            numbers_of(["a=1", wrong])
