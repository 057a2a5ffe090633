"""``dream-sc power``."""

from __future__ import annotations

import pandas as pd

import dream_sc as ds
from dream_sc._cli.main import main

PLAN = ["--n-cells-per-guide", "50", "100", "--log2-dosages", "-3", "-2", "-1"]


def test_it_prints_and_writes_the_table(capsys, tmp_path):
    out = tmp_path / "power.tsv"
    assert main(["power", *PLAN, "--means", "0.5", "--log2fc", "1", "--guide-sd", "0.05", "-o", str(out)]) == 0
    assert "ec50_width" in capsys.readouterr().out
    expected = ds.design.power(
        {"guide_sd": 0.05}, {"n_cells_per_guide": [50, 100], "log2_dosages": [-3, -2, -1]}, means=0.5, log2fc=1.0
    )
    pd.testing.assert_frame_equal(pd.read_csv(out, sep="\t"), expected, check_dtype=False)


def test_a_pilot_file_says_the_rest(capsys, tmp_path, titration_fit):
    path = tmp_path / "pilot.h5ad"
    titration_fit.write_h5ad(path)
    assert main(["power", str(path), "--what-helps", "--means", "0.5", "--log2fc", "1"]) == 0
    assert "helps_most" in capsys.readouterr().out
    assert main(["power", str(path), "--guide-sd", "0.1"]) == 2
    assert "--guide-sd: these are read off" in capsys.readouterr().err


def test_a_pilot_that_cannot_be_read_is_named(capsys, tmp_path):
    nothing, damaged = tmp_path / "nofile.h5ad", tmp_path / "damaged.h5ad"
    assert main(["power", str(nothing)]) == 2
    assert capsys.readouterr().err.startswith(f"dream-sc power: no file at {nothing}: give")
    damaged.write_bytes(b"no hdf5")
    assert main(["power", str(damaged)]) == 2
    assert f"{damaged} cannot be read as an h5ad or h5mu file" in capsys.readouterr().err


def test_an_error_names_what_to_give(capsys):
    assert main(["power", "--n-cells-per-guide", "50"]) == 2
    assert "dream-sc power: plan= needs log2_dosages" in capsys.readouterr().err
    assert main(["power", *PLAN, "--fdr", "2"]) == 2
    assert "--fdr" in capsys.readouterr().err
