"""The shell command."""

from __future__ import annotations

import subprocess
import sys

import anndata as ad
import pandas as pd
import pytest

import dream_sc
from dream_sc._cli import said
from dream_sc._cli.main import main

pytestmark = pytest.mark.usefixtures("few_null_features")


def test_no_command_prints_help(capsys):
    assert main([]) == 2
    assert "demo" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == dream_sc.__version__


def test_info(capsys):
    assert main(["info"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["dream-sc"] == dream_sc.__version__
    assert {"python", "anndata", "torch", "cores"} <= set(rows)


@pytest.mark.parametrize("arguments", [["demo", "--n-cells", "0"], ["demo", "--n-genes", "x"], ["nonsense"]])
def test_bad_arguments_leave_with_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.usefixtures("restore_settings")
def test_error_is_one_line(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(["demo", "--quiet", "--output", str(blocked)]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_errors_speak_of_flags(capsys):
    assert main(["memory", "--features", "10", "--cells", "20", "--memory-limit", "3x"]) == 2
    assert "dream-sc memory: --memory-limit '3x' is no amount of memory" in capsys.readouterr().err
    error = ValueError("cis_gene='A' is not there, data.layer=x; layer='counts', min_cells_per_guide=3, guide=1")
    flags = {"cis_gene": "--cis", "layer": "--layer", "guide": "--guide", "min_cells_per_guide": "--min-cells"}
    assert said(error, flags) == "--cis 'A' is not there, data.layer=x; --layer 'counts', --min-cells 3, --guide 1"
    assert said(KeyError("layer='x'"), flags) == "--layer 'x'"


def test_the_package_is_a_command():
    command = [sys.executable, "-m", "dream_sc", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == dream_sc.__version__


@pytest.mark.slow
@pytest.mark.usefixtures("restore_settings")
def test_demo(tmp_path, capsys):
    arguments = ["demo", "--quiet", "--n-cells", "1200", "--n-genes", "60", "--output", str(tmp_path)]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "true EC50" in captured.out
    assert "genes called" in captured.out
    for name in ("dose_response.png", "cis.png", "technical.png"):
        assert (tmp_path / name).stat().st_size > 5000, name
    table = pd.read_csv(tmp_path / "responding_genes.csv", index_col="gene")
    assert len(table) > 5
    assert (table["true_model"] != "null").mean() > 0.8
    adata = ad.read_h5ad(tmp_path / "titration.h5ad")
    pd.testing.assert_index_equal(dream_sc.get.trans(adata).index, adata.var_names, check_names=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name guide_key= and target_key=, or", "name --guide-key and --target-key, or"),
        ("call it again, or name another key=", "call it again, or name another --key"),
        ("guide_key='sgRNA' is no column (target_key= too).", "--guide-key 'sgRNA' is no column (--target-key too)."),
        ("target_key=.x", "--target-key .x"),
    ],
)
def test_flags_stand_in_place_of_arguments(text: str, expected: str) -> None:
    flags = {"guide_key": "--guide-key", "target_key": "--target-key", "key": "--key"}
    assert said(ValueError(text), flags) == expected
