"""`dream-sc screen` and `dream-sc collect`: from a file to a store and one table, and the table of what is finished."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc._cli.main import main
from dream_sc._cli.read import count_bytes
from dream_sc._cli.screen_files import FIGURES, summary

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("few_null_features")


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with two targets: GFI1B, and NTC guides under the name of another gene."""
    path = tmp_path_factory.mktemp("screen") / "screen.h5ad"
    adata = ds.datasets.titration(900, 40, rng=1, n_ntc_guides=9)
    null = adata.obs["guide"].isin(["NTC_07", "NTC_08", "NTC_09"]).to_numpy()
    gene = adata.var_names[1 + np.argmax(adata.var["true_baseline"].to_numpy()[1:])]
    adata.obs["target"] = pd.Categorical(np.where(null, gene, adata.obs["target"].astype(str)))
    del adata.obs["size_factor"]
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def folder(screen: Path) -> Path:
    out = screen.parent / "out"
    assert main(["screen", str(screen), "--batch-key", "batch", "-o", str(out), "--quiet"]) == 0
    return out


def test_the_table_is_that_of_python(screen: Path, folder: Path) -> None:
    adata = ad.read_h5ad(screen)
    ds.pp.size_factors(adata, method="stable")
    expected = ds.tl.screen(adata, batch_key="batch", progress=False)
    found = ds.get.screen(folder / "screen.parquet")
    np.testing.assert_array_equal(found["log_bf"], expected["log_bf"])
    np.testing.assert_array_equal(found["qvalue_union"], expected["qvalue_union"])
    targets = pd.read_csv(folder / "targets.tsv", sep="\t")
    assert targets["status"].tolist() == ["fitted", "fitted"]
    assert targets["n_calls_union"].sum() == (expected["qvalue_union"] < 0.05).sum() > 3
    assert not [f for f in folder.iterdir() if f.name.endswith(".tmp")]


def test_words_figures_and_tables_for_pipelines(folder: Path, tmp_path: Path) -> None:
    """In the folder of the screen all of them; elsewhere, beside files of others, only the two tables."""
    text = (folder / "summary.txt").read_text()
    assert text.startswith("2 targets fitted, 0 left out; ")
    n_calls = int((ds.get.screen(folder / "screen.parquet")["qvalue_union"] < 0.05).sum())
    assert f"\n{n_calls} calls at a false discovery rate of 5%" in text
    assert "- GFI1B: " in text
    rows = [x for x in (folder / "multiqc" / "dream_sc_screen_targets_mqc.tsv").read_text().splitlines() if x[0] != "#"]
    assert [row.split("\t")[0] for row in rows] == ["Target", *ds.get.screen(folder, "targets")["target"]]
    assert (folder / "software_versions.yml").read_text().startswith("DREAM_SC_SCREEN:\n  dream-sc: ")
    drawn = sorted(f.name for f in (folder / "figures").iterdir())
    assert {"fold_changes.png", "responders.png"} <= set(drawn) <= {f"{name}.png" for name in FIGURES}
    assert main(["collect", str(folder), "-o", str(tmp_path / "all.parquet"), "--quiet"]) == 0
    assert sorted(f.name for f in tmp_path.iterdir()) == ["all.parquet", "targets.tsv"]


def test_the_summary_says_what_to_be_careful_about() -> None:
    columns = ["target", "status", "reason", "dosage", "log2_dosage_min", "log2_dosage_max", "n_calls_union"]
    rows = [
        ("A", "fitted", "", "guide", -2.0, -1.0, 1.0),
        ("B", "fitted", "", "guide", -0.1, 0.2, 0.0),
        ("C", "fitted", "'C' is no feature of the data", "none", np.nan, np.nan, 0.0),
        ("D", "few_cells", "7 cells, 20 needed", "guide", np.nan, np.nan, np.nan),
        ("null_1", "fitted", "NTC guides relabelled as a target: each call is false", "none", np.nan, np.nan, 1.0),
    ]
    pairs = {"target": ["A", "A", "null_1"], "qvalue_union": [0.01, 0.5, 0.02], "confidence": ["high", None, "low"]}
    text = summary(pd.DataFrame(pairs), pd.DataFrame(rows, columns=columns))
    assert text.splitlines()[:2] == [
        "3 targets fitted, 1 left out; 3 pairs with a feature.",
        "2 calls at a false discovery rate of 5% over all pairs (qvalue_union), 1 of high confidence.",
    ]
    for line in (
        "- A: 1",
        "- 1 target left out (few_cells): D",
        "- 1 target without dosages, compared as perturbed or not: C",
        "- dosages all within 0.3 log2 of NTC, so that little can be found: B",
        "- 1 null target (NTC guides relabelled): 1 call, each of which is false",
    ):
        assert line in text.splitlines()


def test_jobs_and_their_collection(screen: Path, folder: Path) -> None:
    other = screen.parent / "jobs"
    for target in ds.get.screen(folder, "targets")["target"]:
        job = ["screen", str(screen), "--batch-key", "batch", "-o", str(other), "--targets", target, "--backed"]
        assert main([*job, "--quiet"]) == 0
    assert main(["collect", str(other), "--quiet"]) == 0
    pd.testing.assert_frame_equal(
        ds.get.screen(other / "screen.parquet"), ds.get.screen(folder / "screen.parquet"), check_categorical=False
    )


def test_counts_beyond_the_limit_stay_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened, read_h5ad, path = [], ad.read_h5ad, tmp_path / "wide.h5ad"
    adata = ds.datasets.titration(3000, 40, rng=1, n_ntc_guides=9)
    n, n_genes = adata.shape  # zeros are stored, so that the counts take more than their sums
    places = np.tile(np.arange(n_genes), n), np.arange(n + 1) * n_genes
    adata.X = sparse.csr_matrix((adata.X.toarray().ravel().astype(float), *places), adata.shape)
    adata.write_h5ad(path)
    size = count_bytes(path)
    assert size >= 12 * n * n_genes
    assert count_bytes(tmp_path) == 0

    def noting(path: Path, backed: str | None = None) -> ad.AnnData:
        opened.append(backed)
        return read_h5ad(path, backed=backed)

    monkeypatch.setattr(ad, "read_h5ad", noting)
    for limit, where in ((str(size - 1), "r"), ("4GB", None)):
        given = ["screen", str(path), "--batch-key", "batch", "-o", str(tmp_path / limit), "--memory-limit", limit]
        assert main(given) == 0
        assert opened.pop() == where
        assert ("they stay in the file" in capsys.readouterr().err) == (where == "r")
    tables = [ds.get.screen(tmp_path / limit / "screen.parquet") for limit in (str(size - 1), "4GB")]
    pd.testing.assert_frame_equal(*tables, check_categorical=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the file of the data and --output"),
        (["--targets", "GFI1"], "--targets names no targets ['GFI1']"),
        (["--rng", "1"], "rng is 0 there and 1 here"),
        (["--guide-key", "sgRNA"], "sgRNA"),
    ],
)
def test_errors_name_flags(
    screen: Path, folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    of = [str(screen), "--batch-key", "batch", "-o", str(folder)] if arguments else []
    assert main(["screen", *of, *arguments]) == 1
    assert message in capsys.readouterr().err


def test_options_stand_in_a_file(screen: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the screen as well; what is of other commands and would change numbers is said."""
    config = screen.parent / "my.toml"
    given = ["screen", str(screen), "-o", str(screen.parent / "of_file"), "--config", str(config), "--quiet"]
    config.write_text('batch_key = "batch"\ntargets = ["GFI1B"]\nn_jobs = 1\ncis = "GFI1B"\nfeatures = ["gene_0003"]')
    assert main(given) == 0
    assert capsys.readouterr().err == ""
    table = ds.get.screen(screen.parent / "of_file" / "screen.parquet")
    assert table[["target", "feature"]].astype(str).to_numpy().tolist() == [["GFI1B", "gene_0003"]]
    config.write_text('batch_key = "batch"\nunit_key = "clone"\ndosage = "cell"')
    assert main([*given[:3], str(folder), *given[4:]]) == 0
    assert "--config: unit_key, dosage have no effect in dream-sc screen" in capsys.readouterr().err
    for text, message in (("[screen]", "[screen] is a section"), ("n_job = 2", "did you mean 'n_jobs'")):
        config.write_text(text)
        assert main(given) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        *(["--n-jobs", "0"], ["--min-guides", "0"], ["--min-cells", "0"], ["--n-null-targets", "-1"]),
        *(["--effort", "fast"], ["--batch-key", "lane"], ["--control", "ntc"], ["--targets", "GFI1"], ["--rng", "-1"]),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_computed(
    screen: Path, tmp_path: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["screen", str(screen), "-o", str(tmp_path / "out"), *wrong]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert wrong[0] in said[0]
    assert not (tmp_path / "out").exists()


def _processes(group: int) -> bool:
    """Whether there is any of a group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_command_that_is_told_to_end_tidies_up(screen: Path, tmp_path: Path) -> None:
    """SIGTERM, as schedulers and containers send it: no process and no file of its own stays."""
    store = tmp_path / "out"
    command = ["screen", str(screen), "--batch-key", "batch", "-o", str(store), "--n-jobs", "2"]
    code = f"import sys; from dream_sc._cli.main import main; sys.exit(main({command!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "targets to fit" in line:
            process.terminate()
            break
    last = process.communicate(timeout=120)[1].splitlines()[-1]  # a worker that stays would hold the pipe
    assert (process.returncode, last) == (143, "interrupted: the same command goes on where it was")
    for _ in range(300):  # a moment for what ends with it
        left = _processes(process.pid)
        if not left:
            break
        time.sleep(0.1)
    assert not left
    assert not list(store.glob(".shared/*"))


def test_collect_needs_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", str(tmp_path)]) == 1
    assert f"{tmp_path} is no store of a screen: give the folder that tl.screen or" in capsys.readouterr().err
    assert main(["collect", str(tmp_path / "none")]) == 1
