"""The examples of workflow engines: linted and run on a small library where the engine is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from dream_sc._core.compiled import _folder

EXAMPLES = Path(__file__).parents[1] / "examples"
SNAKEMAKE, NEXTFLOW = shutil.which("snakemake"), shutil.which("nextflow")
TARGETS = ("GATA1", "GFI1B", "MYB")


def _library(path: Path) -> None:
    """Three targets of three guides, ten NTC guides; ten genes follow each target."""
    rng = np.random.default_rng(0)
    guides = [f"{t}_{k}" for t in TARGETS for k in range(3)] + [f"NTC_{k}" for k in range(10)]
    code = np.repeat(np.arange(len(guides)), 50)
    genes = [*TARGETS, *(f"g{i}" for i in range(217))]
    mean, log2 = 2.0 ** rng.uniform(-1, 3, len(genes)), np.zeros((len(guides), len(genes)))
    mean[:3] = 4.0
    for i in range(3):
        for k, dosage in enumerate((-3.0, -1.5, -0.7)):
            log2[3 * i + k, i] = dosage
            log2[3 * i + k, 3 + 10 * i : 13 + 10 * i] = 0.6 * dosage * np.where(np.arange(10) % 2, 1, -1)
    counts = rng.poisson(rng.gamma(6.0, mean * 2.0 ** log2[code] / 6.0)).astype(np.float32)
    obs = pd.DataFrame({"guide": np.array(guides)[code]}, index=[f"c{i}" for i in range(len(code))])
    obs["target"] = obs["guide"].str.rsplit("_", n=1).str[0]
    ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=genes)).write_h5ad(path)


@pytest.mark.skipif(SNAKEMAKE is None, reason="snakemake is not installed")
@pytest.mark.slow
def test_snakemake_screens_in_batches_and_collects(tmp_path: Path) -> None:
    assert SNAKEMAKE is not None
    for path in (EXAMPLES / "snakemake").iterdir():
        shutil.copy(path, tmp_path)
    _library(tmp_path / "screen.h5ad")
    config = (tmp_path / "config.yaml").read_text()
    config = config.replace("--control NTC --batch-key lane", "--control NTC").replace(
        "batch_size: 20", "batch_size: 2"
    )
    (tmp_path / "config.yaml").write_text(config)
    environment = _with_commands(tmp_path / "bin")
    for arguments in (["--lint"], ["--cores", "2", "--configfile", "config.yaml"]):
        done = subprocess.run(
            [SNAKEMAKE, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    _check_calls(tmp_path / "my_screen" / "screen.parquet")


def _with_commands(folder: Path) -> dict[str, str]:
    """The environment with `dream-sc` and `python` as those of this process."""
    folder.mkdir()
    for name, how in (("dream-sc", " -m dream_sc"), ("python", "")):
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}"{how} "$@"\n')
        command.chmod(0o755)
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def _check_calls(path: Path) -> None:
    """Each target has its ten genes among its calls, and hardly any other."""
    table = pd.read_parquet(path)
    called = table[table["qvalue_union"] < 0.05]
    for i, target in enumerate(TARGETS):
        found = set(called.loc[called["target"] == target, "feature"])
        follow = {f"g{k}" for k in range(10 * i, 10 * i + 10)}
        assert len(found & follow) >= 9
        assert len(found - follow) <= 2


def _process(text: str) -> tuple[dict[str, str], list[str]]:
    """The scripts of the process of `main.nf` by their sections, as a shell runs them, and the outputs it declares."""
    values = {"data": "screen.h5ad", "prefix": "screen", "task.cpus": "2", "args": "--control NTC --quiet"}
    values |= {"task.process": "DREAMSC_SCREEN", "meta.id": "screen"}

    def filled(part: str) -> str:
        return re.sub(r"(?<!\\)\$\{([\w.]+)\}", lambda m: values[m[1]], part)

    scripts = {
        name: textwrap.dedent(filled(body)).replace("\\$", "$")
        for name, body in re.findall(r"(script|stub):.*?\"\"\"\n(.*?)\"\"\"", text, re.DOTALL)
    }
    output = text[text.index("output:") : text.index("when:")]
    return scripts, [filled(name) for name in re.findall(r"path\(?\s*\"([^\"]+)\"", output)]


@pytest.mark.parametrize("section", ["stub", pytest.param("script", marks=pytest.mark.slow)])
def test_the_script_of_the_nextflow_process_makes_what_it_declares(tmp_path: Path, section: str) -> None:
    scripts, outputs = _process((EXAMPLES / "nextflow" / "main.nf").read_text())
    files = ("screen.parquet", "targets.tsv", "summary.txt", "multiqc/dream_sc_screen_targets_mqc.tsv")
    assert outputs == ["screen", *(f"screen/{name}" for name in files), "versions.yml"]
    _library(tmp_path / "screen.h5ad")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", scripts[section]],
        cwd=tmp_path,
        env=_with_commands(tmp_path / "bin"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all((tmp_path / name).exists() for name in outputs)
    if section == "script":
        assert f'"DREAMSC_SCREEN":\n    dream-sc: {version("dream-sc")}\n' in (tmp_path / "versions.yml").read_text()
        _check_calls(tmp_path / "screen" / "screen.parquet")


def test_images_get_what_the_package_is_built_from_and_no_more() -> None:
    of_package = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())
    project, wheel = of_package["project"], of_package["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["readme"], *project["license-files"]}
    needed |= {Path(name).parts[0] for name in wheel["packages"]}
    ignored = (EXAMPLES / "containers" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == needed
    assert "*" in ignored
    recipe = (EXAMPLES / "containers" / "dream-sc.def").read_text()
    copied = recipe[recipe.index("%files") : recipe.index("%post")].split()[1:]
    assert dict(zip(copied[::2], copied[1::2], strict=True)) == {name: f"/src/{name}" for name in needed}


def test_the_image_is_run_by_a_user_who_is_not_root() -> None:
    steps = [line.split() for line in (EXAMPLES / "containers" / "Dockerfile").read_text().splitlines() if line]
    users = [(i, step[1]) for i, step in enumerate(steps) if step[0] == "USER"]
    compiled = next(i for i, step in enumerate(steps) if step[:2] == ["RUN", "dream-sc"])
    assert users
    assert users[-1][1] not in ("root", "0")
    assert users[-1][0] < compiled  # kernels are found by whom they were compiled by


def _steps(recipe: str) -> str:
    """The shell commands that build an image."""
    text = (EXAMPLES / "containers" / recipe).read_text().replace("\\\n", " ")
    if recipe == "Dockerfile":
        # variables are those of every later step
        found = [line.split(" ", 1) for line in text.splitlines() if line.startswith(("RUN ", "ENV "))]
        return "\n".join(("export " if step == "ENV" else "") + command for step, command in found)
    return text[text.index("%post") + len("%post") : text.index("%environment")]


@pytest.mark.parametrize("recipe", ["Dockerfile", "dream-sc.def"])
@pytest.mark.slow
def test_the_steps_of_an_image_run(recipe: str, tmp_path: Path) -> None:
    """In folders of their own, with the libraries that are there, and kernels that are compiled already."""
    source, root, kernels = tmp_path / "src", EXAMPLES.parent, tmp_path / "opt" / "dream-sc" / "kernels"
    compiled = _folder.folders()[0].path
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    shutil.copytree(root / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(compiled, kernels / "dream_sc" / "compiled" / compiled.name)
    steps = _steps(recipe).replace("/opt/", f"{tmp_path}/opt/").replace("/src", str(source))
    steps = "set -eu\nuseradd() { :; }\nchown() { :; }\n" + steps  # which only root may
    pip = {"PIP_TARGET": str(tmp_path / "site"), "PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    path = os.pathsep.join([str(tmp_path / "site" / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | pip | {"PATH": path, "PYTHONPATH": str(tmp_path / "site")}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(["bash", "-c", steps], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not source.exists()
    assert (tmp_path / "site" / "bin" / "dream-sc").is_file()
    # what is kept is for this very package
    assert [folder.name for folder in (kernels / "dream_sc" / "compiled").iterdir()] == [compiled.name]


@pytest.mark.skipif(NEXTFLOW is None, reason="nextflow is not installed")
@pytest.mark.slow
def test_nextflow_screens_a_file(tmp_path: Path) -> None:
    assert NEXTFLOW is not None
    environment = _with_commands(tmp_path / "bin") | {"NXF_OFFLINE": "true", "NXF_ANSI_LOG": "false"}
    if subprocess.run([NEXTFLOW, "info"], cwd=tmp_path, env=environment, capture_output=True, check=False).returncode:
        pytest.skip("nextflow has not downloaded what it runs on")
    _library(tmp_path / "screen.h5ad")
    given = ["--data", str(tmp_path / "screen.h5ad"), "--options=--control NTC"]
    command = [NEXTFLOW, "run", str(EXAMPLES / "nextflow" / "main.nf"), *given]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    _check_calls(next((tmp_path / "work").glob("*/*/screen/screen.parquet")))
