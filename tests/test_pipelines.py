"""The examples of workflow engines: linted and run on a small library where the engine is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

EXAMPLES = Path(__file__).parents[1] / "examples"
SNAKEMAKE = shutil.which("snakemake")
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
    command = tmp_path / "bin" / "dream-sc"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dream_sc "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {"PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"}
    for arguments in (["--lint"], ["--cores", "2", "--configfile", "config.yaml"]):
        done = subprocess.run(
            [SNAKEMAKE, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_parquet(tmp_path / "my_screen" / "screen.parquet")
    called = table[table["qvalue_union"] < 0.05]
    for i, target in enumerate(TARGETS):
        found = set(called.loc[called["target"] == target, "feature"])
        follow = {f"g{k}" for k in range(10 * i, 10 * i + 10)}
        assert len(found & follow) >= 9
        assert len(found - follow) <= 2
