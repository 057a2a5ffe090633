"""`dream-sc fit` and `dream-sc config`: from a file to a folder, with options from flags and from a file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tomllib
from pathlib import Path

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds
from dream_sc._cli import options
from dream_sc._cli.config import read_off, text_of
from dream_sc._cli.fit import with_size_factors
from dream_sc._cli.main import main
from dream_sc._cli.read import read

pytestmark = pytest.mark.usefixtures("few_null_features")

SAID = "said.txt"


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("screen") / "screen.h5ad"
    adata = ds.datasets.titration(900, 50, rng=1)
    del adata.obs["size_factor"]
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def fitted(screen: Path) -> Path:
    folder = screen.parent / "out"
    command = ["fit", str(screen), "--cis", "GFI1B", "--batch-key", "batch", "-o", str(folder), "--json"]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert main([*command, "--n-figures", "2"]) == 0
    (screen.parent / SAID).write_text(said.getvalue())
    return folder


def test_messages_name_files_by_their_last_name(fitted: Path) -> None:
    lines = (fitted.parent / SAID).read_text().splitlines()
    messages = [json.loads(line)["message"] for line in lines]
    n = len(pd.read_csv(fitted / "trans.tsv", sep="\t"))
    assert f"wrote {fitted / 'trans.tsv'}, {n} rows" in messages
    assert not any(f".{os.getpid()}." in message for message in messages)


def test_what_is_written(fitted: Path, screen: Path) -> None:
    files = {str(p.relative_to(fitted)) for p in fitted.rglob("*") if p.is_file()}
    assert files >= {
        "fitted.h5ad",
        "responders.tsv",
        "trans.tsv",
        "summary.txt",
        "software_versions.yml",
        "report.html",
        "figures/dose_response.png",
        "figures/cis.png",
        "figures/technical.png",
    }
    assert sum(name.endswith("_mqc.tsv") for name in files) == 3
    assert not any(part.startswith(".") for name in files for part in Path(name).parts)
    adata = ad.read_h5ad(fitted / "fitted.h5ad")
    assert adata.uns["technical"]["params"]["batch_key"] == "batch"
    trans = pd.read_csv(fitted / "trans.tsv", sep="\t").set_index("gene")
    np.testing.assert_allclose(trans.loc[adata.var_names, "lfdr"], adata.varm["trans"]["lfdr"], rtol=1e-6)
    responders = pd.read_csv(fitted / "responders.tsv", sep="\t")
    assert list(responders["feature"]) == list(ds.get.responders(adata).index)
    assert len(responders.columns) <= 13
    assert "GFI1B" in (fitted / "summary.txt").read_text()
    assert f'dream-sc: "{ds.__version__}"' in (fitted / "software_versions.yml").read_text()
    # the same numbers as from Python
    same = ad.read_h5ad(screen)
    ds.pp.size_factors(same, method="stable")
    ds.tl.fit_technical(same, batch_key="batch")
    ds.tl.fit_cis(same, "GFI1B")
    ds.tl.fit_trans(same)
    np.testing.assert_array_equal(same.varm["trans"]["log_bf"], adata.varm["trans"]["log_bf"])


def test_results_are_not_replaced_by_mistake(fitted: Path, screen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (fitted / "trans.tsv").stat().st_mtime_ns
    assert main(["fit", str(screen), "--cis", "GFI1B", "-o", str(fitted)]) == 1
    assert "give --overwrite" in capsys.readouterr().err
    assert (fitted / "trans.tsv").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cis", "GFI1C", "-o", "x"], "cis gene 'GFI1C' is not in var_names; did you mean ['GFI1B']"),
        (["--cis", "GFI1B"], "give --output"),
        (["-o", "x"], "give --cis"),
        (["--cis", "GFI1B", "-o", "x", "--control", "nothing"], "Set --control to"),
        (["--cis", "GFI1B", "-o", "x", "--batch-key", "lane"], "batch_key='lane'"),
        (["--cis", "GFI1B", "-o", "x", "--config", "none.toml"], "none.toml"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    screen: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", str(screen), *arguments, "--quiet"]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in said if line.startswith("dream-sc fit: ")]) == 1
    assert message.replace("batch_key='lane'", "--batch-key 'lane'") in said[-1]
    assert not list(tmp_path.rglob("*.tsv"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cis", "GFI1"], "cis gene 'GFI1' is not in var_names; did you mean ['GFI1B']?"),
        (["--cis", "gene_0003"], "no cell's target is ['gene_0003']: .obs['target'] holds ['GFI1B', 'NTC']"),
        (["--cis", "GFI1B", "--cis-targets", "GFI1B", "GFI2"], "--cis-targets names ['GFI2'], which no guide targets"),
        (["--cis", "GFI1", "--dosage", "none"], "no cell's target is ['GFI1']"),
    ],
)
def test_a_misspelt_cis_gene_is_told_before_any_fit(
    arguments: list[str], message: str, screen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", str(screen), *arguments, "-o", str(tmp_path / "x")]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "technical effects" not in said


@pytest.mark.parametrize("labels", ["own", "control", "several"])
def test_size_factors_by_columns_of_any_name(screen: Path, labels: str) -> None:
    adata = ad.read_h5ad(screen)
    chosen: dict[str, object] = {"batch_key": "batch"}
    if labels in ("own", "control"):
        adata.obs["target"] = adata.obs["target"].astype(str).replace({"NTC": "non-targeting"})
        chosen["control"] = ["non-targeting"]
    if labels == "own":
        adata.obs = adata.obs.rename(columns={"guide": "sgRNA", "target": "gene_target"})
        chosen |= {"guide_key": "sgRNA", "target_key": "gene_target"}
    given = dict(chosen, control="non-targeting")
    given.pop("batch_key")
    if labels == "several":  # guides per cell in a matrix: no column tells them
        chosen["guides"] = "guides"
        given = {"guide_key": None, "target_key": None}
    other = adata.copy()
    ds.pp.size_factors(other, method="stable", **given)
    with_size_factors(adata, chosen)
    np.testing.assert_array_equal(adata.obs["size_factor"], other.obs["size_factor"])
    assert adata.uns["size_factors"]["size_factor"]["how"]["method"] == "stable"


def test_messages_as_json(screen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(screen), "--cis", "nobody", "-o", str(tmp_path / "x"), "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().err.strip().splitlines()]
    assert {"time", "level", "message"} == set(lines[0])
    assert lines[-1]["level"] == "error"
    assert "nobody" in lines[-1]["message"]
    command = ["fit", str(screen), "--cis", "GFI1B", "-o", str(tmp_path / "y"), "--json", "--control", "none"]
    assert main(command) == 1
    lines = [json.loads(line) for line in capsys.readouterr().err.strip().splitlines()]
    assert any(line["message"] == "technical effects" for line in lines)
    assert "it holds ['GFI1B', 'NTC']. Set --control to the label" in lines[-1]["message"]


def test_config_says_what_the_data_say(screen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", str(screen)]) == 0
    text = capsys.readouterr().out
    found = tomllib.loads(text)
    assert found == {
        "data": str(screen),
        "target_key": "target",
        "control": ["NTC"],
        "guide_key": "guide",
        "batch_key": "batch",
    }
    assert all(f"{o.name} = " in text for o in (*options.OWN, *options.OPTIONS))
    # without the signs of a comment, the rest is TOML too
    whole = "\n".join(line.removeprefix("# ") for line in text.splitlines() if " = " in line)
    assert set(tomllib.loads(whole)) == set(options.NAMES)
    path = tmp_path / "my.toml"
    path.write_text(text + '\ncis = "GFI1B"\nmin_cells_per_guide = 7\n')
    assert options.merged({"cis": None, "rng": 3, "quiet": True}, path) == found | {
        "cis": "GFI1B",
        "min_cells_per_guide": 7,
        "rng": 3,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("controls = 'NTC'", "'controls' is not known; did you mean 'control'"),
        ("rng = 'x'", "rng = 'x' is not a whole number"),
        ("use_all_cells = 1", "is not true or false"),
        ("min_count = true", "is not a number"),
        ("control = [1]", "is not a text in quotes or a list of them"),
        ("cis = ", "is no TOML"),
    ],
)
def test_a_config_that_does_not_fit(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        options.from_file(path)


def test_labels_are_found_whatever_they_are_called() -> None:
    n = 60
    obs = pd.DataFrame(
        {
            "sgRNA": [f"g{i % 6}" for i in range(n)],
            "perturbation": ["non-targeting" if i % 6 < 2 else "GENE" for i in range(n)],
            "lane": [f"l{i % 2}" for i in range(n)],
            "n_counts": np.arange(n),
        },
        index=[f"c{i}" for i in range(n)],
    )
    found = read_off(ad.AnnData(np.ones((n, 2)), obs))
    assert found == {
        "target_key": "perturbation",
        "control": ["non-targeting"],
        "guide_key": "sgRNA",
        "batch_key": "lane",
    }
    assert tomllib.loads(text_of(found)) == found
    assert tomllib.loads(text_of({})) == {}


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_files_of_every_kind(screen: Path, tmp_path: Path) -> None:
    adata = ad.read_h5ad(screen)
    adata.write_zarr(tmp_path / "a.zarr")
    assert read(tmp_path / "a.zarr").shape == adata.shape
    assert read(screen, backed=True).isbacked
    md.MuData({"rna": adata}).write(tmp_path / "a.h5mu")
    assert list(read(tmp_path / "a.h5mu").mod) == ["rna"]
    (tmp_path / "a.txt").write_text("")
    for path, error, message in (
        (tmp_path / "none.h5ad", FileNotFoundError, "is not there"),
        (tmp_path / "a.txt", ValueError, "of no known kind"),
    ):
        with pytest.raises(error, match=message):
            read(path)


def test_a_modality(screen: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.h5mu"
    md.MuData({"rna": ad.read_h5ad(screen)}).write(path)
    folder = tmp_path / "out"
    command = ["fit", str(path), "--mod", "rna", "--cis", "GFI1B", "-o", str(folder), "--quiet", "--n-figures", "1"]
    assert main(command) == 0
    assert "trans" in md.read_h5mu(folder / "fitted.h5mu")["rna"].uns
