"""`dream-sc report`, and the report that `dream-sc fit` writes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import dream_sc as ds
from dream_sc._cli import report
from dream_sc._cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


@pytest.fixture(scope="module")
def fitted(titration_fit: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fitted") / "fitted.h5ad"
    titration_fit.write_h5ad(path)
    return path


def test_it_writes_what_python_writes(fitted: Path, titration_fit: AnnData, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    assert main(["report", str(fitted), "-o", str(out), "--title", "mine", "--fdr", "0.1", "--quiet"]) == 0
    same = ds.report(titration_fit, tmp_path / "same.html", title="mine", fdr=0.1)
    assert out.read_bytes() == same.read_bytes()
    assert "<title>mine</title>" in out.read_text(encoding="utf-8")


def test_it_is_written_beside_the_data_by_default(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(fitted)]) == 0
    assert (fitted.parent / "report.html").exists()
    assert "report.html" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.h5ad"], "none.h5ad is not there"),
        (["FITTED", "-o", "FOLDER"], "is a folder: give the name of a file in it"),
        (["FITTED", "--key", "other"], "'other'"),
        (["FITTED", "--fdr", "2"], "--fdr 2.0 is not between 0 and 1"),
        (["FITTED", "--gene-symbols", "symbol"], "--gene-symbols 'symbol' is not a column of .var"),
    ],
)
def test_errors_are_one_line(
    fitted: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"FITTED": str(fitted), "FOLDER": str(tmp_path)}
    given = [places.get(word, word) for word in arguments]
    assert main(["report", *(given if "-o" in given else [*given, "-o", str(tmp_path / "a.html")])]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("dream-sc report: ")
    assert message in said[-1]
    assert not list(tmp_path.iterdir())


def test_a_fit_goes_on_without_the_extra(
    titration_fit: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    report.beside(titration_fit, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    (tmp_path / "report.html").unlink()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with caplog.at_level("INFO", logger="dream_sc"):
        report.beside(titration_fit, tmp_path)
    assert not list(tmp_path.iterdir())
    assert 'pip install "dream-sc[report]"' in caplog.text
